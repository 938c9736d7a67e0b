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
    """A file like lighttaew2_1 (48 channels: lighttaew2_2) as core's Load VAE takes it, untrained."""
    torch.manual_seed(0)
    with torch.inference_mode():
        network = comfy.module("comfy.taesd.taehv").TAEHV(channels)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        return CountedVae(comfy.module("comfy.sd").VAE(sd=network.state_dict()))


class NeverDecodes(CountedVae):
    def decode(self, *args: Any, **values: Any) -> Any:
        raise AssertionError("the large VAE decodes")


def encoder(world: World, lr_vae: Any, variant: str = "proposed") -> Any:
    made = world.nodes["VideoMemoryEncoderNew"].execute
    with torch.inference_mode():
        return made(world.inputs["model"], "2x2x2", variant, "frame", False, 0, lr_vae=lr_vae).result[0]


def compressed(world: World, latents: torch.Tensor, memory: Any = None, **inputs: Any) -> Any:
    values = {name: world.inputs[name] for name in ("memory_encoder", "model", "vae")} | inputs
    return world.call("VideoMemoryCompress", latent={"samples": latents}, memory=memory, **values)[0]


def noise(latents: int = 5) -> torch.Tensor:
    return torch.randn(1, 16, latents, 6, 8, generator=torch.Generator().manual_seed(0))


def test_the_small_vae_decodes_and_the_models_own_one_encodes(world: World, comfy: Any) -> None:
    small, own = small_vae(comfy), NeverDecodes(world.inputs["vae"].vae)
    plain = compressed(world, noise())
    with_small = {"vae": own, "memory_encoder": encoder(world, small)}
    memory = compressed(world, noise(), **with_small)
    assert small.calls == 1 and own.calls == 1
    assert memory.token_count == plain.token_count
    assert not torch.equal(memory.all_tokens(), plain.all_tokens())
    longer = compressed(world, noise(), memory, **with_small)
    assert longer.latents == 10 and longer.all_tokens().isfinite().all()


def test_the_vae_itself_as_the_small_one_changes_nothing(world: World) -> None:
    memory = compressed(world, noise(), memory_encoder=encoder(world, world.inputs["vae"].vae))
    assert torch.equal(memory.all_tokens(), compressed(world, noise()).all_tokens())


def test_what_the_small_vae_cannot_do_is_said(world: World, comfy: Any) -> None:
    wrong = "lr_vae makes 3D latents of 48 channels, but the model needs 3D latents of 16"
    with pytest.raises(ValueError, match=wrong):
        compressed(world, noise(), memory_encoder=encoder(world, small_vae(comfy, 48)))
    with pytest.raises(ValueError, match="lr_vae: this memory encoder has no low-resolution branch"):
        encoder(world, small_vae(comfy), "without_lr")


def test_encoders_side_by_side_share_the_small_vae_of_the_first_that_has_one(world: World, comfy: Any) -> None:
    small, own = small_vae(comfy), NeverDecodes(world.inputs["vae"].vae)
    for first, second in ((small, None), (None, small)):
        both = world.call("VideoMemoryEncoderCombine", encoder(world, first), encoder(world, second))[0]
        compressed(world, noise(), vae=own, memory_encoder=both)
    assert small.calls == 2, "both look at the same pictures"


def test_a_film_with_a_small_vae_is_another_film_and_goes_on_as_it_is(world: World, comfy: Any) -> None:
    prompt = world.nodes["VideoMemorySampler"].hidden.prompt
    plain = world.film("plain", *SHOTS)
    untouched = dict(world.inputs)
    own = world.inputs["vae"] = NeverDecodes(world.inputs["vae"].vae)
    small = small_vae(comfy)
    world.inputs["memory_encoder"] = encoder(world, small)
    prompt["1"]["inputs"]["memory_encoder"] = "with lighttaew2_1"  # what feeds the encoder stands in the graph
    film = world.film("plain", *SHOTS)
    first = plain[0]["samples"].shape[2] // 2
    assert torch.equal(film[0]["samples"][:, :, :first], plain[0]["samples"][:, :, :first]), "there is no memory yet"
    assert not torch.equal(film[0]["samples"], plain[0]["samples"])
    assert small.calls == 2
    small.calls = own.calls = 0
    again = world.film("plain", *SHOTS)
    assert "2 reused" in again[2] and small.calls == own.calls == 0
    del prompt["1"]["inputs"]["memory_encoder"]
    world.inputs |= untouched
    assert "2 reused" in world.film("plain", *SHOTS)[2], "films from before the input are what they were"
