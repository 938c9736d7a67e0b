"""The joins of a film's sections: does the picture jump there more than it moves anyway?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .footage import Clip, Join
from .report import SEAMS, FallsOut, Measure, SeamReport

NEAR = 8  # steps before and after a join, whose median is the film's own motion there
LEAST = 0.5  # of 255: changes below it are noise, and count as one step
JUMP, VISIBLE = 3.0, 2.0  # steps from which a join is a jump, and the change of 255 that an eye sees
MEASURE = Measure(
    SEAMS, "steps of the film's own motion", False, "mean change of small grey pictures",
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
        changes = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2))
        return [found for join in self.joins if (found := self._report(join, times, changes)) is not None]

    def _report(self, join: Join, times: np.ndarray, changes: np.ndarray) -> SeamReport | None:
        at = int(np.searchsorted(times, join.at - 1e-4)) - 1  # the change into the section's first frame
        if not 0 <= at < len(changes):
            return None
        around = np.concatenate([changes[max(0, at - NEAR) : at], changes[at + 1 : at + 1 + NEAR]])
        if not len(around):
            return None
        usual = max(LEAST, float(np.median(around)))
        jump = float(changes[at]) / usual
        falls_out: tuple[FallsOut, ...] = ()
        if jump > JUMP and changes[at] > VISIBLE:
            said = (
                f"section {join.section} (shot {join.shot}) begins with a jump: the picture changes by "
                f"{changes[at]:.1f} of 255 at {join.at:.2f} s, {jump:.1f} times its own motion"
            )
            falls_out = (FallsOut(SEAMS, said, jump, 1.0),)
        return SeamReport(join.section, join.shot, join.at, jump, falls_out)
