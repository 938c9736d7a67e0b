"""What a section with pictures gives to the model, against core's own forward on tensors built by hand, to the bit."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integration.models import TinyModel, TinyModels

from .worlds import World, make_world

PACK = "video_memory_keyframe_parity_test"
PICTURES, GIVEN = (0, 1, 8), (0, 1, 5)
CASES = [(pictures, given) for pictures in PICTURES for given in GIVEN if pictures or given]
LATENTS, SEED = 4, 11


@pytest.fixture(scope="module")
def model(comfy: Any) -> TinyModel:
    return TinyModels(comfy)["wan22_i2v"]


@pytest.fixture
def world(comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    return make_world(comfy, load_pack, PACK, tmp_path)


class Calls:
    """A DIFFUSION_MODEL wrapper that keeps the arguments and results of the model's forward."""

    def __init__(self) -> None:
        self.made: list[tuple[tuple[Any, ...], dict[str, Any], Tensor]] = []

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        came = args[0].clone()
        out = executor(*args, **kwargs)
        self.made.append(((came, *args[1:]), kwargs, out.clone()))
        return out

    def on(self, patcher: Any) -> Any:
        patcher = patcher.clone()
        patcher.add_wrapper_with_key("diffusion_model", "calls", self)
        return patcher


def pictures_of(count: int, seed: int) -> Tensor:
    """Pictures [count,48,64,3] of whole numbers of 255."""
    return torch.randint(0, 256, (count, 48, 64, 3), generator=torch.Generator().manual_seed(seed)) / 255


def sampled(
    world: World, model: TinyModel, pictures: int, given: int, step: int = 0, told: list[Any] | None = None
) -> tuple[Calls, Tensor, Any]:
    """One section of our sampler: the calls of the model, its latents, and the patched model. told: of each step, what
    a preview is made of."""
    told = [] if told is None else told
    pack = lambda name: importlib.import_module(f"{PACK}.{name}")  # noqa: E731
    keyframes, choice = pack("memory_encoder.memory.keyframe_memory"), pack("memory_encoder.memory.picture_choice")
    encoder = world.call(
        "VideoMemoryEncoderNew", model.patcher, "4x4x2", "keyframes", "frame", False, 0, repeated_frames=5,
        picture_step=step,
    )[0]  # fmt: skip
    memory = encoder.empty_memory(1)
    if pictures:
        memory = memory.with_references(pictures_of(pictures, 1), (6, 8))
    if given:
        record = pack("memory_encoder.memory.video_memory").SectionRecord(0, 3, 0)
        clip = keyframes.KeptClip(record, 9, (), keyframes.as_bytes(pictures_of(given, 2)))
        memory = replace(memory, clips=(*memory.clips, clip))
    calls, vae = Calls(), world.inputs["vae"]
    patcher = calls.on(model.patcher)
    codec = pack("nodes.runtime.compress").codec_for(patcher, vae)
    renderer = pack("nodes.section_renderer")
    quiet = SimpleNamespace(
        step=lambda *a: told.append(a), advance=lambda *a: None, sampling=lambda *a: None, pictures=lambda *a: None
    )
    plan = world.shots("a", seconds=0.75).plan(pack("memory_encoder.storyboard").Lattice(4, "section", 0, 5))
    section = replace(plan[0], index=1, latents=LATENTS, repeated=given, transition="continue" if given else "cut")
    lead = pack("nodes.keyframe_lead").KeyframeLead(vae, codec, choice.PictureChoice())
    made = renderer.SectionRenderer(
        [renderer.Expert(patcher, torch.linspace(1, 0, 3))], encoder, codec,
        pack("memory_encoder.injection.selection").MemorySettings(), {"a": model.conditioning(1)},
        model.conditioning(2), 1.0, world.inputs["sampler"], (16, 6, 8), quiet, quiet, lead, choice.PictureChoice(),
    )  # fmt: skip
    with torch.inference_mode():
        return calls, made.sample(section, SEED, memory), patcher


def by_hand(world: World, model: TinyModel, pictures: int, given: int, without: str = "") -> Tensor:
    """The 36 channels of the first step, built as StoryMem's release means them; `without` one part.

    Where a shot goes on with one frame, the release itself writes grey over it (memory2video.py, the second `if`).
    """
    vae, process_in = world.inputs["vae"], model.patcher.get_model_object("latent_format").process_in
    known = {0: 0, 1: 1, 5: 2}[given]
    clip = torch.full((13, 48, 64, 3), 0.0 if without == "grey" else 0.5)
    if given and without != "given frames":
        clip[:given] = pictures_of(given, 2)
    with torch.inference_mode():
        kept = [vae.encode(picture[None]) for picture in pictures_of(pictures, 1)]
        if without == "alone":  # as one clip instead of one by one
            kept = [vae.encode(pictures_of(pictures, 1).repeat_interleave(4, 0)[3:])]
        kept = kept[::-1] if without == "order" else kept
        seen = process_in(torch.cat([*kept, vae.encode(clip)], dim=2))
    seen, frames = seen.clone().float(), pictures + LATENTS
    mask = torch.zeros(1, 4, frames, 6, 8)
    mask[:, :, :pictures] = 0 if without == "mask of pictures" else 1
    mask[:, :, pictures : pictures + known] = 0 if without == "mask of given frames" else 1
    if without == "all four":
        mask[:, 1:] = 0
    if without == "latents of pictures":
        seen[:, :, :pictures] = 0
    noise = torch.randn(1, 16, frames, 6, 8, generator=torch.Generator().manual_seed(SEED))
    if without == "noise of pictures":
        noise[:, :, :pictures] = 0
    return torch.cat([noise, mask, seen], dim=1)


