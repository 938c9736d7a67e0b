"""The paper's enhancements through the nodes, on core's own classes: each is a setting, and off it changes nothing."""

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

from memory_encoder.memory.video_memory import VideoMemory

from .worlds import World, make_world

PACK = "video_memory_enhancements_test"


@pytest.fixture
def world(comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    return make_world(comfy, load_pack, PACK, tmp_path)


def encoder(world: World, rate: str = "2x2x2", cross: bool = False, attention: str = "joint", seed: int = 0) -> Any:
    model = world.inputs["model"]
    return world.call(
        "VideoMemoryEncoderNew", model, rate, "proposed", "frame", cross, seed, memory_attention=attention
    )[0]


def compressed(world: World, used: Any, *clips: torch.Tensor) -> VideoMemory:
    memory = None
    for clip in clips:
        memory = world.call(
            "VideoMemoryCompress", used, world.inputs["model"], world.inputs["vae"], {"samples": clip}, memory
        )[0]
    assert memory is not None
    return memory


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(1, 16, frames, 6, 8, generator=generator) for frames in (3, 2)]


def test_two_encoders_give_the_tokens_of_both(world: World, tmp_path: Path) -> None:
    fine, coarse = encoder(world), encoder(world, "4x4x2", seed=1)
    both = world.call("VideoMemoryEncoderCombine", fine, coarse)[0]
    memory = compressed(world, both, *clips())
    alone = [compressed(world, one, *clips()) for one in (fine, coarse)]
    assert memory.token_count == sum(one.token_count for one in alone) and memory.latents == 5
    assert torch.equal(memory.all_tokens(), torch.cat([one.all_tokens() for one in alone], dim=1))
    assert torch.equal(memory.all_coordinates(), torch.cat([one.all_coordinates() for one in alone]))
    memory.save(tmp_path / "both.safetensors")
    loaded = VideoMemory.load(tmp_path / "both.safetensors")
    assert len(loaded.parts) == 2 and torch.equal(loaded.all_tokens(), memory.all_tokens())
    again = compressed(world, both, *clips()[:1])
    appended = world.call(
        "VideoMemoryCompress", both, world.inputs["model"], world.inputs["vae"], {"samples": clips()[1]}, again
    )[0]
    assert torch.equal(appended.all_tokens(), memory.all_tokens())
    report, tokens = world.call("VideoMemoryBudget", both, 64, 48, 16.0, 1.0, 0.5)
    counts = [world.call("VideoMemoryBudget", one, 64, 48, 16.0, 1.0, 0.5)[1] for one in (fine, coarse)]
    assert tokens == sum(counts) and "2x2x2 + 4x4x2" in report


def test_a_film_with_two_encoders_sees_both(world: World) -> None:
    both = world.call("VideoMemoryEncoderCombine", encoder(world), encoder(world, "4x4x2", seed=1))[0]
    film, memory, _ = world.film("both", "a", "b", memory_encoder=both)
    one, _, _ = world.film("one", "a", "b")
    assert len(memory.parts) == 2
    assert torch.equal(film["samples"][:, :, :3], one["samples"][:, :, :3])
    assert not torch.allclose(film["samples"], one["samples"], atol=1e-4)


def test_another_number_of_encoders_cannot_continue_a_memory(world: World) -> None:
    memory = compressed(world, encoder(world), clips()[0])
    both = world.call("VideoMemoryEncoderCombine", encoder(world), encoder(world, "4x4x2"))[0]
    with pytest.raises(ValueError, match="made by 1 encoders, memory_encoder holds 2"):
        world.call(
            "VideoMemoryCompress", both, world.inputs["model"], world.inputs["vae"], {"samples": clips()[1]}, memory
        )


def test_the_sliding_window_is_for_shots_that_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = importlib.import_module(f"{PACK}.nodes.runtime.sampling")
    windows, plain = [], sampling.with_memory

    def watched(model: Any, memory: Any, settings: Any, *args: Any) -> Any:
        windows.append(settings.sliding_window)
        return plain(model, memory, settings, *args)

    monkeypatch.setattr(sampling, "with_memory", watched)
    shots = [
        {"start": 0, "end": 1, "prompt": "a"},
        {"start": 1, "end": 1.5, "prompt": "b", "transition": "continue"},
        {"start": 1.5, "end": 2, "prompt": "c", "transition": "cut"},
    ]
    story = world.call("VideoMemoryStoryboard", world.clip, json.dumps({"version": 1, "shots": shots}), 16.0, 0.5)[0]
    world.film("windows", "a", storyboard=story, sliding_window=2)
    assert windows == [0, 2, 2, 0]


def test_the_first_shot_goes_on_from_a_clip_unless_the_storyboard_says_that_it_is_a_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = importlib.import_module(f"{PACK}.nodes.runtime.sampling")
    windows, plain = [], sampling.with_memory

    def watched(model: Any, memory: Any, settings: Any, *args: Any) -> Any:
        windows.append(settings.sliding_window)
        return plain(model, memory, settings, *args)

    monkeypatch.setattr(sampling, "with_memory", watched)
    clip, said = clips()[0], '{"shots": [{"start": 0, "end": 0.5, "prompt": "a", "transition": "cut"}]}'
    _, memory, _ = world.film("before", "x")
    for number, (text, opening, window, told) in enumerate(
        (
            ("a | b", {"history": {"samples": clip[:1]}}, 2, "from which the first shot goes on"),
            ('{"shots": [{"start": 0, "end": 0.5, "prompt": "a"}]}', {"history": {"samples": clip[:1]}}, 2, "goes on"),
            (said, {"history": {"samples": clip[:1]}}, 0, "frames (0.56 s at 16 fps); a clip"),
            ("a | b", {"memory": memory}, 0, "of the film that it continues"),
        )
    ):
        windows.clear()
        story = world.call("VideoMemoryStoryboard", world.clip, text, 16.0, 0.5)[0]
        _, _, report = world.film(f"after {number}", "a", storyboard=story, sliding_window=2, **opening)
        assert windows[0] == window and windows[1:] in ([], [0]) and told in report


