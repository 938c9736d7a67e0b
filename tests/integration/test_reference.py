"""The injected forward equals a plain forward over the long sequence, written here from the host's own layers.

The references know nothing of patches: one sequence [video, memory], modulation and rotary positions for each token,
softmax attention by hand, memory dropped at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from memory_encoder.injection.hosts import MemoryTokens
from memory_encoder.injection.hosts.wan import largest_group
from memory_encoder.injection.inject import DiffusionModelWrapper
from memory_encoder.injection.selection import InjectedMemory
from tests.integration.models import TEXT, TinyModels

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


@dataclass(frozen=True)
class Case:
    """One forward pass: shapes of the latent in patches, memory tokens, batch."""

    frames: int
    height: int
    width: int
    tokens: int
    batch: int = 1

    @property
    def video(self) -> int:
        return self.frames * self.height * self.width

    def latent(self, channels: int, patch: int = 2) -> Tensor:
        return self.random(1, self.batch, channels, self.frames, patch * self.height, patch * self.width)

    def random(self, seed: int, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def memory(self, width: int, timestep: Any) -> InjectedMemory:
        """Random tokens at fractional places, most of them before the section (negative times)."""
        places = torch.rand(self.tokens, 3, generator=torch.Generator().manual_seed(3))
        places = places * torch.tensor([12.0, self.height, self.width]) - torch.tensor([11.3, 0.7, 0.4])
        return InjectedMemory(self.random(2, self.batch, self.tokens, width), places, timestep)

    def positions(self, coordinates: Tensor) -> Tensor:
        """(time, height, width) of every video token, then of every memory token."""
        axes = [torch.arange(n, dtype=torch.float32) for n in (self.frames, self.height, self.width)]
        return torch.cat([torch.cartesian_prod(*axes), coordinates])


def embed_time(t: Tensor, width: int = 256) -> Tensor:
    """Cosines, then sines, of t at rates 10000^(-k/half)."""
    rates = torch.exp(-math.log(10000) * torch.arange(width // 2).float() / (width // 2))
    angles = t.float()[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Tensor, positions: Tensor, axes: Sequence[int], theta: float) -> Tensor:
    """Turns neighbouring pairs of [B,heads,n,d] by position [n,3] times theta^(-2k/axis)."""
    rates = [theta ** (-torch.arange(0, a, 2, dtype=torch.float64) / a) for a in axes]
    angles = torch.cat([positions[:, i, None].double() * rate for i, rate in enumerate(rates)], dim=-1)
    cos, sin = angles.cos().float(), angles.sin().float()
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention [B,heads,n,d] -> [B,n,heads*d]."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def heads(x: Tensor, number: int) -> Tensor:
    return x.unflatten(-1, (number, -1)).transpose(1, 2)


def wan_reference(model: Any, case: Case, x: Tensor, t: Tensor, context: Tensor, memory: InjectedMemory) -> Tensor:
    """Wan: t is [B] or, with a timestep for each frame, [B,frames]."""
    per_frame = t if t.ndim == 2 else t[:, None].expand(-1, case.frames)
    history = torch.zeros_like(per_frame[:, -1:]) if memory.history_timestep == "zero" else per_frame[:, -1:]
    times = torch.cat([per_frame, history], dim=1)
    owner = torch.cat([torch.arange(case.video) // (case.height * case.width), torch.full((case.tokens,), case.frames)])
    e = model.time_embedding(embed_time(times))[:, owner]  # one row for each token
    e0 = model.time_projection(e).unflatten(-1, (6, model.dim))

    h = torch.cat([model.patch_embedding(x).flatten(2).transpose(1, 2), memory.tokens], dim=1)
    text, positions, n = model.text_embedding(context), case.positions(memory.coordinates), model.num_heads
    d = model.dim // n
    axes = (d - 4 * (d // 6), 2 * (d // 6), 2 * (d // 6))
    for block in model.blocks:
        shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = (block.modulation[None] + e0).unbind(2)
        y = F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift
        a = block.self_attn
        q = rotate(heads(a.norm_q(a.q(y)), n), positions, axes, 10000)
        k = rotate(heads(a.norm_k(a.k(y)), n), positions, axes, 10000)
        h = h + a.o(attend(q, k, heads(a.v(y), n))) * gate
        a, y = block.cross_attn, block.norm3(h)
        h = h + a.o(attend(*(heads(z, n) for z in (a.norm_q(a.q(y)), a.norm_k(a.k(text)), a.v(text)))))
        y = F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale_ffn) + shift_ffn
        h = h + block.ffn(y) * gate_ffn
    h, e = h[:, : case.video], e[:, : case.video]
    shift, scale = (model.head.modulation[None] + e[:, :, None]).unbind(2)
    out = model.head.head(F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift)
    out = out.reshape(case.batch, case.frames, case.height, case.width, 2, 2, model.out_dim)
    return out.permute(0, 6, 1, 2, 4, 3, 5).reshape(case.batch, model.out_dim, *x.shape[2:])


def hunyuan_reference(model: Any, case: Case, x: Tensor, t: Tensor, text: Tensor, call: Any, memory: Any) -> Tensor:
    """HunyuanVideo; call holds pooled text `y`, and `guidance`, `attention_mask`, `guiding_frame_index` or None.

    1.5 has no pooled text, and text streams `clip_fea` and `txt_byt5` in front of the text.
    """
    rest = model.vector_in(call.y) if model.vector_in else torch.zeros(case.batch, model.hidden_size)
    if call.guidance is not None:
        rest = rest + model.guidance_in(embed_time(1000 * call.guidance))
    section, still = (rest + model.time_in(embed_time(time)) for time in (t, torch.zeros_like(t)))
    video = section[:, None].expand(-1, case.video, -1)
    history = (still if memory.history_timestep == "zero" else section)[:, None].expand(-1, case.tokens, -1)
    mask = call.attention_mask
    if mask is not None:
        mask = (mask - 1) * torch.finfo(torch.float32).max
    txt = model.txt_in(text, t, mask)
    if model.cond_type_embedding is not None:
        streams = [txt, model.byt5_in(call.txt_byt5), model.vision_in(call.clip_fea)]
        txt = torch.cat([x + kind for x, kind in zip(streams, model.cond_type_embedding.weight, strict=True)][::-1], 1)
    txt_vec = section[:, None].expand(-1, txt.shape[1], -1)
    vec, joint = torch.cat([video, history], dim=1), torch.cat([txt_vec, video, history], dim=1)
    if call.guiding_frame_index is not None:
        first = rest + model.time_in(embed_time(call.guiding_frame_index))
        vec[:, : case.height * case.width] = first[:, None]
        joint[:, : case.height * case.width] = first[:, None]  # core counts from the text here, which comes first

    bias = None
    if mask is not None:
        bias = F.pad(mask, (0, case.video + case.tokens))[:, None, None]
    img = torch.cat([model.img_in.proj(x).flatten(2).transpose(1, 2), memory.tokens], dim=1)
    positions = torch.cat([torch.zeros(txt.shape[1], 3), case.positions(memory.coordinates)])
    for block in model.double_blocks:
        txt, img = hunyuan_double(block, (txt, img), (txt_vec, vec), positions, bias)
    h = torch.cat([txt, img], dim=1)
    for block in model.single_blocks:
        h = h + hunyuan_single(block, h, joint, positions, bias)
    h, vec = h[:, txt.shape[1] : -case.tokens], vec[:, : case.video]
    shift, scale = model.final_layer.adaLN_modulation(vec).chunk(2, dim=-1)
    out = model.final_layer.linear(F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift)
    out = out.reshape(case.batch, case.frames, case.height, case.width, model.out_channels, *model.patch_size[1:])
    return out.permute(0, 4, 1, 2, 5, 3, 6).reshape(case.batch, model.out_channels, *x.shape[2:])


def hunyuan_double(block: Any, streams: Any, vecs: Any, positions: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Streams (text, image); both attend to both."""
    q, k, v, mods = [], [], [], []
    for name, x, vec in zip(("txt", "img"), streams, vecs, strict=True):
        mods.append(getattr(block, f"{name}_mod").lin(F.silu(vec)).chunk(6, dim=-1))
        attention, (shift, scale, *_) = getattr(block, f"{name}_attn"), mods[-1]
        y = attention.qkv(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        parts = [heads(part, block.num_heads) for part in y.chunk(3, dim=-1)]
        q.append(attention.norm.query_norm(parts[0]))
        k.append(attention.norm.key_norm(parts[1]))
        v.append(parts[2])
    q, k = (rotate(torch.cat(z, dim=2), positions, (16, 56, 56), 256) for z in (q, k))
    joint, out = attend(q, k, torch.cat(v, dim=2), bias), []
    split = joint.split([x.shape[1] for x in streams], dim=1)
    for name, x, part, (_, _, gate, shift, scale, gate_mlp) in zip(("txt", "img"), streams, split, mods, strict=True):
        x = x + getattr(block, f"{name}_attn").proj(part) * gate
        y = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        out.append(x + getattr(block, f"{name}_mlp")(y) * gate_mlp)
    return out


def hunyuan_single(block: Any, x: Tensor, vec: Tensor, positions: Tensor, bias: Tensor | None) -> Tensor:
    shift, scale, gate = block.modulation.lin(F.silu(vec)).chunk(3, dim=-1)
    y = block.linear1(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
    q, k, v, mlp = y.split([x.shape[-1]] * 3 + [y.shape[-1] - 3 * x.shape[-1]], dim=-1)
    q, k, v = (heads(part, block.num_heads) for part in (q, k, v))
    q = rotate(block.norm.query_norm(q), positions, (16, 56, 56), 256)
    k = rotate(block.norm.key_norm(k), positions, (16, 56, 56), 256)
    return block.linear2(torch.cat([attend(q, k, v, bias), F.gelu(mlp, approximate="tanh")], dim=-1)) * gate


def injected(
    model: Any, memory: InjectedMemory, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any
) -> Any:
    wrappers = {"diffusion_model": {"video_memory": [DiffusionModelWrapper(memory)]}}
    return model(*args, **kwargs, transformer_options={"wrappers": wrappers, **(options or {})})


def largest(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


WAN_CASES = [
    pytest.param(Case(3, 4, 6, 7), id="72+7, divisor 1"),
    pytest.param(Case(3, 4, 6, 1, batch=2), id="72+1, divisor 1, batch 2"),
    pytest.param(Case(3, 4, 6, 24, batch=2), id="72+24, divisor 24, batch 2"),
    pytest.param(Case(3, 4, 6, 20), id="72+20, divisor 4"),
    pytest.param(Case(3, 4, 6, 36), id="72+36, divisor 36, more than a frame"),
    pytest.param(Case(5, 3, 5, 110), id="75+110, divisor 5, more memory than video"),
    pytest.param(Case(1, 3, 5, 30), id="15+30, one frame"),
]


@pytest.mark.parametrize("timestep", ["zero", "same"])
@pytest.mark.parametrize("case", WAN_CASES)
@pytest.mark.parametrize("name", ["wan_t2v", "wan_5b"])
def test_wan_equals_the_plain_reference(models: TinyModels, name: str, case: Case, timestep: Any) -> None:
    model = models[name].diffusion_model
    t = 1000 * torch.rand(case.batch, generator=torch.Generator().manual_seed(9))
    if name == "wan_5b":  # the first frame is given: its timestep is 0
        t = t[:, None] * torch.tensor([0.0] + [1.0] * (case.frames - 1))
        t[:, 2:3] *= 0.6
    x, context = case.latent(model.in_dim), case.random(4, case.batch, 5, TEXT)
    memory = case.memory(model.dim, timestep)
    with torch.inference_mode():
        expected = wan_reference(model, case, x, t, context, memory)
        assert largest(injected(model, memory, x, t, context), expected) <= TOLERANCE
        assert largest(model(x, t, context), expected) > 100 * TOLERANCE, "memory makes no difference"


HUNYUAN_CASES = [
    pytest.param(Case(3, 3, 4, 7), False, False, id="36+7, divisor 1"),
    pytest.param(Case(3, 3, 4, 12, batch=2), False, False, id="36+12, batch 2"),
    pytest.param(Case(3, 3, 4, 7), True, False, id="36+7, text mask"),
    pytest.param(Case(3, 3, 4, 50), False, True, id="36+50, first frame replaced"),
    pytest.param(Case(3, 3, 4, 7), True, True, id="36+7, text mask, first frame replaced"),
]


@pytest.mark.parametrize("timestep", ["zero", "same"])
@pytest.mark.parametrize(("case", "masked", "replaced"), HUNYUAN_CASES)
@pytest.mark.parametrize("name", ["hunyuan", "hunyuan_plain"])
def test_hunyuan_equals_the_plain_reference(
    models: TinyModels, name: str, case: Case, masked: bool, replaced: bool, timestep: Any
) -> None:
    model = models[name].diffusion_model
    t = 1000 * torch.rand(case.batch, generator=torch.Generator().manual_seed(9))
    x, text = case.latent(model.in_channels), case.random(4, case.batch, 6, TEXT)
    call = {
        "y": case.random(5, case.batch, 768),
        "guidance": torch.full((case.batch,), 6.0) if name == "hunyuan" else None,
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]]) if masked else None,
        "guiding_frame_index": torch.tensor([0.0]) if replaced else None,
    }
    memory = case.memory(model.hidden_size, timestep)
    with torch.inference_mode():
        expected = hunyuan_reference(model, case, x, t, text, SimpleNamespace(**call), memory)
        assert largest(injected(model, memory, x, t, text, **call), expected) <= TOLERANCE
        assert largest(model(x, t, text, **call), expected) > 100 * TOLERANCE, "memory makes no difference"


