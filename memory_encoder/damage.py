"""Files that may come from anywhere: all that can be wrong with one becomes one error, with the file and what to do."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .files import NewerFileError, check_regular, load_tensors, unreadable

MOST_CHARACTERS = 600  # of a message; whatever a file holds may be in it
# What reading, parsing and building from content that is not what it should be raises.
DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError,
    SafetensorError, pickle.PickleError, sqlite3.DatabaseError,
)  # fmt: skip


class DamagedFileError(ValueError):
    """A file whose content is damaged, foreign or not to be trusted; the message names it and says what to do."""


@contextlib.contextmanager
def damage_named(
    path: Path, what: str, cure: str, raised: Callable[[str], Exception] = DamagedFileError
) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read and something is built from it into `raised`.

    what: the file is, such as "memory encoder"; cure: what to do, such as "download the file again". A file that
    cannot be read just now stays an OSError, one of a later version NewerFileError, a full RAM MemoryError: that file
    may be as good as ever. Errors in our own words, which name the file, keep them.
    """
    try:
        yield
    except (MemoryError, NewerFileError, torch.OutOfMemoryError):
        raise
    except OSError as error:
        raise error if str(path) in str(error) and error.filename is None else unreadable(path, error) from error
    except DAMAGE as error:
        text = str(error)
        if isinstance(error, RuntimeError) and "not enough memory" in text:
            raise MemoryError(shortened(f"{what} {path.name}: {text}; free memory")) from error
        if isinstance(error, raised if isinstance(raised, type) else DamagedFileError) or (
            isinstance(error, ValueError) and path.name in text
        ):
            if len(text) <= MOST_CHARACTERS:
                raise
            raise raised(shortened(text)) from error
        reason = shortened(" ".join(text.split()) or type(error).__name__, 250)
        raise raised(f"{what} {shortened(path.name, 100)} is damaged or not one ({reason}); {cure}") from error


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text of at most so many characters: its beginning and its end, which says what to do."""
    return text if len(text) <= most else f"{text[: most * 2 // 3 - 3]} ... {text[len(text) - most // 3 + 2 :]}"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, read whole: Windows lets nobody replace a file that is mapped.

    For use within `damage_named`.
    """
    check_regular(path)
    return load_tensors(path.read_bytes())


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file, or of one that torch has written, of which nothing is run; what else lies
    beside a `model` there is left out. For use within `damage_named`."""
    check_regular(path)
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds no weights by name")
    return dict(state)


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor of a safetensors file, of which nothing else is read. For use within `damage_named`."""
    check_regular(path)
    with safe_open(str(path), framework="pt") as file:
        return file.get_tensor(name).clone()  # the file does not stay mapped


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by name, and metadata, of a safetensors file; no tensor is read. For use within `damage_named`."""
    check_regular(path)
    with safe_open(str(path), framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
        return shapes, dict(file.metadata() or {})


def parsed_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object without NaN and infinite numbers, which Python writes and no browser reads.

    Raises one of DAMAGE.
    """
    values = json.loads(text, parse_float=_finite, parse_constant=_finite)
    if not isinstance(values, dict):
        raise ValueError("it holds no JSON object")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shortened(text, 40)} is no number")
    return value


def check_finite(named: str, tensor: Tensor) -> None:
    """Raises ValueError for a tensor with NaN or infinite values; `named` says which."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float() if tensor.itemsize < 2 else tensor).all()):
        raise ValueError(f"{named} holds NaN or infinite values")
