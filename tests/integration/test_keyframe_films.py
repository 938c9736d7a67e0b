"""Films with a memory of pictures on a tiny image-to-video model: what sections are given, and what a film can do."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.integration.models import TinyModels

from .worlds import World, make_world

PACK = "video_memory_keyframes_test"
CUTS = ("cut", "cut", "cut")


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


@pytest.fixture
def world(comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    return make_world(comfy, load_pack, PACK, tmp_path)


class Inputs:
    """A DIFFUSION_MODEL wrapper that keeps what reaches the model."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.seen.append(x.clone())
        return executor(x, *args, **kwargs)

    def on(self, patcher: Any) -> Any:
        patcher = patcher.clone()
        patcher.add_wrapper_with_key("diffusion_model", "inputs", self)
        return patcher


def shots(world: World, transitions: tuple[str, ...]) -> Any:
    entries = [
        {"start": i / 2, "end": (i + 1) / 2, "prompt": f"shot {i}", "transition": transition}
        for i, transition in enumerate(transitions)
    ]
    return world.call("VideoMemoryStoryboard", world.clip, json.dumps({"version": 1, "shots": entries}), 16.0, 0.5)[0]


def faces(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 48, 64, 3, generator=torch.Generator().manual_seed(seed))


def encoder(world: World, model: Any, **settings: Any) -> Any:
    return world.call("VideoMemoryEncoderNew", model, "4x4x2", "keyframes", "frame", False, 0, **settings)[0]


def test_pictures_that_could_not_be_compared_are_refused_before_anything_is_made(
    world: World, models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match="OpenCV, which is missing; install one, for example opencv-python-headless"):
        encoder(world, models["wan22_i2v"].patcher)


def film(world: World, model: Any, name: str, transitions: tuple[str, ...] = CUTS, **changes: Any) -> Any:
    """LATENT, memory and report of a film of half-second shots on both experts."""
    settings = {key: changes.pop(key) for key in ("max_pictures", "repeated_frames", "picture_step") if key in changes}
    values = {
        "model": model, "model_low_noise": model, "boundary": 0.6, "cfg": 1.0, "references": faces(),
        "memory_encoder": encoder(world, model, **settings), "storyboard": shots(world, transitions),
    }  # fmt: skip
    return world.film(name, "a", **values | changes)


def test_every_section_is_a_clip_with_the_pictures_in_front(world: World, models: TinyModels) -> None:
    inputs = Inputs()
    latent, memory, report = film(world, inputs.on(models["wan22_i2v"].patcher), "first", ("cut", "cut", "continue"))
    sections = latent["video_memory"]["sections"]
    assert sections == [3, 3, 3] and memory.frames == 9 + 9 + 8
    lead = [x.shape[2] - 3 for x in inputs.seen]
    assert lead[:2] == [2, 2] and lead == sorted(lead) and max(lead) <= 8
    for x, pictures, given in zip(inputs.seen, lead, (0, 0, 0, 0, 1, 1), strict=True):
        known = x[0, 16:20].flatten(2).mean(-1)
        assert known.tolist() == [[1.0] * (pictures + given) + [0.0] * (3 - given)] * 4
    assert "3 sections, 0 reused, 26 frames (1.62 s)" in report
    whole = world.call("VideoMemorySaveFilm", world.inputs["vae"], "kept", 0.0, 23.0, False, latent=latent)
    assert "26 frames" in whole[1]