@pytest.mark.parametrize("timestep", ["zero", "same"])
@pytest.mark.parametrize("case", [Case(3, 3, 4, 7), Case(2, 4, 3, 24, batch=2)])
def test_hunyuan15_equals_the_plain_reference(models: TinyModels, case: Case, timestep: Any) -> None:
    model = models["hunyuan15_i2v"].diffusion_model
    t = 1000 * torch.rand(case.batch, generator=torch.Generator().manual_seed(9))
    x, text = case.latent(model.in_channels, 1), case.random(4, case.batch, 6, TEXT)
    call: dict[str, Any] = {
        "txt_byt5": case.random(5, case.batch, 3, 1472),
        "clip_fea": case.random(6, case.batch, 4, 1152),
    }
    memory = case.memory(model.hidden_size, timestep)
    without: dict[str, Any] = dict.fromkeys(("y", "guidance", "attention_mask", "guiding_frame_index"))
    with torch.inference_mode():
        expected = hunyuan_reference(model, case, x, t, text, SimpleNamespace(**call, **without), memory)
        assert largest(injected(model, memory, x, t, text, **call), expected) <= TOLERANCE
        assert largest(model(x, t, text, **call), expected) > 100 * TOLERANCE, "memory makes no difference"


ROPE = {"scale_t": 0.5, "shift_t": 2.0, "scale_y": 1.5, "shift_y": -1.0, "scale_x": 0.75, "shift_x": 3.0}


