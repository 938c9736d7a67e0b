"""Short training runs on the tiny host, for the tests of what a run leaves and how it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from memory_encoder.training.listener import Listener
from memory_encoder.training.run_files import LOSSES, checkpoints_in, read_losses
from memory_encoder.training.trainer import Trainer

from .training import OneClip, tiny_module, tiny_options


def options_of(**changes: Any) -> Any:
    return tiny_options(**({"batch_size": 2, "rank": 4, "checkpoint_every": 2, "warmup": 1} | changes))


def trainer_of(folder: Path, listener: Listener | None = None, clips: Any = None, **changes: Any) -> Trainer:
    options = options_of(**changes)
    return Trainer(tiny_module(options), clips or OneClip(8), options, folder, listener, cpu=True)


def run(folder: Path, listener: Any = None, **changes: Any) -> Trainer:
    trainer = trainer_of(folder, listener, **changes)
    trainer.run()
    return trainer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoints_in(folder)[0], weights_only=True)
    return state["parameters"] | {f"average {name}": value for name, value in state["averages"].items()}


def same(first: Path, second: Path) -> bool:
    """Whether two runs have the same weights, averages and losses to the bit."""
    one, two = weights(first), weights(second)
    equal = one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    return equal and read_losses(first / LOSSES) == read_losses(second / LOSSES)
