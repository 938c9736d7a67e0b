"""Trains one row of the tables with one seed, through the pack's own trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from demo.tiny_family.make_host import HostConfig, write_host
from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import PYTORCH_ATTENTION, load_comfy, load_host, training_mode
from memory_encoder.injection.hosts.encoder_file import cross_settings, load_encoder, new_encoder
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.phi.trunk import reset_linear
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.listener import PictureListener
from memory_encoder.training.lora import add_lora, load_lora_state, remove_lora
from memory_encoder.training.module import TrainingModule
from memory_encoder.training.run import train
from memory_encoder.training.run_files import read_lora
from memory_encoder.training.source import DatasetBatches
from memory_encoder.training.train_command import host_metadata
from memory_encoder.training.trainer import Trainer

from .settings import Protocol, Row


@dataclass(frozen=True)
class Workshop:
    """Where a reproduction keeps what it has made."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def host(self) -> Path:
        return self.folder / "host" / "host.safetensors"

    @property
    def material(self) -> Path:
        return self.folder / "material.pt"

    def run(self, row: str, seed: int) -> Path:
        return self.folder / "runs" / f"{row.replace(' ', '_')}-{seed}"

    def result(self, row: str, seed: int) -> Path:
        return self.folder / "measured" / f"{row.replace(' ', '_')}-{seed}.json"


def train_host(protocol: Protocol, workshop: Workshop) -> None:
    """The host that all rows share, all of its weights; goes on where it was stopped."""
    load_comfy(None, PYTORCH_ATTENTION)
    start = workshop.folder / "host.safetensors"
    if not start.exists():
        write_host(start, HostConfig(dim=protocol.width, heads=protocol.heads, ffn_dim=3 * protocol.width))
    with torch.inference_mode(False), training_mode():
        model: Any = load_host(start).model.diffusion_model
        encoder = new_encoder(encoder_config(protocol, Row("host", variant="only_lr"), model), find_host(model), 0)
        dataset, options = MemoryDataset.open(workshop.data), protocol.host_options()
        train(
            model, encoder, dataset, options, workshop.host.parent, PictureListener(workshop.host.parent, None),
            host_metadata(start), cpu=not torch.cuda.is_available(),
        )  # fmt: skip


@contextmanager
def trained(protocol: Protocol, workshop: Workshop, row: Row, seed: int) -> Iterator[TrainingModule]:
    """The row's module after its training, with the LoRA in its host; a run that is finished is only loaded."""
    load_comfy(None, PYTORCH_ATTENTION)
    with torch.inference_mode(False), training_mode():
        model: Any = load_host(workshop.host).model.diffusion_model
        add_lora(model, protocol.rank, seed)
        encoder, lora = beginning(protocol, workshop, row, model, seed)
        if lora is not None:
            load_lora_state(model, lora)
        options = protocol.options(row.stage, row.steps(protocol), seed, **dict(row.changed))
        module = TrainingModule(encoder, model, row.history_timestep)  # type: ignore[arg-type]
        source = DatasetBatches(MemoryDataset.open(workshop.data), encoder.config, options)
        trainer = Trainer(module, source, options, workshop.run(row.name, seed), cpu=not torch.cuda.is_available())
        trainer.run()
        trainer.ema.assign()
    try:
        yield module.requires_grad_(False)
    finally:
        remove_lora(model)


def beginning(
    protocol: Protocol, workshop: Workshop, row: Row, model: nn.Module, seed: int
) -> tuple[MemoryEncoder, dict[str, Tensor] | None]:
    """Encoder and LoRA that a run begins with: those of Stage I, or new ones."""
    if row.start:
        folder = workshop.run(row.start, seed)
        return load_encoder(folder / "encoder.safetensors"), read_lora(folder / "lora.safetensors")
    encoder = new_encoder(encoder_config(protocol, row, model), find_host(model), seed)
    if row.random_output:
        reset_linear(encoder.out, torch.Generator().manual_seed(seed))
    return encoder, None


def encoder_config(protocol: Protocol, row: Row, model: nn.Module) -> EncoderConfig:
    host = find_host(model)
    config = EncoderConfig(
        host.name, host.width, host.latent_channels, row.rate, row.variant,  # type: ignore[arg-type]
        channels=protocol.channels, patch=host.patch,
    )  # fmt: skip
    return replace(config, **{**cross_settings(host, row.cross_attention), **dict(row.config)})
