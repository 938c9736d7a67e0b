"""Cached memory equals joint attention with the video masked from the memory, and is computed once a section."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection import cached
from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import InjectedMemory, MemorySettings
from memory_encoder.memory.video_memory import VideoMemory
from tests.integration.models import TinyModel, TinyModels, random_memory

TOKENS = 25
CACHED = MemorySettings(attention_mode="cached")
WANS = ["wan_t2v", "wan21_i2v", "wan_5b"]
ALL = [*WANS, "hunyuan", "hunyuan_plain", "hunyuan15_t2v", "hunyuan15_i2v"]


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


def memory_for(model: TinyModel, trained: str = "cached") -> VideoMemory:
    memory = random_memory(model.host, TOKENS)
    return replace(memory, config=replace(memory.config, memory_attention=trained))


class HideVideo:
    """An attention override that masks the video from the memory's queries, wherever they stand together."""

    def __init__(self, video: int) -> None:
        self.video, self.masked = video, 0

    def __call__(self, attention: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        length = self.video + TOKENS
        if q.shape[1] == k.shape[1] == length:
            self.masked += 1
            allowed = torch.zeros(length, length, dtype=q.dtype)
            allowed[self.video :, : self.video] = -torch.inf
            kwargs = {**kwargs, "mask": allowed[None, None]}
        return attention(q, k, v, *args, **kwargs)


@pytest.mark.parametrize("name", WANS)
def test_cached_equals_masked_joint_attention(models: TinyModels, name: str) -> None:
    model = models[name]
    hide = HideVideo(model.video_tokens)
    reference = inject(model.patcher, memory_for(model, "joint"))
    reference.model_options["transformer_options"][cached.OVERRIDE] = hide
    expected = model.sample(reference)
    result = model.sample(inject(model.patcher, memory_for(model), CACHED))
    assert hide.masked > 0
    assert (result - model.sample()).abs().max() > 1e-2
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_keys_and_values_are_computed_once_and_hold_for_every_step(
    models: TinyModels, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models[name]
    runs: list[int] = []
    arguments = cached.CachedPatch.__call__

    def counted(self: Any, args: Any, block: Any) -> Any:
        runs.append(self.index in self.entries)
        return arguments(self, args, block)

    monkeypatch.setattr(cached.CachedPatch, "__call__", counted)
    kept = model.sample(inject(model.patcher, memory_for(model), CACHED), steps=4)
    blocks, batches = len(model.host.slots()), 2 if model.text_mask else 1
    assert runs.count(False) == blocks * batches
    assert len(runs) == 4 * blocks * batches

    monkeypatch.setattr(cached.KeyValueCache, "of", lambda self, call, blocks: {})
    fresh = model.sample(inject(model.patcher, memory_for(model), CACHED), steps=4)
    torch.testing.assert_close(kept, fresh, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_a_cache_that_waits_elsewhere_gives_the_same(models: TinyModels, name: str) -> None:
    model = models[name]
    settings = replace(CACHED, cache_on=torch.device("cpu"))
    plain, away = (model.sample(inject(model.patcher, memory_for(model), s)) for s in (CACHED, settings))
    assert torch.equal(plain, away)


def test_an_earlier_attention_override_stays_in_charge(models: TinyModels) -> None:
    model = models["wan_t2v"]
    lengths: set[int] = set()

    def owner(attention: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        lengths.add(k.shape[1])
        return attention(q, k, v, *args, **kwargs)

    patcher = model.patcher.clone()
    patcher.model_options["transformer_options"][cached.OVERRIDE] = owner
    result = model.sample(inject(patcher, memory_for(model), CACHED))
    assert torch.equal(result, model.sample(inject(model.patcher, memory_for(model), CACHED)))
    assert {TOKENS, model.video_tokens + TOKENS} <= lengths


def test_auto_follows_the_checkpoint(models: TinyModels) -> None:
    model = models["wan_t2v"]
    results: dict[tuple[str, str], Tensor] = {}
    modes: list[tuple[str, Any]] = [("joint", "auto"), ("joint", "joint"), ("cached", "auto"), ("cached", "cached")]
    for trained, mode in modes:
        patcher = inject(model.patcher, memory_for(model, trained), MemorySettings(attention_mode=mode))
        results[trained, mode] = model.sample(patcher)
    assert torch.equal(results["joint", "auto"], results["joint", "joint"])
    assert torch.equal(results["cached", "auto"], results["cached", "cached"])
    assert not torch.allclose(results["joint", "auto"], results["cached", "auto"], atol=1e-3)


def test_cached_is_refused_where_it_cannot_be(models: TinyModels) -> None:
    model = models["wan_t2v"]
    with pytest.raises(ValueError, match="attention_mode cached needs an encoder trained for it"):
        inject(model.patcher, memory_for(model, "joint"), CACHED)
    with pytest.raises(ValueError, match="cached needs history_timestep zero"):
        MemorySettings(attention_mode="cached", history_timestep="same")


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool, int]]:
    """Bytes of keys and values, whether tokens are on the device at the end of each run, and what is left of both."""
    found: list[tuple[int, bool, int]] = []
    forget = InjectedMemory.forget

    def spy(self: InjectedMemory, *args: Any) -> None:
        before, cache = len(self.constants) > 0, self.cache or cached.KeyValueCache()
        found.append((cache.bytes, before, 0))
        forget(self, *args)
        found[-1] = (found[-1][0], before, cache.bytes + len(self.constants))

    monkeypatch.setattr(InjectedMemory, "forget", spy)
    return found


@pytest.mark.parametrize("trained", ["cached", "joint"])
def test_a_run_leaves_nothing_behind(models: TinyModels, left: list[tuple[int, bool, int]], trained: str) -> None:
    model = models["wan_t2v"]
    patcher = inject(model.patcher, memory_for(model, trained))
    for _ in range(4):
        model.sample(patcher)
    host = model.host
    kept = 2 * 2 * len(host.slots()) * TOKENS * host.width * 4 if trained == "cached" else 0
    assert left == [(kept, True, 0)] * 4


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_a_pass_that_leaves_out_blocks_does_not_spoil_the_next(
    models: TinyModels, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = models[name], []

    def skips(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        seen.append(float(args["transformer_options"]["sigmas"][0]))
        return args if seen[-1] == seen[0] else extra["original_block"](args)  # in the first of two steps

    patcher = model.patcher.clone()
    patcher.set_model_patch_replace(skips, "dit", "double_block", 1)
    kept = model.sample(inject(patcher, memory_for(model), CACHED))
    assert len(set(seen)) == 2
    monkeypatch.setattr(cached.KeyValueCache, "of", lambda self, call, blocks: {})
    seen.clear()
    fresh = model.sample(inject(patcher, memory_for(model), CACHED))
    torch.testing.assert_close(kept, fresh, atol=1e-4, rtol=1e-4)


def test_a_replaced_self_attention_is_named(models: TinyModels) -> None:
    model = models["wan_t2v"]
    patcher = model.patcher.clone()
    for number in range(len(model.host.slots())):
        patcher.add_object_patch(f"diffusion_model.blocks.{number}.self_attn.forward", lambda x, *args, **kwargs: x)
    model.sample(inject(patcher, memory_for(model, "joint")))
    with pytest.raises(RuntimeError, match=r"did not call core's attention .* set attention_mode to joint"):
        model.sample(inject(patcher, memory_for(model), CACHED))
