"""Sections on disk: each under a key that is a hash of everything that made it, so that unchanged ones are reused."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..damage import DAMAGE, parsed_object
from ..digests import content_digest
from ..files import (
    NewerFileError,
    check_space,
    cure,
    load_tensors,
    named_folder,
    read_plain,
    remove_abandoned,
    unreadable,
    write_atomically,
)
from ..locks import BusyError, alone

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
LOCK = ".lock"  # there while a film is made; says by whom
MAX_SECTIONS = 1_000_000

_LOG = logging.getLogger("video_memory")
_KEY = re.compile(r"[0-9a-f]{64}")
_RESERVED_METADATA = ("schema_version", "section_key", "section_index", "section_digest")


class _Unusable(ValueError):
    """A file that is not the section it should be."""


@dataclass(frozen=True)
class StoredSection:
    """A section as it was put: its tensors, to the bit, and its metadata."""

    key: str
    index: int
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    path: Path

    @property
    def latents(self) -> Tensor | None:
        """Latents [B,C,T,h,w], or None when there are none or some are NaN or infinite."""
        latents = self.tensors.get("latents")
        return latents if latents is not None and latents.ndim == 5 and is_finite(latents) else None


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return bool(torch.isfinite(tensor).all())


class SectionStore:
    """The sections of one film, one safetensors file each, beside `manifest.json`.

    Files are moved into place whole: a process killed at any instant leaves at most a temporary file, which the next
    store that writes removes. One process at a time makes a film (`making`). Nothing is created before the first
    write. Content that was read and is wrong counts as missing and is moved aside, or left where it is with
    `move_aside` False, for those who only read; a file that cannot be read is an error and stays.
    Raises FolderNameError for a bad name.
    """

    def __init__(self, root: Path, film: str, move_aside: bool = True) -> None:
        self.folder = named_folder(root, film, "film")
        self.film = film
        self.move_aside = move_aside
        self._cleaned = self._ours = False

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """While it is open no other process makes this film; it may be nested.

        Raises BusyError that names the film and who makes it, OSError when its folder cannot be written.
        """
        if self._ours:
            yield
            return
        path = self.folder / LOCK
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not stack.enter_context(alone(path)):
                    _LOG.warning("%s cannot be locked here; let no two ComfyUIs make this film at once", path)
            except BusyError as error:
                raise BusyError(
                    f"film {self.film!r} is being made by {error}; wait until it is done or give this film another name"
                ) from error
            except OSError as error:
                raise OSError(error.errno, f"cannot write {path}: {error.strerror}{cure(error)}") from error
            self._ours = True
            self._clean()
            try:
                yield
            finally:
                self._ours = False

    def path(self, key: str, index: int) -> Path:
        """Where the section with this key and place in the film is or would be stored."""
        _check_key(key)
        return self.folder / f"section_{index:04d}_{key[:16]}.safetensors"

    def get(self, key: str) -> StoredSection | None:
        """The section, or None. A file that is damaged or not this section is moved aside with a warning.

        Raises OSError that names the file when it exists and cannot be read, NewerFileError for one of a later version.
        """
        _check_key(key)
        for path in self._files(key):
            try:
                return _read_section(path, key)
            except FileNotFoundError:
                continue
            except NewerFileError:
                raise
            except DAMAGE as error:
                self._set_aside(path, str(error))
        return None

    def check_space(self, size: int, what: str) -> None:
        """Raises OSError when fewer than `size` bytes are free where the film is stored; `what` is to be stored."""
        check_space(self.folder, size, what)

    def put(self, key: str, index: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
        """Stores a section and returns its file; an earlier file of the same name is replaced.

        Raises ValueError for a bad key, index or metadata, OSError that names the file when it cannot be written.
        """
        path = self.path(key, index)
        if isinstance(index, bool) or index < 0:
            raise ValueError(f"section index {index!r}: give 0 or more")
        if not tensors:
            raise ValueError(f"section {index}: there are no tensors to store")
        for name, value in metadata.items():
            if name in _RESERVED_METADATA or not isinstance(name, str) or not isinstance(value, str):
                raise ValueError(
                    f"section {index}: metadata {name!r} is reserved or not text; give text under another name"
                )
        # Cloned: safetensors refuses tensors that share memory.
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        own = {
            "schema_version": str(SCHEMA_VERSION),
            "section_key": key,
            "section_index": str(index),
            "section_digest": content_digest(plain, metadata),
        }
        self._write(path, safetensors.torch.save(plain, metadata={**metadata, **own}))
        return path

    def manifest(self) -> list[dict[str, Any]]:
        """The records last written, or an empty list; records without a key and a place are left out. A damaged
        manifest is moved aside with a warning.

        Raises OSError that names the file when it exists and cannot be read, NewerFileError for one of a later version.
        """
        return self.records()[0]

    def records(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The same, and those that were written beside them as of no section."""
        path = self.folder / MANIFEST
        try:
            data = parsed_object(read_plain(path))
            _check_version(path, data.get("version"))
            found = {"sections": data.get("sections"), "earlier": data.get("earlier", [])}
            for name, records in found.items():
                if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                    raise _Unusable(f"{name!r} is not a list of records")
        except FileNotFoundError:
            return [], []
        except NewerFileError:
            raise
        except DAMAGE as error:
            self._set_aside(path, str(error))
            return [], []
        sections, earlier = ([record for record in records if is_record(record)] for records in found.values())
        return sections, earlier

    def write_manifest(self, records: Iterable[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]] = ()) -> Path:
        """Writes one record per section: `index`, `key`, `status` ("stored", "reused", "locked", ...) and whatever else
        helps a reader, such as prompt, seed and frames; `file` is added. earlier: records that were written so before
        and are of no section now, for locks. Raises ValueError for a record without the first three, OSError that names
        the file when it cannot be written.
        """
        sections: list[dict[str, Any]] = []
        for record in records:
            missing = [name for name in ("index", "key", "status") if name not in record]
            if missing:
                raise ValueError(f"manifest record {len(sections) + 1} has no {', '.join(missing)}; add it")
            sections.append({**record, "file": self.path(record["key"], record["index"]).name})
        data = {"version": SCHEMA_VERSION, "film": self.film, "sections": sections}
        if earlier:
            data["earlier"] = [*earlier]
        path = self.folder / MANIFEST
        self._write(path, json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False).encode("utf-8"))
        return path

    def _clean(self) -> None:
        """Removes what killed processes left in the film's folder and in those inside of it, such as its states, into
        which a run that finds all there writes nothing."""
        if not self._cleaned:
            with contextlib.suppress(OSError):
                for folder in (self.folder, *(one for one in self.folder.iterdir() if one.is_dir())):
                    if not folder.is_symlink():
                        remove_abandoned(folder)
            self._cleaned = True

    def _write(self, path: Path, content: bytes) -> None:
        self._clean()
        write_atomically(path, lambda temporary: _write_bytes(temporary, content))

    def _files(self, key: str) -> list[Path]:
        """Files that may hold the section with this key."""
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise unreadable(self.folder, error) from error
        ending = f"_{key[:16]}.safetensors"
        return [self.folder / name for name in sorted(names) if name.startswith("section_") and name.endswith(ending)]

    def _set_aside(self, path: Path, reason: str) -> None:
        if self.move_aside:
            _move_aside(path, reason)
        else:
            _LOG.warning("%s cannot be used (%s); treated as missing", path, reason)


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a manifest's record says which section it is: a place from 0 on and a key."""
    index, key = record.get("index"), record.get("key")
    whole = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < MAX_SECTIONS
    return whole and isinstance(key, str) and _KEY.fullmatch(key) is not None


