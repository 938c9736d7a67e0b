"""Writing whole files, whose a temporary file is, what is read, and locks that end with their process."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from memory_encoder import files
from memory_encoder.digests import section_key
from memory_encoder.files import (
    NotPlainError,
    check_plain,
    read_plain,
    remove_abandoned,
    save_tensors,
    write_atomically,
    write_bytes,
)
from memory_encoder.film.sections import SectionStore
from memory_encoder.locks import BusyError, alone
from memory_encoder.pictures.movie import write_movie

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links the POSIX way")
KEY = section_key("", {})


class Busy:
    """os.replace of Windows while a program reads the file for some time."""

    def __init__(self, times: int) -> None:
        self.times, self.real, self.slept = times, os.replace, 0.0

    def replace(self, source: Path, target: Path) -> None:
        if self.times:
            self.times -= 1
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(source), 5, str(target))
        self.real(source, target)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def write_new(temporary: Path) -> None:
    temporary.write_bytes(b"new")


@pytest.mark.parametrize("times", [1, 5, 20])
def test_a_file_that_is_read_for_a_while_is_replaced_when_the_reader_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    path, busy = tmp_path / "a", Busy(times)
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", busy.replace)
    write_atomically(path, write_new, busy.sleep)
    assert path.read_bytes() == b"new" and 0 < busy.slept <= 2.01


def test_a_file_that_is_read_for_ever_is_named_after_two_seconds_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, busy = tmp_path / "a", Busy(1000)
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", busy.replace)
    with pytest.raises(OSError, match=r"cannot write .*a: Permission denied; check the rights"):
        write_atomically(path, write_new, busy.sleep)
    assert path.read_bytes() == b"old" and 1.9 < busy.slept < 2.1 and list(tmp_path.iterdir()) == [path]


WRITERS: dict[str, Callable[[Path], object]] = {
    "section": lambda root: SectionStore(root, "film").put(KEY, 0, {"latents": torch.ones(1)}, {}),
    "manifest": lambda root: SectionStore(root, "film").write_manifest([]),
    "tensors": lambda root: save_tensors({"a": torch.ones(1)}, root / "a.safetensors", {}),
    "bytes": lambda root: write_bytes(root / "a", b"a"),
    "movie": lambda root: write_movie(root / "a.mp4", iter([torch.zeros(2, 32, 32, 3)]), 16),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_waits_for_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    busy = Busy(1)
    monkeypatch.setattr(os, "replace", busy.replace)
    monkeypatch.setattr(files, "REPLACE_PAUSE", 0)
    WRITERS[name](tmp_path)
    assert busy.times == 0 and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EROFS, "check the rights"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.ENOENT, "not there"),
        (errno.EIO, "disk or the network"),
        (errno.EINVAL, ""),
    ],
)
def test_the_cure_is_that_of_the_error(tmp_path: Path, code: int, words: str) -> None:
    def fail(temporary: Path) -> None:
        raise OSError(code, os.strerror(code), str(temporary))

    with pytest.raises(OSError, match="cannot write") as caught:
        write_atomically(tmp_path / "a", fail)
    assert caught.value.errno == code and words in str(caught.value)
    for other in ("free space", "rights", "shorter"):
        assert (other in str(caught.value)) == (other in words)
    assert list(tmp_path.iterdir()) == []


# What is no plain file


@POSIX
def test_pipes_folders_and_links_that_lead_out_are_neither_opened_nor_followed(tmp_path: Path) -> None:
    folder, secret = tmp_path / "film", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("secret")
    os.mkfifo(folder / "pipe")  # opening it would wait for ever
    (folder / "folder").mkdir()
    (folder / "out").symlink_to(secret)
    (folder / "dotted").symlink_to("../secret")
    for name in ("pipe", "folder", "out", "dotted"):
        with pytest.raises(NotPlainError):
            read_plain(folder / name)
    (folder / "own").write_text("own")
    (folder / "in").symlink_to("own")
    assert read_plain(folder / "in") == read_plain(folder / "own") == b"own"
    (tmp_path / "elsewhere").symlink_to(folder)  # a film on another disk
    assert read_plain(tmp_path / "elsewhere" / "in") == b"own"
    check_plain(tmp_path / "elsewhere" / "own")
    for name in ("none", "own/none"):
        with pytest.raises(FileNotFoundError):
            read_plain(folder / name)


# Temporary files


def held(code: str, path: Path) -> subprocess.Popen[str]:
    """A process that runs `code`, says "ready" and waits to be killed."""
    code = f"import sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\n{code}"
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with held(request.param, tmp_path / "film") as running:
        assert running.stdout is not None and running.stdout.readline() == "ready\n"
        yield running
        running.kill()


WRITES = """
from memory_encoder.files import write_atomically
def write(temporary):
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    sys.stdin.readline()
write_atomically(path, write)
"""


@POSIX
@pytest.mark.parametrize("process", [WRITES], indirect=True)
def test_a_temporary_file_is_its_process_s_while_that_lives_and_nobody_s_afterwards(
    tmp_path: Path, process: subprocess.Popen[str]
) -> None:
    (left,) = tmp_path.glob(".film.*.tmp")
    os.utime(left, (0, 0))  # a clock says nothing
    remove_abandoned(tmp_path)
    assert left.read_bytes() == b"half"
    process.kill()
    process.wait()
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_of_this_process_is_not_removed_by_another_writer(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(b"a")
        remove_abandoned(tmp_path)

    write_atomically(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"a"


def test_what_a_process_left_that_was_killed_before_or_after_it_wrote_is_removed(tmp_path: Path) -> None:
    for name in (".a.0.tmp", ".a.0.tmp.lock", ".b.0.tmp.lock", ".c.0.tmp", "kept.tmp", "kept.lock", ".kept.lock"):
        (tmp_path / name).write_text("x")
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kept.lock", "kept.lock", "kept.tmp"]


# Locks

LOCKS = """
from memory_encoder.locks import alone
with alone(path):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@POSIX
@pytest.mark.parametrize("process", [LOCKS], indirect=True)
def test_a_lock_is_refused_with_its_holder_and_taken_over_from_a_dead_one(
    tmp_path: Path, process: subprocess.Popen[str]
) -> None:
    path = tmp_path / "film"
    with pytest.raises(BusyError, match=rf"process {process.pid} on .+, since \d{{4}}-"), alone(path):
        pass
    process.kill()
    process.wait()
    assert path.exists(), "a killed process cleans nothing up"
    with alone(path):
        known = json.loads(path.read_bytes())
        assert known["pid"] == os.getpid() and known["host"] == platform.node()
    assert not path.exists()


def test_a_lock_file_from_anywhere_locks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "film"
    path.write_text(json.dumps({"pid": 1, "host": platform.node(), "since": "2020-01-01 00:00:00"}))
    with alone(path), pytest.raises(BusyError, match=str(os.getpid())), alone(path):
        pass
    assert not path.exists()


def test_a_folder_that_is_deleted_and_made_again_keeps_the_next_one_s_lock(tmp_path: Path) -> None:
    path = tmp_path / "film"
    with alone(path):
        path.unlink()
        path.write_text("another's")
    assert path.exists()
