"""Files of the cache as a dataset reads them: when they are used, and verified the first time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .settings import DatasetError
from .text import Conditioning, parse_text


class CorruptShard(DatasetError):
    """A file of the cache whose bytes are not those that were written."""


class VerifiedFile:
    """Reads a file; the first time its bytes are checked."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.path, self.sha256, self.verified = path, sha256, False

    def read(self) -> bytes:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise CorruptShard(f"{self.path} cannot be read ({error.strerror}); run the cache again") from error
        if not self.verified and hashlib.sha256(content).hexdigest() != self.sha256:
            raise CorruptShard(f"{self.path} is corrupt (its hash is not the index's); run the cache again")
        self.verified = True
        return content


@dataclass(frozen=True)
class ShardLoader:
    file: VerifiedFile

    def __call__(self) -> dict[str, Tensor]:
        try:
            return safetensors.torch.load(self.file.read())
        except SafetensorError as error:
            raise CorruptShard(f"{self.file.path} is corrupt ({error}); run the cache again") from error


@dataclass(frozen=True)
class TextLoader:
    file: VerifiedFile

    def __call__(self) -> Conditioning:
        try:
            return parse_text(self.file.read())
        except SafetensorError as error:
            raise CorruptShard(f"{self.file.path} is corrupt ({error}); run the cache again") from error


def inside(folder: Path, name: str) -> Path:
    """A file of the dataset; an index from elsewhere may not name files outside of its folder."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name:
        raise DatasetError(f"the index in {folder} names the file {name!r} outside of its folder; do not use it")
    return folder / parts
