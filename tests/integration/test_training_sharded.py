"""Processes that split the weights (FSDP2) train as one does, write whole files, and go on from each other's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import load_file

from memory_encoder.training import trainer
from memory_encoder.training.distributed.sharding import choose_units, splits_weights
from memory_encoder.training.draws import draw_rows
from memory_encoder.training.listener import RECALL_PICTURE
from memory_encoder.training.run_files import ENCODER, LORA, LOSSES, checkpoints_in, read_losses
from tests.launching import launched
from tools.environment import ROOT

from .sharded import KEPT, KEPT_AT, TOLD_AT, HunyuanClips, hunyuan_module
from .training import OneClip, tiny_module, tiny_options

SCRIPT, STEPS = str(Path(__file__).with_name("sharded.py")), 12
NEAR = 2e-4  # losses of other orders of summation


def train(environment: Any, folder: Path, split: bool, *more: str, steps: int = STEPS) -> dict[str, Any]:
    """A run to the last step, in one process or split over two by `accelerate launch`; what its script says."""
    own = {"COMFYUI_PATH": str(environment.comfy), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launch = launched("--use_fsdp", "--fsdp_version", "2") if split else []
    command = [sys.executable, *launch, SCRIPT, str(folder), str(steps), *(["split"] if split else []), *more]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, timeout=1000)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(next(line for line in done.stdout.decode().splitlines() if line.startswith("{")))


def losses_of(folder: Path) -> list[float]:
    return [
        value for entry in read_losses(folder / LOSSES) for name, value in entry.items() if name in ("loss", "heldout")
    ]


def farthest(first: Mapping[Any, torch.Tensor], second: Mapping[Any, torch.Tensor]) -> float:
    """The largest difference between tensors of the same names and shapes."""
    assert first.keys() == second.keys() and first
    assert {name: t.shape for name, t in first.items()} == {name: t.shape for name, t in second.items()}
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.fixture(scope="module")
def runs(comfy_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same run in one process and in two that split the weights."""
    folder = tmp_path_factory.mktemp("runs")
    said = {name: train(comfy_environment, folder / name, name == "split") for name in ("one", "split")}
    return {"folder": folder, **said}


def test_two_processes_hold_half_of_the_host_each_and_learn_as_one_does(runs: dict[str, Any]) -> None:
    assert (runs["one"], runs["split"]["processes"]) == ({"processes": 1, "held": 1.0}, 2)
    assert runs["split"]["held"] < 0.52
    one, split = (losses_of(runs["folder"] / name) for name in ("one", "split"))
    assert len(one) == len(split) == STEPS + STEPS // TOLD_AT  # held-out losses too
    assert max(abs(a - b) for a, b in zip(one, split, strict=True)) < NEAR


def test_files_of_split_weights_are_whole(runs: dict[str, Any]) -> None:
    one, split = runs["folder"] / "one", runs["folder"] / "split"
    for name in (ENCODER, LORA):
        assert farthest(load_file(one / name), load_file(split / name)) < 1e-3
    states = [torch.load(checkpoints_in(folder)[0], weights_only=True) for folder in (one, split)]
    for part in ("parameters", "averages"):
        assert farthest(states[0][part], states[1][part]) < 1e-3
    for first, second in zip(states[0]["optimizers"], states[1]["optimizers"], strict=True):
        assert first["state"].keys() == second["state"].keys()
        assert max(farthest(entry, second["state"][index]) for index, entry in first["state"].items()) < 1e-3


@pytest.mark.parametrize("when", [f"_{KEPT}", ""])
def test_pictures_of_split_weights_show_the_same(runs: dict[str, Any], when: str) -> None:
    """Drawn with the averages, also after held-out losses, which leave some weights gathered as they were."""
    one, split = (cv2.imread(str(runs["folder"] / (name + when) / RECALL_PICTURE)) for name in ("one", "split"))
    assert one is not None and split is not None and one.std() > 5
    difference = cv2.absdiff(one, split)
    assert difference.max() <= 1 and difference.mean() < 0.01


@pytest.mark.parametrize(("begun", "split"), [("split", True), ("split", False), ("one", True)])
def test_a_run_goes_on_with_any_number_of_processes(
    comfy_environment: Any, runs: dict[str, Any], tmp_path: Path, begun: str, split: bool
) -> None:
    """With as many as before to the same losses, with others to losses as near as rounding lets them be."""
    folder = tmp_path / "again"
    shutil.copytree(runs["folder"] / f"{begun}_{KEPT}", folder)
    train(comfy_environment, folder, split)
    again, whole = (
        {e["step"]: e["loss"] for e in read_losses(f / LOSSES) if "loss" in e} for f in (folder, runs["folder"] / begun)
    )
    assert list(again) == list(range(KEPT_AT, STEPS))
    worst = max(abs(loss - whole[step]) for step, loss in again.items())
    assert worst == 0 if begun == "split" and split else worst < NEAR


