"""The beginning of the HR branch: tokens learn to hold the latents of their cells, without the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.reconstruction import cells_of, reconstruct

from .training import OneClip, tiny_module, tiny_options


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["1x1x1", "2x2x1", "2x2x2", "4x4x2", "2x2x8"]), st.integers(1, 20), st.integers(2, 19))
def test_each_token_is_asked_for_the_latents_of_its_own_cell_at_every_size(rate: str, frames: int, size: int) -> None:
    config = EncoderConfig("wan", 64, 16, rate=rate, channels=(16, 32))
    latents = torch.randn(1, 16, frames, size, size + 1)
    encoder = MemoryEncoder(EncoderConfig("wan", 64, 16, rate=rate, channels=(16, 32), variant="without_lr"))
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    cells = cells_of(latents, config)
    assert cells.shape[:2] == encoder(latents).shape[:2]
    first, (time, height, width) = cells[0, 0].view(16, time_of(config), height_of(config), -1), config.stride
    assert first.shape[-1] == width
    seen = min(height, size), min(width, size + 1)
    assert torch.equal(
        first[..., : seen[0], : seen[1]],
        latents[0, :, :1, : seen[0], : seen[1]].expand(-1, time, -1, -1),
    )


def time_of(config: EncoderConfig) -> int:
    return config.stride[0]


def height_of(config: EncoderConfig) -> int:
    return config.stride[1]


def test_tokens_come_to_hold_their_cells_and_the_host_is_not_touched() -> None:
    options = tiny_options(reconstruction=60, batch_size=2)
    module = tiny_module(options)
    host = {name: value.clone() for name, value in module.diffusion_model.state_dict().items()}
    told: list[int] = []
    losses = reconstruct(module, OneClip(8), options, torch.device("cpu"), lambda step, steps, loss: told.append(steps))
    assert told == [60] * 60 and losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(host[name], value) for name, value in module.diffusion_model.state_dict().items())
    assert module.encoder.out.weight.abs().sum() > 0
    again = tiny_module(options)
    assert reconstruct(again, OneClip(8), options, torch.device("cpu")) == losses
    assert torch.equal(again.encoder.out.weight, module.encoder.out.weight)
