"""Sections of FramePack-F1 and Helios at 832x480 on the fake card: devices, and bytes beside the budget's number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from memory_encoder.budget import PICTURE_TOKENS, RESERVED, Plan, estimate, host_of_encoder, memory_fields
from memory_encoder.conversion import framepack, helios

from .films import Film, film
from .hosts import Steps
from .meter import GIB, Meter

BF16 = torch.bfloat16
SECTION, HISTORY = 9, (1, 9, 9)
VISION = 1152
RECENT = {
    "variant": "recent", "rate": framepack.SCHEDULE, "positions": "pooled", "anchor": True, "fill": "zeros",
    "section_latents": SECTION,
}  # fmt: skip
KINDS = {
    "hunyuan": RECENT
    | {
        "history_timestep": "same", "section_start": framepack.SEEN, "picture_width": VISION, "start": "picture",
        "guidance": framepack.GUIDANCE,
    },
    "wan_14b": RECENT
    | {
        "history_timestep": "zero", "skips_text": True, "start": "zeros", "start_noise": helios.START_NOISE,
        "clips": "section",
    },
}  # fmt: skip


def trained(card: Any, name: str, layers: int | None) -> tuple[Film, Any]:
    """A model in a film of 19 latents, as the sampler hands it to core for the next section."""
    full = card.model(name, BF16, layers)
    filmed = film(full, HISTORY, **KINDS[name])
    if filmed.encoder.config.picture_width:
        seen = torch.zeros(1, PICTURE_TOKENS, VISION, device=filmed.encoder.device, dtype=filmed.encoder.dtype)
        picture = filmed.encoder.model.picture(seen).cpu()
        filmed = replace(filmed, memory=replace(filmed.memory, picture=picture))
    assert filmed.memory.token_count == 3926
    return filmed, filmed.remembering()


def section(filmed: Film, patched: Any, steps: int = 1) -> torch.Tensor:
    noise = torch.zeros(1, filmed.model.latent[0], SECTION, *filmed.model.latent[2:])
    sampling, cond = filmed.model.modules("comfy.sample"), filmed.model.conditioning()
    with torch.no_grad():
        return sampling.sample_custom(
            patched, noise, 1.0, Steps(steps), torch.zeros(2), cond, cond, torch.zeros_like(noise), seed=0
        )


@pytest.mark.parametrize("name", KINDS)
def test_a_section_is_made_on_the_card(card: Any, name: str) -> None:
    with card.on():
        latent = section(*trained(card, name, 2), steps=2)
        assert latent.device.type == "cpu" and latent.shape[2] == SECTION


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_model_takes_no_more_of_the_card_than_the_budget_says(card: Any, name: str) -> None:
    with card.on():
        filmed, patched = trained(card, name, None)
        meter = Meter()
        meter.add_module(filmed.model.patcher.model)
        meter.add_module(filmed.encoder.model)
        with meter.above():
            section(filmed, patched)
        config = filmed.encoder.config
        host, _ = host_of_encoder(config)
        plan = Plan(host, 832, 480, 30.0, 20.0, 1.2, **memory_fields([config], 30.0, 1.2))
        said = estimate(plan).least_bytes - RESERVED
    print(f"{name}: a section takes {meter.peak / GIB:.2f} GiB above the weights, the budget says {said / GIB:.2f} GiB")
    assert meter.peak < said