class Scaled(Case):
    """Positions as core's ScaleROPE has them."""

    def positions(self, coordinates: Tensor) -> Tensor:
        scale, shift = ([ROPE[f"{name}_{axis}"] for axis in "tyx"] for name in ("scale", "shift"))
        return super().positions(coordinates) * torch.tensor(scale) + torch.tensor(shift)


def test_scaled_positions_hold_for_the_memory_too(models: TinyModels) -> None:
    model, case = models["wan_t2v"].diffusion_model, Scaled(3, 4, 6, 7)
    t, x, context = torch.tensor([500.0]), case.latent(model.in_dim), case.random(4, 1, 5, TEXT)
    memory = case.memory(model.dim, "zero")
    with torch.inference_mode():
        expected = wan_reference(model, case, x, t, context, memory)
        assert largest(injected(model, memory, x, t, context, options={"rope_options": ROPE}), expected) <= TOLERANCE
        assert largest(injected(model, memory, x, t, context), expected) > 100 * TOLERANCE, (
            "the scale makes no difference"
        )


# Tokens of a frame and latents at 832x480, 1280x704 (5B) and 1280x720; entries for 4x4x2 of 20 s at 832x480 are 25.
@pytest.mark.parametrize(("frame", "latents"), [(1560, 21), (880, 31), (3600, 21), (390, 7)])
@pytest.mark.parametrize("per_frame", [False, True])
def test_any_number_of_memory_tokens_needs_few_modulation_entries(frame: int, latents: int, per_frame: bool) -> None:
    video = frame * latents
    for memory in [*range(1, 40), *range(6200, 6241), 12345, 46799]:
        group = largest_group(frame if per_frame else video, video + memory)
        assert video % group == 0 and (video + memory) / group < 4 * (video + memory) ** 0.5


