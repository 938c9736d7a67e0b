"""A film on the fake card, through what the nodes call."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .hosts import CARD, FullModel

PACK = "video_memory_pack"
HISTORY = 121  # latents, about 20 s at 24 fps
PIECES = (61, 60)


def pack(name: str) -> ModuleType:
    """A module of the pack as ComfyUI has it, once `load_pack` has run."""
    return importlib.import_module(f"{PACK}.{name}")


@dataclass(frozen=True)
class ShapeVAE:
    """Stands in for core's VAE: tensors of the right shapes and on the right devices, no network."""

    latent_channels: int
    spatial: int
    latent_dim: int = 3

    def encode(self, pictures: Tensor) -> Tensor:
        frames, height, width, _ = pictures.shape
        size = (1 + (frames - 1) // 4, height // self.spatial, width // self.spatial)
        return torch.zeros(1, self.latent_channels, *size)

    def decode(self, latents: Tensor) -> Tensor:
        batch, _, frames, height, width = latents.shape
        return torch.zeros(batch, 1 + 4 * (frames - 1), height * self.spatial, width * self.spatial, 3)

    def temporal_compression_decode(self) -> int:
        return 4

    def spacial_compression_decode(self) -> int:
        return self.spatial


def vae_for(model: FullModel) -> ShapeVAE:
    return ShapeVAE(model.latent[0], 832 // model.latent[3])


@dataclass(frozen=True)
class Film:
    """A model with its encoder attached, and the memory of its film so far."""

    model: FullModel
    encoder: Any
    patcher: Any
    memory: Any

    def remembering(self, **settings: Any) -> Any:
        """The model as the sampler node hands it to core."""
        chosen = pack("memory_encoder.injection.selection").MemorySettings(**settings)
        return pack("nodes.runtime.sampling").with_memory(self.patcher, self.memory, chosen)

    def batch_of(self, count: int) -> Film:
        memory = self.memory

        def repeated(value: Any) -> Any:
            if value is None or isinstance(value, Tensor):
                return None if value is None else value.repeat(count, *[1] * (value.ndim - 1))
            return type(value).of(repeated(value.whole()), value.axis)

        names = ("tokens", "tail", "recent", "hidden", "tail_hidden")
        return replace(self, memory=replace(memory, **{name: repeated(getattr(memory, name)) for name in names}))


def film(model: FullModel, pieces: tuple[int, ...] = PIECES, **config: Any) -> Film:
    """Compresses a film of `pieces` latents and attaches the encoder, as Load Memory Encoder and the sampler do."""
    managed = pack("nodes.runtime.managed")
    chosen = pack("memory_encoder.phi.config").EncoderConfig(**vars(model.config(**config)))
    weights = pack("memory_encoder.phi.encoder").MemoryEncoder(chosen, dtype=torch.float32).state_dict()
    encoder = managed.ManagedEncoder(chosen, weights, torch.float32)
    compress = pack("nodes.runtime.compress")
    codec = compress.codec_for(model.patcher, vae_for(model))
    memory = encoder.empty_memory(1)
    for count in pieces:
        memory = compress.compress(encoder, codec, memory, torch.zeros(1, model.latent[0], count, *model.latent[2:]))
    return Film(model, encoder, encoder.attach(model.patcher), memory)


def devices(memory: Any) -> set[str]:
    """Where all tensors of a memory lie."""
    state = [*memory.state.caches, memory.state.features, memory.state.lr]
    values = (*vars(memory).values(), *state)
    tensors = [value for value in values if isinstance(value, Tensor)]
    grown = [value.whole() for value in values if hasattr(value, "whole")]
    return {tensor.device.type for tensor in (*tensors, *grown)}


__all__ = ["CARD", "HISTORY", "Film", "ShapeVAE", "devices", "film", "pack", "vae_for"]
