"""Steps whose loss or gradient is not finite: each is left out, and too many in a row end a run."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from .distributed.shards import is_main

_LOG = logging.getLogger("video_memory")


class NotFinite(ValueError):
    """A run that has nothing finite to go on with; its last checkpoint is what it was."""


@dataclass(frozen=True)
class StepResult:
    """Mean loss of a step over all clips, and the norm of its gradient before it was clipped."""

    loss: float
    norm: float

    @property
    def fault(self) -> str | None:
        """Which of them is not finite, and what it is instead."""
        wrong = [(n, v) for n, v in (("loss", self.loss), ("gradient norm", self.norm)) if not math.isfinite(v)]
        return f"{wrong[0][0]} is {wrong[0][1]}" if wrong else None


class Skips:
    """Counts steps that were left out. kind: what they are steps of, for messages."""

    def __init__(self, most: int, kind: str = "step", in_all: int = 0) -> None:
        """most: in a row, at which a run ends. in_all: what a run that goes on has left out before."""
        self.most, self.kind = most, kind
        self.in_row, self.in_all = 0, in_all

    def count(self, step: int, result: StepResult, cure: str) -> None:
        """Notes step number `step`, counted from 0; raises NotFinite, which says `cure`, when too many are left out."""
        self.in_row = 0 if result.fault is None else self.in_row + 1
        if result.fault is not None:
            self.in_all += 1
            if is_main():
                counted = f"{self.in_row} in a row of at most {self.most}, {self.in_all} in this run"
                _LOG.warning("%s %d left out: its %s (%s)", self.kind, step + 1, result.fault, counted)
        if self.in_row >= self.most:
            raise NotFinite(
                f"the last {self.most} steps, up to {self.kind} {step + 1}, were left out: the {result.fault}. {cure}"
            )
