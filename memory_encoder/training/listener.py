"""Whom a run tells; light, so that a node can be built without the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from .heldout import NOTHING, WITHOUT_MEMORY
from .pace import Pace
from .pictures import Run, loss_plot, recall_picture, recalled_rows, write_picture
from .run_files import LOSS_PICTURE, LOSSES, RECALL_PICTURE, read_losses

Phase = Literal["heldout", "saving", "pictures"]


class Listener:
    """What a run tells the world; a node or the command line overrides what it shows. Any method may raise to stop.

    Of several processes only the main one tells. `assist` is for the others while the main one draws, where weights are
    split over processes: they make the passes that the drawing makes.
    """

    def started(self, first_step: int, last_step: int) -> None: ...

    def reconstruction(self, step: int, steps: int, loss: float) -> None:
        """A step of `reconstruction.reconstruct`, before the first of the run."""

    def step(self, step: int, loss: float) -> None: ...

    def skipped(self, step: int) -> None:
        """A step was left out, since its loss or gradient was not finite."""

    def stopped(self, text: str) -> None:
        """The run was asked to end and has been saved; `text` says where and how to go on."""

    def heldout(self, step: int, loss: float) -> None: ...

    def pace(self, step: int, pace: Pace) -> None:
        """Told before `step`: how fast it goes and what is left."""

    def phase(self, phase: Phase) -> None:
        """What begins beside the steps; the next step ends it."""

    def parts(self, step: int, parts: Mapping[str, float]) -> None:
        """What the held-out loss is made of, see `heldout.heldout_parts`."""

    def picture(self, step: int, trainer: Run) -> None: ...

    def assist(self, step: int, trainer: Run) -> None: ...


class PictureListener(Listener):
    """Draws the loss curve and, with a VAE, frames recalled from memory, into the run's folder."""

    def __init__(self, folder: Path, decode: Callable[[Tensor], Tensor] | None = None) -> None:
        self.folder, self.decode = folder, decode
        self.losses: list[tuple[int, float]] = []
        self.heldout_losses: list[tuple[int, float]] = []
        self.without_memory: list[tuple[int, float]] = []
        self.nothing: float | None = None  # loss of predicting nothing
        self.shown: np.ndarray | None = (
            None  # the last picture of recalled frames, or of the losses where there is none
        )

    def plan(self, text: str) -> None:
        """Told what will be trained, before it starts."""

    def started(self, first_step: int, last_step: int) -> None:
        """A run that goes on shows its curve from the beginning."""
        before = [entry for entry in read_losses(self.folder / LOSSES) if entry["step"] < first_step]
        self.losses = [(entry["step"], entry["loss"]) for entry in before if "loss" in entry]
        self.heldout_losses = [(entry["step"], entry["heldout"]) for entry in before if "heldout" in entry]
        for entry in before:
            if "parts" in entry:
                self._note_parts(entry["step"], entry["parts"])

    def step(self, step: int, loss: float) -> None:
        self.losses.append((step, loss))

    def heldout(self, step: int, loss: float) -> None:
        self.heldout_losses.append((step, loss))

    def parts(self, step: int, parts: Mapping[str, float]) -> None:
        self._note_parts(step, parts)

    def _note_parts(self, step: int, parts: Mapping[str, float]) -> None:
        self.without_memory.append((step, parts[WITHOUT_MEMORY]))
        self.nothing = parts[NOTHING]

    def plot(self) -> np.ndarray:
        """The loss curve as it stands."""
        return loss_plot(self.losses, self.heldout_losses, self.without_memory, self.nothing)

    def picture(self, step: int, trainer: Run) -> None:
        # First what other processes help with, since they would wait for one that has failed before.
        recalled = None if self.decode is None else recall_picture(trainer, self.decode)
        self.shown = self.plot()
        write_picture(self.folder / LOSS_PICTURE, self.shown)
        if recalled is not None:
            self.shown = recalled
            write_picture(self.folder / RECALL_PICTURE, self.shown)

    def assist(self, step: int, trainer: Run) -> None:
        if self.decode is not None:
            recalled_rows(trainer)
