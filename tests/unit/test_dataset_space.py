"""What a dataset takes on disk: said before, and no more than its own tokens for a text."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from memory_encoder.digests import section_key
from memory_encoder.training.dataset.buckets import plan_buckets
from memory_encoder.training.dataset.cache import build_cache
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.dataset.disk_space import DiskSpace, window_bytes
from memory_encoder.training.dataset.settings import CacheSettings, DatasetError
from memory_encoder.training.dataset.text import TextEncoder, lengthened, shortened
from tests.unit.dataset_clips import SETTINGS, SPACE, TEXT, CountingCodec, as_version_1, cache, counting, rows_of

PADDED = 512


class Padding512:
    """As umT5 in core: some tokens of its own, then zeros up to 512, and a mask of as many."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list[list[Any]]:
        own = 1 + len(tokens.split())
        words = torch.zeros(1, PADDED, TEXT)
        words[:, :own] = torch.randn(1, own, TEXT, generator=torch.Generator().manual_seed(len(tokens)))
        mask = (torch.arange(PADDED) < own).long()[None]
        return [[words, {"attention_mask": mask, "pooled_output": torch.ones(1, 7)}]]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    counting(tmp_path / "clips" / "a.mp4", 36)
    counting(tmp_path / "clips" / "b.mp4", 20)
    (tmp_path / "clips" / "a.txt").write_text("a red cup on a table")
    return tmp_path / "clips"


def test_a_caption_takes_its_own_tokens_on_disk_and_is_read_as_the_encoder_made_it(clips: Path, tmp_path: Path) -> None:
    encoder = Padding512()
    build_cache(clips, tmp_path / "out", SETTINGS, SPACE, CountingCodec().codec, TextEncoder("512", lambda: encoder))
    dataset = MemoryDataset.open(tmp_path / "out")
    for prompt in ("a red cup on a table", ""):
        [[words, extras]] = encoder.encode_from_tokens_scheduled(prompt)
        read = dataset.conditioning(prompt)
        assert torch.equal(read.cross_attn, words.half().float())
        assert set(read.extras) == set(extras)
        assert all(torch.equal(read.extras[name], extras[name]) for name in extras)
    sizes = [load_file(tmp_path / "out" / file)["cross_attn"].shape[1] for (file,) in rows_of(
        tmp_path / "out", "SELECT file FROM texts"
    )]  # fmt: skip
    assert sorted(sizes) == [2, 8]  # one token of padding is kept, to be repeated
    as_version_1(tmp_path / "out")
    assert MemoryDataset.open(tmp_path / "out").conditioning("").cross_attn.shape == (1, PADDED, TEXT)


@given(st.integers(1, 6), st.integers(0, 6), st.booleans())
def test_tokens_come_back_exactly_whatever_their_padding(own: int, padding: int, flat: bool) -> None:
    value = torch.randn(1, own, 3, generator=torch.Generator().manual_seed(own))
    value = torch.cat([value, value[:, -1:].expand(-1, padding, -1) * 0 + 0.5], dim=1)
    value = value[..., 0] if flat else value
    short = shortened(value)
    assert torch.equal(lengthened(short, value.shape[1]), value) and short.shape[1] <= own + 1


def test_the_estimate_is_near_to_what_is_written_and_is_said_before_anything_is_encoded(
    clips: Path, tmp_path: Path
) -> None:
    codec, said = CountingCodec(), []

    def before(needed: DiskSpace) -> None:
        said.append(needed)
        assert not codec.encoded

    build_cache(clips, tmp_path / "out", SETTINGS, SPACE, codec.codec, before=before)
    written = sum(path.stat().st_size for path in (tmp_path / "out" / "shards").iterdir())
    headers = 3 * 600  # of tiny files
    assert said[0].windows == 3 and said[0].there == 0 and 0 <= written - said[0].latents < headers
    build_cache(clips, tmp_path / "out", SETTINGS, SPACE, codec.codec, before=said.append)
    assert said[1].missing == said[1].text and "2 clips of 0.1 minutes: about 3 windows" in str(said[1])


