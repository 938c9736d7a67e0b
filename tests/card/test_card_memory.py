"""Making and asking a memory on the card: phi in each of its forms, appends, several encoders, retrieval."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from .films import devices, film, pack, vae_for
from .hosts import SIZES, Steps
from .meter import Meter

FORMS = {
    "frame": {},
    "causal": {"attention": "causal"},
    "full": {"attention": "full"},
    "only lr": {"variant": "only_lr"},
    "without lr": {"variant": "without_lr"},
    "large patchifier": {"variant": "large_patchifier"},
    "cross": {"cross_blocks": -1},
}


@pytest.mark.parametrize("name", SIZES)
def test_a_history_is_compressed_on_the_card_and_kept_in_ram(card: Any, name: str) -> None:
    with card.on():
        model, meter = card.model(name, layers=2), Meter()
        meter.add_module(model.patcher.model)
        before = meter.now
        with meter:
            made = film(model)
            gc.collect()
        phi = sum(p.numel() * p.element_size() for p in made.encoder.model.parameters())
        assert meter.now - before == phi, "phi's weights stay on the card, nothing else does"
        assert devices(made.memory) == {"cpu"}
        assert made.encoder.dtype == torch.bfloat16  # what the card computes in, from weights in float32


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["wan_5b", "hunyuan"])
def test_every_form_of_phi_appends_on_the_card(card: Any, name: str, form: str) -> None:
    with card.on():
        model = card.model(name, layers=2)
        settings = FORMS[form]
        if "cross_blocks" in settings:
            settings = {"cross_blocks": len(model.host.slots()), "head_dim": model.host.head_dim}
        made = film(model, pieces=(20, 1, 8), **settings)
        assert devices(made.memory) == {"cpu"} and made.memory.latents == 29
        model.sample(made.remembering(sliding_window=3))


def test_two_encoders_remember_one_history_on_the_card(card: Any) -> None:
    with card.on():
        model = card.model("wan_14b", layers=2)
        both = film(model, rate="4x4x2").encoder.beside(film(model, rate="2x2x2").encoder)
        compress = pack("nodes.runtime.compress")
        latents = torch.zeros(1, model.latent[0], 21, *model.latent[2:])
        memory = compress.compress(
            both, compress.codec_for(model.patcher, vae_for(model)), both.empty_memory(1), latents
        )
        assert [devices(part) for part in memory.parts] == [{"cpu"}, {"cpu"}]
        settings = pack("memory_encoder.injection.selection").MemorySettings()
        model.sample(pack("nodes.runtime.sampling").with_memory(both.attach(model.patcher), memory, settings))


@pytest.mark.parametrize("name", SIZES)
def test_frames_are_retrieved_on_the_card(card: Any, name: str) -> None:
    with card.on():
        model = card.model(name, layers=2)
        made, sampling = film(model, pieces=(21,)), pack("nodes.runtime.sampling")
        text, bar = sampling.empty_conditioning(made.patcher), sampling.FilmProgress(model.patcher, 2, 1)
        settings = pack("memory_encoder.injection.selection").MemorySettings(history_guidance=2.5)
        given = (Steps(), torch.zeros(2), 0, text, settings, bar)
        frames = sampling.retrieve(made.patcher, made.memory, range(3, 9), *given)
        assert frames.device.type == "cpu" and frames.shape[2] == 6