def test_an_untrained_cross_attention_changes_no_film(world: World) -> None:
    plain, _, _ = world.film("plain", "a", "b")
    film, memory, _ = world.film("cross", "a", "b", memory_encoder=encoder(world, cross=True))
    assert torch.equal(film["samples"], plain["samples"]) and memory.hidden is not None


def test_a_trained_cross_attention_reaches_the_film_and_survives_save_and_load(world: World, tmp_path: Path) -> None:
    used = encoder(world, cross=True)
    with torch.inference_mode():
        for block in used.model.cross.blocks:
            block.out.weight.copy_(torch.randn(block.out.weight.shape, generator=torch.Generator().manual_seed(1)))
    film, memory, _ = world.film("cross", "a", "b", memory_encoder=used)
    plain, _, _ = world.film("plain", "a", "b")
    assert not torch.allclose(film["samples"], plain["samples"], atol=1e-4)
    memory.save(tmp_path / "cross.safetensors")
    loaded = VideoMemory.load(tmp_path / "cross.safetensors")
    assert loaded.hidden is not None and torch.equal(loaded.hidden.whole(), memory.hidden.whole())
    apply = ("VideoMemoryApply", world.inputs["model"], loaded, 1.0, "zero", 0, "auto")
    with pytest.raises(ValueError, match="not attached to model"):
        world.call(*apply)
    patched = world.call(*apply, memory_encoder=used)[0]
    assert patched.get_additional_models()


def test_apply_bounds_what_the_model_sees_by_a_horizon(world: World) -> None:
    _, memory, _ = world.film("plain", "a", "b", "c")
    apply = ("VideoMemoryApply", world.inputs["model"], memory, 1.0, "zero", 0, "auto")

    def sampled(model: Any) -> torch.Tensor:
        sample = importlib.import_module("comfy.sample").sample_custom
        noise = torch.randn(1, 16, 2, 6, 8, generator=torch.Generator().manual_seed(0))
        negative = world.inputs["negative"]
        with torch.inference_mode():
            return sample(
                model, noise, 1.0, world.inputs["sampler"], world.inputs["sigmas"], negative, negative, noise * 0,
                seed=0,
            )  # fmt: skip

    whole = sampled(world.call(*apply)[0])
    assert torch.equal(sampled(world.call(*apply, horizon=memory.token_count)[0]), whole)
    assert not torch.equal(sampled(world.call(*apply, horizon=memory.token_count // 2)[0]), whole)


def test_cross_attention_to_another_number_of_blocks_is_refused(world: World) -> None:
    encoder_class = importlib.import_module(f"{PACK}.memory_encoder.phi.encoder").MemoryEncoder
    manage = importlib.import_module(f"{PACK}.nodes.runtime.managed").manage
    config = encoder(world, cross=True).config
    used = manage(encoder_class(replace(config, cross_blocks=config.cross_blocks + 1)))
    with pytest.raises(ValueError, match=r"cross-attention to 3 blocks .* but model has 2 blocks .* trained for it"):
        world.film("other host", "a", memory_encoder=used)


def test_a_cached_encoder_makes_a_film_and_joint_stays_joint(world: World) -> None:
    cached = encoder(world, attention="cached")
    film, _, _ = world.film("cached", "a", "b", memory_encoder=cached)
    forced, _, _ = world.film("forced", "a", "b", memory_encoder=cached, attention_mode="joint")
    plain, _, _ = world.film("plain", "a", "b")
    assert not torch.allclose(film["samples"], plain["samples"], atol=1e-4)
    assert torch.equal(forced["samples"], plain["samples"])
    with pytest.raises(ValueError, match="needs an encoder trained for it"):
        world.film("refused", "a", "b", attention_mode="cached")
    assert "Cached keys and values" in world.call("VideoMemoryBudget", wan(cached), 832, 480, 16.0, 20.0, 5.0)[0]


def wan(used: Any) -> Any:
    """The encoder as if it were made for the 1.3B model, whose blocks the budget knows."""
    from copy import copy
    from dataclasses import replace

    other = copy(used)
    other.config = replace(used.config, width=1536)
    return other


def test_history_guidance_is_a_setting_of_the_film(world: World) -> None:
    plain, _, _ = world.film("plain", "a", "b")
    none, _, report = world.film("plain", "a", "b", history_guidance=0.0)
    guided, _, _ = world.film("guided", "a", "b", history_guidance=2.0)
    assert torch.equal(plain["samples"], none["samples"]) and "2 reused" in report
    assert torch.equal(plain["samples"][:, :, :3], guided["samples"][:, :, :3])
    assert not torch.allclose(plain["samples"], guided["samples"], atol=1e-4)