def test_a_disk_that_is_too_small_is_refused_before_anything_is_encoded(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_encoder.training.dataset.disk_space._free", lambda folder: 1000.0)
    codec = CountingCodec()
    with pytest.raises(DatasetError, match=r"too small.*0\.0 GB are free.*choose another disk"):
        cache(clips, tmp_path / "out", codec)
    assert not codec.encoded
    build_cache(clips, tmp_path / "out", SETTINGS, SPACE, codec.codec, before=lambda needed: None)
    cache(clips, tmp_path / "out", codec)  # what is there takes no more room


def test_windows_of_other_lengths_count_with_their_own_size(clips: Path, tmp_path: Path) -> None:
    counting(clips / "c.mp4", 9)
    said: list[DiskSpace] = []
    for least in (0.0, 1.0):
        settings = dataclasses.replace(SETTINGS, min_window_seconds=least)
        build_cache(clips, tmp_path / f"out{least}", settings, SPACE, CountingCodec().codec, before=said.append)
    assert [needed.windows for needed in said] == [3, 4]
    assert 0 < said[1].latents - said[0].latents < said[0].latents / 3


@pytest.mark.parametrize(
    ("host", "fps", "channels", "spatial"), [("5B", 24, 48, 16), ("14B", 16, 16, 8), ("HunyuanVideo", 24, 16, 8)]
)
def test_the_training_page_says_what_a_window_takes_at_the_frame_rate_of_its_model(
    host: str, fps: int, channels: int, spatial: int
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    space = dataclasses.replace(SPACE, channels=channels, spatial=spatial)
    said = re.findall(rf"(\d+) MB for (?:Wan )?(?:2\.2 )?{host} at {fps} fps", page)
    lengths = (25, 20)
    assert len(said) == len(lengths)
    for seconds, megabytes in zip(lengths, said, strict=True):
        settings = CacheSettings(832, 480, fps, window_seconds=seconds)
        buckets = plan_buckets(settings, space)
        assert round(window_bytes(buckets.lengths[0], settings, buckets, space) / 1e6) == int(megabytes)


def estimate(clips: Path, out: Path, **changes: Any) -> tuple[DiskSpace, int]:
    """What was said before, and how many bytes were written then."""
    said: list[DiskSpace] = []
    before = shard_bytes(out)
    settings = dataclasses.replace(SETTINGS, **changes)
    build_cache(clips, out, settings, SPACE, CountingCodec().codec, before=said.append)
    return said[0], shard_bytes(out) - before


def shard_bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in (out / "shards").glob("*.safetensors"))


HEADERS = 3 * 700  # of three tiny files


@pytest.mark.parametrize("change", [{"rates": ("2x2x1",)}, {"fps": 12.0}, {"width": 48}])
def test_windows_of_other_settings_count_neither_as_there_nor_in_silence(
    clips: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    cache(clips, tmp_path / "out")
    needed, written = estimate(clips, tmp_path / "out", **change)
    assert needed.there == 0 and 0 < written - needed.missing < HEADERS
    head = (tmp_path / "out" / "index.json").read_text()
    assert "3 files in" in head and "that this dataset does not read, 0.0 GB, of other settings or clips: a.mp4" in head
    again, written = estimate(clips, tmp_path / "out", **change)
    assert again.missing == again.text and not written


def test_windows_of_a_clip_that_was_replaced_or_that_are_gone_do_not_count_as_there(
    clips: Path, tmp_path: Path
) -> None:
    cache(clips, tmp_path / "out")
    counting(clips / "a.mp4", 37)
    needed, written = estimate(clips, tmp_path / "out")
    assert 0 < written - (needed.missing - needed.text) < HEADERS and needed.there
    for shard in (tmp_path / "out" / "shards").iterdir():
        shard.unlink()
    assert estimate(clips, tmp_path / "out")[0].there == 0


def test_what_is_there_counts_where_only_the_clips_time_has_changed_or_an_earlier_version_made_it(
    clips: Path, tmp_path: Path
) -> None:
    cache(clips, tmp_path / "out")
    os.utime(clips / "a.mp4", (0, 0))
    record = next((tmp_path / "out" / "clips").glob("b.mp4*.json"))
    values = json.loads(record.read_text())
    del values["seen"], values["digest"]
    record.write_text(json.dumps(values | {"digest": section_key("", values)}))
    for _ in range(2):
        needed, written = estimate(clips, tmp_path / "out")
        assert needed.missing == needed.text and not written
        assert "seen" in json.loads(record.read_text())


def test_a_clip_counts_with_the_size_that_it_goes_to(clips: Path, tmp_path: Path) -> None:
    counting(clips / "wide.mp4", 20, size=(256, 144))
    needed, written = estimate(clips, tmp_path / "out", buckets=((256, 144),))
    assert 0 < written - needed.latents < HEADERS * 4 / 3 and needed.windows == 4


def without_length(path: Path, frames: int) -> Path:
    """As browsers record: nothing says how long it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as out:
        stream = out.add_stream("libvpx", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), "rgb24")))
        out.mux(stream.encode())
    return path


def test_clips_that_do_not_say_how_long_they_are_are_counted_as_the_others_and_said(
    clips: Path, tmp_path: Path
) -> None:
    without_length(tmp_path / "live" / "a.webm", 40)
    needed, _ = estimate(tmp_path / "live", tmp_path / "one")
    assert needed.windows == 0 and str(needed).endswith("; 1 clip does not say how long it is: not counted")
    for name in "cd":
        without_length(clips / f"{name}.webm", 40)
    (clips / "e.mp4").touch()  # which is no video
    needed, _ = estimate(clips, tmp_path / "out")
    assert (needed.windows, needed.unknown) == (5, 2)  # 3 of 3 clips, and 2 x 1
    assert str(needed).endswith("; 2 clips do not say how long they are: counted as the others in the mean")
    assert estimate(clips, tmp_path / "out")[0].missing == 0
