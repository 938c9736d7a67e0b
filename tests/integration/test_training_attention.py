"""Training where sampling has an attention without gradients, such as SageAttention: it has PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.injection.hosts.encoder_file import with_paths
from memory_encoder.training.draws import draw_rows
from memory_encoder.training.module import TrainingModule
from memory_encoder.training.options import TrainOptions

from .sharded import HunyuanClips, hunyuan_module
from .training import OneClip, tiny_module, tiny_options

PLACES = ("comfy.ldm.wan.model", "comfy.ldm.hunyuan_video.model", "comfy.ldm.flux.math")
QKV = (".q.lora", ".k.lora", ".v.lora", "qkv.lora", "linear1.lora")


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


def blind(attention: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same values in a tensor that autograd knows nothing of, as a kernel fills one; and not the same but for 1%,
    so that it shows where it was asked."""

    def attention_blind(*args: Any, **kwargs: Any) -> Tensor:
        with torch.no_grad():
            return 1.01 * attention(*args, **kwargs)

    return attention_blind


def choose(comfy: Any, monkeypatch: pytest.MonkeyPatch, attention: Callable[..., Tensor]) -> None:
    for place in PLACES:
        monkeypatch.setattr(comfy.module(place), "optimized_attention", attention)


def module_for(host: str, options: TrainOptions, memory: str) -> TrainingModule:
    """A module whose LoRA and encoder are past their first steps: what begins at zero does not hide a gradient."""
    make = tiny_module if host == "wan" else hunyuan_module
    module = make(options, options.gradient_checkpointing)
    if memory != "joint":
        settings: dict[str, Any] = {"cross_attention": False, "memory_attention": memory}
        module.encoder = with_paths(module.encoder, find_host(module.diffusion_model), seed=1, **settings)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if ".lora_B." in name or name.startswith("encoder.out"):
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return module


def gradients(module: TrainingModule, host: str, options: TrainOptions) -> dict[str, Tensor]:
    clips = OneClip() if host == "wan" else HunyuanClips()
    drawn = draw_rows(clips.rows(0, 0, 1, "train", None), options, 2, 0, 0)
    loss = module(clips.rows(0, 0, 1, "train", None), drawn)
    loss.backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    for parameter in module.parameters():
        parameter.grad = None
    return {"loss": loss.detach(), **found}


@pytest.mark.parametrize(
    ("host", "memory", "checkpointing"),
    [("wan", "joint", False), ("wan", "joint", True), ("wan", "cached", True), ("hunyuan", "joint", True)],
)
def test_gradients_are_those_of_pytorchs_attention_whatever_was_chosen(
    comfy: Any, monkeypatch: pytest.MonkeyPatch, host: str, memory: str, checkpointing: bool
) -> None:
    core = comfy.module("comfy.ldm.modules.attention")
    options = tiny_options(batch_size=1, rank=4, gradient_checkpointing=checkpointing)
    module = module_for(host, options, memory)
    expected = gradients(module, host, options)
    moved = [name for name, gradient in expected.items() if gradient.abs().max() > 0]
    assert any(name.startswith("encoder.") for name in moved)
    assert {kind for kind in QKV if any(kind in name for name in moved)} == set(QKV[:3] if host == "wan" else QKV[3:])
    choose(comfy, monkeypatch, core.wrap_attn(blind(core.attention_pytorch)))
    with_blind = gradients(module, host, options)
    assert with_blind.keys() == expected.keys()
    assert all(torch.equal(gradient, expected[name]) for name, gradient in with_blind.items())


def test_what_is_only_looked_at_has_the_attention_that_was_chosen(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out losses and pictures show the model as it will be sampled."""
    core, options = comfy.module("comfy.ldm.modules.attention"), tiny_options(batch_size=1, rank=4)
    module, batch = module_for("wan", options, "joint"), OneClip().rows(0, 0, 1, "train", None)
    drawn = draw_rows(batch, options, 2, 0, 0)
    with torch.no_grad():
        before = module(batch, drawn)
        choose(comfy, monkeypatch, core.wrap_attn(blind(core.attention_pytorch)))
        assert module(batch, drawn) != before


def test_an_attention_that_takes_no_override_is_refused_by_name(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    core, options = comfy.module("comfy.ldm.modules.attention"), tiny_options(batch_size=1, rank=4)
    module = module_for("wan", options, "joint")
    choose(comfy, monkeypatch, blind(core.attention_pytorch.__wrapped__))
    with pytest.raises(RuntimeError, match=r"model: its attention \(.*attention_blind\).*start ComfyUI without"):
        gradients(module, "wan", options)
    with torch.no_grad():
        module(OneClip().rows(0, 0, 1, "train", None), draw_rows(OneClip().rows(0, 0, 1, "x", None), options, 2, 0, 0))
