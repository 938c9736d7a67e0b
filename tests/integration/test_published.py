"""FramePack-F1 and Helios, converted, in core's own classes: what diffusers' independent classes give, and no more.

Every part of how they read their history is left out once, which must show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from memory_encoder.phi.stream import of_nothing
from tests.integration.published import (
    POOLED,
    SECTION,
    TEXT,
    VISION,
    Converted,
    converted,
    framepack,
    framepack_output,
    helios,
    helios_output,
    random,
)

SHOWS = 1e-3  # a part that is left out


@pytest.fixture(scope="module")
def f1(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return converted(comfy, tmp_path_factory.mktemp("framepack"), "framepack_f1", framepack())


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "amplified"])
def base(comfy: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Converted]:
    model = helios(is_amplify_history=request.param)
    yield converted(comfy, tmp_path_factory.mktemp("helios"), "helios_base", model)


def texts(seed: int = 1, rows: int = 1) -> dict[str, torch.Tensor]:
    return {
        "words": random(seed, rows, 11, TEXT["framepack"]),
        "pooled": random(seed + 1, rows, POOLED),
        "vision": random(99, 1, 7, VISION),
    }


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max())


def framepack_forward(f1: Converted, x: torch.Tensor, film: torch.Tensor, **changes: Any) -> torch.Tensor:
    text, t = texts(), torch.full((1,), 600.0)
    memory, phi = f1.memory(film, text["vision"], **changes)
    guidance = torch.full((1,), 10.0)
    return f1.forward(x, memory, phi, timestep=t, context=text["words"], y=text["pooled"], guidance=guidance)


@pytest.mark.parametrize(("height", "width"), [(12, 20), (14, 10), (16, 16)])
@pytest.mark.parametrize("latents", [1, 12, 40])
def test_framepack_gives_what_diffusers_gives(f1: Converted, height: int, width: int, latents: int):
    x, film = random(1, 1, 16, SECTION, height, width), random(2, 1, 16, latents, height, width)
    wanted = framepack_output(f1.original, x, torch.full((1,), 600.0), film, texts())
    assert difference(framepack_forward(f1, x, film), wanted) < 1e-5


@pytest.mark.parametrize(
    "left_out",
    [
        {"positions": "physical"},
        {"section_start": 0},
        {"picture_width": 0},
        {"history_timestep": "zero"},
        {"anchor": False},
        {"fill": "repeat", "start": "nothing"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_part_of_framepack_counts(f1: Converted, left_out: dict[str, Any]):
    x, film = random(1, 1, 16, SECTION, 12, 20), random(2, 1, 16, 12, 12, 20)
    wanted = framepack_output(f1.original, x, torch.full((1,), 600.0), film, texts())
    assert difference(framepack_forward(f1, x, film, **left_out), wanted) > SHOWS


def test_a_memory_without_the_first_picture_is_not_read(f1: Converted):
    memory, phi = f1.memory(random(2, 1, 16, 12, 12, 20))
    with pytest.raises(ValueError, match="memory was made without the film's first picture"):
        f1.injected(memory, phi)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_framepack_samples_in_core_as_a_loop_over_diffusers_does(f1: Converted, cfg: float):
    film, noise = random(2, 1, 16, 12, 12, 20), random(3, 1, 16, SECTION, 12, 20)
    positive, negative = texts(1), texts(5)
    sigmas = torch.tensor([1.0, 0.7, 0.3, 0.0])
    conds = [[[text["words"], {"pooled_output": text["pooled"], "guidance": 10.0}]] for text in (positive, negative)]
    sampler = f1.comfy.module("comfy.samplers").sampler_object("euler")
    model = f1.injected(*f1.memory(film, positive["vision"]))
    with torch.inference_mode():
        got = f1.comfy.module("comfy.sample").sample_custom(
            model, noise, cfg, sampler, sigmas, *conds, torch.zeros_like(noise), disable_pbar=True, seed=3
        )
    y = noise
    for now, after in pairwise(sigmas):
        velocity, other = (
            framepack_output(f1.original, y, 1000 * now.expand(1), film, text) for text in (positive, negative)
        )
        y = y + (other + cfg * (velocity - other)) * (after - now)
    assert difference(got, y / 0.476986) < 1e-4


def helios_forward(base: Converted, x: torch.Tensor, film: torch.Tensor, **changes: Any) -> torch.Tensor:
    memory, phi = base.memory(film, **changes)
    return base.forward(x, memory, phi, timestep=torch.full((1,), 600.0), context=random(4, 1, 11, TEXT["helios"]))


@pytest.mark.parametrize(("height", "width"), [(12, 20), (14, 10)])
@pytest.mark.parametrize("latents", [1, 12, 40])
def test_helios_gives_what_diffusers_gives(base: Converted, height: int, width: int, latents: int):
    x, film = random(1, 1, 16, SECTION, height, width), random(2, 1, 16, latents, height, width)
    wanted = helios_output(base.original, x, torch.full((1,), 600.0), film, random(4, 1, 11, TEXT["helios"]))
    assert difference(helios_forward(base, x, film), wanted) < 5e-5


@pytest.mark.parametrize(
    "left_out",
    [
        {"positions": "physical"},
        {"skips_text": False},
        {"history_timestep": "same"},
        {"anchor": False},
        {"fill": "repeat", "start": "nothing"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_part_of_helios_counts(base: Converted, left_out: dict[str, Any]):
    x, film = random(1, 1, 16, SECTION, 12, 20), random(2, 1, 16, 12, 12, 20)
    wanted = helios_output(base.original, x, torch.full((1,), 600.0), film, random(4, 1, 11, TEXT["helios"]))
    assert difference(helios_forward(base, x, film, **left_out), wanted) > SHOWS


@pytest.mark.parametrize("base", [True], indirect=True)
def test_factors_on_the_historys_keys_count(base: Converted):
    test_each_part_of_helios_counts(base, {"key_scale": ()})


def test_helios_begins_with_zeros_as_diffusers_does(base: Converted):
    x, zeros = random(1, 1, 16, SECTION, 12, 20), torch.zeros(1, 16, 1, 12, 20)
    memory, phi = base.memory(zeros)
    assert phi.recent is not None
    seen = of_nothing(phi.recent, zeros[:, :, :0])
    memory = replace(memory, tail=seen.tail, tail_coordinates=seen.tail_coordinates, state=seen.state, sections=())
    words = random(4, 1, 11, TEXT["helios"])
    got = base.forward(x, memory, phi, timestep=torch.full((1,), 600.0), context=words)
    assert difference(got, helios_output(base.original, x, torch.full((1,), 600.0), zeros, words)) < 5e-5


def test_a_memory_leaves_no_hook_behind(base: Converted):
    x, film = random(1, 1, 16, SECTION, 12, 20), random(2, 1, 16, 12, 12, 20)
    helios_forward(base, x, film)
    modules = base.patcher.model.diffusion_model.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_core_finds_its_own_keys_in_a_converted_file_and_no_others(f1: Converted, base: Converted):
    for one in (f1, base):
        with safe_open(str(one.model), framework="pt") as file:
            assert set(file.keys()) == set(one.patcher.model.diffusion_model.state_dict())


def test_no_key_of_the_original_is_left_over(f1: Converted, base: Converted):
    for one in (f1, base):
        size = 0
        for path in (one.model, one.encoder):
            with safe_open(str(path), framework="pt") as file:
                size += sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118 - not a dict
        assert size == sum(value.numel() for value in one.original.state_dict().values())


def test_the_licences_are_named(comfy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    converted(comfy, tmp_path, "framepack_f1", framepack(num_layers=1, num_single_layers=1))
    printed = capsys.readouterr().out
    assert "European Union, the United Kingdom and South Korea" in printed and "Check this" not in printed
    converted(comfy, tmp_path, "helios_base", helios(num_layers=1))
    assert "Apache License 2.0" in capsys.readouterr().out
