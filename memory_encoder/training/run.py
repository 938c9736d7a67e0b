"""One training run from its parts, for the node and for the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..encoder import MemoryEncoder
from .dataset import MemoryDataset
from .lora import add_lora, remove_lora
from .module import TrainingModule
from .options import TrainOptions
from .pictures import loss_plot, recall_picture, write_picture
from .source import DatasetBatches
from .trainer import Listener, Trainer, describe_run

LOSS_PICTURE, RECALL_PICTURE = "loss.png", "recalled.png"


class PictureListener(Listener):
    """Draws the loss curve and, with a VAE, frames recalled from memory, into the run's folder."""

    def __init__(self, folder: Path, decode: Callable[[Tensor], Tensor] | None = None) -> None:
        self.folder, self.decode = folder, decode
        self.losses: list[tuple[int, float]] = []
        self.heldout_losses: list[tuple[int, float]] = []

    def plan(self, text: str) -> None:
        """Told what will be trained, before it starts."""

    def step(self, step: int, loss: float) -> None:
        self.losses.append((step, loss))

    def heldout(self, step: int, loss: float) -> None:
        self.heldout_losses.append((step, loss))

    def picture(self, step: int, trainer: Trainer) -> None:
        write_picture(self.folder / LOSS_PICTURE, loss_plot(self.losses, self.heldout_losses))
        if self.decode is not None:
            write_picture(self.folder / RECALL_PICTURE, recall_picture(trainer, self.decode))


def train(
    diffusion_model: nn.Module,
    encoder: MemoryEncoder,
    dataset: MemoryDataset,
    options: TrainOptions,
    folder: Path,
    listener: PictureListener,
    host_metadata: dict[str, str] | None = None,
    cpu: bool = False,
) -> list[dict[str, Any]]:
    """Trains and returns the losses; files are left in `folder`, and a run begun there is gone on with.

    The host's weights must be ordinary tensors (no inference mode) on the device of training. A LoRA is taken out
    again at the end, also after an error. Raises ValueError for a dataset that does not fit.
    """
    source = DatasetBatches(dataset, encoder.config, options)
    if not source.has_heldout:
        options = replace(options, heldout_every=0)
    if not options.train_host:
        add_lora(diffusion_model, options.rank, options.seed)
    try:
        module = TrainingModule(encoder, diffusion_model, gradient_checkpointing=options.gradient_checkpointing)
        listener.plan(describe_run(module, options, len(source.splits["train"])))
        trainer = Trainer(module, source, options, folder, listener, cpu, host_metadata)
        losses = trainer.run()
        if trainer.accelerator.is_main_process:
            with trainer.ema.applied():
                listener.picture(options.steps - 1, trainer)
        trainer.ema.assign()
        return losses
    finally:
        remove_lora(diffusion_model)
