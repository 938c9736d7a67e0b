"""Where a measurement was made: a reproduction may go on on another machine, but not with other models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import cores, cpu_model
from demo.tiny_family.install import HOST_NAME, VAE_NAME, WEIGHTS

MACHINE, MODELS = "machine", "models"


def origin() -> dict[str, Any]:
    """The machine, and the models that every row shares, by the hashes of their files."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cpu_model()}, {cores()} cores"
    return {
        MACHINE: f"{name}, torch {torch.__version__}",
        MODELS: {name: sha256(WEIGHTS / name) for name in (HOST_NAME, VAE_NAME)},
    }


def machines_of(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The machines on which these rows were measured. Raises ValueError for a row of other models than those here."""
    here = origin()[MODELS]
    for row, seeds in found.items():
        if any(seed[MODELS] != here for seed in seeds):
            raise ValueError(
                f"{row} was measured with another host or VAE; delete its measurements or give --record another folder"
            )
    return sorted({seed[MACHINE] for seeds in found.values() for seed in seeds})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
