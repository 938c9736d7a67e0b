"""The memory encoder as a managed model: loaded, offloaded and freed by ComfyUI like any other."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from torch import Tensor

from ...memory_encoder.injection.fit import Kind, check_encoder, check_kind, needs_tokens
from ...memory_encoder.injection.hosts import Host
from ...memory_encoder.injection.hosts.encoder_file import fill, read_encoder, read_trained_on
from ...memory_encoder.injection.selection import encoder_key
from ...memory_encoder.memory.compressor import check_maker
from ...memory_encoder.memory.memory_file import Memory, empty_memory
from ...memory_encoder.phi.config import EncoderConfig
from ...memory_encoder.phi.encoder import MemoryEncoder
from ...memory_encoder.phi.trained_on import TrainedOn


class ManagedEncoder:
    """What travels through a MEMORY_ENCODER socket.

    config: its configuration. identity: hash of configuration and weights. patcher: its ModelPatcher. others: further
    encoders that compress the same history (paper section 4.5). trained_on: what its file says of its training. lr_vae:
    core's VAE that decodes for the low-resolution branches in place of the model's own one, or None.
    """

    others: tuple[ManagedEncoder, ...] = ()
    trained_on: TrainedOn | None = None
    lr_vae: Any = None

    def __init__(self, config: EncoderConfig, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
        self.config = config
        self.identity = _identity(config, weights)
        self.device = mm.get_torch_device()
        self.dtype = _compute_dtype(self.device)
        self.patcher: Any = _patcher(config, weights, dtype)
        self.model: MemoryEncoder = self.patcher.model
        self.patcher.cached_patcher_init = (_rebuilt, (self.model, dtype))

    @property
    def parts(self) -> tuple[ManagedEncoder, ...]:
        """All encoders, this one first."""
        return (self, *self.others)

    def decoding_by(self, lr_vae: Any) -> ManagedEncoder:
        """The same encoder with a small VAE; raises ValueError when nothing would be decoded by it."""
        if lr_vae is None:
            return self
        if not self.config.has_lr:
            raise ValueError(
                "lr_vae: this memory encoder has no low-resolution branch, for which alone it would decode; remove the "
                "connection"
            )
        one = copy.copy(self)
        one.lr_vae = lr_vae
        return one

    @property
    def _with_weights(self) -> list[ManagedEncoder]:
        """Dynamic VRAM reserves no room for a model of no bytes, and fails at it: those of only_lr, and of pictures."""
        return [part for part in self.parts if next(part.model.parameters(), None) is not None]

    def beside(self, other: ManagedEncoder) -> ManagedEncoder:
        """Both encoders in one; raises ValueError when they are not for one model."""
        for part in (*self.parts, *other.parts):
            needs_tokens(part.config, "Combine Memory Encoders")
        kinds = Kind.of(other.config), Kind.of(self.config)
        check_kind("second_encoder", *kinds, "combine encoders of one model", "the first")
        if any(part.config.locked for part in (*self.parts, *other.parts)):
            raise ValueError(
                "second_encoder: one of the two was trained together with its model, which reads nothing beside it; "
                "use it alone"
            )
        both = copy.copy(self)
        both.others = (*self.others, *other.parts)
        both.lr_vae = other.lr_vae if self.lr_vae is None else self.lr_vae
        return both

    def empty_memory(self, batch: int) -> Any:
        """A memory of nothing, which these encoders can append to."""
        first, *others = (empty_memory(part.config, batch, part.identity) for part in self.parts)
        return replace(first, others=tuple(others)) if others else first

    def check_memory(self, memory: Memory) -> None:
        """Raises ValueError when a memory was made by other encoders, so that these cannot append to it."""
        if len(self.parts) != len(memory.parts):
            raise ValueError(
                f"memory was made by {len(memory.parts)} encoders, memory_encoder holds {len(self.parts)}; "
                "continue it with as many"
            )
        for part, made in zip(self.parts, memory.parts, strict=True):
            check_maker(made, part.config)

    def load(self) -> None:
        """Asks ComfyUI to bring the weights to the device."""
        if patchers := [part.patcher for part in self._with_weights]:
            mm.load_models_gpu(patchers)

    def attach(self, model: Any) -> Any:
        """A clone of MODEL that takes the encoders along when ComfyUI loads and frees it."""
        model = model.clone()
        for part in self._with_weights:
            model.set_additional_models(encoder_key(part.identity), [part.patcher])
        return model

    def check_host(self, host: Host) -> None:
        """Raises ValueError when an encoder writes tokens for another model."""
        for part in self.parts:
            check_encoder(part.config, host)


def manage(encoder: MemoryEncoder, trained_on: TrainedOn | None = None) -> ManagedEncoder:
    """Puts an encoder that was made or trained in memory under ComfyUI's management."""
    managed = ManagedEncoder(encoder.config, encoder.state_dict(), torch.float32)
    managed.trained_on = trained_on
    return managed


def load_encoder(path: Path) -> ManagedEncoder:
    """Reads an encoder file; raises ValueError that names the file when it is damaged, foreign or too new."""
    config, weights = read_encoder(path)
    dtype = next((tensor.dtype for tensor in weights.values()), torch.float32)
    try:
        managed = ManagedEncoder(config, weights, dtype)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}; download the file again") from error
    managed.trained_on = read_trained_on(path)
    return managed


def _patcher(
    config: EncoderConfig, weights: dict[str, Tensor], dtype: torch.dtype, disable_dynamic: bool = False
) -> Any:
    """A ModelPatcher of an encoder of its own; disable_dynamic: without core's dynamic VRAM."""
    offload = mm.unet_offload_device()
    model = MemoryEncoder(config, operations=comfy.ops.manual_cast, device=offload, dtype=dtype)
    fill(model, weights)
    model.eval().requires_grad_(False)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    return kind(model, load_device=mm.get_torch_device(), offload_device=offload)


def _rebuilt(model: MemoryEncoder, dtype: torch.dtype, disable_dynamic: bool = False) -> Any:
    """What core asks for when it needs the model once more (`cached_patcher_init`), from the living one's weights."""
    return _patcher(model.config, model.state_dict(), dtype, disable_dynamic)


def _compute_dtype(device: torch.device) -> torch.dtype:
    if mm.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if mm.should_use_fp16(device) else torch.float32


def _identity(config: EncoderConfig, weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(config.chosen()).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()[:32]
