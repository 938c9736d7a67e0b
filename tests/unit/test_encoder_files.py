"""Encoder files are read whole, so that nobody is kept from replacing them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from memory_encoder.injection.hosts.encoder_file import read_encoder
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.run_files import encoder_file, run_of


def encoder() -> MemoryEncoder:
    return MemoryEncoder(EncoderConfig("wan", 16, 4, channels=(8, 8, 8, 8)), dtype=torch.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_an_encoder_that_was_read_keeps_no_hold_on_its_file(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    made = encoder()
    encoder_file(made, {}).write(path)
    config, weights = read_encoder(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert config == made.config
    assert all(torch.equal(weights[name], value) for name, value in made.state_dict().items())


def test_files_say_which_run_wrote_them(tmp_path: Path) -> None:
    encoder_file(encoder(), {"run": "7f", "stage": "retrieval"}).write(tmp_path / "own")
    encoder_file(encoder(), {"stage": "retrieval"}).write(tmp_path / "old")
    (tmp_path / "broken").write_bytes(b"none")
    assert run_of(tmp_path / "own") == "7f"
    assert [run_of(tmp_path / name) for name in ("old", "broken", "missing")] == [None] * 3


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"{}"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        read_encoder(tmp_path / "bad.safetensors")
