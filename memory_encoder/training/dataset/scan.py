"""Which files lie below a folder: a walk that can be stopped, since a folder may be a whole disk."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

Looking = Callable[[], None]  # called for each folder; may raise to stop


def files_below(folder: Path, out: Path | None = None, looking: Looking = lambda: None) -> Iterator[tuple[str, Path]]:
    """Plain files by their path below the folder, with forward slashes, in no order.

    Left out: hidden files and folders, what lies below `out`, and what may not be looked at. Links to folders are not
    followed.
    """
    left_out = None if out is None else str(out.absolute())
    for place, folders, names in os.walk(folder):
        looking()
        folders[:] = [name for name in folders if name[0] != "." and os.path.abspath(f"{place}/{name}") != left_out]
        for name in names:
            path = Path(place, name)
            if name[0] != "." and _is_file(path):
                yield path.relative_to(folder).as_posix(), path


def composed(name: str) -> str:
    """A name by which it is compared: the file systems of Macs and of others compose accents differently."""
    return unicodedata.normalize("NFC", name)


def is_text(name: str) -> bool:
    """Whether a file's name is text, which Linux and Windows do not ask of one."""
    return name == readable(name)


def readable(text: str) -> str:
    """A text that may hold names of files, so that it can be shown and stored: what is no text becomes "\\udce9"."""
    return text.encode("utf-8", "backslashreplace").decode()


def folder_stamp(folder: Path, looking: Looking = lambda: None) -> str:
    """A hash of names, sizes and times of the files below a folder: the same as long as nothing has changed."""
    digest = hashlib.sha256()
    for name, path in sorted(files_below(folder, looking=looking)):
        status = path.stat()
        digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "replace"))
    return digest.hexdigest()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
