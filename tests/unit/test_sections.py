"""Sections on disk: stable keys, bit-exact content, nothing half-written, nothing wrong reused."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from memory_encoder.digests import section_key
from memory_encoder.files import NewerFileError
from memory_encoder.film import sections as sections_module
from memory_encoder.film.sections import SectionStore

ROOT = Path(__file__).resolve().parents[2]
KEY, OTHER = section_key("", {"n": 1}), section_key("", {"n": 2})
LATENTS = {"latents": torch.arange(24.0).reshape(1, 2, 3, 2, 2)}


@pytest.fixture
def store(tmp_path: Path) -> SectionStore:
    return SectionStore(tmp_path / "films", "film")


# Round trip


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_a_section_comes_back_to_the_bit(store: SectionStore, dtype: torch.dtype) -> None:
    latents = (torch.randn(1, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 1e3).to(dtype)
    tensors = {
        "latents": latents,
        "view": latents[:, :, 1:].transpose(1, 2),
        "empty": torch.zeros(0, 3),
        "one": latents[0, 0, 0, 0, 0],
    }
    store.put(KEY, 3, tensors, {"prompt": "a ‘street’\n", "seed": "7"})
    found = SectionStore(store.folder.parent, "film").get(KEY)
    assert found is not None and found.index == 3 and found.key == KEY
    assert found.metadata == {"prompt": "a ‘street’\n", "seed": "7"}
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype and found.tensors[name].shape == tensor.shape
        assert bits(found.tensors[name]) == bits(tensor)


def test_the_file_is_plain_safetensors_with_the_whole_key(store: SectionStore) -> None:
    path = store.put(KEY, 12, LATENTS, {})
    assert path.name == f"section_0012_{KEY[:16]}.safetensors" and path.parent == store.folder
    assert torch.equal(load_file(path)["latents"], LATENTS["latents"])
    header = path.read_bytes()
    assert KEY.encode() in header


def test_a_stored_tensor_does_not_change_when_its_file_does(store: SectionStore) -> None:
    path = store.put(KEY, 0, LATENTS, {})
    found = store.get(KEY)
    assert found is not None
    with path.open("r+b") as file:
        file.truncate(0)
    assert torch.equal(found.tensors["latents"], LATENTS["latents"])


def test_an_unknown_key_is_missing_and_a_second_put_replaces(store: SectionStore) -> None:
    store.put(KEY, 0, LATENTS, {})
    assert store.get(OTHER) is None
    store.put(KEY, 0, {"latents": torch.ones(2)}, {})
    found = store.get(KEY)
    assert found is not None and torch.equal(found.tensors["latents"], torch.ones(2))
    assert len(list(store.folder.iterdir())) == 1


@pytest.mark.parametrize("key", ["", "../x", "abc", KEY.upper(), KEY + "\n"])
def test_a_key_that_is_no_key_is_refused(store: SectionStore, key: str) -> None:
    for call in (lambda: store.get(key), lambda: store.put(key, 0, LATENTS, {})):
        with pytest.raises(ValueError, match="64 hexadecimal"):
            call()
    assert not store.folder.exists()


def test_what_cannot_be_stored_is_refused_before_anything_is_created(store: SectionStore) -> None:
    with pytest.raises(ValueError, match="index -1"):
        store.put(KEY, -1, LATENTS, {})
    with pytest.raises(ValueError, match="no tensors"):
        store.put(KEY, 0, {}, {})
    with pytest.raises(ValueError, match="'section_key' is reserved"):
        store.put(KEY, 0, LATENTS, {"section_key": "x"})
    with pytest.raises(ValueError, match="'seed' is reserved or not text"):
        store.put(KEY, 0, LATENTS, {"seed": 7})  # type: ignore[dict-item]
    assert not store.folder.exists()


# Damage


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def store_as_other(path: Path) -> None:
    other = SectionStore(path.parent.parent, "other").put(OTHER, 0, LATENTS, {})
    os.replace(other, path)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": flip_last_byte,
    "text": lambda path: path.write_text("not a safetensors file"),
    "foreign": lambda path: save_file({"weight": torch.ones(2)}, path),
    "another section": store_as_other,
    "metadata": lambda path: path.write_bytes(path.read_bytes().replace(b"harbour", b"hanbour")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_foreign_file_is_missing_kept_aside_and_warned_about(
    store: SectionStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    damaged = []
    for count in (1, 2):  # twice: the second must not overwrite the first
        path = store.put(KEY, 0, LATENTS, {"prompt": "a harbour"})
        DAMAGE[name](path)
        damaged.append(b"" if path.is_dir() else path.read_bytes())
        caplog.clear()
        with caplog.at_level(logging.WARNING, "video_memory"):
            assert store.get(KEY) is None
        assert len(caplog.records) == 1 and path.name in caplog.text and "moved to" in caplog.text
        aside = sorted(store.folder.glob("*.damaged*"))
        assert not path.exists() and len(aside) == count
        assert [b"" if file.is_dir() else file.read_bytes() for file in aside] == damaged
    store.put(KEY, 0, LATENTS, {})
    found = store.get(KEY)
    assert found is not None and torch.equal(found.tensors["latents"], LATENTS["latents"])


def test_a_file_that_may_not_be_read_is_an_error_that_names_it(
    store: SectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.put(KEY, 0, LATENTS, {})
    store.write_manifest([])

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything, so the mode alone shows nothing
    with pytest.raises(OSError, match=rf"cannot read .*{path.name}.*rights"):
        store.get(KEY)
    with pytest.raises(OSError, match=r"cannot read .*manifest\.json.*rights"):
        store.manifest()
    assert path.exists()


# Manifest


def record(index: int, key: str, **more: Any) -> dict[str, Any]:
    return {"index": index, "key": key, "status": "stored", **more}


def test_the_manifest_comes_back_with_the_name_of_each_file(store: SectionStore) -> None:
    path = store.put(KEY, 0, LATENTS, {})
    written = [record(0, KEY, prompt="é\n", seed=2**63, frames=81), record(1, OTHER, prompt="b", seed=0, frames=80)]
    store.write_manifest(written)
    read = SectionStore(store.folder.parent, "film").manifest()
    assert [{name: value for name, value in entry.items() if name != "file"} for entry in read] == written
    assert read[0]["file"] == path.name and read[1]["file"].startswith("section_0001_")
    assert json.loads((store.folder / "manifest.json").read_text("utf-8"))["film"] == "film"


BROKEN_MANIFESTS = [b"", b'{"version": 1', b"[]", b'{"version": true}', b'{"version": 1, "sections": [1]}', b"\xff" * 9]


@pytest.mark.parametrize("content", BROKEN_MANIFESTS)
def test_a_damaged_manifest_is_empty_and_kept_aside(
    store: SectionStore, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = store.write_manifest([record(0, KEY)])
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "video_memory"):
        assert store.manifest() == []
    assert "manifest.json" in caplog.text
    assert (store.folder / "manifest.json.damaged").read_bytes() == content


def test_a_record_without_its_key_or_with_a_value_json_has_not_is_refused(store: SectionStore) -> None:
    store.write_manifest([record(0, KEY)])
    with pytest.raises(ValueError, match=r"record 2 has no key, status"):
        store.write_manifest([record(0, KEY), {"index": 1}])
    with pytest.raises(ValueError, match="JSON"):
        store.write_manifest([record(0, KEY, loss=float("nan"))])
    assert len(store.manifest()) == 1


# Writing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_failed_write_names_the_file_and_leaves_the_old_one(
    store: SectionStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = store.put(KEY, 0, LATENTS, {})

    def fail(target: Path, content: bytes) -> None:
        target.write_text("half")
        raise OSError(code, os.strerror(code), str(target))

    monkeypatch.setattr(sections_module, "_write_bytes", fail)
    with pytest.raises(OSError, match=rf"cannot write .*{path.name}: {os.strerror(code)}") as caught:
        store.put(KEY, 0, {"latents": torch.ones(1)}, {})
    assert caught.value.errno == code
    found = store.get(KEY)
    assert found is not None and torch.equal(found.tensors["latents"], LATENTS["latents"])
    assert [file.name for file in store.folder.iterdir()] == [path.name]


def test_a_full_disk_is_reported_as_such(store: SectionStore) -> None:
    resource = pytest.importorskip("resource")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(OSError, match=rf"cannot write .*section_0000_{KEY[:16]}"):
            store.put(KEY, 0, {"latents": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.get(KEY) is None and list(store.folder.iterdir()) == []


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "films").write_text("a file")
    store = SectionStore(tmp_path / "films", "film")
    assert store.get(KEY) is None and store.manifest() == []
    with pytest.raises(OSError, match=r"cannot write .*films"):
        store.put(KEY, 0, LATENTS, {})


def test_what_a_killed_process_left_is_removed_and_nothing_else(store: SectionStore) -> None:
    store.put(KEY, 0, LATENTS, {})
    names = ("section_0001_x.safetensors", "section_0001_x.webp", "manifest.json", "plan.json")
    left = [store.folder / f".{name}.abc.tmp" for name in names]
    kept = [store.folder / "notes.tmp", store.folder / ".mine.tmp", store.folder / "section_0009_old.safetensors"]
    for path in [*left, *kept]:
        path.write_text("x")
    SectionStore(store.folder.parent, "film").put(OTHER, 1, LATENTS, {})
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_what_a_killed_process_left_goes_also_where_the_next_run_writes_nothing(store: SectionStore) -> None:
    """A kill between a state's last two file operations leaves its lock, and the next run finds the state whole."""
    store.put(KEY, 0, LATENTS, {})
    states = store.folder / "memory"
    states.mkdir()
    left = [
        folder / f".section_0004_x.safetensors.0123456789abcdef.{end}"
        for folder in (store.folder, states)
        for end in ("tmp", "tmp.lock")
    ]
    for path in left:
        path.write_text("{}")
    elsewhere = store.folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".x.y.tmp").write_text("")
    (store.folder / "out").symlink_to(elsewhere)
    with SectionStore(store.folder.parent, "film").making():
        assert not any(path.exists() for path in left) and (elsewhere / ".x.y.tmp").exists()


