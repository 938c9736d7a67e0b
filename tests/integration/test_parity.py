"""Without a memory the host samples exactly as before; with one, everything outside of the blocks still sees the video.

All on ComfyUI's own model classes and sampler, on the CPU, with CFG 4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings, kept_tokens
from memory_encoder.memory.compressor import append_history
from memory_encoder.memory.growing import Growing
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.pictures.codec import Codec
from tests.integration.models import (
    BUILDERS,
    Recorder,
    TinyModel,
    TinyModels,
    hunyuan_patcher,
    random_memory,
    wan_patcher,
)

TOKENS = 25
# One row at a time is all that core's Hunyuan takes when its text has a mask.
CASES = [(name, batch) for name in BUILDERS for batch in (1, 2) if (name, batch) != ("hunyuan_plain", 2)]
ONE_OF_EACH = ["wan_t2v", "wan_5b", "hunyuan"]
cases = pytest.mark.parametrize(("name", "batch"), CASES)


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


def memory_for(model: TinyModel, batch: int = 1, seed: int = 5) -> VideoMemory:
    return random_memory(model.host, TOKENS, batch, seed=seed)


def difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


class BlockOwner:
    """Another node pack's patch of every block: scales the block's output and notes how long the video is.

    It may run the block several times and keep the last result.
    """

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.lengths: list[int] = []
        self.rotary: set[int] = set()

    def __call__(self, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        self.lengths.append(args["img"].shape[1])
        self.rotary.add(max(args["pe"].shape[1:3]))
        for _ in range(self.times):  # Hunyuan's blocks change their inputs
            out = extra["original_block"]({k: v.clone() if k in ("img", "txt") else v for k, v in args.items()})
        return {**out, "img": out["img"] * 1.1}

    def on(self, patcher: Any, model: TinyModel) -> Any:
        patcher = patcher.clone()
        host = model.diffusion_model
        for number in range(len(getattr(host, "blocks", None) or host.double_blocks)):
            patcher.set_model_patch_replace(self, "dit", "double_block", number)
        for number in range(len(getattr(host, "single_blocks", []))):
            patcher.set_model_patch_replace(self, "dit", "single_block", number)
        return patcher


@cases
@pytest.mark.parametrize("nothing", ["strength 0", "empty memory", "no memory", "strength below one token"])
def test_without_a_memory_the_latents_are_those_of_the_unpatched_model(
    models: TinyModels, name: str, batch: int, nothing: str
) -> None:
    model = models[name]
    memory: VideoMemory | None = memory_for(model)
    settings = MemorySettings()
    if nothing == "strength 0":
        settings = MemorySettings(strength=0)
    elif nothing == "strength below one token":
        settings = MemorySettings(strength=1e-3)
        assert len(kept_tokens(TOKENS, settings.strength)) == 0
    else:
        memory = VideoMemory.empty(memory_for(model).config) if nothing == "empty memory" else None
    result = difference(model.sample(inject(model.patcher, memory, settings), batch), model.sample(batch=batch))
    assert result == 0.0


@cases
@pytest.mark.parametrize("timestep", ["zero", "same"])
def test_with_a_memory_the_latents_are_finite_and_others(
    models: TinyModels, name: str, batch: int, timestep: Any
) -> None:
    model, recorder = models[name], Recorder()
    plain = model.sample(batch=batch)
    injected = inject(model.patcher, memory_for(model), MemorySettings(history_timestep=timestep))
    result = model.sample(recorder.on(injected), batch)
    assert result.isfinite().all()
    assert 1e-3 < difference(result, plain) < 100
    assert set(recorder.shapes) <= {(n, recorder.shapes[0][1], *model.size[1:]) for n in (batch, 2 * batch)}
    frames = model.size[1] if model.first_frame else 1
    assert all(t.numel() == frames * n for t, n in zip(recorder.timesteps, recorder.batches, strict=True))
    assert difference(model.sample(batch=batch), plain) == 0.0, "the unpatched model was changed"


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_settings_and_memory_matter(models: TinyModels, name: str) -> None:
    model = models[name]
    results = [
        model.sample(inject(model.patcher, memory_for(model, seed=seed), settings, shift))
        for seed, settings, shift in (
            (5, MemorySettings(), None),
            (5, MemorySettings(history_timestep="same"), None),
            (5, MemorySettings(strength=0.5), None),
            (5, MemorySettings(sliding_window=2), None),
            (5, MemorySettings(), -2.0),
            (6, MemorySettings(), None),
        )
    ]
    for i, one in enumerate(results):
        assert all(difference(one, other) > 1e-4 for other in results[i + 1 :])


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_film_compressed_by_an_encoder_can_be_injected(models: TinyModels, name: str) -> None:
    model = models[name]
    host = model.host
    config = EncoderConfig(host.name, host.width, host.latent_channels, "2x2x2", "without_lr", channels=(8, 8, 8, 16))
    encoder = MemoryEncoder(config)
    encoder.reset_parameters(torch.Generator().manual_seed(1))
    torch.nn.init.constant_(encoder.out.weight, 0.3)
    codec = Codec(encode=lambda pictures: pictures, decode=lambda latents: latents, embed=host.embed)
    with torch.inference_mode():
        memory = append_history(encoder, codec, VideoMemory.empty(config), model.noise())
    assert memory.token_count > 0
    result = model.sample(inject(model.patcher, memory))
    assert result.isfinite().all() and difference(result, model.sample()) > 1e-3


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_injecting_again_replaces_the_memory_and_leaves_the_earlier_clone_alone(models: TinyModels, name: str) -> None:
    model = models[name]
    one, two = memory_for(model, seed=5), memory_for(model, seed=6)
    first = inject(model.patcher, one)
    expected = model.sample(first)
    assert difference(model.sample(inject(first, two)), model.sample(inject(model.patcher, two))) == 0.0
    assert difference(model.sample(inject(first, None)), model.sample()) == 0.0
    assert difference(model.sample(first), expected) == 0.0


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_another_owner_of_the_block_slots_still_runs_and_sees_the_video_alone(models: TinyModels, name: str) -> None:
    model, memory = models[name], memory_for(models[name])
    text = 0 if model.host.name == "wan" else model.conditioning(1)[0][0].shape[1]
    video = model.video_tokens
    alone = BlockOwner()
    scaled = model.sample(alone.on(model.patcher, model))
    before, after = BlockOwner(), BlockOwner()
    results = [
        model.sample(inject(before.on(model.patcher, model), memory)),
        model.sample(after.on(inject(model.patcher, memory), model)),
    ]
    assert alone.lengths and before.lengths == after.lengths == alone.lengths
    assert set(before.lengths) <= {video, video + text} and before.rotary == after.rotary == {video + text}
    assert difference(*results) == 0.0
    assert difference(results[0], scaled) > 1e-3, "the memory had no effect beside the other patch"
    assert difference(results[0], model.sample(inject(model.patcher, memory))) > 1e-3, "the other patch had no effect"


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_another_owner_may_run_its_block_twice(models: TinyModels, name: str) -> None:
    model, memory = models[name], memory_for(models[name])
    once, twice = (inject(BlockOwner(times).on(model.patcher, model), memory) for times in (1, 2))
    assert difference(model.sample(once), model.sample(twice)) == 0.0


@pytest.mark.parametrize("name", ["wan_t2v", "wan_5b"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_patches_behind_a_block_see_the_video_alone(models: TinyModels, name: str, order: str) -> None:
    model, lengths = models[name], set()

    def patch(args: dict[str, Any]) -> dict[str, Any]:
        lengths.add(args["img"].shape[1])
        return {"img": args["img"] + 0.01}

    patcher = model.patcher.clone() if order == "before" else inject(model.patcher, memory_for(model))
    patcher.set_model_patch(patch, "double_block")
    model.sample(inject(patcher, memory_for(model)) if order == "before" else patcher)
    assert lengths == {model.video_tokens}


@pytest.mark.parametrize("name", ["wan_t2v", "wan21_i2v", "wan_5b", "hunyuan"])
@pytest.mark.parametrize(("batch", "films"), [(1, 1), (2, 1), (2, 2)])
def test_conditions_in_one_batch_or_apart_give_the_same_latents(
    models: TinyModels, name: str, batch: int, films: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, together, apart = models[name], Recorder(), Recorder()
    patcher = inject(model.patcher, memory_for(model, films))
    one = model.sample(together.on(patcher), batch)
    monkeypatch.setattr(type(patcher), "get_free_memory", lambda self, device: 0)
    two = model.sample(apart.on(patcher), batch)
    assert set(together.batches) == {2 * batch} and set(apart.batches) == {batch}
    assert difference(one, two) < 1e-5


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_each_film_of_a_batch_sees_its_own_memory(models: TinyModels, name: str) -> None:
    model, memory = models[name], memory_for(models[name], batch=2)
    result = model.sample(inject(model.patcher, memory), batch=2)
    only_first = replace(memory, tokens=Growing.of(memory.tokens.whole()[:1], 1), tail=memory.tail[:1])
    first = model.sample(inject(model.patcher, only_first), batch=2)
    assert difference(first[:1], result[:1]) < 1e-5
    assert difference(first[1:], result[1:]) > 1e-3


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize(
    ("stored", "compute"),
    [(torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float8_e4m3fn, torch.float32)],
)
@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_a_memory_costs_no_more_precision_than_the_weights(
    models: TinyModels, name: str, stored: torch.dtype, compute: torch.dtype, window: int
) -> None:
    """fp8 stands for what core offers as weight_dtype; on the CPU such weights are cast as they are used."""
    exact, settings = models[name], MemorySettings(sliding_window=window)
    patcher = (wan_patcher(models.comfy, 16, 16, dtype=stored) if name == "wan_t2v"
               else hunyuan_patcher(models.comfy, dtype=stored))  # fmt: skip
    patcher.set_model_compute_dtype(compute)
    model, memory = replace(exact, patcher=patcher), memory_for(exact)
    lost = difference(model.sample(), exact.sample())
    result = model.sample(inject(patcher, memory, settings))
    assert 0 < difference(result, exact.sample(inject(exact.patcher, memory, settings))) < 2 * lost


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_injecting_leaves_the_global_random_state_alone(models: TinyModels, name: str) -> None:
    model = models[name]
    torch.manual_seed(11)
    before = torch.get_rng_state()
    inject(model.patcher, memory_for(model), MemorySettings(strength=0.5, sliding_window=2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("films", "batch"), [(3, 2), (2, 1), (2, 3), (2, 4)])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_several_memories_want_as_many_latents(models: TinyModels, films: int, batch: int, cfg: float) -> None:
    model = models["wan_t2v"]
    with pytest.raises(ValueError, match=f"memory holds {films} clips, the latent {batch}"):
        model.sample(inject(model.patcher, memory_for(model, batch=films)), batch=batch, cfg=cfg, steps=1)
