"""Prompts with core's hooks, which change the model's weights while it samples."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.files import save_tensors
from memory_encoder.injection import cached
from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings
from tests.dynamic_vram import use_card, use_dynamic_vram

from .models import TEXT, WAN_HEADS, TinyModels, random_memory, random_weights, wan_skeleton

PACK = "video_memory_hooks_test"
STRENGTHS = (0.0, 1.0)  # of the LoRA in the first half of the steps, and in the second


def hook(comfy: Any, model: Any) -> Any:
    """A LoRA on the keys of each block, of another strength in later steps."""
    hooks, g = comfy.module("comfy.hooks"), torch.Generator().manual_seed(3)
    lora = {
        f"diffusion_model.{name.removesuffix('weight')}diff": torch.randn(weight.shape, generator=g)
        for name, weight in model.model.diffusion_model.named_parameters()
        if name.endswith("self_attn.k.weight")
    }
    group, times = hooks.create_hook_lora(lora, 1.0, 0.0), hooks.HookKeyframeGroup()
    for number, strength in enumerate(STRENGTHS):
        times.add(hooks.HookKeyframe(strength, number / len(STRENGTHS)))
    group.set_keyframes_on_hooks(times)
    return group


def test_a_cached_memory_follows_weights_that_change_between_steps(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TinyModels(comfy)["wan_t2v"]
    memory = random_memory(model.host, 25)
    memory = replace(memory, config=replace(memory.config, memory_attention="cached"))
    group, plain = hook(comfy, model.patcher), type(model).conditioning
    give = comfy.module("comfy.hooks").set_hooks_for_conditioning
    monkeypatch.setattr(type(model), "conditioning", lambda self, number: give(plain(self, number), group))

    def sampled() -> Tensor:
        return model.sample(inject(model.patcher, memory, MemorySettings(attention_mode="cached")), steps=4)

    found = sampled()
    monkeypatch.setattr(cached.KeyValueCache, "of", lambda self, call, blocks: {})
    assert torch.equal(found, sampled())
    monkeypatch.setattr(type(model), "conditioning", plain)
    assert not torch.equal(found, sampled())


def test_a_film_with_hooks_makes_the_ordinary_model_once(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where core has dynamic VRAM it samples hooks with a model of the ordinary kind, made from the files."""
    path = tmp_path / "host.safetensors"
    config = {"config": json.dumps({"transformer": {"text_dim": TEXT, "num_heads": WAN_HEADS}})}
    save_tensors(random_weights(wan_skeleton(comfy, 16, 16)), path, config)
    load_pack(PACK)
    settled = importlib.import_module(f"{PACK}.nodes.runtime.sampling").settled
    use_card(comfy, monkeypatch)
    use_dynamic_vram(comfy, monkeypatch)
    with torch.inference_mode():
        model = comfy.module("comfy.sd").load_diffusion_model(str(path), {})
    make, arguments = model.cached_patcher_init
    made: list[Any] = []
    model.cached_patcher_init = (lambda *given, **named: made.append(make(*given, **named)) or made[-1], arguments)
    prompt: Any = [[torch.zeros(1, 1, TEXT), {}]]
    hooked = comfy.module("comfy.hooks").set_hooks_for_conditioning(prompt, hook(comfy, model))
    with torch.inference_mode():
        assert settled(model, prompt, prompt) is model and model.is_dynamic() and not made
        first, second = settled(model, prompt, hooked), settled(model.clone(), prompt) and settled(model, hooked)
    assert not first.is_dynamic() and first.model is second.model is not model.model and len(made) == 1
    assert not settled(first, hooked).clone().is_dynamic() and len(made) == 1
