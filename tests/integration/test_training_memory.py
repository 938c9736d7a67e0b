"""What saves memory in training, against the plain run: losses, and where things lie."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from memory_encoder.injection.hosts.base import host_blocks
from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.training import optimizers
from memory_encoder.training.lora import remove_lora
from memory_encoder.training.module import TrainingModule, weights_type
from memory_encoder.training.optimizers import Ema, adamw_8bit
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.streaming import streamed_blocks
from memory_encoder.training.trainer import Trainer

from .sharded import HunyuanClips, hunyuan_module
from .training import OneClip, tiny_module, tiny_options


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


def made(options: TrainOptions, host: str) -> tuple[TrainingModule, Any]:
    module = (tiny_module if host == "wan" else hunyuan_module)(options, options.gradient_checkpointing)
    module.offload_inputs = options.offload_inputs
    return module, OneClip(8) if host == "wan" else HunyuanClips(8)


def losses(folder: Path, host: str = "wan", **changes: Any) -> list[float]:
    options = tiny_options(
        steps=6, batch_size=2, rank=8, stage="continuation", history_dropout=0.0, warmup=1, gradient_checkpointing=True
    )
    options = TrainOptions(**{**vars(options), **changes})
    module, clips = made(options, host)
    with streamed_blocks(module.diffusion_model, options.resident_blocks):
        entries = Trainer(module, clips, options, folder, cpu=True).run()
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.parametrize("host", ["wan", "hunyuan"])
def test_where_weights_and_inputs_wait_changes_no_loss(host: str, tmp_path: Path) -> None:
    plain = losses(tmp_path / "plain", host)
    assert losses(tmp_path / "none", host, resident_blocks=0) == plain
    assert losses(tmp_path / "one", host, resident_blocks=1, offload_inputs=True) == plain


def test_blocks_have_their_weights_again_afterwards_also_after_an_error() -> None:
    module, _ = made(tiny_options(), "wan")
    before = {name: value.clone() for name, value in module.diffusion_model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), streamed_blocks(module.diffusion_model, 1):
        inside = dict(host_blocks(module.diffusion_model)[1].named_parameters())
        assert inside and all(".lora_" in name for name in inside)
        assert weights_type(module.diffusion_model) == torch.float32
        raise RuntimeError("stop")
    after = module.diffusion_model.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad for n, p in module.diffusion_model.named_parameters() if ".lora_" not in n)
    remove_lora(module.diffusion_model)


def test_an_8_bit_optimizer_that_is_not_installed_is_named_with_what_else_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"bitsandbytes.*torchao.*adamw, with resident_blocks"):
        adamw_8bit(True)


def test_a_card_takes_bitsandbytes_and_a_processor_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda name: name)
    monkeypatch.setattr(optimizers, "import_module", lambda name: type(name, (), {"AdamW8bit": name}))
    assert adamw_8bit(True) == "bitsandbytes.optim" and adamw_8bit(False) == "torchao.optim"


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_moments_of_8_bits_follow_the_plain_run_and_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # a processor's compiler takes minutes
    plain, eight = (losses(tmp_path / name, optimizer=name) for name in ("adamw", "adamw8bit"))
    assert eight == pytest.approx(plain, rel=0.02) and eight != plain
    parts = [losses(tmp_path / "parts", optimizer="adamw8bit", steps=steps) for steps in (3, 6)]
    assert parts[1] == eight


def test_muon_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = losses(tmp_path / "whole", optimizer="muon")
    parts = [losses(tmp_path / "parts", optimizer="muon", steps=steps) for steps in (3, 6)]
    assert parts[1] == whole != losses(tmp_path / "adamw")


def test_averages_of_every_third_step_have_the_decay_of_all_three() -> None:
    """Of weights that do not move in between they are the same."""
    weights = {"w": torch.nn.Parameter(torch.zeros(3))}
    each, third = Ema(weights, 0.9), Ema(weights, 0.9, every=3)
    for step in range(1, 13):
        if step % 3 == 1:
            weights["w"].data += torch.rand(3)
        each.update(step)
        third.update(step)
    torch.testing.assert_close(third.averages["w"], each.averages["w"])
