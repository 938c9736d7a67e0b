"""Which files lie below a folder: a walk that can be stopped, since a folder may be a whole disk."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

Looking = Callable[[], None]  # called for each folder; may raise to stop
Unseen = Literal["link", "barred"]


def files_below(folder: Path, out: Path | None = None, looking: Looking = lambda: None) -> Iterator[tuple[str, Path]]:
    """Plain files by their path below the folder, with forward slashes, in no order.

    Left out: hidden files and folders, what lies below `out`, and what may not be looked at. Links to folders are not
    followed: `all_below` names them.
    """
    return ((name, path) for kind, name, path in all_below(folder, out, looking) if kind == "file")


def all_below(
    folder: Path, out: Path | None, looking: Looking = lambda: None
) -> Iterator[tuple[Literal["file"] | Unseen, str, Path]]:
    """(kind, name below the folder, path) of all files below a folder but `out`, and of what is no file to read and
    somebody may have meant: links to folders, and what cannot be looked at, such as a link whose file is gone or a
    folder without the right to read it."""
    left_out = None if out is None else str(out.absolute())
    barred: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=lambda error: barred.append(Path(error.filename))):
        looking()
        folders[:] = [name for name in folders if name[0] != "." and os.path.abspath(f"{place}/{name}") != left_out]
        for path in (Path(place, name) for name in folders):
            if path.is_symlink():
                yield "link", path.relative_to(folder).as_posix(), path
        for path in (Path(place, name) for name in names if name[0] != "."):
            yield "file" if _is_file(path) else "barred", path.relative_to(folder).as_posix(), path
    for path in barred:
        yield "barred", path.relative_to(folder).as_posix(), path


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
