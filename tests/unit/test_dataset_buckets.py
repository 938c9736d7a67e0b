"""Several sizes and lengths in one dataset, and the index that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.training.dataset.buckets import LEAST_AREA, plan_buckets
from memory_encoder.training.dataset.dataset import SHUFFLED, MemoryDataset, _places
from memory_encoder.training.dataset.settings import CacheSettings, DatasetError, LatentSpace, parse_buckets
from tests.unit.dataset_clips import (
    LATENTS,
    CountingCodec,
    Words,
    as_version_1,
    cache,
    counting,
    index_of,
    rows_of,
)

WAN = LatentSpace("wan", "Wan21", "vae", 16, 4, 8, (1, 2, 2), 4096, None)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A landscape clip, a portrait clip, one turned by its header, and one of 9 frames."""
    counting(tmp_path / "clips" / "land.mp4", 36)
    counting(tmp_path / "clips" / "port.mp4", 17, size=(48, 64))
    counting(tmp_path / "clips" / "short.mp4", 11)
    counting(tmp_path / "clips" / "turned.mp4", 17, rotation=90)
    return tmp_path / "clips"


def test_a_vertical_clip_keeps_its_picture_in_a_bucket_of_its_own(clips: Path, tmp_path: Path) -> None:
    report = cache(clips, tmp_path / "out", buckets="auto")
    dataset = MemoryDataset.open(tmp_path / "out")
    sizes = {(s.source, s.hr.shape[2:]) for s in dataset}
    assert sizes == {("land.mp4", (6, 8)), ("port.mp4", (8, 6)), ("turned.mp4", (8, 6))}
    assert not any("cropped" in note for note in report.notes)
    assert "64x48x17: 2; " in str(report) and "48x64x17: 2" in str(report)
    cropped = cache(clips, tmp_path / "one size")
    assert any("cropped to less than 90% of the picture (least 5" in note for note in cropped.notes)


def test_a_clip_shorter_than_the_window_is_one_shorter_window(clips: Path, tmp_path: Path) -> None:
    report = cache(clips, tmp_path / "out", min_window_seconds=0.7)
    dataset = MemoryDataset.open(tmp_path / "out")
    lengths = [(s.source, s.latents, s.start_seconds) for s in dataset]
    assert ("short.mp4", 3, 0.0) in lengths and lengths.count(("land.mp4", LATENTS, 0.0)) == 1 and not report.skipped
    sample = next(s for s in dataset if s.source == "short.mp4")
    assert sample.lr["2x2x2"].shape[1] == 2 and sample.lr["2x2x1"].shape[1] == 3
    assert [reason for _, reason in cache(clips, tmp_path / "out", min_window_seconds=1.7).skipped] == [
        "is too short: 1.38 s are less than 1.62 s"
    ]
    assert "is too short: 1.38 s are less than 2.12 s" in str(cache(clips, tmp_path / "out"))


def test_scenes_shorter_than_the_window_are_used_too(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "memory_encoder.training.dataset.clips.scene_cuts", lambda: lambda picture: picture.index in (10, 30)
    )
    cache(clips, tmp_path / "out", scene_cuts=True, min_window_seconds=0.7)
    found = [(s.latents, s.start_seconds * 8) for s in MemoryDataset.open(tmp_path / "out") if s.source == "land.mp4"]
    assert found == [(5, 10), (3, 0), (2, 30)]  # of frames 0-9, 10-29 and 30-35