def _check_key(key: str) -> None:
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        raise ValueError(f"section key {str(key)[:80]!r} is not 64 hexadecimal digits; make it with section_key")


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)  # not safetensors' save_file, which reports a full disk as an error of its own


def _check_version(path: Path, version: Any) -> None:
    """Raises NewerFileError for a later version than ours, _Unusable for what is none."""
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerFileError(
            f"{path} is of version {version}, and this ComfyUI-VideoMemory reads {SCHEMA_VERSION}; update the pack"
        )
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise _Unusable(f"it has no version of a film, {SCHEMA_VERSION}")


def _read_section(path: Path, key: str) -> StoredSection:
    tensors, metadata = load_tensors(read_plain(path))
    own = {name: metadata.pop(name, "") for name in _RESERVED_METADATA}
    version = own["schema_version"]
    _check_version(path, int(version) if version.isdecimal() else version)
    if own["section_key"] != key:
        raise _Unusable("it holds another section")
    if own["section_digest"] != content_digest(tensors, metadata):
        raise _Unusable("its content does not match its checksum")
    return StoredSection(key, int(own["section_index"]), tensors, metadata, path)


def _move_aside(path: Path, reason: str) -> None:
    """Renames an unusable file, so that a person can look at it and the name is free again."""
    number = 0
    while (target := path.with_name(f"{path.name}.damaged{number or ''}")).exists():
        number += 1
    try:
        os.replace(path, target)
        _LOG.warning("%s cannot be used (%s); moved to %s and treated as missing", path, reason, target.name)
    except OSError as error:
        _LOG.warning("%s cannot be used (%s) nor moved aside (%s); treated as missing", path, reason, error.strerror)
