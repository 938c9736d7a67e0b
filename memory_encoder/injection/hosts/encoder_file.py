"""Encoders from files and from nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ...damage import DamagedFileError, check_finite, damage_named, read_header, read_tensors, shortened
from ...phi.config import EncoderConfig
from ...phi.encoder import MemoryEncoder
from ...phi.trained_on import TrainedOn
from . import Host


def read_encoder(path: Path) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """Configuration and weights of an encoder file. Nothing is allocated before names and shapes are known to fit.

    Raises DamagedFileError that names the file when it is damaged, foreign or too new, OSError when it cannot be read.
    """
    with _named(path):
        shapes, metadata = read_header(path)
        config = EncoderConfig.from_metadata(metadata, path.name)
        _check_shapes(config, shapes)
        weights, _ = read_tensors(path)
        for name, weight in weights.items():
            if not weight.is_floating_point():
                raise ValueError(f"{name} holds {weight.dtype}, which are no weights")
            check_finite(name, weight)
        return config, weights


def read_config(path: Path) -> EncoderConfig:
    """Configuration of an encoder file, without its weights. Raises as `read_encoder` does."""
    with _named(path):
        return EncoderConfig.from_metadata(read_header(path)[1], path.name)


def read_trained_on(path: Path) -> TrainedOn | None:
    """What the encoder of a file was trained on, None where it does not say."""
    try:
        with _named(path):
            return TrainedOn.from_metadata(read_header(path)[1])
    except (DamagedFileError, OSError):
        return None


def _named(path: Path) -> contextlib.AbstractContextManager[None]:
    return damage_named(path, "memory encoder", "download the file again")


def _check_shapes(config: EncoderConfig, found: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError when a file does not hold exactly the weights that its configuration speaks of."""
    meant = MemoryEncoder(config, device=torch.device("meta")).state_dict()
    shapes = {name: tuple(weight.shape) for name, weight in meant.items()}
    wrong = [name for name in sorted(shapes.keys() | found.keys()) if shapes.get(name) != found.get(name)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
        raise ValueError(
            f"weights do not fit their configuration: {shortened(wrong[0], 100)}{more} is "
            f"{found.get(wrong[0], 'missing')}, should be {shapes.get(wrong[0], 'none')}"
        )


def fill(encoder: MemoryEncoder, weights: dict[str, Tensor]) -> None:
    """Loads weights; raises ValueError when they are not those of the encoder's configuration."""
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"memory encoder weights do not fit their configuration ({reason})") from error


def load_encoder(path: Path) -> MemoryEncoder:
    """The encoder of a file, float32, for training and evaluation. Raises as `read_encoder` does."""
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
