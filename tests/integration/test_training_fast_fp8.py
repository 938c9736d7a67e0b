"""Training on core's fast layers for fp8 (`fp8_e4m3fn_fast`, `--fast`), which write into what they get."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.training.draws import draw_rows
from memory_encoder.training.lora_layer import writes_its_input
from memory_encoder.training.module import TrainingModule

from .training import OneClip, narrowed, tiny_module, tiny_options

FP8 = torch.float8_e4m3fn


@pytest.fixture
def fast(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts whose layers cast are of fast layers, whose product is that of values here: no processor has one of fp8."""
    ops = comfy.module("comfy.ops")

    def fp8_linear(layer: Any, input: Tensor) -> Tensor:
        assert layer.weight.dtype == FP8
        input = torch.clamp(input, min=-448, max=448, out=input)
        return torch.nn.functional.linear(input, layer.weight.to(input.dtype), layer.bias.to(input.dtype))

    monkeypatch.setattr(ops, "fp8_linear", fp8_linear)
    monkeypatch.setattr(ops, "manual_cast", ops.fp8_ops)


def made(checkpointing: bool) -> TrainingModule:
    return narrowed(tiny_module(tiny_options(rank=4), checkpointing, casting=True), FP8, FP8)


def step(module: TrainingModule) -> dict[str, Tensor]:
    options, batch = tiny_options(rank=4, mixed_precision="bf16"), OneClip().rows(0, 0, 1, "train", None)
    with training_mode():
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(batch, draw_rows(batch, options, 2, 0, 0)).float()
        loss.backward()
    return {"loss": loss.detach()} | {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_fast_layers_train_as_plain_ones_do(comfy: Any, request: pytest.FixtureRequest, checkpointing: bool) -> None:
    """Where their product is that of the plain ones: nothing is clamped."""
    plain = made(checkpointing)
    assert not writes_its_input(plain.diffusion_model.blocks[0].ffn[0].get_base_layer())  # type: ignore[index]
    expected = step(plain)
    request.getfixturevalue("fast")
    module = made(checkpointing)
    assert writes_its_input(module.diffusion_model.blocks[0].ffn[0].get_base_layer())  # type: ignore[index]
    found = step(module)
    assert found.keys() == expected.keys() and len(found) > 20
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_layers_beside_a_fast_one_get_what_it_got(comfy: Any, fast: None) -> None:
    """What is above the range of fp8 is clamped for the fast layer alone."""
    query = made(False).diffusion_model.blocks[0].self_attn.q  # type: ignore[index,union-attr]
    x = torch.full((1, 3, query.in_features), 1000.0, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        out = query(x)
    assert out.requires_grad and x.eq(1000).all()
