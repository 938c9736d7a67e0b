"""History guidance gives the memory a weight of its own, against the formula, on core's classes and sampler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection.guidance import APART, OPTION, HistoryGuidance, guide
from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings
from tests.integration.models import Recorder, TinyModel, TinyModels, random_memory

CFG = 4.0
HOSTS = ["wan_t2v", "wan_5b", "wan21_i2v", "hunyuan"]


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


def guided(model: TinyModel, weight: float, patcher: Any = None) -> Any:
    calc = model.comfy.module("comfy.samplers").calc_cond_batch
    injected = inject(patcher or model.patcher, random_memory(model.host, 25))
    return guide(injected, weight, calc)


def parts(model: TinyModel) -> tuple[Tensor, Tensor, Tensor]:
    """What one step makes of the prompt with memory, the prompt, and the negative prompt."""
    shown = model.sample(inject(model.patcher, random_memory(model.host, 25)), cfg=1.0, steps=1)
    return shown, model.sample(cfg=1.0, steps=1), model.sample(cfg=1.0, steps=1, prompts=(2, 2))


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_guidance_is_the_formula(models: TinyModels, name: str, weight: float) -> None:
    model = models[name]
    shown, prompted, plain = parts(model)
    expected = plain + CFG * (prompted - plain + weight * (shown - prompted))
    result = model.sample(guided(model, weight), cfg=CFG, steps=1)
    assert (shown - prompted).abs().max() > 1e-2
    torch.testing.assert_close(result, expected, atol=2e-4 * CFG * weight, rtol=1e-4)


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_without_cfg_the_weight_is_the_guidance(models: TinyModels, name: str) -> None:
    model = models[name]
    shown, prompted, _ = parts(model)
    for weight in (1.0, 2.5):
        result = model.sample(guided(model, weight), cfg=1.0, steps=1)
        torch.testing.assert_close(result, prompted + weight * (shown - prompted), atol=5e-4, rtol=1e-4)


def test_weight_one_costs_nothing_and_others_share_a_batch(models: TinyModels) -> None:
    model = models["wan_t2v"]

    def batches(weight: float, cfg: float = CFG) -> list[int]:
        recorder = Recorder()
        model.sample(recorder.on(guided(model, weight)), cfg=cfg, steps=1)
        return recorder.batches

    assert batches(1.0) == [1, 1]
    assert batches(2.0) == [1, 2]
    assert batches(1.0, cfg=1.0) == [1]
    assert batches(2.0, cfg=1.0) == [1, 1]


def test_zero_takes_guidance_away_and_leaves_the_earlier_owner(models: TinyModels) -> None:
    model = models["wan_t2v"]
    calc = model.comfy.module("comfy.samplers").calc_cond_batch
    plain = model.sample(inject(model.patcher, random_memory(model.host, 25)))
    again = inject(guided(model, 2.0), random_memory(model.host, 25))
    assert torch.equal(model.sample(guide(again, 0.0, calc)), plain)
    assert OPTION not in again.model_options

    asked: list[int] = []

    def owner(args: dict[str, Any]) -> list[Tensor]:
        asked.append(sum(cond is not None for cond in args["conds"]))
        return calc(args["model"], args["conds"], args["input"], args["sigma"], args["model_options"])

    owned = model.patcher.clone()
    owned.set_model_sampler_calc_cond_batch_function(owner)
    twice = guided(model, 2.0, guided(model, 3.0, owned))
    assert twice.model_options[OPTION].earlier is owner
    assert torch.equal(model.sample(twice, steps=1), model.sample(guided(model, 2.0), steps=1)) and asked == [1, 2]
    assert guide(twice, 0.0, calc).model_options[OPTION] is owner
    assert not isinstance(model.patcher.model_options.get(OPTION), HistoryGuidance)


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_a_weight_below_zero_or_without_end_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"history_guidance {weight} must be finite and not negative"):
        MemorySettings(history_guidance=weight)


def test_easy_cache_tells_the_two_passes_of_a_step_apart(models: TinyModels) -> None:
    """At a threshold at which it skips nothing it changes nothing: it knows what it evaluates by uuid alone."""
    model = models["wan_t2v"]
    easy = model.comfy.module("comfy_extras.nodes_easycache").EasyCacheNode
    guided_model = guided(model, 3.0)
    cached = easy.execute(guided_model, 1e-4, 0.0, 1.0, False)[0]
    assert torch.equal(model.sample(cached, cfg=CFG, steps=6), model.sample(guided_model, cfg=CFG, steps=6))


def test_guidance_that_another_node_takes_the_place_of_is_refused(models: TinyModels) -> None:
    model = models["wan_t2v"]
    calc = model.comfy.module("comfy.samplers").calc_cond_batch

    def other(args: dict[str, Any]) -> list[Tensor]:
        return calc(args["model"], args["conds"], args["input"], args["sigma"], args["model_options"])

    behind = guided(model, 2.0)
    behind.set_model_sampler_calc_cond_batch_function(other)
    for _ in range(2):
        with pytest.raises(ValueError, match="history_guidance has no effect here"):
            model.sample(behind, steps=1)
    without = guide(behind.clone(), 0.0, calc)
    assert torch.equal(model.sample(without, steps=1), model.sample(guided(model, 0.0), steps=1))


def test_what_others_evaluate_after_guidance_is_theirs(models: TinyModels) -> None:
    """Skip layer guidance evaluates the prompt once more, behind the step's."""
    model = models["wan_t2v"]
    calc = model.comfy.module("comfy.samplers").calc_cond_batch

    def more(args: dict[str, Any]) -> Tensor:
        (again,) = calc(args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"])
        return args["denoised"] + 0 * again

    behind = guided(model, 2.0)
    behind.set_model_sampler_post_cfg_function(more)
    assert torch.equal(model.sample(behind, steps=2), model.sample(guided(model, 2.0), steps=2))


def test_patches_of_both_prompts_in_one_batch_are_warned_of(models: TinyModels, caplog: Any) -> None:
    model = models["hunyuan"]
    nag = model.comfy.module("comfy_extras.nodes_nag").NAGuidance.execute(model.patcher, 5.0, 0.5, 1.5)[0]
    model.sample(guided(model, 1.0, nag), cfg=CFG, steps=2)
    assert [record.message for record in caplog.records if "Normalized" in record.message] == [APART]
