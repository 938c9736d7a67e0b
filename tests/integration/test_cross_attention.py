"""The cross-attention branch adds nothing before it is trained, and then reads every hidden state at its own place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings, encoder_key
from memory_encoder.memory.growing import Growing
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.cross_attention import CrossAttention
from tests.integration.models import TinyModel, TinyModels, random_memory

TOKENS = 25
HOSTS = ["wan_t2v", "wan_5b", "hunyuan", "hunyuan_plain"]


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


class FakeEncoder(nn.Module):
    def __init__(self, cross: CrossAttention) -> None:
        super().__init__()
        self.cross = cross


def memory_for(model: TinyModel) -> VideoMemory:
    host = model.host
    memory = random_memory(host, TOKENS)
    width = host.head_dim * 2
    config = replace(memory.config, channels=(width,), cross_blocks=len(host.slots()), head_dim=host.head_dim)
    hidden = torch.randn(1, TOKENS, width, generator=torch.Generator().manual_seed(9))
    done = memory.tokens.length
    return replace(
        memory,
        config=config,
        hidden=Growing.of(hidden[:, :done], 1),
        tail_hidden=hidden[:, done:],
        encoder_id=f"e{host.width}",
    )


def attached(model: TinyModel, memory: VideoMemory, trained: bool) -> Any:
    cross = CrossAttention(memory.config)
    cross.reset_parameters(torch.Generator().manual_seed(4))
    if trained:
        for block in cross.blocks:
            nn.init.normal_(block.out.weight, std=0.1, generator=torch.Generator().manual_seed(6))
    patcher = model.patcher.clone()
    core = model.comfy.module("comfy.model_patcher").CoreModelPatcher
    encoder = core(FakeEncoder(cross), load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    patcher.set_additional_models(encoder_key(memory.encoder_id), [encoder])
    return patcher


@pytest.mark.parametrize("name", HOSTS)
def test_an_untrained_branch_adds_nothing(models: TinyModels, name: str) -> None:
    model = models[name]
    memory = memory_for(model)
    plain = replace(memory, config=replace(memory.config, cross_blocks=0), hidden=None, tail_hidden=None)
    result = model.sample(inject(attached(model, memory, trained=False), memory))
    assert torch.equal(result, model.sample(inject(model.patcher, plain)))


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_trained_branch_counts_in_every_block(models: TinyModels, name: str, batch: int) -> None:
    if (name, batch) == ("hunyuan_plain", 2):
        pytest.skip("core takes one row at a time")
    model = models[name]
    memory = memory_for(model)
    patcher = attached(model, memory, trained=True)
    whole = model.sample(inject(patcher, memory), batch)
    assert whole.isfinite().all()
    cross = patcher.get_additional_models_with_key(encoder_key(memory.encoder_id))[0].model.cross
    for block in cross.blocks:
        kept = block.out.weight.detach().clone()
        nn.init.zeros_(block.out.weight)
        assert (model.sample(inject(patcher, memory), batch) - whole).abs().max() > 1e-5
        block.out.weight.data.copy_(kept)


@pytest.mark.parametrize("name", HOSTS)
def test_hidden_states_have_places_and_strength_fades_them(models: TinyModels, name: str) -> None:
    model = models[name]
    memory = memory_for(model)
    patcher = attached(model, memory, trained=True)
    whole = model.sample(inject(patcher, memory))

    def changed(other: Tensor) -> bool:
        return bool((other - whole).abs().max() > 1e-4)

    assert memory.hidden is not None
    order = torch.randperm(memory.hidden.length, generator=torch.Generator().manual_seed(3))
    mixed = Growing.of(memory.hidden.whole()[:, order], 1)
    assert changed(model.sample(inject(patcher, replace(memory, hidden=mixed))))
    assert changed(model.sample(inject(patcher, memory, MemorySettings(strength=0.5))))
    assert torch.equal(model.sample(inject(patcher, memory, MemorySettings(strength=0))), model.sample())


def test_an_encoder_that_is_not_attached_is_named(models: TinyModels) -> None:
    model = models["wan_t2v"]
    with pytest.raises(ValueError, match="encoder with cross-attention that is not attached to model"):
        inject(model.patcher, memory_for(model))
