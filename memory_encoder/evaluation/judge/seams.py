"""The joins of a film's sections: does the picture jump there more than it moves anyway?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .footage import Clip, Join
from .report import SEAMS, FallsOut, Measure, SeamReport

NEAR = 8  # steps before and after a join, whose median is the film's own motion there
LEAST = 0.5  # of 255: changes below it are noise, and count as one step
USUAL = 0.5, 0.85  # quantiles of the steps near a join, by points and of the whole, whose steps are more uneven
JUMP, VISIBLE = 3.0, 2.0  # steps from which a join is a jump, and the change of 255 that an eye sees
MEASURE = Measure(
    SEAMS, "steps of the film's own motion", False, "mean change of small grey pictures, by points and as a whole",
    "how much the picture changes where a section begins without a cut, beside the frames around; 1 is no seam",
)  # fmt: skip


@dataclass
class Seams:
    """Sees all frames of a film in order, small; `joins` are looked at when all are there."""

    joins: Sequence[Join]
    times: list[np.ndarray] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    def see(self, clip: Clip) -> None:
        self.times.append(clip.tiny_times)
        self.pictures.append(clip.tiny)

    def reports(self) -> list[SeamReport]:
        if not self.joins or not self.pictures:
            return []
        times, pictures = np.concatenate(self.times), np.concatenate(self.pictures)
        steps = np.diff(pictures, axis=0)
        # By points, and by the picture as a whole: fast motion hides a change of light from the first alone.
        kinds = np.abs(steps).mean(axis=(1, 2)), np.abs(steps.mean(axis=(1, 2)))
        return [found for join in self.joins if (found := self._report(join, times, kinds)) is not None]

    def _report(self, join: Join, times: np.ndarray, kinds: Sequence[np.ndarray]) -> SeamReport | None:
        at = int(np.searchsorted(times, join.at - 1e-4)) - 1  # the change into the section's first frame
        if not 0 <= at < len(times) - 1:
            return None
        near = [i for i in range(max(0, at - NEAR), min(len(times) - 1, at + NEAR + 1)) if i != at]
        if not near:
            return None
        jumps = [
            float(changes[at]) / max(LEAST, float(np.quantile(changes[near], share)))
            for changes, share in zip(kinds, USUAL, strict=True)
        ]
        jump, change = max(zip(jumps, (float(changes[at]) for changes in kinds), strict=True))
        falls_out: tuple[FallsOut, ...] = ()
        if jump > JUMP and change > VISIBLE:
            said = (
                f"section {join.section} (shot {join.shot}) begins with a jump: the picture changes by "
                f"{change:.1f} of 255 at {join.at:.2f} s, {jump:.1f} times its own motion"
            )
            falls_out = (FallsOut(SEAMS, said, jump, 1.0),)
        return SeamReport(join.section, join.shot, join.at, jump, falls_out)
