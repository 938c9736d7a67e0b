"""Films that go on: of what is finished nothing is decoded, encoded or compressed again, for whichever memory."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.resume import RESULTS
from demo.tiny_family.make_host import HostConfig, make_host
from memory_encoder.files import write_bytes

from .worlds import World, make_world

PACK = "video_memory_resume_test"
SHOTS = ("a", "b", "c", "d")
RECORD = os.environ.get("VIDEO_MEMORY_RESUMED")  # where benchmarks/resume.py wants the counts


@pytest.fixture
def world(comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two encoders, one with cross-attention, and a second expert with a first projection of its own."""
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    world = make_world(comfy, load_pack, PACK, tmp_path)
    config = HostConfig(dim=128, layers=2, ffn_dim=256)
    weights = make_host(config)
    weights["patch_embedding.weight"] = 1.5 * weights["patch_embedding.weight"]
    with torch.inference_mode():
        low = comfy.module("comfy.sd").load_diffusion_model_state_dict(weights, {}, config.metadata())
    model = world.inputs["model"]
    detail = world.call("VideoMemoryEncoderNew", model, "2x2x2", "proposed", "causal", True, 0)[0]
    wide = world.call("VideoMemoryEncoderNew", model, "4x4x4", "proposed", "frame", False, 1)[0]
    both = world.call("VideoMemoryEncoderCombine", detail, wide)[0]
    world.inputs |= {"memory_encoder": both, "model_low_noise": low, "boundary": 0.6, "start_image": picture()}
    return world


def picture() -> torch.Tensor:
    return torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(0))


def tensors(memory: Any) -> list[torch.Tensor]:
    found = [part._to_tensors()[0] for part in memory.parts]
    return [one[name] for one in found for name in sorted(one)]


def assert_equal(one: Any, other: Any) -> None:
    """LATENT and memory of two films, to the bit."""
    assert torch.equal(one[0]["samples"], other[0]["samples"])
    assert one[1].sections == other[1].sections
    assert all(torch.equal(a, b) for a, b in zip(tensors(one[1]), tensors(other[1]), strict=True))


def counted(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, int]]:
    """A film, and FLOPs of the run: all, and those of its sampling."""
    sampling = importlib.import_module(f"{PACK}.nodes.runtime.sampling")
    sample, sampled = sampling.sample, []

    def watched(*args: Any, **values: Any) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = sample(*args, **values)
        sampled.append(counter.get_total_flops())
        return result

    with monkeypatch.context() as patch, FlopCounterMode(display=False) as counter:
        patch.setattr(sampling, "sample", watched)
        film = world.film("kept", *SHOTS)
    return film, {"all": counter.get_total_flops(), "sampling": sum(sampled)}


def test_a_finished_film_costs_nothing_and_a_redone_section_only_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, of_first = counted(world, monkeypatch)
    assert world.vae_calls() > 4 * 3
    again, of_second = counted(world, monkeypatch)
    assert_equal(again, first)
    assert world.vae_calls() == 0
    ratio = of_second["all"] / of_first["sampling"]
    found = {"sections": len(SHOTS), "first": of_first, "second": of_second, "ratio": ratio}
    if RECORD is not None:
        write_bytes(Path(RECORD), (json.dumps(found, indent=1) + "\n").encode())
    assert 0 < of_first["sampling"] < of_first["all"] and ratio <= 0.02
    recorded = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert of_first == pytest.approx(recorded["first"], rel=0.05) and of_second == recorded["second"]

    redone = world.film("kept", *SHOTS, redo='{"4": 1}')
    few = world.vae_calls()
    computed = world.film("computed", *SHOTS, redo='{"4": 1}', kept_states=0.0)
    assert_equal(redone, computed)
    every = world.vae_calls()
    assert few * 4 <= every and not (world.out / "video_memory" / "computed" / "memory").exists()

    locked = world.film("kept", *SHOTS, redo='{"1": 2}', locks="1-4")  # all stays as it is
    assert_equal(locked, redone)
    assert world.vae_calls() == 0


def test_a_film_of_before_and_one_whose_states_were_deleted_go_on(world: World) -> None:
    first = world.film("kept", *SHOTS[:2], kept_states=0.0)
    whole = world.vae_calls()
    assert_equal(world.film("kept", *SHOTS[:2]), first)
    assert 0 < world.vae_calls() <= whole
    for path in (world.out / "video_memory" / "kept" / "memory").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    assert_equal(world.film("kept", *SHOTS[:2]), first)
    assert world.vae_calls() > 0
    assert_equal(world.film("kept", *SHOTS[:2]), first)
    assert world.vae_calls() == 0


def test_another_vae_or_encoder_makes_the_memory_anew(world: World) -> None:
    clip = {"history": {"samples": torch.randn(1, 16, 3, 6, 8)}, "start_image": None}
    world.film("kept", "a", **clip)
    prompt = world.nodes["VideoMemorySampler"].hidden.prompt
    wide = world.call("VideoMemoryEncoderNew", world.inputs["model"], "4x4x2", "proposed", "frame", False, 1)[0]
    for change in ({"memory_encoder": wide}, {}):
        world.vae_calls()
        world.film("kept", "a", **clip, **change)
        assert (world.vae_calls() > 0) == bool(change)
    prompt["1"]["inputs"]["vae"] = "another"
    world.film("kept", "a", **clip)
    assert world.vae_calls() > 0


def test_a_horizon_changes_only_films_that_outgrow_it_and_is_made_once(world: World) -> None:
    plain = world.film("plain", *SHOTS)
    far = world.film("far", *SHOTS, horizon=10_000)
    assert torch.equal(far[0]["samples"], plain[0]["samples"])
    near = world.film("near", *SHOTS, horizon=16)
    assert not torch.equal(near[0]["samples"], plain[0]["samples"])
    first = plain[0]["samples"].shape[2] // len(SHOTS)
    assert torch.equal(near[0]["samples"][:, :, :first], plain[0]["samples"][:, :, :first])
    again = world.film("near", *SHOTS, horizon=16)
    assert f"{len(SHOTS)} reused" in again[2]
    assert_equal(again, near)
