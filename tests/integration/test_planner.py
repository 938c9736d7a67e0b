"""ComfyUI's VRAM planner counts the memory's tokens, and the model's latent keeps its size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from memory_encoder.injection.guidance import guide
from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings
from memory_encoder.memory.video_memory import VideoMemory
from tests.integration.models import BUILDERS, Recorder, TinyModel, TinyModels, random_memory

TOKENS = 25
WINDOW = 2  # uncompressed latent frames of the memory


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


@pytest.fixture
def planned(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """(memory, minimum memory) in bytes that the planner was asked to keep free, for each time models were loaded."""
    asked: list[tuple[float, float]] = []
    load = comfy.model_management.load_models_gpu

    def spy(models: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append((kwargs["memory_required"], kwargs["minimum_memory_required"]))
        return load(models, *args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", spy)
    return asked


def growth(model: TinyModel, patcher: Any, batch: int, planned: list[tuple[float, float]]) -> list[float]:
    """Planned bytes relative to the model without a memory."""
    planned.clear()
    model.sample(batch=batch, steps=1)
    model.sample(patcher, batch, steps=1)
    (plain, plain_minimum), (asked, minimum) = planned
    return [asked / plain, minimum / plain_minimum]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "hunyuan_plain"])
@pytest.mark.parametrize(
    ("settings", "tokens", "frames"),
    [
        (MemorySettings(), TOKENS, 0),
        (MemorySettings(sliding_window=WINDOW), TOKENS, WINDOW),
        (MemorySettings(strength=0), 0, 0),
    ],
    ids=["full", "window", "strength 0"],
)
def test_planned_memory_grows_with_the_sequence(
    models: TinyModels,
    planned: list[tuple[float, float]],
    name: str,
    batch: int,
    settings: Any,
    tokens: int,
    frames: int,
) -> None:
    model = models[name]
    tokens += frames * model.video_tokens // model.size[1]
    patcher = inject(model.patcher, random_memory(model.host, TOKENS), settings)
    expected = (model.video_tokens + tokens) / model.video_tokens
    assert growth(model, patcher, batch, planned) == pytest.approx([expected] * 2, rel=1e-9)


def test_an_empty_memory_plans_nothing(models: TinyModels, planned: list[tuple[float, float]]) -> None:
    model = models["wan_t2v"]
    empty = VideoMemory.empty(random_memory(model.host, 1).config)
    assert growth(model, inject(model.patcher, empty), 1, planned) == [1.0, 1.0]


@pytest.mark.parametrize("name", ["wan_t2v", "wan22_i2v", "hunyuan"])
def test_the_model_itself_gets_latents_of_the_same_shape(models: TinyModels, name: str) -> None:
    model, plain, injected = models[name], Recorder(), Recorder()
    model.sample(plain.on(model.patcher))
    result = model.sample(injected.on(inject(model.patcher, random_memory(model.host, TOKENS))))
    assert injected.shapes == plain.shapes and plain.shapes[0][2:] == model.size[1:]
    assert tuple(result.shape) == (1, *model.size)


@pytest.mark.parametrize("away", [False, True])
def test_keys_and_values_that_stay_on_the_device_are_planned(
    models: TinyModels, planned: list[tuple[float, float]], away: bool
) -> None:
    model = models["wan_t2v"]
    memory = random_memory(model.host, TOKENS)
    memory = replace(memory, config=replace(memory.config, memory_attention="cached"))
    patcher = inject(model.patcher, memory, MemorySettings(cache_on=torch.device("cpu") if away else None))
    kept = 0 if away else 2 * 2 * len(model.host.slots()) * TOKENS * model.host.width * 2
    model.sample(steps=1)
    model.sample(patcher, steps=1)
    (plain, _), (asked, _) = planned
    tokens = plain * (model.video_tokens + TOKENS) / model.video_tokens
    assert asked - tokens >= kept * 0.99 and asked - tokens < kept * 2.2 + 1


def rows(model: TinyModel, patcher: Any, **how: Any) -> list[int]:
    recorder = Recorder()
    model.sample(recorder.on(patcher), steps=1, **how)
    return recorder.batches


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_both_prompts_share_a_batch_only_where_the_memory_fits_twice(
    models: TinyModels, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models[name]
    patcher = inject(model.patcher, random_memory(model.host, 5 * model.video_tokens))
    calc = model.comfy.module("comfy.samplers").calc_cond_batch
    plain = 1.5 * model.patcher.model.memory_required([2, *model.size])  # core's own share of what is free
    free = {"none": 0.0, "two without": 1.1 * plain, "two with": 6.1 * plain}
    results = {}
    for case, found in free.items():
        monkeypatch.setattr(type(model.patcher), "get_free_memory", lambda self, device, found=found: found)
        assert rows(model, model.patcher) == ([1, 1] if case == "none" else [2])
        assert rows(model, patcher) == ([2] if case == "two with" else [1, 1])
        results[case] = model.sample(patcher, steps=1)
        guided = guide(inject(model.patcher, random_memory(model.host, 5 * model.video_tokens)), 2.0, calc)
        assert rows(model, guided) == ([1, 1, 1] if case == "none" else [1, 2])  # the blind prompts have no memory
    assert torch.equal(results["none"], results["two without"])
