"""Saving and loading a memory, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from memory_encoder.files import write_atomically
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.encoder import MemoryEncoder

from .test_compressor import CHANNELS, CODEC, append_all, make


def history(attention_steps: int = 7) -> tuple[MemoryEncoder, VideoMemory, torch.Tensor]:
    encoder = make("2x2x4")
    latents = torch.randn(1, CHANNELS, attention_steps, 4, 4)
    return encoder, append_all(encoder, latents, [3, attention_steps - 3]), latents


def test_saved_memory_comes_back_bit_for_bit_and_can_be_continued(tmp_path: Path):
    from memory_encoder.memory.compressor import append_history

    encoder, memory, _ = history()
    memory.save(tmp_path / "film.safetensors")
    loaded = VideoMemory.load(tmp_path / "film.safetensors")
    assert torch.equal(loaded.all_tokens(), memory.all_tokens())
    assert torch.equal(loaded.all_coordinates(), memory.all_coordinates())
    assert loaded.sections == memory.sections and loaded.config == memory.config
    more = torch.randn(1, CHANNELS, 4, 4, 4)
    a, b = (append_history(encoder, CODEC, m, more) for m in (memory, loaded))
    assert torch.equal(a.all_tokens(), b.all_tokens())


@pytest.mark.parametrize("cut", [0, 10, 200, 1000])
def test_truncated_file_is_refused_by_name(tmp_path: Path, cut: int):
    _, memory, _ = history()
    path = tmp_path / "film.safetensors"
    memory.save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"film\.safetensors"):
        VideoMemory.load(path)


def test_foreign_newer_and_inconsistent_files_are_refused(tmp_path: Path):
    path = tmp_path / "film.safetensors"
    save_file({"a": torch.zeros(1)}, str(path))
    with pytest.raises(ValueError, match="not a video memory"):
        VideoMemory.load(path)
    save_file({"a": torch.zeros(1)}, str(path), {"format": "video_memory", "schema_version": "99", "config": "{}"})
    with pytest.raises(ValueError, match="newer"):
        VideoMemory.load(path)
    save_file({"a": torch.zeros(1)}, str(path), {"format": "video_memory", "schema_version": "1", "config": "{}"})
    with pytest.raises(ValueError, match="damaged"):
        VideoMemory.load(path)


def test_memory_of_another_encoder_cannot_be_continued():
    from memory_encoder.memory.compressor import append_history

    _, memory, latents = history()
    with pytest.raises(ValueError, match="another encoder"):
        append_history(make("2x2x2"), CODEC, memory, latents)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"a\.txt"):
        write_atomically(path, fail)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def described(path: Path) -> dict[str, Any]:
    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["config"])


@pytest.mark.parametrize(
    "change",
    [
        {"latents": "x"},
        {"latents": 1e400},
        {"size": [1]},
        {"size": 3},
        {"caches": 10**30},
        {"sections": [{"start_latent": 0}]},
        {"sections": [1]},
        {"encoder": [1]},
        {"encoder": {"heads": 0}},
        {"others": 3},
        {"others": [{}]},
        {"boundaries": [{"tokens": "x"}]},
        {"boundaries": 1},
        {"origin": {}},
    ],
    ids=str,
)
def test_whatever_is_wrong_in_a_memory_the_message_names_its_file(tmp_path: Path, change: dict[str, Any]):
    _, memory, _ = history()
    path = tmp_path / "film.safetensors"
    memory.save(path)
    config = described(path)
    if isinstance(change.get("encoder"), dict):
        change = {"encoder": config["encoder"] | change["encoder"]}
    metadata = {"format": "video_memory", "schema_version": "1", "config": json.dumps(config | change)}
    save_file(load_file(str(path)), str(path), metadata)
    with pytest.raises(ValueError, match=r"film\.safetensors") as caught:
        VideoMemory.load(path)
    assert len(str(caught.value)) < 500


def test_memory_nested_without_end_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "film.safetensors"
    deep = "[" * 100_000 + "]" * 100_000
    save_file({"a": torch.zeros(1)}, str(path), {"format": "video_memory", "schema_version": "1", "config": deep})
    with pytest.raises(ValueError, match=r"film\.safetensors"):
        VideoMemory.load(path)


def test_memory_that_is_not_there_is_an_error_of_the_disk_that_names_it(tmp_path: Path):
    with pytest.raises(OSError, match=r"cannot read .*film\.safetensors"):
        VideoMemory.load(tmp_path / "film.safetensors")
