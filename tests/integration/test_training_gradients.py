"""Gradients are those of what the model computes, also where core's blocks write into what autograd has saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.base import host_blocks
from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.injection.hosts.encoder_file import with_paths
from memory_encoder.training.draws import draw_rows
from memory_encoder.training.module import TrainingModule

from .sharded import HunyuanClips, hunyuan_module
from .training import OneClip, tiny_module, tiny_options

MODULES = {"wan": (tiny_module, OneClip), "hunyuan": (hunyuan_module, HunyuanClips)}


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


def module_for(host: str, way: str = "joint") -> TrainingModule:
    """A module whose blocks change much: what a gate of nearly 0 lets through spoils nothing."""
    module = MODULES[host][0](tiny_options(batch_size=1, rank=4), True)
    if way != "joint":
        settings: Any = {
            "cross_attention": way == "cross",
            "memory_attention": "cached" if way == "cached" else "joint",
        }
        module.encoder = with_paths(module.encoder, find_host(module.diffusion_model), seed=1, **settings)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if ".lora_B." in name or name.startswith("encoder.out") or (".cross." in name and ".out" in name):
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
        elif "mod" in name and "lora" not in name:
            parameter.data = 5 * parameter.data
    return module


def asked(host: str) -> tuple[Any, Any]:
    options = tiny_options(batch_size=1, rank=4)
    rows = MODULES[host][1]().rows(0, 0, 1, "train", None)
    return rows, draw_rows(rows, options, 2, 0, 0)


def gradients(module: TrainingModule, host: str, checkpointing: bool) -> dict[str, Tensor]:
    module.gradient_checkpointing = checkpointing
    module(*asked(host)).backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    for parameter in module.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize(
    ("host", "way", "kind"),
    [("wan", "joint", "encoder."), ("wan", "joint", ".lora_"), ("hunyuan", "joint", "encoder."),
     ("hunyuan", "joint", ".txt_mod."), ("hunyuan", "joint", ".lora_"), ("hunyuan", "cached", "encoder."),
     ("wan", "cross", "encoder.")],
)  # fmt: skip
def test_gradients_are_those_of_the_loss(comfy: Any, host: str, way: str, kind: str) -> None:
    """Against the loss itself a little further along the gradient, of a kind of weights."""
    module, given = module_for(host, way), asked(host)
    found = gradients(module, host, True)
    weights = {name: p for name, p in module.named_parameters() if name in found and kind in name}
    norm = sum(float(found[name].square().sum()) for name in weights) ** 0.5
    reach, losses = 0.001, []
    for sign in (1, -1):
        with torch.no_grad():
            for name, weight in weights.items():
                weight.add_(found[name], alpha=sign * reach / norm)
            losses.append(module(*given).double().item())
            for name, weight in weights.items():
                weight.sub_(found[name], alpha=sign * reach / norm)
    assert (losses[0] - losses[1]) / (2 * reach) == pytest.approx(norm, rel=0.01)


@pytest.mark.parametrize(
    ("host", "way"),
    [("wan", "joint"), ("wan", "cached"), ("wan", "cross"), ("hunyuan", "joint"), ("hunyuan", "cached")],
)
def test_checkpointed_blocks_have_the_gradients_of_plain_ones(comfy: Any, host: str, way: str) -> None:
    """Core's Hunyuan blocks add to what their norms have saved: run again, autograd does not notice."""
    module = module_for(host, way)
    plain, again = (gradients(module, host, checkpointing) for checkpointing in (False, True))
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_compiled_blocks_have_them_too(comfy: Any) -> None:
    module = module_for("hunyuan")
    plain = gradients(module, "hunyuan", True)
    for block in host_blocks(module.diffusion_model):
        block.compile(backend="aot_eager")
    try:
        compiled = gradients(module, "hunyuan", True)
    finally:
        torch.compiler.reset()
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
