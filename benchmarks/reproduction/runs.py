"""Trains one row of the tables with one seed, as `python -m memory_encoder train` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from demo.tiny_family.install import HOST_NAME, WEIGHTS
from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import PYTORCH_ATTENTION, load_comfy, load_host, training_mode
from memory_encoder.injection.hosts.encoder_file import cross_settings, load_encoder, new_encoder, with_paths
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.dataset.mixture import Data, open_datasets
from memory_encoder.training.listener import PictureListener
from memory_encoder.training.lora import add_lora, load_lora_state, remove_lora
from memory_encoder.training.module import TrainingModule
from memory_encoder.training.run import train
from memory_encoder.training.run_files import ENCODER, LORA, encoder_name, read_lora
from memory_encoder.training.train_command import host_metadata

from .settings import SHARES, Protocol, Row

HOST = WEIGHTS / HOST_NAME


@dataclass(frozen=True)
class Workshop:
    """Where a reproduction keeps what it has made: data and runs in `folder`, what is measured in `record`."""

    folder: Path
    record: Path

    @property
    def reels(self) -> Path:
        return self.folder / "reels"

    @property
    def films(self) -> Path:
        return self.folder / "films"

    @property
    def material(self) -> Path:
        return self.folder / "material.pt"

    def run(self, row: str, seed: int) -> Path:
        return self.folder / "runs" / f"{row.replace(' ', '_')}-{seed}"

    def result(self, row: str, seed: int) -> Path:
        return self.record / f"{row.replace(' ', '_')}-{seed}.json"

    def picture(self, row: str) -> Path:
        """Frames drawn with the first seed."""
        return self.record / f"{row.replace(' ', '_')}.jpg"


@contextmanager
def trained(protocol: Protocol, workshop: Workshop, row: Row, seed: int) -> Iterator[TrainingModule]:
    """The row's module after its training, with the LoRA in its host; a run that is finished is only loaded."""
    load_comfy(None, PYTORCH_ATTENTION)
    folder, options = workshop.run(row.name, seed), protocol.options(row, seed)
    with torch.inference_mode(False), training_mode():
        model: Any = load_host(HOST).model.diffusion_model
        encoder, *others = beginning(protocol, workshop, row, model, seed)
        train(
            model, encoder, data_of(row, workshop), options, folder, PictureListener(folder),
            host_metadata(HOST), cpu=not torch.cuda.is_available(), others=others,
        )  # fmt: skip
        encoder, *others = (load_encoder(folder / encoder_name(1 + place)) for place in range(1 + len(others)))
        add_lora(model, options.rank, seed)
        load_lora_state(model, read_lora(folder / LORA))
        module = TrainingModule(encoder, model, others=others)
    if next(model.parameters()).device.type != "cpu":
        module = module.to("cpu").float()  # where latents, texts and VAE are: drawing is little beside training
    try:
        yield module.requires_grad_(False)
    finally:
        remove_lora(model)


def data_of(row: Row, workshop: Workshop) -> Data:
    """Reels for Stage I; for Stage II films too, the larger share."""
    shares = (("reels", 1.0),) if row.stage == "retrieval" else SHARES
    return open_datasets([f"{workshop.folder / name}:{share}" for name, share in shares])


def beginning(protocol: Protocol, workshop: Workshop, row: Row, model: nn.Module, seed: int) -> list[MemoryEncoder]:
    """The encoders that a run begins with: that of Stage I, or a new one, and further ones beside it."""
    host = find_host(model)
    first = new_encoder(encoder_config(protocol, row, row.rate, model), host, seed)
    if row.start:
        first = load_encoder(workshop.run(row.start, seed) / ENCODER)
        first = with_paths(first, host, row.cross_attention, attention_of(row), seed)
    configs = [encoder_config(protocol, row, rate, model) for rate in row.others]
    return [first, *(new_encoder(config, host, seed + 1 + place) for place, config in enumerate(configs))]


def encoder_config(protocol: Protocol, row: Row, rate: str, model: nn.Module) -> EncoderConfig:
    host = find_host(model)
    config = EncoderConfig(
        host.name, host.width, host.latent_channels, rate, row.variant,  # type: ignore[arg-type]
        channels=protocol.channels, patch=host.patch, memory_attention=attention_of(row),
    )  # fmt: skip
    return replace(config, **cross_settings(host, row.cross_attention))


def attention_of(row: Row) -> Literal["joint", "cached"]:
    return "cached" if row.cached else "joint"
