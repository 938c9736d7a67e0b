"""Files: written whole or not at all, read only where they are plain files, and errors with their cure.

A file is either the old one or the whole new one, whatever happens in between. Beside a temporary file lies a lock that
its process holds; a temporary file that nobody holds was left by a killed one, however old it looks.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import stat
import time
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from .locks import BusyError, alone

REPLACE_TRIES, REPLACE_PAUSE = 21, 0.1  # 2 s: Windows replaces no file that someone reads, if only a virus scanner
MAX_NAME_CHARACTERS = 100
MIB = 2**20
MAX_NAME_BYTES = 200  # file systems count bytes, 255 at most; other names may be derived from this one

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?\"<>|]")
_RESERVED = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\..*)?", re.IGNORECASE
)
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


class FolderNameError(ValueError):
    """A name that cannot be a folder; the message says what to change."""


class NewerFileError(ValueError):
    """A file of a later version of this pack; it is left as it is."""


def cure(error: OSError) -> str:
    """What a person can do about an error of the disk, with a semicolon in front; empty where that is not known."""
    for words, names in _CURES.items():
        if error.errno in (getattr(errno, name, None) for name in names):
            return f"; {words}"
    return ""


def named_folder(root: Path, name: str, what: str) -> Path:
    """The folder below `root` with the name that an input `what` gives, such as a film; nothing is created.

    One name is one folder however its accents are composed: that which is there, or else in composed form (NFC).

    Raises FolderNameError for a name that is not one plain folder name on Linux, macOS and Windows alike.
    """
    if not isinstance(name, str) or not name.strip():
        raise FolderNameError(f"{what}: the name is empty; give a name, such as my_{what}")
    forbidden = _FORBIDDEN.search(name)
    if len(name) > MAX_NAME_CHARACTERS or (forbidden is None and len(name.encode()) > MAX_NAME_BYTES):
        raise FolderNameError(
            f"{what}: the name has {len(name)} characters, which is too long; use at most {MAX_NAME_CHARACTERS}, "
            "fewer with characters beyond ASCII"
        )
    if forbidden is not None:
        raise FolderNameError(
            f"{what}: the name {name!r} contains {forbidden[0]!r}, but it names one folder, not a path; "
            "use letters, digits, spaces, dots, - and _"
        )
    if name[0] in ". " or name[-1] in ". ":
        raise FolderNameError(f"{what}: the name {name!r} begins or ends with a dot or a space; remove it")
    if _RESERVED.fullmatch(name):
        raise FolderNameError(
            f"{what}: the name {name!r} is reserved by Windows; add something to it, such as {name[:3]}_{what}"
        )
    forms = [Path(root) / form for form in (unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))]
    return next((path for path in forms if os.path.exists(path)), forms[0])


def write_atomically(path: Path, write: Callable[[Path], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """Calls `write` with the path of a temporary file in the same folder, then moves the result into place.

    A file that cannot be replaced since someone reads it (Windows) is tried again for two seconds; `sleep` waits.
    Raises OSError that names `path` when the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            temporary = _own_temporary(path, stack)
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            _replace(temporary, path, sleep)
    except OSError as error:
        raise unwritable(path, error) from error


def write_together(copies: Mapping[Path, Path]) -> None:
    """Copies files of which none is of use without the others: path to the file that it becomes a copy of.

    All lie beside their places before the first is moved there. Raises as `write_atomically`.
    """
    if copies:
        (path, source), *others = copies.items()

        def write(temporary: Path) -> None:
            shutil.copyfile(source, temporary)
            write_together(dict(others))

        write_atomically(path, write)


def unwritable(path: Path, error: OSError) -> OSError:
    """An error of writing in words that name the file."""
    return OSError(error.errno, f"cannot write {path}: {error.strerror or error}{cure(error)}")


def _own_temporary(path: Path, stack: contextlib.ExitStack) -> Path:
    """A name beside `path` that is ours until the stack is closed, which removes the file."""
    while True:
        # Not tempfile, whose files only their owner may read.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.tmp")
        try:
            stack.enter_context(alone(_lock_of(temporary)))
        except BusyError:
            continue  # somebody took the lock for abandoned before it was held
        stack.callback(temporary.unlink, missing_ok=True)
        return temporary


def remove_abandoned(folder: Path, pattern: str = ".*.*.tmp") -> None:
    """Removes temporary files of `write_atomically` that no process holds; where that cannot be told they stay."""
    try:
        left = {path.name.removesuffix(".lock") for path in (*folder.glob(pattern), *folder.glob(f"{pattern}.lock"))}
    except OSError:
        return  # a folder that cannot be listed: the next write will say what is wrong
    for temporary in (folder / name for name in left):
        try:
            with alone(_lock_of(temporary)) as held:
                if held:
                    temporary.unlink(missing_ok=True)
        except OSError:
            continue  # somebody writes it, another process was quicker, or it is not ours to remove


def remove_abandoned_of(path: Path) -> None:
    """Removes what killed processes left when they wrote this file, in a folder that holds other things too."""
    remove_abandoned(path.parent, f".{glob.escape(path.name)}.*.tmp")


def _lock_of(temporary: Path) -> Path:
    """Not the file itself: some network folders let nobody write into a file that is locked, through another handle."""
    return temporary.with_name(f"{temporary.name}.lock")


def check_space(folder: Path, size: int, what: str) -> None:
    """Raises OSError when fewer than `size` bytes are free for `folder`; `what` says what is not done then."""
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    try:
        usage = shutil.disk_usage(there)
    except OSError:
        return  # what cannot be told now the write will tell
    if usage.total and usage.free < size:
        raise OSError(
            errno.ENOSPC,
            f"{what}: it takes {size / MIB:.1f} MiB, but {usage.free / MIB:.1f} MiB are free for {folder}; "
            "free space on the disk and try again",
        )


def check_regular(path: Path) -> None:
    """Raises NotPlainError for folders, pipes, devices and circles of links, which are never opened; links to files are
    followed. Raises OSError when it is not there or cannot be looked at."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotPlainError("it is no file")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotPlainError("it is a link that leads back to itself") from error
        raise


def is_plain(path: Path) -> bool:
    """Whether there is a file that passes `check_plain`."""
    try:
        check_plain(path)
    except (OSError, NotPlainError):
        return False
    return True


def check_plain(path: Path) -> None:
    """As `check_regular`; raises NotPlainError also for links that lead out of the folder, which may be one itself."""
    check_regular(path)
    if path.is_symlink() and os.path.dirname(os.path.realpath(path)) != os.path.realpath(path.parent):
        raise NotPlainError("it is a link that leads out of its folder")


def read_plain(path: Path) -> bytes:
    """The bytes of a file that passes `check_plain`. Raises FileNotFoundError, or OSError that names the file."""
    try:
        check_plain(path)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path} is not there") from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> OSError:
    """An error of reading in words that name the file: what was not read may be as good as ever."""
    known = "" if error.errno == errno.ENOENT else cure(error)  # which is of writing: the folder may be there
    return OSError(error.errno, f"cannot read {path}: {error.strerror or error}{known}")


def load_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file's bytes: a mapped file would change or vanish under the tensors.

    Raises SafetensorError, or ValueError for a damaged header.
    """
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, dict(header.get("__metadata__") or {})


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


def _replace(temporary: Path, path: Path, sleep: Callable[[float], None]) -> None:
    for left in reversed(range(REPLACE_TRIES)):
        try:
            return os.replace(temporary, path)
        except PermissionError:
            if not left:
                raise
            sleep(REPLACE_PAUSE)