@given(
    entries=st.integers(1, 12),
    lengths=st.lists(st.integers(1, 150), min_size=2, max_size=2),
    tokens=st.integers(1, 150),
    timestep=st.sampled_from(["zero", "same"]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wan_modulation_reaches_the_right_tokens_for_all_lengths(
    comfy: Any, models: TinyModels, entries: int, lengths: list[int], tokens: int, timestep: Any
) -> None:
    """Where the entries do not divide the sequence, too (reference latents in it), or its length changes on the way."""
    assume(all(entries in (1, video) or video // entries != 1 for video in lengths))  # core itself repeats nothing then
    repeat = comfy.module("comfy.ldm.wan.model").repeat_e
    host = models["wan_t2v"].host
    model: Any = host.model
    vec = torch.randn(1, entries, 6, model.dim, generator=torch.Generator().manual_seed(entries))
    state = MemoryTokens(torch.zeros(1, tokens, model.dim), host.rotary(torch.zeros(tokens, 3)), timestep)
    with torch.inference_mode():
        clean = model.time_projection(model.time_embedding(embed_time(torch.zeros(1, 1)))).unflatten(-1, (6, -1))
        patch = host.block_patches(state, {})["double_block", 0]
        for video in lengths:
            seen: list[dict[str, Any]] = []
            args = {"img": torch.zeros(1, video, model.dim), "vec": vec, "pe": host.rotary(torch.zeros(video, 3))}
            patch(args, lambda inner, seen=seen: (seen.append(inner), inner)[1])
            got = repeat(seen[0]["vec"], seen[0]["img"]).expand(-1, video + tokens, -1, -1)
            assert torch.equal(got[:, :video], repeat(vec, args["img"]).expand(-1, video, -1, -1))
            assert largest(got[:, video:], clean if timestep == "zero" else vec[:, -1:]) < 1e-6
