"""What was made in one place of a film and is still on disk: takes of a section, and what it was before a change."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..files import is_plain
from .sections import SectionStore, is_record

MOST = 100  # of one section; nobody looks at more


@dataclass(frozen=True)
class Version:
    """One file of a section. take: None where an earlier version of the pack did not write it down. made: time."""

    key: str
    take: int | None
    made: float


def versions(store: SectionStore, index: int) -> list[Version]:
    """Every file of a section that can be read, the newest MOST, oldest first; only their headers are read."""
    paths = [path for path in store.folder.glob(f"section_{index:04d}_*.safetensors") if is_plain(path)]
    paths.sort(key=lambda path: path.stat().st_mtime)
    found = (_version(path, index) for path in paths[-MOST:])
    return [version for version in found if version is not None]


def _version(path: Path, index: int) -> Version | None:
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
        made = path.stat().st_mtime
    except (OSError, SafetensorError):
        return None  # damaged, or gone meanwhile
    key, take = metadata.get("section_key", ""), metadata.get("take", "")
    known = is_record({"index": index, "key": key}) and path.name.endswith(f"_{key[:16]}.safetensors")
    return Version(key, int(take) if take.isdecimal() and len(take) < 6 else None, made) if known else None
