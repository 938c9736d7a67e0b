"""Training on a host in scaled fp8, as core loads it: quantized tensors, which call themselves bf16 or float32."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from memory_encoder.injection.hosts.base import host_blocks
from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.training.card_plan import plan_memory
from memory_encoder.training.draws import draw_rows
from memory_encoder.training.lora import add_lora
from memory_encoder.training.module import TrainingModule
from memory_encoder.training.streaming import streamed_blocks
from memory_encoder.training.weight_parts import taken_apart, weight_bytes
from tests.pinning import registering

from .models import TEXT, WAN_HEADS, random_weights, wan_skeleton
from .training import OneClip, tiny_module, tiny_options


@pytest.fixture(scope="module")
def scaled(comfy: Any) -> TrainingModule:
    """The blocks' matrices in fp8 with a scale each, all else in bf16; a LoRA on it."""
    weights: dict[str, torch.Tensor] = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for name, value in random_weights(wan_skeleton(comfy, 16, 16)).items():
        weights[name] = value.bfloat16()
        if value.ndim == 2 and name.startswith("blocks."):
            scale = value.abs().max() / 448
            weights[name] = (value / scale).to(torch.float8_e4m3fn)
            weights[name.removesuffix("weight") + "scale_weight"] = scale.float()
    metadata = {"config": json.dumps({"transformer": {"text_dim": TEXT, "num_heads": WAN_HEADS}})}
    with torch.inference_mode(False):
        patcher = comfy.module("comfy.sd").load_diffusion_model_state_dict(weights, {}, metadata)
        model = patcher.model.diffusion_model
        if not hasattr(model.blocks[0].ffn[0].weight, "_qdata"):
            pytest.skip("this ComfyUI has no quantized tensors")
        add_lora(model, 4, 0)
        module = tiny_module(tiny_options(stage="continuation", per_clip=False))
        return TrainingModule(module.encoder, model, gradient_checkpointing=True)


def frozen(module: TrainingModule) -> list[torch.Tensor]:
    return [p for p in module.diffusion_model.blocks[0].parameters() if not p.requires_grad]  # type: ignore[index,union-attr]


def step(module: TrainingModule) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients."""
    options = tiny_options(mixed_precision="bf16", gradient_checkpointing=True, batch_size=1)
    batch = OneClip().rows(0, 0, 1, "train", None)
    with training_mode(), torch.autocast("cpu", torch.bfloat16):
        loss = module(batch, draw_rows(batch, options, 2, 0, 0)).float()
        loss.backward()
    found = [p.grad for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    return loss.item(), found


def test_the_plan_counts_the_bytes_that_weights_have(scaled: TrainingModule) -> None:
    plan = plan_memory(scaled, tiny_options(resident_blocks=0, mixed_precision="bf16"), (16, 5, 6, 8))
    matrices = [weight for weight in frozen(scaled) if weight.ndim == 2]
    others = sum(weight.nbytes for weight in frozen(scaled) if weight.ndim != 2)
    values = sum(weight.numel() for weight in matrices)
    assert len(matrices) == 10 and plan.blocks[0] == values + 4 * len(matrices) + others  # a byte each, and the scale
    # One layer's weights are there once more, in the type in which core multiplies on a processor.
    largest = max(weight.numel() for weight in matrices)
    plain = tiny_module(tiny_options(stage="continuation", per_clip=False))
    without = TrainingModule(scaled.encoder, plain.diffusion_model.bfloat16(), gradient_checkpointing=True)
    options = tiny_options(mixed_precision="bf16", rank=4)
    once = [plan_memory(module, options, (16, 5, 6, 8)).step.once for module in (scaled, without)]
    assert once[0] - once[1] == 4 * largest


def test_weights_that_wait_in_pinned_ram_stay_quantized(
    scaled: TrainingModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, gradients = step(scaled)
    size = sum(weight_bytes(weight) for weight in frozen(scaled))
    ram = registering(monkeypatch)
    blocks = host_blocks(scaled.diffusion_model)
    with streamed_blocks(scaled.diffusion_model, 0):
        assert len(ram.ranges) == len(blocks) and size < ram.most / len(blocks) < size + 12000  # pages and alignment
        weight: Any = blocks[0].ffn[0].base_layer.weight  # type: ignore[index,union-attr]
        assert hasattr(weight, "_qdata") and all(ram.holds(part) for part in taken_apart(weight)[0])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        again, others = step(scaled)
    assert again == loss and all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert not ram.ranges and hasattr(frozen(scaled)[0], "nbytes")
    assert sum(weight_bytes(weight) for weight in frozen(scaled)) == size
