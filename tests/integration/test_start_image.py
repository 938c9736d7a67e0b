"""A film begins with a picture: image-to-video models are given it in their own way, others see it in their memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.pictures.codec import Codec
from memory_encoder.storyboard import Lattice
from tests.integration.models import TinyModels

from .worlds import World, make_world

PACK = "video_memory_start_image_test"
I2V = ["wan21_i2v", "wan22_i2v"]


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


@pytest.fixture
def world(comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    return make_world(comfy, load_pack, PACK, tmp_path)


def picture(value: float = 0.8) -> Tensor:
    return torch.full((1, 96, 160, 3), value)


def encode(world: World, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return world.inputs["vae"].encode(pixels)


def shots(world: World, transitions: tuple[str, ...]) -> Any:
    entries = [
        {"start": i / 2, "end": (i + 1) / 2, "prompt": f"shot {i}", "transition": transition}
        for i, transition in enumerate(transitions)
    ]
    return world.call("VideoMemoryStoryboard", world.clip, json.dumps({"version": 1, "shots": entries}), 16.0, 0.5)[0]


class Inputs:
    """A DIFFUSION_MODEL wrapper that keeps the last input of each section's length and mask."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.vision: list[bool] = []

    def __call__(self, executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.seen.append(x.clone())
        self.vision.append(
            any(isinstance(a, Tensor) and a.shape[-1] in (1152, 1280) for a in (*args, *kwargs.values()))
        )
        return executor(x, *args, **kwargs)

    def on(self, patcher: Any) -> Any:
        patcher = patcher.clone()
        patcher.add_wrapper_with_key("diffusion_model", "inputs", self)
        return patcher


def test_a_text_to_video_model_remembers_the_picture(world: World) -> None:
    film, memory, _ = world.film("t2v", "a", "b", start_image=picture())
    latents = film["samples"]
    lead = picture().movedim(-1, 1)[:, :, :, 16:144].movedim(1, -1)  # 96x128 of the middle
    small = torch.nn.functional.interpolate(lead.movedim(-1, 1), (48, 64), mode="bilinear").movedim(1, -1)
    torch.testing.assert_close(latents[:, :, :1], encode(world, small).float(), atol=1e-5, rtol=1e-4)
    assert latents.shape[2] == memory.latents == 1 + 4
    other, _, _ = world.film("dark", "a", "b", start_image=picture(0.1))
    assert not torch.allclose(other["samples"][:, :, 1:], latents[:, :, 1:], atol=1e-4)


@pytest.mark.parametrize("name", I2V)
def test_an_image_to_video_model_gets_the_picture_in_its_own_channels(
    world: World, models: TinyModels, name: str
) -> None:
    inputs = Inputs()
    model = inputs.on(models[name].patcher)
    encoder = world.call("VideoMemoryEncoderNew", model, "2x2x2", "proposed", "frame", False, 0)[0]
    changes = {"model": model, "memory_encoder": encoder, "cfg": 1.0, "start_image": picture()}
    changes["storyboard"] = shots(world, ("cut", "continue", "cut"))
    film, memory, _ = world.film("i2v", "a", **changes)
    assert film["samples"].shape[2] == memory.latents == 1 + 2 * 3
    lengths = [x.shape[2] for x in inputs.seen]
    assert lengths == [3, 3, 3, 3, 2, 2]  # two sections begin with a picture, after the second cut there is none
    for x in inputs.seen:
        known = x[0, 16:20].flatten(2).mean(-1)
        expected = [1.0] + [0.0] * (x.shape[2] - 1) if x.shape[2] == 3 else [0.0] * x.shape[2]
        assert known.tolist() == [expected] * 4
    first = encode(world, torch.cat([torch.full((1, 48, 64, 3), 0.8), torch.full((8, 48, 64, 3), 0.5)]))
    wanted = model.get_model_object("latent_format").process_in(first)
    torch.testing.assert_close(inputs.seen[0][:, 20:].float(), wanted.float(), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(inputs.seen[2][:, 20:, :1], inputs.seen[0][:, 20:, :1], atol=1e-3)


@pytest.mark.parametrize("name", I2V)
def test_frames_are_retrieved_without_the_start_image_that_the_prompt_brings(
    world: World, models: TinyModels, name: str
) -> None:
    model = models[name].patcher
    encoder = world.call("VideoMemoryEncoderNew", model, "2x2x2", "proposed", "frame", False, 0)[0]
    memory = world.film("i2v", "a", model=model, memory_encoder=encoder, cfg=1.0)[1]
    prompt = world.inputs["negative"]
    latent, keep = torch.ones(1, 16, 21, *memory.state.size), torch.zeros(1, 1, 21, *memory.state.size)
    started = [[text, extra | {"concat_latent_image": latent, "concat_mask": keep}] for text, extra in prompt]
    sampler, sigmas = world.inputs["sampler"], world.inputs["sigmas"]
    asked = (
        world.call("VideoMemoryRetrieve", model, memory, "0-4", sampler, sigmas, 1, positive=positive)[0]["samples"]
        for positive in (prompt, started)
    )
    assert torch.equal(*asked)


def test_clip_vision_sees_every_picture_that_is_given(world: World, models: TinyModels) -> None:
    class Vision:
        def __init__(self, comfy: Any) -> None:
            self.comfy, self.seen = comfy, []

        def encode_image(self, image: Tensor) -> Any:
            self.seen.append(image)
            output = self.comfy.module("comfy.clip_vision").Output()
            output.penultimate_hidden_states = torch.ones(1, 5, 1280)
            return output

    tiny, inputs = models["wan21_i2v"], Inputs()
    vision = Vision(tiny.comfy)
    model = inputs.on(tiny.patcher)
    encoder = world.call("VideoMemoryEncoderNew", model, "2x2x2", "proposed", "frame", False, 0)[0]
    story = shots(world, ("cut", "continue", "cut"))
    world.film(
        "seen",
        "a",
        model=model,
        memory_encoder=encoder,
        cfg=1.0,
        start_image=picture(),
        storyboard=story,
        clip_vision=vision,
    )
    assert [tuple(image.shape) for image in vision.seen] == [(1, 48, 64, 3)] * 2
    assert inputs.vision == [True] * 4 + [False] * 2


def test_wan_5b_keeps_the_picture_as_its_first_latent(world: World, models: TinyModels, load_pack: Any) -> None:
    import importlib

    lead = importlib.import_module(f"{PACK}.nodes.lead")
    tiny = models["wan_5b"]
    host = tiny.host

    class Vae:
        def encode(self, pixels: Tensor) -> Tensor:
            return pixels.mean() * torch.ones(1, 48, 1, 4, 6)

    codec = Codec(encode=lambda p: p, decode=lambda z: z, embed=host.embed, temporal=4, spatial=16)
    given = lead.lead_picture(host, codec, Vae(), torch.full((1, 64, 96, 3), 0.8), None)
    section = shots(world, ("cut",)).plan(Lattice(), 1)[0]
    memory = world.call("VideoMemoryEncoderNew", tiny.patcher, "2x2x2", "proposed", "frame", False, 0)[0].empty_memory(
        1
    )
    made = given.inputs(section, memory, torch.zeros(1, 48, 2, 4, 6), [], [])
    assert made.lead == 1 and made.latent.shape[2] == 3
    assert torch.allclose(made.latent[:, :, 0], torch.tensor(0.8)) and (made.latent[:, :, 1:] == 0).all()
    assert made.noise_mask.flatten(3).mean(-1).tolist() == [[[0.0, 1.0, 1.0]]]


def test_two_openings_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="start_image and history are two openings"):
        world.film("two", "a", start_image=picture(), history={"samples": torch.zeros(1, 16, 2, 6, 8)})
