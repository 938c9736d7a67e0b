"""Which frames of a clip a recall is measured on: those that tell something. Not from the paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .signatures import signature


@dataclass(frozen=True)
class Counted:
    """frames: indices of those that tell something. repeated, flat: how many do not, and why."""

    frames: list[int]
    repeated: int
    flat: int

    @property
    def measured(self) -> list[int]:
        """Indices of the frames that are measured: all, where none tells anything."""
        return self.frames or list(range(self.repeated + self.flat))

    @property
    def left_out(self) -> dict[str, int]:
        """By reason, without those that are nothing."""
        return {name: count for name, count in (("repeated", self.repeated), ("flat", self.flat)) if count}

    def __str__(self) -> str:
        """What is left out, for people; empty where that is nothing."""
        reasons = {"repeated": "repeat the one before", "flat": "show one colour"}
        return ", ".join(f"{count} {reasons[name]}" for name, count in self.left_out.items())


def counted(pictures: Tensor) -> Counted:
    """Of pictures [T,H,W,3] in 0..1 those that neither repeat the one before nor show one flat colour.

    A clip that is read at more frames a second than it has repeats some, and then the frame before is the frame itself;
    of a black one any flat colour is. Such frames tell nothing of a memory and would decide every mean in dB.
    """
    repeated = torch.zeros(len(pictures), dtype=torch.bool)
    repeated[1:] = (pictures[1:] == pictures[:-1]).flatten(1).all(dim=1).cpu()
    flat = ~signature(pictures).any(dim=1) & ~repeated
    kept = (~repeated & ~flat).nonzero().flatten().tolist()
    return Counted(kept, int(repeated.sum()), int(flat.sum()))
