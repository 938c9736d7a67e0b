"""Locks of the operating system: they end with the process that holds them, so that no clock and no pid decides."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_BYTE = 1 << 30  # the byte that is locked on Windows, behind all content, which others may still read


class BusyError(OSError):
    """Another process holds the lock; the message says which."""


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Holds the lock file `path`, which says who holds it: pid, host and since when. A dead holder holds nothing.

    Gives False on a file system without locks, where nothing is held. Raises BusyError that names the holder when
    another process, or another place in this one, has it, OSError when the file cannot be made.
    """
    descriptor, held = _acquired(path)
    try:
        yield held
    finally:
        if sys.platform != "win32":  # while it is held, so that the next one's file is not taken away
            _forget(path, descriptor)
        os.close(descriptor)
        if sys.platform == "win32":  # which removes no open file, of ours or of the next one
            with contextlib.suppress(OSError):
                path.unlink()


def _acquired(path: Path) -> tuple[int, bool]:
    """The open lock file, and whether it is locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not _try_lock(descriptor):
                raise BusyError(_holder(path))
            if _is_open_as(path, descriptor):
                _sign(descriptor)
                return descriptor, True
        except BusyError:
            os.close(descriptor)
            raise
        except OSError:
            return descriptor, False
        os.close(descriptor)  # the one before has just removed it


def _try_lock(descriptor: int) -> bool:
    """Whether this open file is ours alone until it is closed; raises OSError where the file system knows no locks."""
    if sys.platform == "win32":
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
    else:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _sign(descriptor: int) -> None:
    mine = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().isoformat(" ", "seconds")}
    with contextlib.suppress(OSError):  # a full disk: it is held all the same
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(mine).encode())


def _holder(path: Path) -> str:
    try:
        known = json.loads(path.read_bytes())
        return f"process {known['pid']} on {known['host']}, since {known['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"


def _is_open_as(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _forget(path: Path, descriptor: int) -> None:
    """Removes the lock file, unless its folder was deleted and made again meanwhile."""
    with contextlib.suppress(OSError):
        if _is_open_as(path, descriptor):
            path.unlink()