WRITER = """
import os, sys
from pathlib import Path
import torch
from memory_encoder.digests import section_key
from memory_encoder.film.sections import SectionStore

def write_for_ever():
    store = SectionStore(Path(sys.argv[1]), "film")
    while True:
        records = []
        for n in range(20):
            key = section_key("", {"n": n})
            store.put(key, n, {"latents": torch.full((100, 100), float(n))}, {"n": str(n)})
            records.append({"index": n, "key": key, "status": "stored", "text": "x" * 500})
            store.write_manifest(records)

torch.set_num_threads(1)
while sys.stdin.readline():
    child = os.fork()
    if child == 0:
        write_for_ever()
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes the POSIX way")
def test_a_store_killed_at_any_instant_holds_whole_sections_and_a_whole_manifest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    instants = random.Random(0)
    found = 0
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for kill in range(12):
            process.stdin.write("\n")
            process.stdin.flush()
            writer = int(process.stdout.readline())
            time.sleep(instants.uniform(0.02, 0.1))
            while kill == 11 and not list((tmp_path / "film").glob("section_*")):
                time.sleep(0.01)  # a busy machine has written nothing yet
            os.kill(writer, signal.SIGKILL)
            assert process.stdout.readline() == "dead\n"
            found += check_killed_store(SectionStore(tmp_path, "film"))
        process.stdin.close()
    assert found > 0, "no section was ever written: the test has shown nothing"
    assert caplog.records == [], "a damaged file was found"
    SectionStore(tmp_path, "film").put(OTHER, 99, LATENTS, {})
    assert not list((tmp_path / "film").glob(".*"))


def check_killed_store(store: SectionStore) -> int:
    """How many sections are there; each must be whole, and the manifest must name only such."""
    sections = {n: store.get(section_key("", {"n": n})) for n in range(20)}
    for n, section in sections.items():
        if section is not None:
            assert section.index == n and section.metadata == {"n": str(n)}
            assert torch.equal(section.tensors["latents"], torch.full((100, 100), float(n)))
    for entry in store.manifest():
        assert sections[entry["index"]] is not None
    return sum(section is not None for section in sections.values())


# Reading that fails


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.EACCES])
@pytest.mark.parametrize("move_aside", [True, False])
def test_what_could_not_be_read_stays_where_it_is_and_is_named(
    store: SectionStore, monkeypatch: pytest.MonkeyPatch, code: int, move_aside: bool
) -> None:
    path = store.put(KEY, 0, LATENTS, {})
    store.write_manifest([record(0, KEY)])
    before = sorted(store.folder.iterdir())

    def fail(self: Path) -> bytes:
        raise OSError(code, os.strerror(code), str(self))

    reader = SectionStore(store.folder.parent, "film", move_aside)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match=rf"cannot read .*{path.name}: {os.strerror(code)}") as caught:
            reader.get(KEY)
        assert caught.value.errno == code
        with pytest.raises(OSError, match=rf"cannot read .*manifest\.json: {os.strerror(code)}"):
            reader.manifest()
    assert sorted(store.folder.iterdir()) == before
    assert store.get(KEY) is not None and len(store.manifest()) == 1


def test_files_of_a_process_without_descriptors_left_stay(store: SectionStore) -> None:
    resource = pytest.importorskip("resource")
    store.put(KEY, 0, LATENTS, {})
    store.write_manifest([record(0, KEY)])
    before, limit = sorted(store.folder.iterdir()), resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
        for read in (lambda: store.get(KEY), store.manifest):
            with pytest.raises(OSError, match="cannot read"):
                read()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert sorted(store.folder.iterdir()) == before


def test_a_newer_version_is_refused_with_the_cure_and_stays(store: SectionStore, monkeypatch: Any) -> None:
    monkeypatch.setattr(sections_module, "SCHEMA_VERSION", 2)
    store.put(KEY, 0, LATENTS, {})
    store.write_manifest([record(0, KEY)])
    before = sorted(store.folder.iterdir())
    monkeypatch.undo()
    for read in (lambda: store.get(KEY), store.manifest):
        with pytest.raises(NewerFileError, match=r"is of version 2, .*update the pack"):
            read()
    assert sorted(store.folder.iterdir()) == before


@pytest.mark.parametrize("name", DAMAGE)
def test_a_reader_leaves_damaged_files_where_they_are(store: SectionStore, name: str) -> None:
    DAMAGE[name](store.put(KEY, 0, LATENTS, {"prompt": "a harbour"}))
    (store.folder / "manifest.json").write_bytes(b"[]")
    before = sorted(store.folder.iterdir())
    reader = SectionStore(store.folder.parent, "film", move_aside=False)
    assert reader.get(KEY) is None and reader.manifest() == []
    assert sorted(store.folder.iterdir()) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and links the POSIX way")
def test_a_pipe_or_a_link_out_of_the_folder_in_a_section_s_place_is_missing_and_replaced(store: SectionStore) -> None:
    path = store.put(KEY, 0, LATENTS, {})
    outside = store.folder.parent / "outside.safetensors"
    os.replace(path, outside)
    path.symlink_to(outside)
    assert store.get(KEY) is None
    os.mkfifo(path)
    assert store.get(KEY) is None
    assert store.put(KEY, 0, LATENTS, {}) == path and store.get(KEY) is not None and outside.is_file()


def test_two_stores_of_one_film_do_not_take_each_other_s_temporary_files(store: SectionStore, monkeypatch: Any) -> None:
    other, write = SectionStore(store.folder.parent, "film"), sections_module._write_bytes

    def slowly(path: Path, content: bytes) -> None:
        write(path, content)
        monkeypatch.setattr(sections_module, "_write_bytes", write)
        other.put(OTHER, 1, LATENTS, {})

    monkeypatch.setattr(sections_module, "_write_bytes", slowly)
    store.put(KEY, 0, LATENTS, {})
    assert store.get(KEY) is not None and store.get(OTHER) is not None