def test_hunyuan_with_a_cached_memory_is_split_too_and_muon_moves_whole_matrices(
    comfy_environment: Any, tmp_path: Path
) -> None:
    """Its blocks add in place, and run twice a pass for the keys and values that they give beside their outputs."""
    for name in ("one", "split"):
        train(comfy_environment, tmp_path / name, name == "split", "hunyuan", "muon", steps=4)
    one, split = (losses_of(tmp_path / name) for name in ("one", "split"))
    assert len(one) == len(split) == 4
    assert max(abs(a - b) for a, b in zip(one, split, strict=True)) < NEAR


def test_hunyuan_has_the_same_gradients_with_and_without_checkpointing(comfy: Any, monkeypatch: Any) -> None:
    """Without it PyTorch itself notices when something was added in place to what the backward pass needs."""
    monkeypatch.setattr(comfy.model_management, "in_training", True)
    options, gradients = tiny_options(stage="continuation", history_dropout=0.0), []
    batch = HunyuanClips(2).rows(0, 0, 2, "train", None)
    for checkpointing in (False, True):
        module = hunyuan_module(options, checkpointing)
        torch.nn.init.normal_(module.encoder.out.weight, std=0.1, generator=torch.Generator().manual_seed(2))
        module(batch, draw_rows(batch, options, 2, 0, 0)).backward()
        gradients.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    assert farthest(*gradients) < 1e-5 * max(float(value.abs().max()) for value in gradients[0].values())


def accelerator(kind: str = "FSDP", parallelism: Any = None, **settings: Any) -> Any:
    """An accelerator as far as sharding looks at it, with an FSDP configuration of these settings."""
    accelerate = pytest.importorskip("accelerate")
    plugin = accelerate.FullyShardedDataParallelPlugin(**({"fsdp_version": 2} | settings))
    state = SimpleNamespace(fsdp_plugin=plugin)
    return SimpleNamespace(
        distributed_type=accelerate.DistributedType(kind), state=state, parallelism_config=parallelism
    )


def test_a_run_of_split_weights_says_that_clips_share_what_they_are_asked_for(
    comfy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer, "prepare_split", lambda accelerator, *parts: accelerator.prepare(*parts))
    for split, per_clip in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(trainer, "splits_weights", lambda accelerator, split=split: split)
        options, before = tiny_options(per_clip=per_clip), len(caplog.records)
        run = trainer.Trainer(tiny_module(options), OneClip(), options, tmp_path, cpu=True)
        said = [record.getMessage() for record in caplog.records[before:]]
        assert any("as with per_clip off" in text for text in said) == (split and per_clip)
        assert run.losses.options.per_clip == (per_clip and not split)


def test_blocks_are_the_units_unless_the_user_names_others(comfy: Any) -> None:
    module = tiny_module(tiny_options())
    for given, expected in ((None, ["WanAttentionBlock"]), (["WanSelfAttention"], ["WanSelfAttention"])):
        own = accelerator(auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=given)
        assert splits_weights(own)
        choose_units(own, module)
        assert own.state.fsdp_plugin.transformer_cls_names_to_wrap == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auto_wrap_policy": "size_based_wrap", "min_num_params": 10}, "TRANSFORMER_BASED_WRAP"),
        ({"activation_checkpointing": True}, "--gradient-checkpointing"),
        ({"transformer_cls_names_to_wrap": ["WanModel"]}, "WanModel"),
    ],
)
def test_settings_of_fsdp_that_cannot_work_are_refused(comfy: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_units(accelerator(**settings), tiny_module(tiny_options()))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (("FSDP", None, 1), "FSDP version 1"),
        (("DEEPSPEED", None, 2), "DEEPSPEED"),
        (("FSDP", SimpleNamespace(non_data_parallel_size=2), 2), "tensor, context"),
    ],
)
def test_other_ways_to_share_a_run_are_refused(own: tuple[str, Any, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splits_weights(accelerator(own[0], own[1], fsdp_version=own[2]))


def test_quantised_hosts_are_refused(comfy: Any) -> None:
    class Packed(torch.Tensor):
        pass

    module = tiny_module(tiny_options())
    layer: Any = module.diffusion_model.get_submodule("blocks.0.ffn.0.base_layer")
    layer.weight = torch.nn.Parameter(layer.weight.detach().as_subclass(Packed), requires_grad=False)
    with pytest.raises(ValueError, match=r"blocks\.0\.ffn\.0\.base_layer\.weight is quantised \(Packed\)"):
        choose_units(accelerator(), module)
