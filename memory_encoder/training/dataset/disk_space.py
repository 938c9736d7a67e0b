"""What a cache will take on disk, said before anything is encoded; a disk that is too small is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...damage import DAMAGE
from ...files import read_plain
from ...frames import evenly, latents_in
from ...phi.positions import cells_for, grid_for
from .buckets import Buckets
from .clips import ClipTask, record_path
from .settings import CacheSettings, DatasetError, LatentSpace
from .video import declared_seconds

MOST_PROBED = 2000  # headers that are read; of more clips a part speaks for all
HALF = 2  # bytes
CHARACTERS_A_TOKEN = 3.5  # of English, in the tokenizers of umT5 and Llama
GB = 1e9


@dataclass(frozen=True)
class DiskSpace:
    """Bytes, estimated from the lengths that the clips' headers declare. there: of these windows, cached already."""

    clips: int
    seconds: float
    windows: int
    latents: float
    text: float
    there: float
    free: float

    @property
    def missing(self) -> float:
        """What is still to be written."""
        return max(0.0, self.latents - self.there) + self.text

    def __str__(self) -> str:
        there = f" ({self.there / GB:.1f} GB are there)" if self.there else ""
        return (
            f"{self.clips} clips of {self.seconds / 60:.1f} minutes: about {self.windows} windows, "
            f"{self.latents / GB:.1f} GB of latents{there} and {self.text / GB:.1f} GB of text; "
            f"{self.free / GB:.1f} GB are free"
        )

    def check(self, out: Path) -> None:
        """Raises DatasetError when it does not fit."""
        if self.missing > self.free:
            raise DatasetError(
                f"out {out} is on a disk that is too small. {self}. Free {(self.missing - self.free) / GB:.1f} GB, "
                "choose another disk, or a smaller width and height, a longer stride_seconds or fewer rates"
            )


def probed_of(clips: int) -> list[int]:
    """Numbers of the clips that speak for so many."""
    return evenly(clips, min(clips, MOST_PROBED))


def disk_space(probed: Sequence[ClipTask], clips: int, prompts: Iterable[str], out: Path, shares: int = 1) -> DiskSpace:
    """An estimate for `clips` clips, of which `probed` are looked at.

    prompts: distinct ones of one of `shares` processes that share the clips.
    """
    seconds = windows = latents = there = 0.0
    for task in probed:
        length = declared_seconds(task.path) or 0.0
        lengths = _windows(length, task.settings, task.buckets)
        size = [window_bytes(frames, task.settings, task.buckets, task.space) for frames in lengths]
        seconds, windows, latents = seconds + length, windows + len(size), latents + sum(size)
        there += min(sum(size), _cached(record_path(task)))
    part = clips / max(1, len(probed))
    width = probed[0].space.text_width if probed else 0
    text = shares * sum(1 + len(prompt) / CHARACTERS_A_TOKEN for prompt in prompts) * width * HALF
    return DiskSpace(clips, seconds * part, round(windows * part), latents * part, text, there * part, _free(out))


def window_bytes(frames: int, settings: CacheSettings, buckets: Buckets, space: LatentSpace) -> int:
    """Bytes of one window: its latents and, for each rate, those of the LR branch. All sizes have about one area."""
    size, length = buckets.sizes[0], latents_in(frames, space.temporal)
    height, width = size.height // space.spatial, size.width // space.spatial
    values = length * height * width
    for rate in settings.rates:
        config = space.encoder_config(rate, settings.padding)
        rows, columns = grid_for(height, width, config)
        values += cells_for(length, config.stride[0])[1] * rows * columns * config.patch[1] * config.patch[2]
    return values * space.channels * HALF


def _windows(seconds: float, settings: CacheSettings, buckets: Buckets) -> list[int]:
    """Lengths in frames of the windows of a clip without cuts."""
    frames, stride = int(seconds * settings.fps + 0.5), buckets.sizes[0].stride
    whole, *shorter = buckets.lengths
    if frames >= whole:
        return [whole] * (1 + (frames - whole) // stride)
    return [next(length for length in shorter if length <= frames)] if shorter and shorter[-1] <= frames else []


def _cached(record: Path) -> int:
    """Bytes of a clip's windows that an earlier run has made."""
    try:
        windows: Any = json.loads(read_plain(record))["windows"]
        return sum(int(window["bytes"]) for window in windows)
    except (OSError, *DAMAGE):
        return 0


def _free(folder: Path) -> float:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return float(shutil.disk_usage(folder).free)
