"""Files: written whole or not at all, read only where they are plain files, and errors with their cure.

A file is either the old one or the whole new one, whatever happens in between. A temporary file belongs to the process
that holds it open and locked; what nobody holds was left by a killed one, however old it is.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from .locks import try_lock

REPLACE_TRIES, REPLACE_PAUSE = 21, 0.1  # 2 s: Windows replaces no file that someone reads, if only a virus scanner
_CURES = {
    "free space on the disk": ("ENOSPC", "EDQUOT", "EFBIG"),
    "check the rights": ("EACCES", "EPERM", "EROFS"),
    "give a shorter name": ("ENAMETOOLONG",),
    "close programs that hold many files open": ("EMFILE", "ENFILE"),
    "free memory": ("ENOMEM",),
    "its folder is not there": ("ENOENT",),
    "check the disk or the network folder": ("EIO", "ESTALE", "ETIMEDOUT", "ENXIO", "EHOSTDOWN", "ENOTCONN"),
}


class NotPlainError(ValueError):
    """Something that is no plain file of its folder, which is neither opened nor followed."""


class NewerFileError(ValueError):
    """A file of a later version of this pack; it is left as it is."""


def cure(error: OSError) -> str:
    """What a person can do about an error of the disk, with a semicolon in front; empty where that is not known."""
    for words, names in _CURES.items():
        if error.errno in (getattr(errno, name, None) for name in names):
            return f"; {words}"
    return ""


def write_atomically(path: Path, write: Callable[[Path], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """Calls `write` with the path of an empty temporary file in the same folder, then moves it into place.

    A file that cannot be replaced since someone reads it (Windows) is tried again for two seconds; `sleep` waits.
    Raises OSError that names `path` when the disk is full or the folder cannot be written.
    """
    temporary, owner = path, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, owner = _temporary(path)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if sys.platform == "win32":  # moves no file that is open
            os.close(owner)
            owner = None
        _replace(temporary, path, sleep)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}{cure(error)}") from error
    finally:
        if owner is not None:
            os.close(owner)
        if temporary != path:
            temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path, pattern: str = ".*.*.tmp") -> None:
    """Removes temporary files of `write_atomically` that no process holds; where that cannot be told they stay."""
    for path in folder.glob(pattern):
        try:
            if sys.platform == "win32":
                path.unlink()  # refused while it is open
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if try_lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)
        except OSError:
            continue  # another process was quicker, or the file is not ours


def check_plain(path: Path) -> None:
    """Raises NotPlainError for folders, pipes, devices and links that lead out of the folder, OSError when it is not
    there or cannot be looked at. The folder itself may be a link."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise NotPlainError("it is no file")
    if path.is_symlink() and os.path.dirname(os.path.realpath(path)) != os.path.realpath(path.parent):
        raise NotPlainError("it is a link that leads out of its folder")


def read_plain(path: Path) -> bytes:
    """The bytes of a file that passes `check_plain`. Raises FileNotFoundError, or OSError that names the file."""
    try:
        if path.exists():
            check_plain(path)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path} is not there") from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> OSError:
    """An error of reading in words that name the file: what was not read may be as good as ever."""
    return OSError(error.errno, f"cannot read {path}: {error.strerror or error}{cure(error)}")


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


def _temporary(path: Path) -> tuple[Path, int]:
    """A new, empty file beside `path`, and the open descriptor that says whose it is."""
    while True:
        # Not tempfile, whose files only their owner may read.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            if sys.platform == "win32" or (try_lock(descriptor) and temporary.exists()):
                return temporary, descriptor
        except OSError:  # a file system without locks: nobody can take the file for abandoned there
            return temporary, descriptor
        os.close(descriptor)  # somebody saw it before it was locked


def _replace(temporary: Path, path: Path, sleep: Callable[[float], None]) -> None:
    for left in reversed(range(REPLACE_TRIES)):
        try:
            return os.replace(temporary, path)
        except PermissionError:
            if not left:
                raise
            sleep(REPLACE_PAUSE)
