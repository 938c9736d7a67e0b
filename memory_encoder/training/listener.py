"""Whom a run tells; light, so that a node can be built without the trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from .pictures import Run, loss_plot, recall_picture, write_picture
from .run_files import LOSS_PICTURE, LOSSES, RECALL_PICTURE, read_losses


class Listener:
    """What a run tells the world; a node or the command line overrides what it shows. Any method may raise to stop.

    Of several processes only the main one tells. `assist` is for the others while the main one draws, where weights are
    split over processes: they make the passes that the drawing makes.
    """

    def started(self, first_step: int, last_step: int) -> None: ...

    def step(self, step: int, loss: float) -> None: ...

    def skipped(self, step: int) -> None:
        """A step was left out, since its loss or gradient was not finite."""

    def stopped(self, text: str) -> None:
        """The run was asked to end and has been saved; `text` says where and how to go on."""

    def heldout(self, step: int, loss: float) -> None: ...

    def picture(self, step: int, trainer: Run) -> None: ...

    def assist(self, step: int, trainer: Run) -> None: ...


class PictureListener(Listener):
    """Draws the loss curve and, with a VAE, frames recalled from memory, into the run's folder."""

    def __init__(self, folder: Path, decode: Callable[[Tensor], Tensor] | None = None) -> None:
        self.folder, self.decode = folder, decode
        self.losses: list[tuple[int, float]] = []
        self.heldout_losses: list[tuple[int, float]] = []

    def plan(self, text: str) -> None:
        """Told what will be trained, before it starts."""

    def started(self, first_step: int, last_step: int) -> None:
        """A run that goes on shows its curve from the beginning."""
        before = [entry for entry in read_losses(self.folder / LOSSES) if entry["step"] < first_step]
        self.losses = [(entry["step"], entry["loss"]) for entry in before if "loss" in entry]
        self.heldout_losses = [(entry["step"], entry["heldout"]) for entry in before if "heldout" in entry]

    def step(self, step: int, loss: float) -> None:
        self.losses.append((step, loss))

    def heldout(self, step: int, loss: float) -> None:
        self.heldout_losses.append((step, loss))

    def picture(self, step: int, trainer: Run) -> None:
        write_picture(self.folder / LOSS_PICTURE, loss_plot(self.losses, self.heldout_losses))
        if self.decode is not None:
            write_picture(self.folder / RECALL_PICTURE, recall_picture(trainer, self.decode))

    def assist(self, step: int, trainer: Run) -> None:
        if self.decode is not None:
            recall_picture(trainer, self.decode)
