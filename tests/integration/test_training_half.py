"""A host whose weights are bf16 or fp16, as core loads it on a card: real tensors, no operations that cast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.evaluation.score import score_clip
from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.injection.hosts.encoder_file import with_paths
from memory_encoder.training.draws import draw_rows
from memory_encoder.training.listener import RECALL_PICTURE, PictureListener
from memory_encoder.training.module import TrainingModule, computing_type, weights_type
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.trainer import Trainer

from .sharded import HunyuanClips, decode, hunyuan_module
from .training import OneClip, narrowed, tiny_module, tiny_options


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


def cast_layer_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's autocast runs layer norms in float32; the CPU's leaves them alone, and they refuse mixed types there."""
    plain: Any = torch.nn.functional.layer_norm

    def layer_norm(input: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return plain(input, shape, weight, bias, eps)
        weight, bias = (each if each is None else each.float() for each in (weight, bias))
        return plain(input.float(), shape, weight, bias, eps)

    monkeypatch.setattr(torch.nn.functional, "layer_norm", layer_norm)


def half_module(options: TrainOptions, kind: torch.dtype, host: str = "wan", **paths: Any) -> TrainingModule:
    """A host of half weights under a float32 LoRA and a float32 encoder."""
    make = tiny_module if host == "wan" else hunyuan_module
    module = make(options, options.gradient_checkpointing)
    for name, parameter in module.diffusion_model.named_parameters():
        if ".lora_" not in name and not name.startswith("patch_embedding."):  # Wan's stays float32, whatever the file
            parameter.data = parameter.data.to(kind)
    settings: dict[str, Any] = {"cross_attention": False, "memory_attention": "joint"} | paths
    module.encoder = with_paths(module.encoder, find_host(module.diffusion_model), seed=1, **settings)
    return module


@pytest.mark.parametrize(
    ("kind", "precision", "stage", "host", "paths"),
    [
        (torch.bfloat16, "no", "retrieval", "wan", {}),
        (torch.bfloat16, "bf16", "continuation", "wan", {"cross_attention": True}),
        (torch.bfloat16, "no", "retrieval", "hunyuan", {"memory_attention": "cached"}),
        (torch.float16, "no", "continuation", "wan", {"cross_attention": True}),
    ],
)
def test_a_run_with_pictures_goes_through_and_learns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: Any, kind: torch.dtype, stage: Any, host: str,
    paths: dict[str, Any],
) -> None:  # fmt: skip
    """Also without mixed precision, which would meet half weights with float32 latents."""
    if kind == torch.float16:
        cast_layer_norms(monkeypatch)  # it is trained in bf16
    options = tiny_options(
        steps=2, stage=stage, mixed_precision=precision, picture_every=2, warmup=1, batch_size=1, rank=4,
        history_dropout=0.0, gradient_checkpointing=True,
    )  # fmt: skip
    module = half_module(options, kind, host, **paths)
    before = {name: p.clone() for name, p in module.named_parameters() if p.requires_grad}
    clips = OneClip(8) if host == "wan" else HunyuanClips(8)
    trainer = Trainer(module, clips, options, tmp_path, PictureListener(tmp_path, decode), cpu=True)
    losses = [entry["loss"] for entry in trainer.run() if "loss" in entry]
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses)
    assert (tmp_path / RECALL_PICTURE).is_file()
    changed = [name for name, p in module.named_parameters() if p.requires_grad and not torch.equal(p, before[name])]
    assert any(name.startswith("encoder.") for name in changed) and any(".lora_B." in name for name in changed)
    assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}


def test_evaluation_of_a_half_host_goes_through() -> None:
    module = half_module(tiny_options(), torch.bfloat16)
    batch = OneClip().rows(0, 0, 1, "train", None)
    score = score_clip("clip", decode(batch.hr)[0], batch.hr, batch.lr, module, batch.conditioning, decode, 0, 2)
    assert all(value > 0 for value in score.psnr.values())
    assert score.pictures["memory"].dtype == torch.float32


@torch.no_grad()
def test_half_and_full_hosts_give_the_same_loss_but_for_rounding() -> None:
    options = tiny_options()
    batch = OneClip().rows(0, 0, 1, "train", None)
    drawn = draw_rows(batch, options, 2, 0, 0)
    full = float(tiny_module(options)(batch, drawn))
    assert float(half_module(options, torch.bfloat16)(batch, drawn)) == pytest.approx(full, rel=0.02)


def test_an_fp8_host_learns_to_the_bit_as_a_bf16_host_of_its_values(tmp_path: Path) -> None:
    """Its weights stay fp8, and are cast again in the backward pass."""
    options, fp8, losses = tiny_options(steps=6, stage="continuation", mixed_precision="bf16"), torch.float8_e4m3fn, []
    for stored, rounded in ((fp8, fp8), (torch.bfloat16, fp8), (torch.bfloat16, torch.bfloat16)):
        module = narrowed(tiny_module(options, casting=True), stored, rounded)
        trainer = Trainer(module, OneClip(8), options, tmp_path / f"{stored}{rounded}", cpu=True)
        losses.append([entry["loss"] for entry in trainer.run()])
        assert weights_type(module.diffusion_model) == stored
    narrow, its_values, other = losses
    assert narrow == its_values != other


def test_the_type_that_a_host_computes_in() -> None:
    """Its weights', unless an autocast is on; fp16 under gradients would lose them."""
    options = tiny_options()
    module = half_module(options, torch.float16).diffusion_model
    assert computing_type(module, "cpu") == torch.bfloat16
    with torch.no_grad():
        assert computing_type(module, "cpu") == torch.float16
    full = tiny_module(options).diffusion_model
    assert computing_type(full, "cpu") is None
    with torch.autocast("cpu", torch.bfloat16):
        assert computing_type(full, "cpu") is None and computing_type(module, "cpu") == torch.bfloat16
    for name, parameter in full.named_parameters():
        if ".lora_" not in name:
            parameter.data = parameter.data.to(torch.float8_e4m3fn)
    assert computing_type(full, "cpu") is None
    assert computing_type(full, "cpu", torch.bfloat16) == torch.bfloat16  # what core casts to, where nothing else says
    assert computing_type(full, "cpu", torch.float32) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert computing_type(full, "cpu") == torch.bfloat16
