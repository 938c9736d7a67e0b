"""Where and how a row was measured: a reproduction goes on on another machine, but not with other models or sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from demo.tiny_family.install import HOST_NAME, VAE_NAME, WEIGHTS
from memory_encoder.training.options import Stage
from tools.machine import cores, cpu_model

from .settings import RECIPE, Protocol

MACHINE, MODELS, SIZES = "machine", "models", "sizes"


def origin(protocol: Protocol) -> dict[str, Any]:
    """The machine, the models that all rows share, by the hashes of their files, the protocol's sizes and recipe."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cpu_model()}, {cores()} cores"
    return {
        MACHINE: f"{name}, torch {torch.__version__}",
        MODELS: {name: sha256(WEIGHTS / name) for name in (HOST_NAME, VAE_NAME)},
        SIZES: sizes_of(protocol),
    }


def sizes_of(protocol: Protocol) -> dict[str, Any]:
    """What shapes a row: the recipe, and all but the protocol's name and how many seeds there are. As JSON gives it."""
    sizes = {key: value for key, value in vars(protocol).items() if key not in ("name", "seeds")}
    recipe = {stage: RECIPE.options(stage) for stage in get_args(Stage)}
    return json.loads(json.dumps(sizes | {"recipe": recipe}))


def machines_of(protocol: Protocol, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The machines on which these rows were measured. Raises ValueError for a row that was measured with other models
    than those here, or by a protocol of other sizes or recipe."""
    here = origin(protocol)
    for row, seeds in found.items():
        for what, key in (("with another host or VAE", MODELS), (f"by another protocol than {protocol.name}", SIZES)):
            if any(seed.get(key) != here[key] for seed in seeds):
                raise ValueError(f"{row} was measured {what}; delete its measurements or give --record another folder")
    return sorted({seed[MACHINE] for seeds in found.values() for seed in seeds})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
