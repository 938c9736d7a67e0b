"""A LoRA in MODEL that patches the host's first projection is in the memory's own tokens, whatever core has loaded."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.files import save_tensors
from memory_encoder.injection.hosts.comfy_models import codec, host_of_patcher
from memory_encoder.injection.inject import DIFFUSION_MODEL, KEY, inject
from memory_encoder.injection.selection import MemorySettings
from tests.dynamic_vram import use_card, use_dynamic_vram

from .models import TEXT, WAN_HEADS, random_memory, random_weights, wan_skeleton

PACK = "video_memory_patched_test"
FIRST = "diffusion_model.patch_embedding"


@pytest.fixture(scope="module")
def file(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("host") / "host.safetensors"
    weights = random_weights(wan_skeleton(comfy, 16, 16))
    save_tensors(weights, path, {"config": json.dumps({"transformer": {"text_dim": TEXT, "num_heads": WAN_HEADS}})})
    return path


@pytest.fixture(params=["ordinary", "dynamic"])
def plain(request: pytest.FixtureRequest, comfy: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A MODEL as core loads it in either way, on what it takes for a card."""
    use_card(comfy, monkeypatch)
    if request.param == "dynamic":
        use_dynamic_vram(comfy, monkeypatch)
    with torch.inference_mode():
        return comfy.module("comfy.sd").load_diffusion_model(str(file), {})


def changes(model: Any, name: str = FIRST) -> dict[str, Tensor]:
    """What is added to a weight and its bias."""
    g, layer = torch.Generator().manual_seed(3), model.get_model_object(name)
    shapes = {"diff": layer.weight.shape, "diff_b": layer.bias.shape}
    return {f"{name}.{kind}": 0.2 * torch.randn(shape, generator=g) for kind, shape in shapes.items()}


def with_lora(comfy: Any, model: Any, lora: dict[str, Tensor]) -> Any:
    patched, _ = comfy.module("comfy.sd").load_lora_for_models(model, None, lora, 1.0, 0.0)
    assert len(patched.patches) == 2
    return patched


def latents() -> Tensor:
    return torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(4))


def expected(model: Any, lora: dict[str, Tensor]) -> Tensor:
    conv = model.get_model_object(FIRST)
    weight, bias = conv.weight + lora[f"{FIRST}.diff"], conv.bias + lora[f"{FIRST}.diff_b"]
    return torch.nn.functional.conv3d(latents(), weight, bias, stride=conv.stride)


@torch.inference_mode()
def test_a_patched_projection_is_in_the_tokens_whatever_is_loaded(comfy: Any, plain: Any) -> None:
    lora, management = changes(plain), comfy.model_management
    patched, before = with_lora(comfy, plain, lora), plain.model.diffusion_model.patch_embedding(latents())
    right = expected(plain, lora)
    assert not torch.equal(right, before)
    for loaded in (None, patched, plain, patched, None):
        management.unload_all_models() if loaded is None else management.load_models_gpu([loaded])
        assert torch.equal(host_of_patcher(patched).embed(latents()), right)
        assert torch.equal(host_of_patcher(plain).embed(latents()), before)


@torch.inference_mode()
def test_a_patch_of_another_weight_changes_no_token(comfy: Any, plain: Any) -> None:
    before = host_of_patcher(plain).embed(latents())
    patched = with_lora(comfy, plain, changes(plain, "diffusion_model.blocks.0.ffn.0"))
    for loaded in (None, patched, plain):
        comfy.model_management.load_models_gpu([loaded] if loaded else [])
        assert torch.equal(host_of_patcher(patched).embed(latents()), before)
        assert host_of_patcher(patched).patched("patch_embedding.weight") is None


@torch.inference_mode()
def test_window_codec_and_nodes_read_the_patched_projection(
    comfy: Any, plain: Any, load_pack: Callable[..., ModuleType]
) -> None:
    load_pack(PACK)
    sampling = importlib.import_module(f"{PACK}.nodes.runtime.sampling")
    lora = changes(plain)
    patched, right = with_lora(comfy, plain, lora), expected(plain, lora)
    assert torch.equal(sampling.host_of(patched).embed(latents()), right)
    vae = SimpleNamespace(
        latent_dim=3, latent_channels=16,
        temporal_compression_decode=lambda: 4, spacial_compression_decode=lambda: 8,
    )  # fmt: skip
    assert torch.equal(codec(patched, vae).embed(latents()), right)
    memory = random_memory(sampling.host_of(plain), 12)
    seen = {}
    for name, model in (("plain", plain), ("patched", patched)):
        wrapper = inject(model, memory, MemorySettings(sliding_window=2)).get_wrappers(DIFFUSION_MODEL, KEY)[0]
        seen[name] = wrapper.memory.tokens
    assert not torch.equal(seen["plain"], seen["patched"])  # of the sliding window


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("patched", [False, True])
@torch.inference_mode()
def test_a_projection_that_waits_in_ram_is_none_of_cudnns(
    comfy: Any, plain: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, near: float, patched: bool
) -> None:
    """With some versions of torch core gives Conv3d of half types to cuDNN, which knows no RAM."""
    weight = plain.get_model_object(FIRST)
    model = with_lora(comfy, plain, changes(plain)) if patched else plain
    weight.weight.data, weight.bias.data = weight.weight.data.to(dtype), weight.bias.data.to(dtype)
    monkeypatch.setattr(comfy.module("comfy.ops"), "NVIDIA_MEMORY_CONV_BUG_WORKAROUND", True)
    found = host_of_patcher(model).embed(latents())
    bias, exact = weight.bias.float(), weight.weight.float()
    if patched:
        exact, bias = exact + changes(plain)[f"{FIRST}.diff"], bias + changes(plain)[f"{FIRST}.diff_b"]
    right = torch.nn.functional.conv3d(latents(), exact, bias, stride=weight.stride)
    assert (found.float() - right).abs().max() <= near * right.abs().max()


@pytest.mark.parametrize("variant", ["proposed", "only_lr"])
@torch.inference_mode()
def test_an_encoder_without_weights_takes_no_room_of_the_card(
    comfy: Any, load_pack: Callable[..., ModuleType], plain: Any, variant: str
) -> None:
    """Dynamic VRAM fails at a model of no bytes."""
    load_pack(PACK)
    nodes = importlib.import_module(f"{PACK}.nodes.encoder_nodes")
    managed = nodes.VideoMemoryEncoderNew.execute(plain, "2x2x2", variant, "frame", False, 0).args[0]
    managed.load()
    model = managed.attach(plain)
    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    assert len(model.get_nested_additional_models()) == (variant == "proposed")
