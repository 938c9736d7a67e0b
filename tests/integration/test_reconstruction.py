"""The beginning of the HR branch: tokens learn to hold the latents of their cells, without the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.reconstruction import cells_of, check_teacher, coarser, reconstruct

from .training import OneClip, tiny_encoder, tiny_module, tiny_options

CPU = torch.device("cpu")
ANY = EncoderConfig("wan", 64, 16, channels=(16, 32), variant="without_lr")


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["1x1x1", "2x2x1", "2x2x2", "4x4x2", "2x2x8"]), st.integers(1, 20), st.integers(2, 19))
def test_each_token_is_asked_for_the_latents_of_its_own_cell_at_every_size(rate: str, frames: int, size: int) -> None:
    config = replace(ANY, rate=rate)
    latents = torch.randn(1, 16, frames, size, size + 1)
    encoder = MemoryEncoder(config)
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    cells = cells_of(latents, config)
    assert cells.shape[:2] == encoder(latents).shape[:2]
    first = cells[0, 0].view(16, *config.stride)
    high, wide = min(config.stride[1], size), min(config.stride[2], size + 1)
    shown = latents[0, :, :1, :high, :wide].expand(-1, config.stride[0], -1, -1)
    assert torch.equal(first[..., :high, :wide], shown)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["2x2x2", "4x4x2", "2x2x8"]), st.integers(1, 20), st.integers(1, 3))
def test_the_mean_of_finer_tokens_is_that_of_what_they_cover(rate: str, frames: int, size: int) -> None:
    """A teacher whose tokens are the mean of its cells: the coarser mean is the mean of the coarser cells."""
    fine, config = replace(ANY, rate="1x1x1"), replace(ANY, rate=rate)
    latents = torch.randn(1, 16, frames, 8 * size, 16)  # whole cells: those at an edge repeat latents or tokens
    tokens = cells_of(latents, fine).mean(dim=3)
    expected = cells_of(latents, config).mean(dim=3)
    torch.testing.assert_close(coarser(tokens, fine, config, latents), expected, atol=1e-5, rtol=1e-4)


def test_tokens_come_to_hold_their_cells_and_the_host_is_not_touched() -> None:
    options = tiny_options(reconstruction=60, batch_size=2)
    module = tiny_module(options)
    host = {name: value.clone() for name, value in module.diffusion_model.state_dict().items()}
    told: list[int] = []
    losses = reconstruct(module, OneClip(8), options, CPU, lambda step, steps, loss: told.append(steps))
    assert told == [60] * 60 and losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(host[name], value) for name, value in module.diffusion_model.state_dict().items())
    assert module.encoder.out.weight.abs().sum() > 0
    again = tiny_module(options)
    assert reconstruct(again, OneClip(8), options, CPU) == losses
    assert torch.equal(again.encoder.out.weight, module.encoder.out.weight)


def test_a_coarser_encoder_learns_to_give_the_mean_of_a_finer_ones_tokens() -> None:
    options = tiny_options(reconstruction=60, batch_size=2)
    module, teacher = tiny_module(options), tiny_encoder(rate="2x2x1")
    torch.nn.init.normal_(teacher.out.weight, std=0.2)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    clips = OneClip(8)
    clips.lr["2x2x1"] = clips.lr["2x2x2"].repeat_interleave(2, dim=2)[:, :, 1:]
    losses = reconstruct(module, clips, options, CPU, teacher=teacher)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("wrong", [{"rate": "4x4x2"}, {"rate": "2x2x1", "width": 32}, {"variant": "only_lr"}])
def test_a_teacher_that_is_not_finer_or_not_of_the_host_is_refused_by_name(wrong: dict[str, Any]) -> None:
    own = replace(ANY, rate="2x2x2", variant="proposed")
    check_teacher(replace(own, rate="2x2x1"), [own])
    with pytest.raises(ValueError, match=r"teacher of rate .* cannot begin an encoder of rate 2x2x2"):
        check_teacher(replace(own, **wrong), [own])
