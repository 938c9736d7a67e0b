"""Caching on cards: which card a process takes, and what core does there without a word in the report."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from memory_encoder.injection.hosts.comfy_models import CheckpointError, load_text_encoder, text_type_of
from memory_encoder.training.dataset.share import use_own_device
from memory_encoder.training.dataset.tiles import TilesWatched

from .dataset_clips import CountingCodec, cache, counting

CORES = "Warning: Ran out of memory when regular VAE encoding, retrying with tiled VAE encoding."


@pytest.mark.parametrize(
    ("rank", "workers", "cards"), [(None, range(5), [0, 1, 2, 3, 0]), ("2", range(2), [2, 2]), ("0", range(2), [0, 0])]
)
def test_workers_share_the_cards_and_those_of_a_launched_process_stay_on_its_own(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, workers: range, cards: list[int]
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: taken.append(number))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    for worker in workers:
        before = len(taken)
        use_own_device(worker)
        taken[before:] = taken[before:] or [0]  # the first card is everyone's anyway
    assert taken == cards


class ShortOfMemory(CountingCodec):
    """A VAE that says what core says when a card has no room for the first window."""

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        if not self.encoded:
            logging.getLogger().warning(CORES)
        return super().encode(pictures)


def test_windows_that_core_encoded_in_tiles_are_said_also_later(tmp_path: Path) -> None:
    counting(tmp_path / "clips" / "a.mp4")
    handlers = list(logging.getLogger().handlers)
    for codec in (ShortOfMemory(), CountingCodec()):
        report = cache(tmp_path / "clips", tmp_path / "out", codec)
        assert any("in tiles for want of memory" in note for note in report.notes)
    assert logging.getLogger().handlers == handlers
    assert not any("tiles" in note for note in cache(tmp_path / "clips", tmp_path / "other").notes)
    with TilesWatched() as watched:
        logging.getLogger().warning("Warning: Ran out of memory when regular VAE decoding")
    assert not watched.found


def test_interlaced_clips_are_named(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with av.open(str(tmp_path / "clips" / "a.mpg"), "w") as out:
        stream: Any = out.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(75):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")))
        out.mux(stream.encode())
    assert any("interlaced lines" in note for note in cache(tmp_path / "clips", tmp_path / "out").notes)


def test_text_encoders_are_those_of_the_host(tmp_path: Path) -> None:
    hosts: Any = [SimpleNamespace(name=name, image_optional=newer) for name, newer in HOSTS]
    assert [text_type_of(host) for host in hosts] == ["wan", "hunyuan_video", "hunyuan_video_15"]
    (tmp_path / "qwen.safetensors").write_bytes(b"one")
    with pytest.raises(CheckpointError, match=r"takes two, qwen_2\.5_vl and byt5; give both files"):
        load_text_encoder([str(tmp_path / "qwen.safetensors")], "hunyuan_video_15")


HOSTS = [("wan", False), ("hunyuan", False), ("hunyuan", True)]
