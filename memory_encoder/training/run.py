"""One training run from its parts, for the node and for the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..encoder import MemoryEncoder
from .dataset import MemoryDataset
from .listener import PictureListener
from .lora import add_lora, remove_lora
from .module import TrainingModule
from .options import TrainOptions
from .source import DatasetBatches
from .trainer import Trainer, describe_run


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
