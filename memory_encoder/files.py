"""Atomic writing: a file is either the old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary path in the same folder, then moves the result into place.

    Raises OSError that names `path` when the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile, whose files only their owner may read.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror or error}; free space or check the rights"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Saves tensors as safetensors, atomically; views and devices are no concern of the caller."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = save(plain, metadata=dict(metadata))  # as bytes, so that a full disk is an OSError like any other
    write_bytes(path, content)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)