@pytest.mark.parametrize("way", ["redo", "lock", "branch", "resume"])
def test_a_film_can_be_changed_like_any_other(world: World, models: TinyModels, way: str) -> None:
    model = models["wan22_i2v"].patcher
    first, memory, _ = film(world, model, "first")
    parts, _ = first["samples"].split(3, dim=2), world.vae_calls()
    again, same, _ = film(world, model, "first")
    assert world.vae_calls() == 0 and torch.equal(again["samples"], first["samples"])
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(same.pictures, memory.pictures, strict=True))
    if way == "redo":
        again, _, report = film(world, model, "first", redo='{"2": 1}')
        assert "3 sections, 1 reused" in report and torch.equal(again["samples"][:, :, :3], parts[0])
        assert not torch.equal(again["samples"][:, :, 3:6], parts[1])
        assert not torch.equal(again["samples"][:, :, 6:], parts[2])  # which saw pictures of it
    elif way == "lock":
        again, _, report = film(world, model, "first", redo='{"1": 1}', locks="2-3")
        assert torch.equal(again["samples"][:, :, 3:], first["samples"][:, :, 3:]) and report.count("locked") == 2
    elif way == "branch":
        again, branched, _ = film(
            world, model, "second", ("cut",), branch_film="first", branch_section=2, references=faces()
        )
        assert torch.equal(again["samples"][:, :, :6], first["samples"][:, :, :6])
        assert [p.frame for p in branched.pictures][:5] == [p.frame for p in memory.pictures][:5]
    else:
        for path in (world.out / "video_memory" / "first").glob("section_0002_*.safetensors"):
            path.unlink()  # as after a process that was killed
        again, _, report = film(world, model, "first")
        assert "3 sections, 2 reused" in report and torch.equal(again["samples"], first["samples"])


def test_pins_and_bans_change_the_sections_that_see_others_and_only_those(world: World, models: TinyModels) -> None:
    inputs = Inputs()
    model = models["wan22_i2v"].patcher
    first, memory, _ = film(world, model, "first")
    seen = [clip.pictures[0].frame for clip in memory.clips if clip.record.seed is not None]
    banned = f"2:{seen[1]}"
    again, _, report = film(world, inputs.on(model), "first", pictures=f"-{banned}")
    assert "3 sections, 2 reused" in report and len(inputs.seen) == 2
    assert torch.equal(again["samples"][:, :, :6], first["samples"][:, :, :6])
    assert not torch.equal(again["samples"][:, :, 6:], first["samples"][:, :, 6:])
    _, pinned, report = film(world, model, "first", pictures="1:4")
    assert "3 sections, 1 reused" in report
    assert 4 in [picture.frame for picture in pinned.pictures if picture.section == 1]
    assert "3 sections, 3 reused" in film(world, model, "first", pictures="0:1, 0:2")[2]  # they stay anyway


def test_a_memory_is_saved_loaded_cut_joined_and_goes_on(world: World, models: TinyModels) -> None:
    model = models["wan22_i2v"].patcher
    _, memory, _ = film(world, model, "first")
    world.call("VideoMemorySave", memory, "people")
    loaded = world.call("VideoMemoryLoad", "people_00001.safetensors")[0]
    shorter, report = world.call("VideoMemoryCut", loaded, 2)
    assert report.splitlines()[-1].startswith("6 latents")
    _, until, _ = film(world, model, "short", ("cut", "cut"))
    assert str(shorter.contents()) == str(until.contents())
    following, after, _ = film(world, model, "next", ("continue",), memory=shorter, references=None)
    assert following["samples"].shape[2] == 3 and after.latents == 9
    joined = world.call("VideoMemoryJoin", shorter, after)[0]
    assert joined.latents == 15


def test_a_clip_of_a_text_to_video_model_opens_a_film(world: World, models: TinyModels) -> None:
    made = world.film("t2v", "a")[0]
    latent, memory, report = film(
        world, models["wan22_i2v"].patcher, "on", ("continue", "cut"), history=made, references=None
    )
    assert torch.equal(latent["samples"][:, :, :3], made["samples"]) and "the first shot goes on" in report
    saved = world.call("VideoMemorySaveFilm", world.inputs["vae"], "on", 0.0, 23.0, False, latent=latent)[1]
    assert f"{memory.frames} frames" in saved and memory.frames == 9 + 8 + 9


