"""What training copies of a MODEL, whichever way core loads it, and that core's memory and training leave each other
alone."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memory_encoder.files import save_tensors
from memory_encoder.training.pictures import recall_picture
from tests.dynamic_vram import CARD, use_card, use_dynamic_vram

from .models import TEXT, WAN_HEADS, random_weights, wan_skeleton
from .training import OneClip, tiny_module, tiny_options

PACK = "video_memory_dynamic_test"
META, RAM = torch.device("meta"), torch.device("cpu")


@pytest.fixture(scope="module")
def runtime(comfy: Any, load_pack: Callable[..., ModuleType]) -> ModuleType:
    load_pack(PACK)
    return importlib.import_module(f"{PACK}.nodes.runtime.training")


@pytest.fixture(scope="module")
def file(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan of bf16."""
    path = tmp_path_factory.mktemp("host") / "host.safetensors"
    weights = {name: value.bfloat16() for name, value in random_weights(wan_skeleton(comfy, 16, 16)).items()}
    save_tensors(weights, path, {"config": json.dumps({"transformer": {"text_dim": TEXT, "num_heads": WAN_HEADS}})})
    return path


@torch.inference_mode()
def load(comfy: Any, file: Path, dtype: torch.dtype | None, lora: bool) -> Any:
    """As Load Diffusion Model and Load LoRA do."""
    model = comfy.module("comfy.sd").load_diffusion_model(str(file), {} if dtype is None else {"dtype": dtype})
    if not lora:
        return model
    generator, weights = torch.Generator().manual_seed(3), {}
    for name, layer in model.model.diffusion_model.named_modules():
        if name.startswith("blocks.") and hasattr(layer, "in_features"):
            down = torch.randn(4, layer.in_features, generator=generator)
            up = 0.1 * torch.randn(layer.out_features, 4, generator=generator)
            weights |= {f"diffusion_model.{name}.lora_{side}.weight": w for side, w in (("A", down), ("B", up))}
    patched = comfy.module("comfy.sd").load_lora_for_models(model, None, weights, 1.0, 0.0)[0]
    assert len(patched.patches) == len(weights) // 2
    return patched


def copied(runtime: ModuleType, model: Any, in_ram: bool = False) -> Any:
    """As the node does, which core runs in inference mode."""
    with torch.inference_mode(), torch.inference_mode(False):
        return runtime.model_for_training(model, in_ram)


def places(patcher: Any) -> set[str]:
    return {parameter.device.type for parameter in patcher.model.parameters()}


@pytest.mark.parametrize("dtype", [None, torch.float8_e4m3fn])
@pytest.mark.parametrize("in_ram", [False, True])
def test_a_copy_from_dynamic_vram_is_that_of_the_ordinary_patcher(
    comfy: Any, runtime: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, in_ram: bool
) -> None:
    """With the LoRA in MODEL and in the types that were chosen, wherever it lies; without them it is another model."""
    right = copied(runtime, load(comfy, file, dtype, lora=True)).model.diffusion_model.state_dict()
    plain = copied(runtime, load(comfy, file, dtype, lora=False)).model.diffusion_model.state_dict()
    name = "blocks.1.ffn.0.weight"
    assert right[name].dtype == (dtype or plain[name].dtype) and not torch.equal(right[name], plain[name])
    use_card(comfy, monkeypatch)
    use_dynamic_vram(comfy, monkeypatch)
    for lora, expected in ((True, right), (False, plain)):
        model = load(comfy, file, dtype, lora)
        assert model.is_dynamic()
        copy = copied(runtime, model, in_ram)
        assert copy.load_device == (RAM if in_ram else CARD)
        found = copy.model.diffusion_model.state_dict()
        assert found.keys() == expected.keys()
        for key, value in found.items():
            assert value.dtype == expected[key].dtype and torch.equal(value.float(), expected[key].float()), key
        assert not any(value.is_inference() for value in copy.model.diffusion_model.parameters())
        assert {key for key, value in model.model.diffusion_model.state_dict().items() if value.is_meta} == set()


@pytest.mark.parametrize("in_ram", [False, True])
def test_all_else_leaves_the_card_before_training(
    comfy: Any, runtime: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch, in_ram: bool
) -> None:
    """Also what there would be room for: the plan of a run counts the card as its own."""
    use_card(comfy, monkeypatch)
    management, patcher = comfy.model_management, comfy.module("comfy.model_patcher").ModelPatcher
    model, text = load(comfy, file, None, lora=False), patcher(nn.Linear(8, 8), CARD, RAM)
    management.load_models_gpu([text, model])
    copied(runtime, model, in_ram)
    assert management.loaded_models() == [] and text.loaded_size() == 0


def test_what_core_loads_beside_training_pushes_nothing_of_the_host_out(
    comfy: Any, runtime: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`meta` stands for a card that is full: what lies in RAM is told from what lies on it."""
    use_card(comfy, monkeypatch, META, free=0)
    vae = comfy.module("comfy.model_patcher").ModelPatcher(nn.Linear(8, 8), META, RAM)
    copy = copied(runtime, load(comfy, file, None, lora=False))
    assert places(copy) == {"meta"}
    comfy.model_management.load_models_gpu([vae], memory_required=1e12)
    assert places(copy) == {"meta"} and copy not in comfy.model_management.loaded_models()


def test_the_vae_leaves_the_card_after_a_picture(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use_card(comfy, monkeypatch)
    management, patcher = comfy.model_management, comfy.module("comfy.model_patcher").ModelPatcher
    vae, other = (patcher(nn.Linear(8, 8), CARD, RAM) for _ in range(2))
    management.load_models_gpu([other])
    seen = []

    def decode(latents: Tensor) -> Tensor:
        management.load_models_gpu([vae])
        seen.append(vae in management.loaded_models())
        return torch.zeros(1, 1 + 4 * (latents.shape[2] - 1), 48, 64, 3)

    options = tiny_options(rank=4)
    run: Any = SimpleNamespace(
        options=options, source=OneClip(), sampling_shift=3.0, module=tiny_module(options),
        accelerator=SimpleNamespace(device=RAM),
    )  # fmt: skip
    recall_picture(run, decode)
    assert seen == [True] * 3 and management.loaded_models() == [other]

    def broken(latents: Tensor) -> Tensor:
        decode(latents)
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        recall_picture(run, broken)
    assert management.loaded_models() == [other] and vae.loaded_size() == 0
