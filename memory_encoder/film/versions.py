"""What was made in one place of a film and is still on disk: takes of a section, and what it was before a change."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..files import is_plain
from .sections import SectionStore, is_record
from .takes import take_seed

MOST = 100  # of one section; nobody looks at more


@dataclass(frozen=True)
class Version:
    """One file of a section. made: time. previous: hash of all that was made before it. Of these, and of prompt and
    seed, what an earlier version of the pack did not write down is None."""

    key: str
    take: int | None
    made: float
    prompt: str | None = None
    seed: int | None = None
    previous: str | None = None


def versions(store: SectionStore, index: int) -> list[Version]:
    """Every file of a section that can be read, the newest MOST, oldest first; only their headers are read."""
    paths = [path for path in store.folder.glob(f"section_{index:04d}_*.safetensors") if is_plain(path)]
    paths.sort(key=lambda path: path.stat().st_mtime)
    found = (_version(path, index) for path in paths[-MOST:])
    return [version for version in found if version is not None]


def comes_by_take(version: Version, record: Mapping[str, Any], among: Sequence[Version]) -> bool:
    """Whether a film takes a version from disk when its take is chosen, and makes nothing anew, as far as is known.

    record: of the section as the film has it now. among: all its versions. One that was made of another prompt, of
    other models and numbers, after other pictures or from another seed would be made anew with what the film has now.
    """
    if version.key == record["key"]:
        return True
    for name, own in (("previous", version.previous), ("prompt", version.prompt)):
        if None not in (own, record.get(name)) and own != record.get(name):
            return False
    if version.take is None:
        return False
    now = Version(record["key"], record.get("take"), 0.0, seed=record.get("seed"))
    firsts = [one.seed for one in (now, *among) if one.take == 0 and one.seed is not None]
    if now.seed is None or now.take is None or version.seed is None:
        return True
    known = [first for first in firsts if take_seed(first, now.take) == now.seed]
    return not known or take_seed(known[0], version.take) == version.seed


def _version(path: Path, index: int) -> Version | None:
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
        made = path.stat().st_mtime
    except (OSError, SafetensorError):
        return None  # damaged, or gone meanwhile
    key, take, seed = metadata.get("section_key", ""), metadata.get("take", ""), metadata.get("seed", "")
    if not is_record({"index": index, "key": key}) or not path.name.endswith(f"_{key[:16]}.safetensors"):
        return None
    return Version(
        key,
        int(take) if take.isdecimal() and len(take) < 6 else None,
        made,
        metadata.get("prompt"),
        int(seed) if seed.isdecimal() and len(seed) < 21 else None,
        metadata.get("previous"),
    )