def test_a_start_image_is_the_first_frame(world: World, models: TinyModels) -> None:
    inputs = Inputs()
    start = faces(1, 4)
    latent, memory, _ = film(
        world, inputs.on(models["wan22_i2v"].patcher), "start", ("cut",), start_image=start, references=None
    )
    x = inputs.seen[0]
    assert x[0, 16:20, :, 0, 0].tolist() == [[1.0, 1.0, 0.0, 0.0]] * 4
    with torch.inference_mode():
        seen = world.inputs["vae"].encode(torch.cat([start, torch.full((8, 48, 64, 3), 0.5)]))
    wanted = models["wan22_i2v"].patcher.get_model_object("latent_format").process_in(seen)
    assert torch.equal(x[:, 20:, 1:].float(), wanted.float())
    assert memory.frames == 1 + 8 and latent["video_memory"]["sections"] == [1, 3]


def test_nothing_to_begin_with_is_refused_with_the_ways(world: World, models: TinyModels) -> None:
    with pytest.raises(ValueError, match=r"section 1: .*references.*start_image.*history.*memory"):
        film(world, models["wan22_i2v"].patcher, "none", references=None)


def test_what_is_about_tokens_is_refused(world: World, models: TinyModels) -> None:
    model = models["wan22_i2v"].patcher
    _, memory, _ = film(world, model, "first", ("cut",))
    defaults = {"strength": 1.0, "history_timestep": "zero", "sliding_window": 3, "attention_mode": "auto"}
    with pytest.raises(ValueError, match="Apply Video Memory works with memory tokens"):
        world.call("VideoMemoryApply", model, memory, **defaults)
    with pytest.raises(ValueError, match="Retrieve Frames works with memory tokens"):
        world.call("VideoMemoryRetrieve", model, memory, "0", world.inputs["sampler"], torch.ones(2), 0)
    with pytest.raises(ValueError, match="Combine Memory Encoders works with memory tokens"):
        world.call("VideoMemoryEncoderCombine", encoder(world, model), encoder(world, model))
    for name, value in (("strength", 0.5), ("sliding_window", 2), ("attention_mode", "cached"),
                        ("history_guidance", 1.0), ("low_noise_memory", False)):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} {value}: it is about memory tokens"):
            film(world, model, "first", ("cut",), **{name: value})
    windows = model.clone()
    windows.model_options["context_handler"] = object()
    with pytest.raises(ValueError, match=r"^model has context windows"):
        film(world, windows, "first", ("cut",))
    with pytest.raises(ValueError, match="model_low_noise has context windows"):
        film(world, model, "first", ("cut",), model_low_noise=windows)
    with pytest.raises(ValueError, match="needs an image-to-video model"):
        encoder(world, world.inputs["model"])
    for name, value in (("references", faces()), ("pictures", "1:0")):
        with pytest.raises(ValueError, match=f"{name}: a memory of variant proposed holds"):
            world.film("tokens", "a", **{name: value})
    with pytest.raises(ValueError, match="memory was made by another encoder"):  # before anything is sampled
        film(world, model, "other", memory=world.film("tokens", "a")[1])
    for text, message in (("9:1", "film has 3"), ("1:9", "frames 0 to 8"), ("0:3", "there are 2 pictures"),
                          ("a", "is no picture"), ("1:1, -1:1", "pinned and banned")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            film(world, model, "first", pictures=text)


def test_an_encoder_is_a_small_file_without_tensors(world: World, models: TinyModels, comfy: Any) -> None:
    model = models["wan22_i2v"].patcher
    made = encoder(world, model, max_pictures=5, repeated_frames=5)
    folder = Path(comfy.folder_paths.models_dir) / "memory_encoders"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({}, str(folder / "storymem.safetensors"), made.config.to_metadata())
    _, loaded = world.call("VideoMemoryEncoderLoader", model, "storymem.safetensors", "none", 1.0)
    assert loaded.config == made.config and loaded.identity == made.identity
    one, two = (film(world, model, "same", ("cut", "continue"), memory_encoder=e)[0]["samples"] for e in (made, loaded))
    assert torch.equal(one, two) and one.shape[2] == 3 + 4


def test_clip_vision_tells_pictures_apart_when_it_is_connected(world: World, models: TinyModels) -> None:
    class Vision:
        def encode_image(self, image: Tensor) -> dict[str, Tensor]:
            return {"image_embeds": torch.ones(len(image), 4)}  # all alike

    _, memory, _ = film(world, models["wan22_i2v"].patcher, "alike", clip_vision=Vision())
    assert len(memory.pictures) == 2  # the references


def test_clip_vision_sees_whole_pictures(world: World, models: TinyModels) -> None:
    """Core cuts the middle square out of what is shown to it; StoryMem's choice sees all of a wide picture."""
    seen: list[Tensor] = []

    class Vision:
        image_size = 32

        def encode_image(self, image: Tensor) -> dict[str, Tensor]:
            seen.append(image)
            return {"image_embeds": torch.ones(len(image), 4)}

    wide = torch.zeros(1, 48, 64, 3)
    wide[:, :, :4] = 1  # left of the middle square
    film(world, models["wan22_i2v"].patcher, "wide", ("cut",), clip_vision=Vision(), references=wide)
    assert all(image.shape[1:] == (32, 32, 3) for image in seen)
    assert any(image[..., 0, :].min() > 0.9 for one in seen for image in one)


def test_clip_vision_without_a_vector_of_a_picture_is_refused_before_anything_is_made(
    world: World, models: TinyModels, comfy: Any, tmp_path: Path
) -> None:
    """SigLIP, as FramePack needs it: one vector for each patch."""
    config = {
        "num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 32, "image_size": 28, "patch_size": 14,
        "intermediate_size": 32, "model_type": "siglip_vision_model", "num_attention_heads": 2, "num_hidden_layers": 1,
    }  # fmt: skip
    siglip = comfy.module("comfy.clip_vision").ClipVisionModel(config)
    with pytest.raises(ValueError, match=r"clip_vision: a SigLIP model .* load a CLIP model"):
        film(world, models["wan22_i2v"].patcher, "refused", clip_vision=siglip)
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_film_of_pictures_without_a_lora_says_so(world: World, models: TinyModels) -> None:
    plain = models["wan22_i2v"].patcher
    lora = plain.clone()
    assert lora.add_patches({"diffusion_model.blocks.0.self_attn.q.weight": (torch.zeros(128, 128),)})
    said = "no LoRA is loaded into "
    assert f"{said}model and model_low_noise: " in film(world, plain, "plain", ("cut",))[2]
    assert f"{said}model_low_noise: " in film(world, lora, "one", ("cut",), model_low_noise=plain)[2]
    assert said not in film(world, lora, "both", ("cut",))[2]


def test_a_lora_of_which_nothing_fits_is_refused(world: World, models: TinyModels, comfy: Any) -> None:
    """StoryMem's own file before `convert`: core would log each weight and go on without the LoRA."""
    model = models["wan22_i2v"].patcher
    places = {name: Path(comfy.folder_paths.models_dir) / name for name in ("memory_encoders", "loras")}
    for folder in places.values():
        folder.mkdir(parents=True, exist_ok=True)
    save_file({}, str(places["memory_encoders"] / "m.safetensors"), encoder(world, model).config.to_metadata())
    pair = {"lora_A.weight": torch.randn(4, 128), "lora_B.weight": torch.randn(128, 4)}
    for prefix in ("base_model.model", "diffusion_model"):
        named = {f"{prefix}.blocks.0.self_attn.q.{name}": value for name, value in pair.items()}
        save_file(named, str(places["loras"] / f"{prefix}.safetensors"))
    load = ("VideoMemoryEncoderLoader", model, "m.safetensors")
    with pytest.raises(ValueError, match=r"lora_name: none of the 2 weights of base_model\.model\.safetensors fits"):
        world.call(*load, "base_model.model.safetensors", 1.0)
    patched, _ = world.call(*load, "diffusion_model.safetensors", 1.0)
    assert len(patched.patches) == 1


def test_compress_history_makes_a_memory_of_pictures(world: World, models: TinyModels) -> None:
    model = models["wan22_i2v"].patcher
    clip = {"samples": torch.randn(1, 16, 3, 6, 8, generator=torch.Generator().manual_seed(1))}
    memory, tokens = world.call("VideoMemoryCompress", encoder(world, model), model, world.inputs["vae"], clip)
    assert memory.frames == 9 and tokens == 12 * len(memory.pictures) > 0


def test_the_page_is_told_which_pictures_are_kept(
    world: World, models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    film_events, routes = (importlib.import_module(f"{PACK}.nodes.{name}") for name in ("film_events", "routes"))
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(film_events, "send", lambda event, data: sent.append(data))
    _, memory, _ = film(world, models["wan22_i2v"].patcher, "shown", pictures="1:4, -0:2")
    lists = [data["pictures"] for data in sent if data["state"] == "pictures"]
    assert len(lists) == 4 and [picture["id"] for picture in lists[0]] == ["0:1", "0:2"]
    last = {picture["id"]: picture for picture in lists[-1]}
    assert len(last) == len(memory.pictures) and all(p["image"].startswith("data:image/webp") for p in last.values())
    assert last["0:2"]["banned"] and not last["0:2"]["kept"] and last["0:2"]["section"] == -1
    assert last["1:4"] | {"image": ""} == {
        "id": "1:4", "section": 0, "frame": 4, "kept": True, "pinned": True, "banned": False, "image": ""
    }  # fmt: skip
    state = routes.film_state("shown")
    assert state["pictures"] == lists[-1]
    assert [section["pictures"] for section in state["sections"]] == [
        [picture["id"] for picture in pictures if picture["kept"]] for pictures in lists[:3]
    ]
    world.film("tokens", "a")
    assert "pictures" not in routes.film_state("tokens")


def test_more_pins_than_there_are_places_are_refused_before_anything_is_made(
    world: World, models: TinyModels, tmp_path: Path
) -> None:
    """References that are neither pinned nor banned keep their places beside the pins."""
    pins = "1:0, 1:4, 2:0, 2:4, 3:0"
    with pytest.raises(ValueError, match="5 are pinned beside 2 references, and this memory keeps 6; unpin some"):
        film(world, models["wan22_i2v"].patcher, "pinned", pictures=pins, max_pictures=6)
    assert not list(tmp_path.rglob("manifest.json"))


def test_pins_do_not_change_what_an_opening_gave(world: World, models: TinyModels) -> None:
    """Else 0:N would be another picture as soon as one of them is pinned."""
    model = models["wan22_i2v"].patcher
    film(world, model, "first")
    kept = []
    for pictures in ("", "0:3", "-0:3"):
        _, memory, _ = film(world, model, "second", ("cut",), branch_film="first", branch_section=2, pictures=pictures)
        kept.append([(one.section, one.frame, one.number) for one in memory.pictures if one.section < 3])
    assert kept[0] == kept[1] == kept[2] and len(kept[0]) > 3


def test_a_cast_alone_is_of_the_size_that_it_was_given_in(world: World, models: TinyModels) -> None:
    model = models["wan22_i2v"].patcher
    _, memory, _ = film(world, model, "first", ("cut",))
    (cast,) = world.call("VideoMemoryCut", memory, 0)[:1]
    assert not cast.latents and cast.pictures
    with pytest.raises(ValueError, match="memory has latents of 8x6, but width and height give 12x6"):
        film(world, model, "wide", memory=cast, references=None, width=96)


@pytest.mark.parametrize("seen", [None, faces(seed=1)])
def test_a_branch_has_the_references_of_its_film(world: World, models: TinyModels, seen: Tensor | None) -> None:
    """Without them its people would drift, and nobody would know why."""
    model = models["wan22_i2v"].patcher
    film(world, model, "first", ("cut",))
    with pytest.raises(ValueError, match="other references; connect the memory that it continues, and its references"):
        film(world, model, "second", ("cut",), branch_film="first", branch_section=1, references=seen)
