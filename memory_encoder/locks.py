"""Locks of the operating system: they end with the process that holds them, so that no clock and no pid decides."""

from __future__ import annotations

import contextlib
import json
import logging
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

_LOG = logging.getLogger("video_memory")
_BYTE = 1 << 30  # the byte that is locked on Windows, behind all content, which others may still read


class BusyError(OSError):
    """Another process holds the lock; the message says which."""


def try_lock(descriptor: int) -> bool:
    """Whether this open file is ours alone from now on, until it is closed; False when another one holds it.

    Raises OSError where the file system knows no locks.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, which says who holds it: pid, host and since when. A dead holder holds nothing.

    Raises BusyError with these when another process has it, OSError when the file cannot be made. On a file system
    without locks a warning is logged and nothing is held.
    """
    descriptor = _acquired(path)
    try:
        yield
    finally:
        if sys.platform != "win32":  # while it is held, so that the next one's file is not taken away
            _forget(path, descriptor)
        os.close(descriptor)
        if sys.platform == "win32":  # which removes no open file, of ours or of the next one
            with contextlib.suppress(OSError):
                path.unlink()


def _acquired(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not try_lock(descriptor):
                raise BusyError(_holder(path))
            if not _is_open_as(path, descriptor):  # the one before has just removed it
                os.close(descriptor)
                continue
            mine = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().isoformat(" ", "seconds")}
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(mine).encode())
        except BusyError:
            os.close(descriptor)
            raise
        except OSError as error:
            _LOG.warning("%s cannot be locked (%s); do not let two processes write here", path, error.strerror)
        return descriptor


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
