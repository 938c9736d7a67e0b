"""Whole films as FramePack-F1 and Helios make them, on tiny models with random weights: what a user does with one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import pytest
import torch
from torch import Tensor

from tests.integration.models import TinyModels, trained_encoder

from .worlds import World, make_world

PACK = "video_memory_trained_films_test"
SIZE = {"width": 64, "height": 48}
KINDS = {"framepack": "hunyuan", "helios": "wan_t2v"}
SECTION, VISION = 9, 8
FRAMES = {"framepack": 36, "helios": 33}


class Vision:
    """CLIP vision whose tokens are made of the picture."""

    def __init__(self, comfy: Any, width: int = VISION) -> None:
        self.comfy, self.width, self.cropped = comfy, width, []

    def encode_image(self, image: Tensor, crop: bool = True) -> Any:
        self.cropped.append(crop)
        output = self.comfy.module("comfy.clip_vision").Output()
        small = torch.nn.functional.interpolate(image.movedim(-1, 1), (4, self.width), mode="bilinear")
        output.last_hidden_state = small[0].flatten(0, 1)[None]
        return output


class Pooled:
    """The demo's text encoder with the pooled text that HunyuanVideo wants."""

    def __init__(self, clip: Any) -> None:
        self.clip = clip

    def tokenize(self, text: str, **options: Any) -> Any:
        return self.clip.tokenize(text, **options)

    def encode_from_tokens_scheduled(self, tokens: Any, **options: Any) -> Any:
        found = self.clip.encode_from_tokens_scheduled(tokens, **options)
        return [[words, {**extra, "pooled_output": torch.zeros(1, 768)}] for words, extra in found]


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def world(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str,
    models: TinyModels,
) -> World:  # fmt: skip
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    world = make_world(comfy, load_pack, PACK, tmp_path)
    world.clip = Pooled(world.clip)
    model = models[KINDS[kind]]
    file = comfy.base / "models" / "memory_encoders" / f"{kind}.safetensors"
    trained_encoder(model.host, file)
    patcher, encoder = world.call("VideoMemoryEncoderLoader", model.patcher, file.name, "none", 1.0)
    world.inputs |= {
        "model": patcher, "memory_encoder": encoder, "cfg": 1.0, "clip_vision": Vision(comfy),
        "negative": world.clip.encode_from_tokens_scheduled(world.clip.tokenize("")),
    }  # fmt: skip
    return world


def shots(world: World, count: int, transition: str = "continue", first: int = 0) -> Any:
    """Shots of one section each, with seeds of their own."""
    seconds = 2.25
    entries = [
        {"start": i * seconds, "end": (i + 1) * seconds, "prompt": f"shot {first + i}", "transition": transition,
         "seed": first + i}
        for i in range(count)
    ]  # fmt: skip
    text = json.dumps({"version": 1, "shots": entries})
    return world.call("VideoMemoryStoryboard", world.clip, text, 16.0, 2.0)[0]


def picture(value: float = 0.7) -> Tensor:
    ramp = torch.linspace(0, value, 64)[None, None, :, None]
    return ramp.expand(1, 48, 64, 3).contiguous()


def film(world: World, name: str = "film", count: int = 3, start: bool = True, **changes: Any) -> tuple[Any, Any, str]:
    beginning = {"start_image": picture()} if start else {}
    storyboard = changes.pop("storyboard", None) or shots(world, count)
    values = world.inputs | SIZE | {"film": name, "storyboard": storyboard} | beginning | changes
    return world.call("VideoMemorySampler", **values)


def test_a_film_goes_on_from_its_picture_section_by_section(world: World, kind: str):
    latent, memory, report = film(world)
    assert latent["samples"].shape == (1, 16, 1 + 3 * SECTION, 6, 8) and latent["samples"].isfinite().all()
    assert memory.latents == 1 + 3 * SECTION and memory.token_count == memory.tail.shape[1]
    whole, half, quarter = 3 * 4, 2 * 2, 1
    assert memory.token_count == 2 * whole + half + 4 * quarter
    assert f"3 sections, 0 reused, {1 + 3 * FRAMES[kind]} frames" in report
    timestep = "same" if kind == "framepack" else "zero"
    assert f"history_timestep {timestep}, sliding_window 0, attention_mode joint, sections of 9 latents" in report
    assert (memory.picture is not None) == (kind == "framepack")


def test_what_comes_before_a_section_changes_it(world: World):
    plain = film(world, "a")[0]["samples"]
    other = film(world, "b", start_image=picture(0.2))[0]["samples"]
    assert not torch.equal(plain[:, :, 1 : 1 + SECTION], other[:, :, 1 : 1 + SECTION])


