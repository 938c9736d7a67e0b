"""A small VAE for the memory's low-resolution branch: core's own TAEHV decodes for it, and the film stays the VAE's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from .worlds import CountedVae, World, make_world

PACK = "video_memory_lr_vae_test"
SHOTS = ("a", "b")


@pytest.fixture
def world(comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    return make_world(comfy, load_pack, PACK, tmp_path)


def small_vae(comfy: Any, channels: int = 16) -> Any:
    """A file like taew2_1 (48 channels: taew2_2) as core's Load VAE takes it, untrained."""
    torch.manual_seed(0)
    with torch.inference_mode():
        network = comfy.module("comfy.taesd.taehv").TAEHV(channels)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        return CountedVae(comfy.module("comfy.sd").VAE(sd=network.state_dict()))


class NeverDecodes(CountedVae):
    def decode(self, *args: Any, **values: Any) -> Any:
        raise AssertionError("the large VAE decodes")


def compressed(world: World, latents: torch.Tensor, memory: Any = None, **inputs: Any) -> Any:
    values = {name: world.inputs[name] for name in ("memory_encoder", "model", "vae")} | inputs
    return world.call("VideoMemoryCompress", latent={"samples": latents}, memory=memory, **values)[0]


def test_the_small_vae_decodes_and_the_models_own_one_encodes(world: World, comfy: Any) -> None:
    small, own = small_vae(comfy), NeverDecodes(world.inputs["vae"].vae)
    latents = torch.randn(1, 16, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    plain = compressed(world, latents)
    memory = compressed(world, latents, vae=own, lr_vae=small)
    assert small.calls == 1 and own.calls == 1
    assert memory.token_count == plain.token_count
    assert not torch.equal(memory.all_tokens(), plain.all_tokens())
    longer = compressed(world, latents, memory, vae=own, lr_vae=small)
    assert longer.latents == 10 and longer.all_tokens().isfinite().all()


def test_the_vae_itself_as_the_small_one_changes_nothing(world: World) -> None:
    latents = torch.randn(1, 16, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    memory = compressed(world, latents, lr_vae=world.inputs["vae"].vae)
    assert torch.equal(memory.all_tokens(), compressed(world, latents).all_tokens())


def test_what_the_small_vae_cannot_do_is_said(world: World, comfy: Any) -> None:
    latents = torch.zeros(1, 16, 5, 6, 8)
    with pytest.raises(
        ValueError, match="lr_vae makes 3D latents of 48 channels, but the model needs 3D latents of 16"
    ):
        compressed(world, latents, lr_vae=small_vae(comfy, 48))
    model = world.inputs["model"]
    blind = world.call("VideoMemoryEncoderNew", model, "2x2x2", "without_lr", "frame", False, 0)[0]
    with pytest.raises(ValueError, match="lr_vae: memory_encoder has no low-resolution branch"):
        compressed(world, latents, memory_encoder=blind, lr_vae=small_vae(comfy))


def test_a_film_with_a_small_vae_is_another_film_and_goes_on_as_it_is(world: World, comfy: Any) -> None:
    prompt = world.nodes["VideoMemorySampler"].hidden.prompt
    plain = world.film("plain", *SHOTS)
    own = world.inputs["vae"] = NeverDecodes(world.inputs["vae"].vae)
    small = small_vae(comfy)
    prompt["1"]["inputs"]["lr_vae"] = "taew2_1"
    film = world.film("plain", *SHOTS, lr_vae=small)
    first = plain[0]["samples"].shape[2] // 2
    assert torch.equal(film[0]["samples"][:, :, :first], plain[0]["samples"][:, :, :first]), "there is no memory yet"
    assert not torch.equal(film[0]["samples"], plain[0]["samples"])
    assert small.calls == 2
    small.calls = own.calls = 0
    again = world.film("plain", *SHOTS, lr_vae=small)
    assert "2 reused" in again[2] and small.calls == own.calls == 0
    del prompt["1"]["inputs"]["lr_vae"]
    assert "2 reused" in world.film("plain", *SHOTS)[2], "films from before the input are what they were"
