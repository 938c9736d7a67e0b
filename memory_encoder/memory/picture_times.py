"""When the pictures of a film are that stand in front of a section, in latents from its beginning (Memento).

Its training and its released inference put a picture as far before the section as it is in the film; five latents
between one and the next are the baseline that it is compared with. Not from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..frames import TEMPORAL
from .keyframe_memory import KeyframeMemory
from .picture_choice import KeptPicture

OLDEST = -512  # latents; what is older looks as old


def picture_times(memory: KeyframeMemory, kept: Sequence[KeptPicture], temporal: int = TEMPORAL) -> Sequence[float]:
    """When the pictures in front of the section after a memory are, in latents; nothing for those that it begins with.

    temporal: frames of a latent.
    """
    config = memory.config
    if not config.picture_step:
        return ()
    if not config.film_times:
        return times_before(len(kept), config.picture_step)
    return times_in_film([memory.frame_of(one) for one in kept], memory.frames, temporal, config.picture_step)


def times_before(pictures: int, step: int) -> list[float]:
    """Times of so many pictures in front of a section that begins at 0, the last one `step` before it."""
    return [float(-step * place) for place in range(pictures, 0, -1)]


def times_in_film(frames: Sequence[int | None], start: int, temporal: int, step: int) -> list[float]:
    """Times of pictures in front of a section that begins after `start` frames of its film, at 0.

    frames: how many frames of the film come before each picture; None for one that is of no film: those stand before
    it, `step` apart. temporal: frames of a latent.
    """
    section, left = start // temporal, frames.count(None)
    times: list[float] = []
    for frame in frames:
        times.append(-section - step * left if frame is None else min(-1, frame // temporal - section))
        left -= frame is None
    return [float(max(OLDEST, time)) for time in times]