@pytest.mark.parametrize("kind", ["framepack"], indirect=True)
def test_the_start_image_is_shown_by_clip_vision_uncropped(comfy: Any, world: World):
    vision = Vision(comfy)
    plain = film(world, "a", 1, clip_vision=vision)[0]["samples"]
    assert vision.cropped == [False]

    class Other(Vision):
        def encode_image(self, image: Tensor, crop: bool = True) -> Any:
            return super().encode_image(1 - image, crop)

    assert not torch.equal(film(world, "b", 1, clip_vision=Other(comfy))[0]["samples"], plain)


@pytest.mark.parametrize("kind", ["framepack"], indirect=True)
def test_framepack_asks_for_what_it_begins_with(comfy: Any, world: World):
    with pytest.raises(ValueError, match="connect start_image, or a clip as history"):
        film(world, start=False)
    with pytest.raises(ValueError, match="connect clip_vision"):
        film(world, clip_vision=None)
    with pytest.raises(ValueError, match="tokens of width 12, the model was trained with 8"):
        film(world, clip_vision=Vision(comfy, 12))


@pytest.mark.parametrize("kind", ["helios"], indirect=True)
def test_helios_begins_with_nothing_and_then_sees_the_first_latent_that_it_made(world: World):
    latent, memory, report = film(world, count=2, start=False)
    assert latent["samples"].shape[2] == 2 * SECTION and f"{2 * 33} frames" in report
    made = world.inputs["model"].get_model_object("latent_format").process_in(latent["samples"][:, :, :1])
    torch.testing.assert_close(memory.state.caches[1], made)


