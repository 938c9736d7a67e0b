"""The memory's own tokens go through the host's first projection as the video's do: with what patches its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .models import BUILDERS, TinyModel

NAMES = {"wan": "patch_embedding", "hunyuan": "img_in.proj"}


def with_patches(tiny: TinyModel, weights: dict[str, Tensor]) -> Any:
    """The host of a model of which `weights` are patched."""
    return type(tiny.host)(tiny.diffusion_model, weights.get)  # type: ignore[call-arg]


def latents(tiny: TinyModel) -> Tensor:
    return torch.randn(1, tiny.host.latent_channels, 3, 7, 12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_a_patched_projection_is_used_whatever_lies_in_the_layer(comfy: Any, build: Callable[[Any], TinyModel]) -> None:
    tiny = build(comfy)
    name = NAMES[tiny.host.name]
    conv: Any = tiny.diffusion_model.get_submodule(name)
    weight, bias = 1.5 * conv.weight.detach() + 0.1, conv.bias.detach() - 1
    own = {"weight": conv.weight, "bias": conv.bias}
    plain, x = tiny.host.embed(latents(tiny)), latents(tiny)
    both = {f"{name}.weight": weight, f"{name}.bias": bias}
    for chosen in ({}, {f"{name}.weight": weight}, {f"{name}.bias": bias}, both):
        found = with_patches(tiny, chosen).embed(x)
        patchifier = with_patches(tiny, chosen).patchifier()
        expected = {each: chosen.get(f"{name}.{each}", own[each]) for each in own}
        assert torch.equal(patchifier[0], expected["weight"][:, : tiny.host.latent_channels])
        assert torch.equal(patchifier[1], expected["bias"]) and torch.equal(found, plain) == (not chosen)
        try:
            for each, value in expected.items():
                setattr(conv, each, torch.nn.Parameter(value, requires_grad=False))
            assert torch.equal(found, tiny.host.embed(x))  # to the bit what the layer itself would make of them
        finally:
            conv.weight, conv.bias = own["weight"], own["bias"]
