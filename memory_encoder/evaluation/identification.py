"""Is a recalled frame nearest to its own original, among frames of other times and other clips? Not from the paper.

PSNR and SSIM cannot tell a memory of shapes from one of the right average colour. Here a frame's mean colour and its
contrast are taken off, so that one flat colour knows nothing: it gets the chance of a guess. Nothing is asked that the
true frames could not answer: a frame that shows nothing is not asked for, and one that looks like it, of whichever
clip, is no choice beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..frames import evenly
from .counted import counted
from .signatures import signature

CANDIDATES = 16
ASKED = 8  # frames of a clip that are asked for, evenly chosen
ALIKE = 0.95  # correlation above which two frames are taken for one


def asked(original: Tensor) -> list[int]:
    """Which frames of a clip [T,H,W,3] are asked for: at most ASKED of those that are `counted`, evenly chosen."""
    telling = counted(original).frames
    return [telling[place] for place in evenly(len(telling), min(ASKED, len(telling)))]


@dataclass
class Lineup:
    """Frames of several clips and what was recalled of them; clips of one size."""

    candidates: int = CANDIDATES
    _originals: list[Tensor] = field(default_factory=list)  # [N,K] of every clip
    _asked: list[list[int]] = field(default_factory=list)
    _shown: list[Mapping[str, Tensor]] = field(default_factory=list)  # [asked,K] by kind

    def add(self, original: Tensor, shown: Mapping[str, Tensor], frames: Sequence[int] | None = None) -> None:
        """original: frames [T,H,W,3] in 0..1 of a clip. shown: what each kind gives for the same frames, or for those
        `frames` of them, among which are all that `asked` names."""
        signatures = signature(original)
        wanted = asked(original)
        places = wanted if frames is None else [list(frames).index(frame) for frame in wanted]
        self._originals.append(signatures)
        self._asked.append(wanted)
        self._shown.append({kind: signature(pictures[places]) for kind, pictures in shown.items()})

    def rates(self) -> dict[str, float]:
        """For each kind the share of frames that are nearest to their own original; equals share a place. Empty where
        no clip shows anything."""
        return _means([found for clip in range(len(self._asked)) for found in self._found(clip)])

    def rates_of_clips(self) -> list[dict[str, float]]:
        """The same for each clip alone."""
        return [_means(self._found(clip)) for clip in range(len(self._asked))]

    def _found(self, clip: int) -> list[dict[str, float]]:
        """For each frame asked for, by kind, 1 where it is nearest to its own original."""
        found = []
        for place, frame in enumerate(self._asked[clip]):
            rivals = self._rivals(clip, frame)
            found.append({kind: _share(shown[place], rivals) for kind, shown in self._shown[clip].items()})
        return found

    @property
    def chance(self) -> float:
        """What a guess gets; 1 where there is nothing to ask."""
        sizes = [len(self._rivals(clip, frame)) for clip, asked in enumerate(self._asked) for frame in asked]
        return sum(1 / size for size in sizes) / len(sizes) if sizes else 1.0

    def _rivals(self, clip: int, frame: int) -> Tensor:
        """Signatures [n,K] to choose from: the frame's own first, then frames that a person can tell from it.

        Half of the others from the same clip, where it has them.
        """
        own = self._originals[clip][frame]
        others = self.candidates - 1
        different, *elsewhere = [
            one[one @ own < ALIKE]
            for one in (self._originals[clip], *self._originals[:clip], *self._originals[clip + 1 :])
        ]
        here = different[evenly(len(different), min(len(different), others // 2 if elsewhere else others))]
        there = _spread([different[:0], *elsewhere], others - len(here))
        if len(there) < others - len(here) and len(different) > len(here):
            here = different[evenly(len(different), min(len(different), others - len(there)))]
        return torch.cat([own[None], here, there])


def _spread(clips: Sequence[Tensor], count: int) -> Tensor:
    """Up to `count` frames of clips, evenly chosen of all of them."""
    frames = torch.cat(list(clips))
    return frames[evenly(len(frames), min(len(frames), count))]


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each kind, over those that have it."""
    kinds = dict.fromkeys(kind for one in found for kind in one)
    values = {kind: [one[kind] for one in found if kind in one] for kind in kinds}
    return {kind: sum(those) / len(those) for kind, those in values.items()}


def _share(shown: Tensor, rivals: Tensor) -> float:
    nearness = rivals @ shown
    best = nearness.max()
    winners = nearness >= best - 1e-6
    return float(winners[0]) / int(winners.sum())
