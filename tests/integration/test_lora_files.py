"""A converted LoRA through core's own loader: the weight is W + scale B A, as it was trained."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from memory_encoder.cli import main

from .models import TinyModels

RANK = 128
LAYERS = ("blocks.0.self_attn.q", "blocks.1.cross_attn.o", "blocks.1.ffn.0", "blocks.1.ffn.2")


def trained(model: Any) -> dict[str, torch.Tensor]:
    """A LoRA of alpha = rank = 128 for some layers of a model, in peft's names."""
    g, found = torch.Generator().manual_seed(2), {}
    for layer in LAYERS:
        out, inside = model.get_submodule(layer).weight.shape
        found[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(RANK, inside, generator=g)
        found[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(out, RANK, generator=g)
    return found


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_weight_is_w_plus_11_31_b_a_through_cores_loader(comfy: Any, tmp_path: Path, strength: float) -> None:
    wan = TinyModels(comfy)["wan22_i2v"]
    pairs = trained(wan.diffusion_model)
    (tmp_path / "StoryMem").mkdir()
    torch.save(pairs, tmp_path / "StoryMem" / "backbone_high_noise.pth")
    assert main(["convert", str(tmp_path / "StoryMem"), "--out", str(tmp_path / "out")]) == 0
    lora = comfy.module("comfy.utils").load_torch_file(
        str(tmp_path / "out" / "StoryMem_high_noise_lora.safetensors"), safe_load=True
    )
    patched, _ = comfy.module("comfy.sd").load_lora_for_models(wan.patcher, None, lora, strength, 0.0)
    assert len(patched.patches) == len(LAYERS), "a key of the file was not used"
    for layer in LAYERS:
        key = f"diffusion_model.{layer}.weight"
        weight = wan.diffusion_model.get_submodule(layer).weight.detach().float()
        merged = comfy.module("comfy.lora").calculate_weight(patched.patches[key], weight.clone(), key)
        down, up = (pairs[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
        change = RANK / RANK**0.5 * (up @ down)
        assert torch.allclose(merged, weight + strength * change, rtol=1e-4, atol=1e-2), layer
        assert not torch.allclose(merged, weight + strength * (up @ down), rtol=1e-2, atol=1), layer


def test_memory_encoder_beside_a_pair_loads_as_a_memory_of_pictures(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path
) -> None:
    wan = TinyModels(comfy)["wan22_i2v"]
    (tmp_path / "Wan2.2-MM2V-A14B").mkdir()
    torch.save(trained(wan.diffusion_model), tmp_path / "Wan2.2-MM2V-A14B" / "backbone_low_noise.pth")
    assert main(["convert", str(tmp_path / "Wan2.2-MM2V-A14B"), "--out", str(tmp_path)]) == 0
    extension = asyncio.run(load_pack("video_memory_lora_test").comfy_entrypoint())
    asyncio.run(extension.get_node_list())
    managed = sys.modules["video_memory_lora_test.nodes.runtime.managed"]
    encoder = managed.load_encoder(tmp_path / "Wan2.2-MM2V-A14B_memory_encoder.safetensors")
    assert encoder.config.repeated_frames == 5 and encoder.config.width == wan.host.width
    encoder.check_host(wan.host)
    assert encoder.empty_memory(1).pictures == ()
