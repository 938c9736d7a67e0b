"""A section with eight pictures in front at 832x480 on Wan 2.2 I2V 14B: devices, and bytes beside the budget's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .films import pack, vae_for
from .hosts import LATENTS, Steps
from .meter import GIB, Meter

BF16 = torch.bfloat16


def section(card: Any, pictures: int, step: int, layers: int | None) -> tuple[Any, Any, Any]:
    """The model, its patcher for a section, and what core's sampling is given."""
    model = card.model("wan22_14b_i2v", BF16, layers)
    config = pack("memory_encoder.phi.config").EncoderConfig(
        **vars(model.config(variant="keyframes", clips="section", repeated_frames=1, picture_step=step))
    )
    memory = pack("memory_encoder.memory.keyframe_memory").KeyframeMemory(config)
    if pictures:
        memory = memory.with_references(torch.zeros(pictures, 480, 832, 3), (60, 104))
    vae = vae_for(model)
    codec = pack("nodes.runtime.compress").codec_for(model.patcher, vae)
    marks = pack("memory_encoder.memory.picture_choice").PictureChoice()
    start = torch.zeros(1, 480, 832, 3)
    lead = pack("nodes.keyframe_lead").KeyframeLead(vae, codec, marks, start)
    plan = pack("memory_encoder.storyboard")
    story = plan.read_storyboard("a", section_seconds=5.0, fps=16.0).storyboard
    first = plan.plan_sections(story, fps=16.0, section_seconds=5.0, lattice=plan.Lattice(4, "section", 0, 1))[0]
    text = [[torch.zeros(1, 512, 4096), {}]]
    inputs = lead.inputs(first, memory, torch.zeros(1, 16, LATENTS, 60, 104), text, text)
    patcher = model.patcher.clone()
    if inputs.times:
        leading = pack("memory_encoder.injection.leading_pictures")
        patcher = leading.with_leading_pictures(patcher, inputs.times, torch.zeros_like(inputs.latent))
    return model, patcher, inputs


def peak_of(card: Any, pictures: int, step: int = 0, layers: int | None = 2) -> int:
    """Bytes above the weights of one step for both prompts."""
    model, patcher, inputs = section(card, pictures, step, layers)
    meter = Meter()
    meter.add_module(model.patcher.model)
    noise = torch.zeros_like(inputs.latent)
    with meter.above(), torch.no_grad():
        made = model.modules("comfy.sample").sample_custom(
            patcher, noise, 3.5, Steps(), torch.zeros(2), inputs.positive, inputs.negative, inputs.latent, seed=0
        )
    assert made.device.type == "cpu" and made.shape[2] == LATENTS + pictures
    return meter.peak


@pytest.mark.parametrize("step", [0, 5], ids=["StoryMem", "Memento"])
def test_a_section_with_eight_pictures_takes_no_more_than_the_budget_says(card: Any, step: int) -> None:
    budget = pack("memory_encoder.budget")
    with card.on():
        config = card.model("wan22_14b_i2v", BF16, 2).config(variant="keyframes", clips="section", repeated_frames=1)
        fields = budget.memory_fields([config], 16.0, 5.0)
        estimate = budget.estimate(budget.Plan(budget.HOSTS["wan-14b"], 832, 480, 16.0, 60.0, **fields))
        peak = peak_of(card, 8, step, layers=None)
    print(
        f"8 pictures, step {step}: {peak / GIB:.2f} GiB above the weights; budget {estimate.activation_bytes / GIB:.2f}"
    )
    assert (estimate.memory_tokens, estimate.section_tokens) == (8 * 30 * 52, LATENTS * 30 * 52)
    assert peak <= estimate.activation_bytes


def test_pictures_cost_as_many_latents_more(card: Any) -> None:
    with card.on():
        without, with_eight = peak_of(card, 0), peak_of(card, 8)
    assert with_eight <= 1.05 * without * (LATENTS + 8) / LATENTS
