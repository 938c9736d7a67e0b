"""System RAM of a run on cards, before it starts: what waits there for want of room, and what a save gathers."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

GIB = 1024**3
KEPT_FREE = 4 * GIB  # for the system, ComfyUI and the batches on their way
LESS = (
    "more than this machine has, with 4 for all else. Take fewer clips a step (--batch-size, with as many more "
    "--accumulate), more of the blocks on the card (--resident-blocks), shorter sections (--section), or a host in fp8"
)


@dataclass(frozen=True)
class RamPlan:
    """Bytes of all processes of a machine; an estimate.

    blocks: frozen weights that wait until their block runs. inputs: of checkpointed blocks, until the backward pass.
    averages: of the trained weights. saving: what else is there while a checkpoint is written.
    """

    blocks: int
    inputs: int
    averages: float
    saving: float

    @property
    def all(self) -> float:
        """Pinned RAM that inputs had is kept between steps, so that everything adds up."""
        return self.blocks + self.inputs + self.averages + self.saving

    def fits(self, machine: float | None) -> bool:
        """Whether so many bytes of RAM are enough; where nobody knows how many there are, they are."""
        return machine is None or self.all + KEPT_FREE <= machine

    def describe(self, machine: float) -> str:
        """One line for people. machine: bytes of RAM that there are."""
        return (
            f"system RAM {self.all / GIB:.2f} of {machine / GIB:.1f} GiB: blocks that wait {self.blocks / GIB:.2f}, "
            f"inputs that wait {self.inputs / GIB:.2f}, averages {self.averages / GIB:.2f}, saving "
            f"{self.saving / GIB:.2f}" + ("" if self.fits(machine) else f": {LESS}")
        )


def machine_ram() -> float:
    """Bytes of RAM of this machine."""
    return float(psutil.virtual_memory().total)


def pinned(size: int) -> int:
    """What torch's allocator of pinned memory takes for a tensor of so many bytes: the next power of two."""
    return 1 << (size - 1).bit_length() if size else 0
