"""A crash, half a write or an error of the disk at any file operation of a piece of work.

What a process asks of the file system it announces as audit events of Python, and whoever listens may let one fail. A
crash is an exception that nothing catches, after which no operation is done any more, as in a process that was killed.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir"}
MOST_FILES = 512  # open at once
Fault = Literal["crash", "half", "error"]


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Watched:
    """The file operations below a folder, in order. fault: what happens at operation number `at`, from 0."""

    folder: str
    fault: Fault = "crash"
    at: int = -1
    seen: list[bool] = field(default_factory=list)  # of each: whether it opens a temporary file that is written
    dead: bool = False

    def happens(self, event: str, path: str) -> None:
        if self.dead:
            raise Crash
        self.seen.append(
            event == "open" and path.endswith(".tmp") and os.path.isfile(path) and os.path.getsize(path) > 1
        )
        if len(self.seen) - 1 != self.at:
            return
        if self.fault == "error":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if self.fault == "half":
            os.truncate(path, os.path.getsize(path) // 2)
        self.dead = True
        raise Crash


class _Listener:
    """The one hook of this process; hooks cannot be taken away."""

    watched: Watched | None = None
    installed = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        watched = self.watched
        if watched is None or event not in EVENTS or not isinstance(args[0], (str, os.PathLike)):
            return
        path = os.fspath(args[0])
        if path.startswith(watched.folder):
            self.watched = None
            try:
                watched.happens(event, path)
            finally:
                self.watched = watched


_LISTENER = _Listener()


@contextmanager
def watching(watched: Watched) -> Iterator[None]:
    """While it is open the faults of `watched` happen. What a dead process held open is closed afterwards."""
    if not _LISTENER.installed:
        sys.addaudithook(_LISTENER)
        _LISTENER.installed = True
    _LISTENER.watched = watched
    try:
        yield
    except Crash:
        pass
    finally:
        _LISTENER.watched = None
        if watched.dead:
            _let_go(Path(watched.folder))


def _let_go(folder: Path) -> None:
    """Closes the locks that a dead process held, as the system does; Python closes its own files."""
    locks = {(status.st_dev, status.st_ino) for status in (path.stat() for path in folder.rglob(".*lock"))}
    for descriptor in range(3, MOST_FILES):
        with suppress(OSError):
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) in locks:
                os.close(descriptor)


@dataclass(frozen=True)
class Case:
    """begin: what is there before, in a new folder. work: what fails. after: what a fresh process then makes of it; it
    gives what has to be the same whatever failed, and raises AssertionError for what is lost or left."""

    name: str
    work: Callable[[Path], Any]
    after: Callable[[Path], Any]
    begin: Callable[[Path], Any] = lambda folder: None


def points(case: Case, root: Path) -> list[tuple[Fault, int]]:
    """Every place where something can go wrong; half a write where a temporary file has been written."""
    folder = root / "trace"
    folder.mkdir()
    case.begin(folder)
    watched = Watched(str(folder))
    with watching(watched):
        case.work(folder)
    found: list[tuple[Fault, int]] = [(fault, at) for fault in ("crash", "error") for at in range(len(watched.seen))]
    return found + [("half", at) for at, written in enumerate(watched.seen) if written]


def failed_at(case: Case, root: Path, fault: Fault, at: int) -> Any:
    """What `after` gives when operation `at` of `work` has failed so."""
    folder = root / f"{fault}_{at}"
    folder.mkdir()
    case.begin(folder)
    watched = Watched(str(folder), fault, at)
    with watching(watched), suppress(OSError, ValueError):
        case.work(folder)
    assert len(watched.seen) > at, "the operation was never reached"
    result = case.after(folder)
    left = [path for path in folder.rglob("*") if path.name[0] == "." or ".damaged" in path.name]
    assert not left, f"left or moved aside: {left}"
    return result


def worked(case: Case, folder: Path) -> Path:
    """A new folder in which all went well."""
    folder.mkdir()
    case.begin(folder)
    case.work(folder)
    return folder
