"""Parts of a memory that lie in the file of a kept state (see `film.states`) and are read when they are asked for.

What is not looked at takes no RAM, however long the film is.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..damage import damage_named, read_tensor, read_tensors

DESCRIPTION = "state"  # JSON of what tensors cannot say, in the metadata of the file


@contextlib.contextmanager
def state_damage_named(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a kept state is read into one error that names the file."""
    with damage_named(path, "kept state of the memory", "queue the film's workflow again"):
        try:
            yield
        except FileNotFoundError as error:
            raise ValueError("it is gone") from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a kept state. For use within `state_damage_named`."""
    tensors, metadata = read_tensors(path)
    return tensors, json.loads(metadata[DESCRIPTION])


def of_part(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """The tensors of one encoder's memory, by their names there."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class InFile:
    """A tensor of a file, read each time that it is asked for."""

    path: Path
    name: str
    shape: torch.Size
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor, path: Path, name: str) -> InFile:
        """The place of a tensor that was put into a file under this name."""
        return cls(path, name, tensor.shape, tensor.dtype)

    def read(self) -> Tensor:
        """Raises ValueError that names the file when it is gone, damaged or another one, OSError when unreadable."""
        with state_damage_named(self.path):
            found = read_tensor(self.path, self.name)
            if found.shape != self.shape or found.dtype != self.dtype:
                raise ValueError(f"{self.name} is another one")
            return found
