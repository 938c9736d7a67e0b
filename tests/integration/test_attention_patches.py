"""Other nodes' patches of the attention within a block see the video as they would without a memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memory_encoder.injection.inject import inject
from tests.integration.models import TEXT, WAN_DIM, TinyModel, TinyModels, random_memory, random_weights

KINDS = {"wan": ("attn1_patch", "attn2_patch"), "hunyuan": ("attn1_patch", "attn1_output_patch")}
HOSTS = ["wan_t2v", "wan21_i2v", "wan_5b", "hunyuan", "hunyuan_plain", "hunyuan15_t2v"]


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


def with_memory(model: TinyModel, patcher: Any = None, mode: str = "joint") -> Any:
    memory = random_memory(model.host, 25)
    config = replace(memory.config, memory_attention=mode)
    return inject(model.patcher if patcher is None else patcher, replace(memory, config=config))


class Patch:
    """Notes the shapes of all that it is given, and where the video lies, and returns what `change` makes of it."""

    def __init__(self, change: Any = lambda value: value) -> None:
        self.change = change
        self.seen: list[Any] = []

    def __call__(self, *args: Any, **named: Any) -> Any:
        if len(args) == 1:  # Wan's
            self.note(args[0], args[0]["transformer_options"])
            return self.change(args[0]["x"])
        if len(args) == 2:
            self.note({"attended": args[0]}, args[1])
            return self.change(args[0])
        given = dict(zip("qkv", args, strict=True)) | named
        self.note(given, named["extra_options"])
        return {name: self.change(value) for name, value in given.items() if isinstance(value, Tensor)}

    def note(self, given: dict[str, Any], options: dict[str, Any]) -> None:
        """Layouts too, but for what Hunyuan's blocks give by heads."""
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        whole = {name: value.is_contiguous() for name, value in tensors.items() if "v" not in given}
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        self.seen.append((shapes, whole, options["block_index"], options.get("img_slice")))

    def on(self, patcher: Any, *kinds: str) -> Any:
        patcher = patcher.clone()
        for kind in kinds:
            patcher.set_model_patch(self, kind)
        return patcher


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("mode", ["joint", "cached"])
@pytest.mark.parametrize("name", HOSTS)
def test_a_patch_within_a_block_is_given_what_it_is_given_without_a_memory(
    models: TinyModels, name: str, mode: str, order: str
) -> None:
    model, alone, beside = models[name], Patch(), Patch()
    kinds = KINDS[model.host.name]
    model.sample(alone.on(model.patcher, *kinds), steps=1)
    if order == "before":
        patcher = with_memory(model, beside.on(model.patcher, *kinds), mode)
    else:
        patcher = beside.on(with_memory(model, mode=mode), *kinds)
    result = model.sample(patcher, steps=1)
    assert alone.seen and beside.seen == alone.seen
    assert torch.equal(result, model.sample(with_memory(model, mode=mode), steps=1))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_what_a_patch_returns_takes_effect_in_whatever_way_it_is_made(
    models: TinyModels, name: str, batch: int
) -> None:
    model, unpatched = models[name], with_memory(models[name])
    kinds = KINDS[model.host.name][-1:]
    copied, made, in_place = (
        model.sample(Patch(change).on(unpatched, *kinds), batch, steps=1)
        for change in (Tensor.clone, lambda x: x * 1.1, lambda x: x.mul_(1.1))
    )
    plain = model.sample(unpatched, batch, steps=1)
    assert torch.equal(copied, plain) and torch.equal(in_place, made)
    assert (made - plain).abs().max() > 1e-3


@pytest.mark.parametrize("kinds", [[torch.float32] * 2, [torch.bool], [torch.bool, torch.float32]])
@pytest.mark.parametrize("by_query", [False, True])
@pytest.mark.parametrize("name", ["hunyuan", "hunyuan_plain"])
def test_a_mask_of_a_patch_hides_nothing_of_the_memory(
    models: TinyModels, name: str, by_query: bool, kinds: list[torch.dtype]
) -> None:
    model, unpatched = models[name], with_memory(models[name])

    def masked(
        kind: torch.dtype, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **more: Any
    ) -> dict[str, Any]:
        """The same mask in another form; the second patch gets what the first has returned."""
        seen = torch.ones(1, 1, q.shape[2] if by_query else 1, k.shape[2], dtype=torch.bool)
        if attn_mask is not None:
            seen = seen & (attn_mask if attn_mask.dtype == torch.bool else attn_mask >= 0)
        return {"attn_mask": seen if kind == torch.bool else torch.where(seen, 0.0, torch.finfo(kind).min)}

    patched = unpatched.clone()
    for kind in kinds:
        patched.set_model_patch(partial(masked, kind), "attn1_patch")
    torch.testing.assert_close(model.sample(patched, steps=1), model.sample(unpatched, steps=1), atol=1e-5, rtol=1e-5)


class Talking(nn.Module):
    """The part of core's InfiniteTalk that runs within the blocks, tiny."""

    def __init__(self, comfy: Any, blocks: int) -> None:
        super().__init__()
        talk, operations = comfy.module("comfy.ldm.wan.model_multitalk"), comfy.module("comfy.ops").disable_weight_init
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            block = nn.Module()
            attention = talk.SingleStreamMultiAttention(WAN_DIM, TEXT, 4, qkv_bias=True, operations=operations)
            block.audio_cross_attn, block.norm_x = attention, nn.LayerNorm(WAN_DIM)
            self.blocks.append(block)
        self.load_state_dict(random_weights(self))


def talking(model: TinyModel, patcher: Any, speakers: int) -> Any:
    """As core's WanInfiniteTalkToVideo puts its patches into a MODEL."""
    talk, cpu = model.comfy.module("comfy.ldm.wan.model_multitalk"), torch.device("cpu")
    with torch.inference_mode(False):
        part = Talking(model.comfy, len(model.host.slots()))
    part = model.comfy.module("comfy.model_patcher").CoreModelPatcher(part, load_device=cpu, offload_device=cpu)
    patcher, g = patcher.clone(), torch.Generator().manual_seed(3)
    heard = torch.randn(1, model.size[1], 4 * speakers, TEXT, generator=g)
    patcher.model_options["transformer_options"]["audio_embeds"] = heard
    patcher.set_model_patch(talk.MultiTalkCrossAttnPatch(part), "attn2_patch")
    if speakers > 1:
        masks = torch.rand(speakers, model.video_tokens // model.size[1], generator=g) > 0.5
        patcher.set_model_patch(talk.MultiTalkGetAttnMapPatch(masks), "attn1_patch")
    return patcher


@pytest.mark.parametrize("mode", ["joint", "cached"])
@pytest.mark.parametrize("speakers", [1, 2])
def test_cores_infinite_talk_speaks_beside_a_memory(models: TinyModels, speakers: int, mode: str) -> None:
    model = models["wan_t2v"]
    alone, memory, both = (
        model.sample(patcher, cfg=1.0, steps=1)
        for patcher in (
            talking(model, model.patcher, speakers),
            with_memory(model, mode=mode),
            talking(model, with_memory(model, mode=mode), speakers),
        )
    )
    assert both.isfinite().all()
    assert min((both - alone).abs().max(), (both - memory).abs().max()) > 1e-3