def test_further_sizes_and_lengths_leave_the_windows_of_before_as_they_are(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out")
    before = set((tmp_path / "out" / "shards").iterdir())
    report = cache(clips, tmp_path / "out", buckets="auto", min_window_seconds=0.7)
    assert report.encoded == 3 and before < set((tmp_path / "out" / "shards").iterdir())  # port, turned and short
    codec = CountingCodec()
    assert cache(clips, tmp_path / "out", codec, buckets="auto", min_window_seconds=0.7).encoded == codec.encoded == 0


def test_batches_are_of_one_shape_and_every_window_is_drawn(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out", buckets="auto", min_window_seconds=0.7)
    dataset = MemoryDataset.open(tmp_path / "out")
    drawn = set()
    for seed in range(60):
        batch = dataset.draw(3, torch.Generator().manual_seed(seed))
        drawn |= set(batch)
        assert len({dataset[i].hr.shape for i in batch}) == 1
    assert drawn == set(range(len(dataset)))
    assert dataset.largest == (3, LATENTS, 6, 8) and dataset.longest == LATENTS
    longest = {
        size: max(b.latents for b in dataset.buckets if (b.height, b.width) == size)
        for size in ((b.height, b.width) for b in dataset.buckets)
    }
    assert {shape[2:]: shape[1] for shape in dataset.shapes} == longest and len(dataset.shapes) == len(longest) == 2


def test_a_dataset_of_an_earlier_version_loads_and_is_drawn_from_in_the_same_order(clips: Path, tmp_path: Path) -> None:
    (clips / "land.txt").write_text("words")
    out = tmp_path / "out"
    cache(clips, out, words=Words(), heldout=("port.mp4",))
    new = MemoryDataset.open(out)
    as_version_1(out)
    assert not list(out.glob("*.sqlite"))
    old = MemoryDataset.open(out)
    assert [(s.source, s.start_seconds, s.prompt) for s in old] == [(s.source, s.start_seconds, s.prompt) for s in new]
    assert all(torch.equal(one.hr, other.hr) for one, other in zip(old, new, strict=True))
    assert old.skipped == new.skipped and old.conditioning("words").cross_attn.mean() == 5
    assert old.split("heldout").sources == ("port.mp4",) and old.split("train").sources == ("land.mp4", "turned.mp4")
    generator = torch.Generator().manual_seed(3)
    torch.randint(3, (), generator=generator)  # as every version before
    assert (
        old.split("train").draw(2, torch.Generator().manual_seed(3))
        == torch.randperm(3, generator=generator)[:2].tolist()
    )
    assert cache(clips, out, words=Words()).encoded == 0 and index_of(out)["schema_version"] == 2


def test_a_crash_between_the_two_files_of_an_index_leaves_the_one_of_before(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    cache(clips, out)
    monkeypatch.setattr("memory_encoder.training.dataset.cache.write_bytes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cache(clips, out, buckets="auto")
    assert {s.hr.shape[2:] for s in MemoryDataset.open(out)} == {(6, 8)}
    monkeypatch.undo()
    cache(clips, out, buckets="auto")
    assert len(list(out.glob("*.sqlite"))) == 1 and rows_of(out, "SELECT count(*) FROM buckets") == [(2,)]


@settings(deadline=None)
@given(st.integers(2, 120), st.integers(2, 120), st.floats(0.4, 30), st.floats(0, 3), st.floats(0.2, 5))
def test_sizes_have_about_one_area_and_lengths_fall_to_the_least(
    columns: int, rows: int, window: float, least: float, ratio: float
) -> None:
    chosen_by_user = CacheSettings(16 * columns, 16 * rows, 16, window, min_window_seconds=least)
    plan = plan_buckets(chosen_by_user, WAN)
    base = plan.sizes[0]
    assert (base.width, base.height) == (16 * columns, 16 * rows) and plan.lengths[0] == base.frames
    for size in plan.sizes:
        area = size.width * size.height / (base.width * base.height)
        assert LEAST_AREA <= area <= 1 and size.width % 16 == size.height % 16 == 0
    chosen, shape = plan.for_ratio(ratio), (base.width / base.height) / ratio
    kept = (chosen.width / chosen.height) / ratio
    assert min(kept, 1 / kept) >= min(shape, 1 / shape) and plan.for_ratio(None) == base
    assert list(plan.lengths) == sorted(set(plan.lengths), reverse=True) and all(n % 4 == 1 for n in plan.lengths)
    if least and len(plan.lengths) > 1:
        assert plan.lengths[-1] <= max(5, least * 16 + 1e-6)
        assert all(b / a >= 0.5 for a, b in zip(plan.lengths, plan.lengths[1:], strict=False) if a > 33)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("auto", "auto"), (" none ", ()), ("", ()), ("480x832, 640 x 640", ((480, 832), (640, 640)))],
)
def test_buckets_are_read_from_a_text(text: str, meant: Any) -> None:
    assert parse_buckets(text) == meant


def test_buckets_that_cannot_be_are_refused() -> None:
    with pytest.raises(DatasetError, match="write auto, none, or sizes such as 480x832"):
        parse_buckets("portrait")
    with pytest.raises(DatasetError, match="smaller than one cell"):
        plan_buckets(CacheSettings(64, 48, 8, buckets=((8, 800),)), WAN)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 9))
def test_of_very_many_windows_none_is_drawn_twice_and_all_can_be(count: int, seed: int) -> None:
    of = SHUFFLED + 1 + seed
    places = _places(count, of, torch.Generator().manual_seed(seed))
    assert len(set(places)) == count and all(0 <= place < of for place in places)
    assert places == _places(count, of, torch.Generator().manual_seed(seed))


def test_the_head_says_in_words_what_the_table_holds(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out", buckets="auto")
    head = json.loads((tmp_path / "out" / "index.json").read_text())
    assert head["counts"] == {"clips": 3, "train": 4, "heldout": 0, "skipped": 1}
    assert head["buckets"] == ["64x48x17: 2", "48x64x17: 2"]