@pytest.mark.parametrize("kind", ["helios"], indirect=True)
def test_helios_sees_a_picture_with_a_little_noise_and_as_the_end_of_a_still(world: World):
    """As its authors' pipeline: the picture's latent is the anchor, the last latent of 33 such frames the newest."""
    _, memory, _ = film(world, count=1)
    inputs, made = world.inputs, memory.state.caches
    process_in = inputs["model"].get_model_object("latent_format").process_in

    def noisy(latent: Tensor, seed: int) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        amount = 0.111 + (0.135 - 0.111) * torch.rand(1, 1, 1, generator=g)
        return amount * torch.randn(latent.shape, generator=g) + (1 - amount) * latent

    with torch.inference_mode():
        anchor, still = (process_in(inputs["vae"].encode(picture().repeat(n, 1, 1, 1)))[:, :, -1:] for n in (1, 33))
    torch.testing.assert_close(made[1], noisy(anchor, 0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made[0][:, :, :1], noisy(still, 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sliding_window": 2}, "sliding_window 2"),
        ({"attention_mode": "cached"}, "attention_mode cached"),
        ({"strength": 0.5}, "strength 0.5"),
        ({"history_guidance": 1.5}, "history_guidance 1.5"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_the_model_was_not_trained_for_is_refused(world: World, changes: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=f"{named}: the model of this memory encoder was trained"):
        film(world, **changes)


@pytest.mark.parametrize("kind", ["helios"], indirect=True)
def test_another_timestep_of_the_history_is_refused(world: World):
    with pytest.raises(ValueError, match="history_timestep same: the model"):
        film(world, history_timestep="same")


@pytest.mark.parametrize("transition", ["continue", "cut"])
def test_a_finished_film_is_reused_and_one_section_made_again(world: World, transition: str):
    board = shots(world, 3, transition)
    made, memory, _ = film(world, storyboard=board)
    first, _, seen = made["samples"], world.vae_calls(), len(world.inputs["clip_vision"].cropped)
    again, remembered, report = film(world, storyboard=board)
    assert "3 sections, 3 reused" in report and torch.equal(again["samples"], first)
    assert world.vae_calls() == 0 and len(world.inputs["clip_vision"].cropped) == seen
    assert torch.equal(remembered.all_tokens(), memory.all_tokens())
    assert (memory.picture is None) or torch.equal(remembered.picture, memory.picture)
    redone, _, report = film(world, storyboard=board, redo='{"2": 1}')
    assert "3 sections, 1 reused" in report
    assert torch.equal(redone["samples"][:, :, : 1 + SECTION], first[:, :, : 1 + SECTION])
    assert not torch.equal(redone["samples"][:, :, 1 + SECTION :], first[:, :, 1 + SECTION :])


def test_a_locked_section_stays_and_the_next_goes_on_from_it(world: World):
    first = film(world)[0]["samples"]
    changed, _, report = film(world, locks="2", start_image=picture(0.1))
    kept = slice(1 + SECTION, 1 + 2 * SECTION)
    assert "locked" in report and torch.equal(changed["samples"][:, :, kept], first[:, :, kept])
    assert not torch.equal(changed["samples"][:, :, 1 : 1 + SECTION], first[:, :, 1 : 1 + SECTION])


def test_a_branch_goes_on_as_the_film_did_to_the_bit(world: World):
    whole, memory, _ = film(world, "whole")
    board = shots(world, 1, first=2)
    branch, other, _ = film(world, "branch", start=False, storyboard=board, branch_film="whole", branch_section=2)
    assert torch.equal(branch["samples"], whole["samples"])
    assert torch.equal(other.all_tokens(), memory.all_tokens())


@pytest.mark.parametrize("kind", ["helios"], indirect=True)
def test_a_branch_of_a_film_of_text_alone_has_the_first_latent_that_the_film_had(world: World):
    """What the model made itself was seen clean, and is so again."""
    whole, memory, _ = film(world, "whole", start=False)
    board = shots(world, 1, first=2)
    branch, other, _ = film(world, "branch", start=False, storyboard=board, branch_film="whole", branch_section=2)
    assert torch.equal(branch["samples"], whole["samples"])
    assert torch.equal(other.all_tokens(), memory.all_tokens())


def test_a_film_that_was_stopped_goes_on_to_the_bit(world: World):
    class Stopped(Exception):
        pass

    whole = film(world, "whole")[0]["samples"]
    calls = 0

    def stop(executor: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise Stopped
        return executor(*args, **kwargs)

    model = world.inputs["model"].clone()
    model.add_wrapper_with_key("diffusion_model", "stop", stop)
    with pytest.raises(Stopped):
        film(world, "stopped", model=model)
    latent, _, report = film(world, "stopped")
    assert "3 sections, 1 reused" in report and torch.equal(latent["samples"], whole)


def test_a_memory_is_saved_and_continued_and_cannot_be_cut_within(world: World, tmp_path: Path):
    _, memory, _ = film(world)
    memory.save(tmp_path / "memory.safetensors")
    read = type(memory).load(tmp_path / "memory.safetensors")
    for a, b in ((read.all_tokens(), memory.all_tokens()), (read.all_coordinates(), memory.all_coordinates())):
        assert torch.equal(a, b)
    board = shots(world, 1, first=3)
    changes = {"start": False, "storyboard": board, "clip_vision": None}  # the picture's tokens are in the memory
    first = film(world, "on", **changes, memory=memory)[0]["samples"]
    assert torch.equal(film(world, "read", **changes, memory=read)[0]["samples"], first)
    with pytest.raises(ValueError, match="cannot be cut there"):
        world.call("VideoMemoryCut", memory, 1)
    with pytest.raises(ValueError, match="cannot be joined"):
        world.call("VideoMemoryJoin", memory, read)
    with pytest.raises(ValueError, match="cannot be asked for frames"):
        inputs = world.inputs
        world.call("VideoMemoryRetrieve", inputs["model"], memory, "0", inputs["sampler"], inputs["sigmas"], 0)


def test_a_clip_is_continued(world: World, kind: str):
    history = {"samples": 0.3 * torch.randn(1, 16, 5, 6, 8, generator=torch.Generator().manual_seed(1))}
    latent, memory, _ = film(world, count=1, start=False, history=history)
    assert torch.equal(latent["samples"][:, :, :5], history["samples"]) and memory.latents == 5 + SECTION
    assert (memory.picture is not None) == (kind == "framepack")


def test_save_film_writes_as_many_frames_as_the_report_says(world: World, kind: str):
    latent, _, _ = film(world, count=2)
    values = {"latent": latent, "vae": world.inputs["vae"], "fps": 16.0, "filename_prefix": "film", "crf": 20.0}
    world.run("VideoMemorySaveFilm", **values, match_colours=False)
    with av.open(str(next(world.out.rglob("film*.mp4")))) as file:
        assert sum(1 for _ in file.decode(video=0)) == 1 + 2 * FRAMES[kind]


def test_an_encoder_that_was_trained_with_its_model_stands_alone(world: World):
    encoder = world.inputs["memory_encoder"]
    with pytest.raises(ValueError, match="second_encoder: one of the two was trained together with its model"):
        world.call("VideoMemoryEncoderCombine", encoder, encoder)
