"""Films with HunyuanVideo 1.5, whose checkpoints for text and for images have the same layers, and with older I2V."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection.hosts import HostError, find_host
from tests.integration.models import TinyModel, TinyModels, hunyuan15_patcher
from tests.integration.test_start_image import Inputs, shots
from tests.integration.worlds import World, make_world

PACK = "video_memory_hunyuan15_test"
TRANSITIONS = ("cut", "continue", "cut", "continue")


class Vae:
    """Shapes and causality of the VAE of 1.5: 32 channels, 16x16 pixels and 4 frames a latent."""

    latent_dim, latent_channels = 3, 32

    def encode(self, pixels: Tensor) -> Tensor:
        frames = pixels[..., :3].movedim(-1, 0)[None]
        small = torch.nn.functional.avg_pool3d(frames, (1, 16, 16))
        rest = small[:, :, 1:].unflatten(2, (-1, 4)).mean(3)
        return torch.cat([small[:, :, :1], rest], dim=2).repeat(1, 11, 1, 1, 1)[:, :32]

    def decode(self, latents: Tensor) -> Tensor:
        frames = torch.cat([latents[:, :3, :1], latents[:, :3, 1:].repeat_interleave(4, dim=2)], dim=2)
        return frames.repeat_interleave(16, dim=3).repeat_interleave(16, dim=4).movedim(1, -1).sigmoid()

    def temporal_compression_decode(self) -> int:
        return 4

    def spacial_compression_encode(self) -> int:
        return 16

    spacial_compression_decode = spacial_compression_encode


class Vision:
    def __init__(self, comfy: Any) -> None:
        self.comfy, self.seen = comfy, 0

    def encode_image(self, image: Tensor) -> Any:
        self.seen += 1
        output = self.comfy.module("comfy.clip_vision").Output()
        output.last_hidden_state = torch.ones(1, 5, 1152)
        return output


@pytest.fixture(scope="module")
def model(comfy: Any) -> TinyModel:
    return TinyModels(comfy)["hunyuan15_t2v"]


@pytest.fixture
def world(comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    return make_world(comfy, load_pack, PACK, tmp_path)


def film(world: World, model: TinyModel, memory_attention: str = "joint", **changes: Any) -> tuple[Tensor, Any, Inputs]:
    inputs = Inputs()
    patcher = inputs.on(model.patcher)
    encoder = world.call(
        "VideoMemoryEncoderNew", patcher, "2x2x2", "proposed", "frame", False, 0, "ceil", memory_attention
    )[0]
    changes = {"storyboard": shots(world, TRANSITIONS), "width": 96, "height": 64, "cfg": 1.0} | changes
    latent, memory, _ = world.film("film", "a", model=patcher, memory_encoder=encoder, **{"vae": Vae()} | changes)
    return latent["samples"], memory, inputs


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_text_to_video_goes_on_without_a_picture(world: World, model: TinyModel, mode: str) -> None:
    latents, memory, inputs = film(world, model, mode)
    assert latents.isfinite().all() and latents.shape == (1, 32, 9, 4, 6) and memory.latents == 9
    assert [x.shape[2] for x in inputs.seen[::2]] == [3, 2, 2, 2]
    assert not any(inputs.vision) and all(not x[:, 32:].any() for x in inputs.seen)


def test_image_to_video_is_given_its_picture_and_zeros_behind(comfy: Any, world: World, model: TinyModel) -> None:
    vision, picture = Vision(comfy), torch.full((1, 64, 96, 3), 0.8)
    latents, memory, inputs = film(world, model, start_image=picture, clip_vision=vision)
    assert latents.shape[2] == memory.latents == 1 + 4 * 2
    assert [x.shape[2] for x in inputs.seen[::2]] == [3, 3, 2, 3]  # after the second cut there is no picture
    assert vision.seen == 3 and inputs.vision[::2] == [True, True, False, True]
    for x, given in zip(inputs.seen, inputs.vision, strict=True):
        image, mask = x[:, 32:64], x[:, 64:]
        assert image[:, :, :1].any() == given and not image[:, :, 1:].any()
        assert mask[0, 0, :, 0, 0].tolist() == [float(given and i == 0) for i in range(x.shape[2])]
    wanted = model.patcher.get_model_object("latent_format").process_in(Vae().encode(picture))
    torch.testing.assert_close(inputs.seen[0][:, 32:64, :1], wanted)


@pytest.mark.parametrize("kind", ["t2v", "i2v"])
def test_a_clip_is_continued(comfy: Any, world: World, model: TinyModel, kind: str) -> None:
    history = {"samples": 0.1 * torch.randn(1, 32, 3, 4, 6, generator=torch.Generator().manual_seed(1))}
    vision = Vision(comfy) if kind == "i2v" else None
    latents, memory, _ = film(world, model, history=history, clip_vision=vision)
    assert torch.equal(latents[:, :, :3], history["samples"]) and latents.shape[2] == memory.latents == 3 + 4 * 2


@pytest.mark.parametrize("name", ["hunyuan_i2v", "skyreels_i2v"])
def test_earlier_image_to_video_models_are_given_the_picture_in_their_channels(
    comfy: Any, world: World, name: str
) -> None:
    class Pooled:
        def tokenize(self, text: str, **options: Any) -> Any:
            return world_clip.tokenize(text, **options)

        def encode_from_tokens_scheduled(self, tokens: Any, **options: Any) -> Any:
            conditioning = world_clip.encode_from_tokens_scheduled(tokens, **options)
            return [[words, {**extra, "pooled_output": torch.zeros(1, 768)}] for words, extra in conditioning]

    world_clip, world.clip = world.clip, Pooled()
    model, picture = TinyModels(comfy)[name], torch.full((1, 48, 64, 3), 0.8)
    negative = world.clip.encode_from_tokens_scheduled(world.clip.tokenize(""))
    changes = {"start_image": picture, "width": 64, "height": 48, "negative": negative}
    latents, memory, inputs = film(world, model, vae=world.inputs["vae"], **changes)
    assert latents.isfinite().all() and latents.shape[2] == memory.latents == 1 + 4 * 2
    assert [x.shape[2] for x in inputs.seen[::2]] == [3, 3, 2, 3]
    for x, given in zip(inputs.seen[::2], (True, True, False, True), strict=True):
        assert x[:, 16:32, :1].any() == given and not x[:, 16:32, 1:].any()


def test_the_super_resolution_model_is_refused(comfy: Any) -> None:
    with pytest.raises(HostError, match="HunyuanVideo for super-resolution cannot carry a video memory"):
        find_host(hunyuan15_patcher(comfy, in_channels=98).get_model_object("diffusion_model"))