def forward(model: TinyModel, calls: Calls, x: Tensor) -> Tensor:
    """Core's forward on other input, with the text and timestep of our sampler's first step."""
    args, kwargs, _ = calls.made[0]
    with torch.inference_mode():
        return model.diffusion_model(x.to(args[0]), *args[1:], **kwargs)


@pytest.mark.parametrize(("pictures", "given"), CASES)
def test_our_forward_is_core_s_on_tensors_built_by_hand(
    world: World, model: TinyModel, pictures: int, given: int
) -> None:
    calls, latent, _ = sampled(world, model, pictures, given)
    (x, *_), _, out = calls.made[0]
    expected = by_hand(world, model, pictures, given)
    assert torch.equal(x, expected.to(x)) and latent.shape == (1, 16, LATENTS, 6, 8)
    assert torch.equal(out, forward(model, calls, expected))


@pytest.mark.parametrize(
    "without",
    ["grey", "given frames", "alone", "order", "mask of pictures", "mask of given frames", "all four",
     "latents of pictures", "noise of pictures"],
)  # fmt: skip
def test_each_part_left_out_breaks_it(world: World, model: TinyModel, without: str) -> None:
    calls, _, _ = sampled(world, model, 8, 5)
    wrong = by_hand(world, model, 8, 5, without)
    assert not torch.equal(calls.made[0][0][0], wrong.to(calls.made[0][0][0]))
    difference = (calls.made[0][2] - forward(model, calls, wrong))[:, :, 8:].abs().max()
    print(f"without {without}: {difference:.1e}")
    assert difference > 1e-3


def test_previews_show_the_section_without_the_pictures_in_front(world: World, model: TinyModel) -> None:
    told: list[Any] = []
    _, latent, _ = sampled(world, model, 8, 0, told=told)
    shown = [value for step in told for value in step if isinstance(value, Tensor)]
    assert shown and {value.shape for value in shown} == {latent.shape}


def half_alone(rows: int) -> Callable[..., Tensor]:
    """Self-attention as Memento's training has it: one of the pictures, one of everything, the mean for pictures."""

    def run(attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        both = attention(q, k, v, *args, **kwargs)
        if q.shape[1] != k.shape[1]:
            return both
        pictures = attention(q[:, :rows], k[:, :rows], v[:, :rows], *args, **kwargs)
        return torch.cat([0.5 * pictures + 0.5 * both[:, :rows], both[:, rows:]], dim=1)

    return run


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(("pictures", "given"), [(1, 0), (8, 5)])
def test_memento_s_pictures_have_their_own_times_the_step_s_noise_and_half_an_attention_of_their_own(
    world: World, model: TinyModel, pictures: int, given: int, step: int
) -> None:
    """Against core's own forward on what Memento's release computes: memory2video_learnable_rope_fine, model_memory."""
    calls, latent, _ = sampled(world, model, pictures, given, step=5)
    (came, *args), _, out = calls.made[step]
    core, sigma = model.diffusion_model, (1.0, 0.5)[step]
    clean = by_hand(world, model, pictures, given)[:, 20:, :pictures]
    noise = torch.randn(1, 16, pictures + LATENTS, 6, 8, generator=torch.Generator().manual_seed(SEED))

    def expected(x: Tensor, distance: int, attention: dict[str, Any]) -> Tensor:
        with torch.inference_mode():
            parts = [core.rope_encode(1, 6, 8, t_start=-distance * (pictures - i)) for i in range(pictures)]
            freqs = torch.cat([*parts, core.rope_encode(LATENTS, 6, 8)], dim=1)
            return core.forward_orig(x, args[0], args[1], freqs=freqs, transformer_options=attention)

    right = came.clone()
    right[:, :16, :pictures] = (1 - sigma) * clean + sigma * noise[:, :, :pictures]
    split = {"optimized_attention_override": half_alone(pictures * 3 * 4)}
    torch.testing.assert_close(out, expected(right, 5, split), atol=1e-5, rtol=1e-5)
    assert (right - came).abs().max() > 0.5 or step == 0  # what core's solver would have made of them
    for wrong in [expected(right, 1, split), expected(right, 5, {}), *([expected(came, 5, split)] if step else [])]:
        assert (out - wrong)[:, :, pictures:].abs().max() > 1e-3
    plain, other, _ = sampled(world, model, pictures, given)
    assert (out - plain.made[step][2]).abs().max() > 1e-3 and not torch.equal(latent, other)
