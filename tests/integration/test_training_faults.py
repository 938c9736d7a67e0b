"""What a run does with numbers that are not finite, and what it leaves of the process that it ran in."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.training.draws import random_state_kept
from memory_encoder.training.pictures import loss_plot
from memory_encoder.training.run_files import ENCODER, LORA, LOSSES, checkpoints_in, read_losses
from memory_encoder.training.trainer import NotFinite, Trainer

from .training import OneClip, Spoilt, tiny_module, tiny_options


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


def options_of(**changes: Any) -> Any:
    return tiny_options(**({"batch_size": 2, "rank": 4, "checkpoint_every": 2, "warmup": 1} | changes))


def run(folder: Path, clips: OneClip, **changes: Any) -> Trainer:
    options = options_of(**changes)
    trainer = Trainer(tiny_module(options), clips, options, folder, cpu=True)
    trainer.run()
    return trainer


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, list):
        for each in value:
            yield from tensors(each)


def saved(folder: Path) -> list[Tensor]:
    found = list(tensors(torch.load(checkpoints_in(folder)[0], weights_only=True)))
    return found + [tensor for name in (ENCODER, LORA) for tensor in load_file(folder / name).values()]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_is_left_out_and_the_run_goes_on(tmp_path: Path, accumulate: int) -> None:
    """One NaN in one of the parts that make a step: nothing of it reaches weights, averages or files."""
    trainer = run(tmp_path, Spoilt(2 * accumulate + accumulate - 1), steps=5, accumulate=accumulate)
    entries = read_losses(tmp_path / LOSSES)
    assert [(entry["step"], entry["skipped"]) for entry in entries if "skipped" in entry] == [(2, "loss is nan")]
    assert [entry["step"] for entry in entries if "loss" in entry] == [0, 1, 3, 4]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved(tmp_path))
    assert torch.load(checkpoints_in(tmp_path)[0], weights_only=True)["step"] == 5 == trainer.done
    assert "NaN" not in (tmp_path / LOSSES).read_text()


def test_a_gradient_that_is_not_finite_is_left_out_too(tmp_path: Path) -> None:
    options = options_of(steps=3)
    trainer = Trainer(tiny_module(options), OneClip(8), options, tmp_path, cpu=True)
    weight = next(p for p in trainer.module.encoder.parameters() if p.requires_grad)
    calls: list[int] = []

    def spoil(gradient: Tensor) -> Tensor:
        calls.append(1)
        return gradient * float("inf") if len(calls) == 2 else gradient

    weight.register_hook(spoil)
    losses = trainer.run()
    assert [entry["step"] for entry in losses if "skipped" in entry] == [1]
    assert [entry["skipped"][:16] for entry in losses if "skipped" in entry] == ["gradient norm is"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved(tmp_path))


def test_a_resumed_run_leaves_out_the_same_step_and_gives_the_same_losses(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Spoilt(1), steps=4)
    run(tmp_path / "cut", Spoilt(1), steps=2)
    again = run(tmp_path / "cut", Spoilt(1), steps=4)
    assert again.first_step == 2
    assert read_losses(tmp_path / "whole" / LOSSES) == read_losses(tmp_path / "cut" / LOSSES)
    for name, parameter in whole.ema.parameters.items():
        assert torch.equal(parameter, again.ema.parameters[name])


def test_a_run_stops_after_a_few_such_steps_and_its_last_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(
        NotFinite, match=r"last 3 steps, up to step 5, .*loss is nan.*as it was saved after step 4;.*learning_rate"
    ):
        run(tmp_path, Spoilt(*range(2, 40)), steps=40, max_skipped=3)
    assert len([entry for entry in read_losses(tmp_path / LOSSES) if entry.get("skipped")]) == 3
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved(tmp_path))


@pytest.mark.parametrize("what", ["parameters", "averages", "moments"])
def test_a_state_that_is_not_finite_is_never_written(tmp_path: Path, what: str) -> None:
    options = options_of(steps=2)
    trainer = Trainer(tiny_module(options), OneClip(8), options, tmp_path, cpu=True)
    trainer.run()
    before = {name: (tmp_path / name).read_bytes() for name in (checkpoints_in(tmp_path)[0].name, ENCODER, LORA)}
    moments = next(iter(trainer.optimizers[0].state.values()))
    held = {"averages": trainer.ema.averages, "moments": moments, "parameters": trainer.ema.parameters}[what]
    with torch.no_grad():
        next(value for value in held.values() if value.ndim > 0).view(-1)[0] = float("nan")
    with pytest.raises(NotFinite, match="nothing was saved"):
        trainer.save()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_curve_with_holes_is_drawn() -> None:
    nan = float("nan")
    picture = loss_plot([(0, 1.0), (1, nan), (2, 0.5)], [(1, nan), (2, 0.7)])
    assert (picture == loss_plot([(0, 1.0), (2, 0.5)], [(2, 0.7)])).all()
    assert loss_plot([(0, nan)]).shape == picture.shape


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def states() -> list[Any]:
    python, numpy = random.getstate(), np.random.get_state()
    return [python, [np.asarray(part).tolist() for part in numpy], torch.get_rng_state().tolist()]


def test_a_run_leaves_the_random_state_of_the_process_as_it_was(tmp_path: Path) -> None:
    options = options_of(steps=2)
    module = tiny_module(options)
    seed_all(5)
    before = json.dumps(states())
    Trainer(module, OneClip(), options, tmp_path, cpu=True).run()
    assert json.dumps(states()) == before
    with pytest.raises(KeyError), random_state_kept(torch.device("cpu")):
        seed_all(1)
        raise KeyError
    assert json.dumps(states()) == before
