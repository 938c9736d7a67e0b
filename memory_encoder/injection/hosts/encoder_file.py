"""Encoders from files and from nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from ...phi.config import EncoderConfig
from ...phi.encoder import MemoryEncoder
from ...phi.trained_on import TrainedOn
from . import Host


def read_encoder(path: Path) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """Configuration and weights of an encoder file.

    Raises ValueError that names the file when it is damaged, foreign or too new.
    """
    config = read_config(path)
    try:
        return config, load(path.read_bytes())  # not mapped: Windows lets nobody replace a file that is
    except (SafetensorError, OSError) as error:
        raise ValueError(f"memory encoder {path.name} cannot be read ({error}); download the file again") from error


def read_config(path: Path) -> EncoderConfig:
    """Configuration of an encoder file, without its weights. Raises ValueError as `read_encoder` does."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return EncoderConfig.from_metadata(file.metadata(), path.name)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"memory encoder {path.name} cannot be read ({error}); download the file again") from error


def read_trained_on(path: Path) -> TrainedOn | None:
    """What the encoder of a file was trained on, None where it does not say."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return TrainedOn.from_metadata(file.metadata())
    except (SafetensorError, OSError):
        return None


def fill(encoder: MemoryEncoder, weights: dict[str, Tensor]) -> None:
    """Loads weights; raises ValueError when they are not those of the encoder's configuration."""
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"memory encoder weights do not fit their configuration ({reason})") from error


def load_encoder(path: Path) -> MemoryEncoder:
    """The encoder of a file, float32, for training and evaluation. Raises ValueError as `read_encoder` does."""
    config, weights = read_encoder(path)
    encoder = MemoryEncoder(config, dtype=torch.float32)
    fill(encoder, weights)
    return encoder


def cross_settings(host: Host, cross_attention: bool) -> dict[str, int]:
    """Fields of EncoderConfig for a branch into every block of a host, or for none."""
    return {"cross_blocks": len(host.slots()), "head_dim": host.head_dim} if cross_attention else {"cross_blocks": 0}


def with_paths(
    encoder: MemoryEncoder, host: Host, cross_attention: bool, memory_attention: str, seed: int
) -> MemoryEncoder:
    """An encoder with the same weights and other ways into the host, to be trained on; a new branch starts at zero."""
    changed = EncoderConfig.from_dict(
        {**asdict(encoder.config), **cross_settings(host, cross_attention), "memory_attention": memory_attention}
    )
    if changed == encoder.config:
        return encoder
    result = new_encoder(changed, host, seed)
    kept = {k: v for k, v in encoder.state_dict().items() if cross_attention or not k.startswith("cross.")}
    fill(result, result.state_dict() | kept)
    return result


def new_encoder(config: EncoderConfig, host: Host, seed: int) -> MemoryEncoder:
    """An untrained encoder; with an LR branch it equals Only LR until it is trained."""
    encoder = MemoryEncoder(config, dtype=torch.float32)
    weight, bias = host.patchifier()
    patchifier = (weight.detach().float().cpu(), bias.detach().float().cpu())
    encoder.reset_parameters(torch.Generator().manual_seed(seed), patchifier)
    return encoder
