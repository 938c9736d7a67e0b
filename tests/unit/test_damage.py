"""Files from anywhere: every damage of every file is one error that names it, nothing is allocated on trust."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.faults.loaders import CONFIG, LOADERS, Loader, outcome
from benchmarks.faults.text_readers import TEXT_READERS
from memory_encoder.damage import DamagedFileError, damage_named, shortened
from memory_encoder.files import NewerFileError
from memory_encoder.injection.hosts.encoder_file import read_config, read_encoder
from memory_encoder.memory.memory_file import load_memory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder

MEMORY = next(loader for loader in LOADERS if loader.name == "memory")


@pytest.mark.parametrize("loader", (*LOADERS, *TEXT_READERS), ids=lambda loader: loader.name)
def test_a_good_file_is_read(tmp_path: Path, loader: Loader) -> None:
    loader.load(loader.make(tmp_path))


@pytest.mark.parametrize("loader", (*LOADERS, *TEXT_READERS), ids=lambda loader: loader.name)
@settings(
    max_examples=int(os.environ.get("VIDEO_MEMORY_FUZZ", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(random=st.randoms(use_true_random=False))
def test_whatever_is_wrong_with_a_file_is_one_error_that_names_it(
    tmp_path_factory: pytest.TempPathFactory, loader: Loader, random: Any
) -> None:
    """A longer run: python -m benchmarks.faults fuzz."""
    folder = tmp_path_factory.mktemp("file")
    path = loader.make(folder)
    kind, text = outcome(loader, path, path.read_bytes(), random)
    assert kind in ("loaded", "refused"), text


def encoder_file(path: Path, **changes: Any) -> Path:
    config = json.loads(CONFIG.to_metadata()["config"]) | changes
    save_file(MemoryEncoder(CONFIG).state_dict(), str(path), CONFIG.to_metadata() | {"config": json.dumps(config)})
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"cross_blocks": 100_000, "channels": [8, 8, 8, 128]},
        {"cross_blocks": 500, "channels": [8, 8, 8, 16384], "head_dim": 128},
        {"width": 10**9},
        {"width": 65536},
        {"heads": 0},
        {"head_dim": 0, "cross_blocks": 1},
        {"width": "x"},
        {"channels": 5},
        {"channels": []},
        {"patch": [1]},
        {"rate": 3},
        {"host": 5},
        {"rate": "8192x8192x8192", "variant": "large_patchifier"},
        {"similarity": float("nan")},
        {"anchor": "yes"},
    ],
    ids=str,
)
def test_a_small_file_takes_no_memory_whatever_it_says_of_itself(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = encoder_file(tmp_path / "encoder.safetensors", **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"encoder\.safetensors") as caught:
        read_encoder(path)
    assert len(str(caught.value)) < 600
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 64 * 2**20


def test_names_and_shapes_are_compared_before_a_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encoder_file(tmp_path / "encoder.safetensors", width=32)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("read"))
    with pytest.raises(DamagedFileError, match=r"do not fit their configuration: out\.bias"):
        read_encoder(path)


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), None])
def test_an_encoder_without_finite_weights_is_refused(tmp_path: Path, spoilt: float | None) -> None:
    weights = MemoryEncoder(CONFIG).state_dict()
    weights["out.bias"] = weights["out.bias"].int() if spoilt is None else torch.full_like(weights["out.bias"], spoilt)
    save_file(weights, str(tmp_path / "e.safetensors"), CONFIG.to_metadata())
    with pytest.raises(DamagedFileError, match=r"e\.safetensors .*out\.bias holds"):
        read_encoder(tmp_path / "e.safetensors")


# In the place of a file. A reader that opened a pipe would wait for ever, of /dev/zero it would read for ever.
ODD: dict[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "circle": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("/nowhere/at all"),
}
RECORD = "clip's record"  # counts as missing too, and is made anew
FOLLOWED = ("encoder", "memory", "lora", "checkpoint", "captions")  # a person's own, which may lie on another disk


@pytest.mark.skipif(os.name == "nt", reason="makes them the POSIX way")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("loader", [one for one in LOADERS if one.of_file], ids=lambda one: one.name)
def test_what_is_no_file_is_not_opened_and_said_or_counts_as_missing(tmp_path: Path, loader: Loader, kind: str) -> None:
    path = loader.make(tmp_path)
    path.unlink()
    ODD[kind](path)
    if loader.name in ("section", "losses", "captions"):
        assert not loader.load(path)
        return
    if loader.name == RECORD:
        if kind == "folder":  # which nothing is put in the place of
            with pytest.raises(IsADirectoryError, match=path.name):
                loader.load(path)
        else:
            loader.load(path)
            assert path.is_file() and not path.is_symlink(), "it is made anew"
        return
    with pytest.raises((ValueError, OSError)) as caught:
        loader.load(path)
    text = str(caught.value)
    assert path.name in text or (loader.name, path.parent.name in text) == ("manifest", True)
    if kind != "dangling":  # which is like a file that is not there
        assert isinstance(caught.value, ValueError) and ("; " in text or loader.name == "manifest"), "it has no cure"


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
@pytest.mark.parametrize("loader", [one for one in LOADERS if one.of_file], ids=lambda one: one.name)
def test_links_out_of_the_folder_of_a_film_a_run_or_a_dataset_are_not_followed(tmp_path: Path, loader: Loader) -> None:
    path, elsewhere = loader.make(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.rename(elsewhere / path.name)
    path.symlink_to(elsewhere / path.name)
    if loader.name.startswith(FOLLOWED):
        loader.load(path)
    elif loader.name in ("section", "losses"):
        assert not loader.load(path)
    elif loader.name == RECORD:
        before = (elsewhere / path.name).read_bytes()
        loader.load(path)
        assert not path.is_symlink() and (elsewhere / path.name).read_bytes() == before
    else:
        with pytest.raises(ValueError, match=rf"{path.name}|{path.parent.name}"):
            loader.load(path)


# Memories


def test_a_flipped_bit_anywhere_in_a_memory_is_found(tmp_path: Path) -> None:
    path = MEMORY.make(tmp_path)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for place in range(start, len(content), max(1, (len(content) - start) // 60)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError, match=r"memory\.safetensors"):
            load_memory(path)


def without_checksum(path: Path, **tensors: torch.Tensor) -> dict[str, Any]:
    """Writes the file as 0.1.0 did, with other tensors; returns what it says of itself."""
    with safe_open(str(path), framework="pt") as file:
        metadata = dict(file.metadata())
    del metadata["digest"]
    save_file(load_file(str(path)) | tensors, str(path), metadata)
    return json.loads(metadata["config"])


def test_a_memory_of_before_there_were_checksums_loads(tmp_path: Path) -> None:
    path = MEMORY.make(tmp_path)
    made: Any = load_memory(path)
    without_checksum(path)
    loaded: Any = load_memory(path)
    assert torch.equal(loaded.all_tokens(), made.all_tokens()) and loaded.sections == made.sections


@pytest.mark.parametrize(
    "tensors",
    [
        {"tokens": torch.full((1, 4, 16), float("nan"))},
        {"tokens": torch.zeros(1, 4, 16, dtype=torch.int8)},
        {"tokens": torch.zeros(1, 5, 16)},
        {"tokens": torch.zeros(2, 4, 16)},
        {"coordinates": torch.zeros(4, 2)},
        {"recent": torch.zeros(1, 3, 2, 4, 4)},
        {"recent": torch.zeros(1, 4, 2, 5, 4)},
        {"tail": torch.zeros(1, 4, 15)},
        {"cache.0": torch.zeros(2)},
    ],
    ids=lambda tensors: " ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in tensors.items()),
)
def test_a_memory_of_other_values_types_or_shapes_is_refused(tmp_path: Path, tensors: dict[str, Any]) -> None:
    path = MEMORY.make(tmp_path)
    without_checksum(path, **tensors)
    with pytest.raises(DamagedFileError, match=rf"memory\.safetensors .*({next(iter(tensors))}|coordinates).*compress"):
        load_memory(path)


# The one place


def test_what_may_be_as_good_as_ever_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for error, kind in (
        (OSError(5, "Input/output error"), OSError),
        (MemoryError(), MemoryError),
        (NewerFileError("a.bin is newer"), NewerFileError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), MemoryError),
        (ZeroDivisionError("division"), DamagedFileError),
        (RecursionError(), DamagedFileError),
    ):
        with pytest.raises(kind), damage_named(path, "file", "write it again"):
            raise error


@given(st.text(max_size=3000))
def test_a_message_is_bounded_and_ends_with_the_cure(text: str) -> None:
    with pytest.raises(DamagedFileError) as caught, damage_named(Path("x" * 2000), "file", "write it again"):
        raise KeyError(text)
    assert len(str(caught.value)) < 600 and str(caught.value).endswith("write it again")
    assert len(shortened(text)) <= 600


def test_a_config_of_the_largest_model_there_is_may_be_read(tmp_path: Path) -> None:
    config = EncoderConfig("hunyuan", 6144, 48, cross_blocks=60, channels=(64, 128, 256, 1024), head_dim=128)
    save_file({}, str(tmp_path / "e.safetensors"), config.to_metadata())
    assert read_config(tmp_path / "e.safetensors") == config
