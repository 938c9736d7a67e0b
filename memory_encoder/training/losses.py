"""The losses of a run, of batches to train on and of held-out ones: this process's part of a batch, and over all."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from .distributed.sharding import release
from .draws import draw_rows, target_of
from .heldout import heldout_parts
from .module import Batch, TrainingModule
from .optimizers import Ema
from .options import TrainOptions
from .prefetch import Prefetch, pinned
from .source import BatchSource


class Losses:
    """Losses of `prepared`, which is `module` as Accelerate has wrapped it, on batches of `source`.

    options: with what can be drawn here (`drawn_for`). ema: the averages that held-out losses are of. sharded: whether
    weights are split over processes. Batches to train on are made ahead until `batches` is closed.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        prepared: Any,
        module: TrainingModule,
        source: BatchSource,
        options: TrainOptions,
        ema: Ema,
        sharded: bool,
    ) -> None:
        self.accelerator, self.prepared, self.module, self.source = accelerator, prepared, module, source
        self.options, self.ema, self.sharded = options, ema, sharded
        self.share = options.batch_size // accelerator.num_processes
        self.first_row = self.share * accelerator.process_index
        self.batches = Prefetch(partial(self._rows, kind="train"), options.steps * options.accumulate)

    def trained(self, index: int) -> Tensor:
        """Of this process's part of a batch to train on, for a backward pass."""
        return self._loss(*self.batches(index))

    def held_out(self, index: int) -> Tensor:
        """Of this process's part of a held-out batch, by the weights as they are."""
        return self._loss(*self._rows(index, "heldout"))

    def mean(self, loss: Tensor) -> Tensor:
        """Over the processes; all must ask."""
        reduced: Any = self.accelerator.reduce(loss, reduction="mean")
        return reduced

    @torch.no_grad()
    def of_averages(self, updates: int = 2) -> float:
        """Mean held-out loss of the averaged weights, with the same random numbers every time.

        updates: how many times the clips of one; a batch that was cut to fit a card is measured on as many clips.
        """
        with self.ema.applied():
            losses = [self.mean(self.held_out(index)) for index in range(updates * self.options.accumulate)]
            self._release()
        return float(torch.stack(losses).mean())

    def parts_of_averages(self) -> dict[str, float]:
        """What the held-out loss of the averaged weights is made of, on the clips of one update."""
        with self.ema.applied():
            batches = [self._parts(index) for index in range(self.options.accumulate)]
            found = {name: torch.stack([batch[name] for batch in batches]).mean() for name in batches[0]}
            parts = {name: float(self.mean(value.to(self.accelerator.device))) for name, value in found.items()}
            self._release()
        return parts

    def _parts(self, index: int) -> dict[str, Tensor]:
        rows = partial(self.source.rows, index, self.first_row, self.first_row + self.share, "heldout")
        return heldout_parts(self.options, self.module.stride, index, self.first_row, rows, self._loss)

    def _loss(self, batch: Batch, drawn: Any) -> Tensor:
        with self.accelerator.autocast():  # Accelerate puts it around the module itself unless weights are split
            return self.prepared(batch.to(self.accelerator.device), drawn).float()

    def _rows(self, index: int, kind: str) -> tuple[Batch, Any]:
        """This process's part of a batch and what is drawn for it, a pure function of the arguments."""
        first, stride = self.first_row, self.module.stride
        target = partial(target_of, self.options, stride, index, kind)
        batch = self.source.rows(index, first, first + self.share, kind, target)
        rows = batch, draw_rows(batch, self.options, stride, index, first, kind)
        return pinned(rows) if self.accelerator.device.type == "cuda" else rows

    def _release(self) -> None:
        if self.sharded:
            release(self.module)
