"""Clips on their way into the cache: decoded, cut into windows, and left out by name when they are bad."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from memory_encoder.memory.compressor import _low_resolution, small_pictures
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.training.dataset import clips as clips_module
from memory_encoder.training.dataset.dataset import CorruptShard, MemoryDataset
from memory_encoder.training.dataset.settings import BadClip, CacheSettings, DatasetError, plan_geometry
from memory_encoder.training.dataset.video import Picture, VideoReader, first_look
from memory_encoder.training.dataset.windows import cut_windows, low_resolution_latents
from tests.unit.dataset_clips import (
    FRAMES,
    LATENTS,
    SPACE,
    STEP,
    CountingCodec,
    Words,
    as_version_1,
    cache,
    counting,
    index_of,
    levels,
    rows_of,
    write_patches,
    write_video,
)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    counting(tmp_path / "clips" / "a.mp4", 36)
    counting(tmp_path / "clips" / "deep" / "b.mkv", 17)
    return tmp_path / "clips"


def test_a_window_holds_the_frames_of_its_own_time_and_latents_of_the_planned_size(clips: Path, tmp_path: Path) -> None:
    report = cache(clips, tmp_path / "out")
    dataset = MemoryDataset.open(tmp_path / "out")
    assert (report.clips, report.train, report.encoded) == (2, 3, 3) and len(dataset) == 3
    assert [(s.source, s.start_seconds) for s in dataset] == [("a.mp4", 0), ("a.mp4", 17 / 8), ("deep/b.mkv", 0)]
    for sample in dataset:
        assert sample.hr.shape == (3, LATENTS, 6, 8) and sample.hr.dtype == torch.float32
        first = 20 / STEP + sample.start_seconds * 8
        expected = torch.tensor([first + 4 * k for k in range(LATENTS)])  # the last frame of each latent
        assert (sample.hr.mean(dim=(0, 2, 3)) - expected).abs().max() < 0.5
        assert sample.lr["2x2x2"].shape == (3, 3, 4, 4) and sample.lr["2x2x1"].shape == (3, 5, 4, 4)


@pytest.mark.parametrize("latents", [1, 2, 3, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("rate", ["2x2x1", "2x2x2", "2x2x4", "4x4x8"])
def test_lr_latents_equal_what_the_compressor_makes_of_the_same_pictures(rate: str, latents: int) -> None:
    pictures = torch.rand(1, 1 + 4 * (latents - 1), 48, 64, 3, generator=torch.Generator().manual_seed(latents))
    codec = dataclasses.replace(CountingCodec().codec(), decode=lambda _: pictures)
    config = SPACE.encoder_config(rate, "ceil")
    memory, empty = VideoMemory.empty(config), torch.zeros(1, 3, latents, 6, 8)
    (small,) = small_pictures([memory], codec, empty)
    expected, _ = _low_resolution(config, codec, memory, empty, small)
    assert torch.equal(low_resolution_latents(pictures, latents, config, codec), expected)


def test_an_lr_latent_shows_the_last_frame_of_its_own_cell(clips: Path, tmp_path: Path) -> None:
    """Latent k ends with frame 4k, so cell j of rate 2 in time ends with frame 8j."""
    cache(clips, tmp_path / "out")
    sample = MemoryDataset.open(tmp_path / "out")[0]
    cells = sample.lr["2x2x2"].mean(dim=(0, 2, 3))
    assert (cells - sample.hr.mean(dim=(0, 2, 3))[::2]).abs().max() < 0.1


def test_windows_touch_overlap_or_leave_gaps_as_asked_and_hold_one_window_at_most() -> None:
    def pictures() -> Iterable[Picture]:
        yield from (Picture(i, np.full((1, 1, 3), i, np.uint8)) for i in range(20))

    for stride, starts in ((5, [0, 5, 10, 15]), (3, [0, 3, 6, 9, 12, 15]), (8, [0, 8])):
        found = list(cut_windows(pictures(), 5, stride))
        assert [w.start for w in found] == starts
        assert all((w.pixels[:, 0, 0, 0] == np.arange(w.start, w.start + 5)).all() for w in found)


def test_no_window_reaches_over_a_cut(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_module, "scene_cuts", lambda: lambda picture: picture.index == 6)
    cache(clips, tmp_path / "out", scene_cuts=True)
    dataset = MemoryDataset.open(tmp_path / "out")
    assert [(s.source, s.start_seconds) for s in dataset] == [("a.mp4", 6 / 8)]
    assert dataset.skipped == (("deep/b.mkv", "is too short: 2.12 s are less than 2.12 s; or none of its scenes is"),)


def test_pyscenedetect_finds_where_two_clips_were_joined_and_no_motion_within_them(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")

    def clip(frames: int, colour: tuple[int, int, int], across: bool) -> Iterable[av.VideoFrame]:
        """A bar that moves over a plain ground."""
        for i in range(frames):
            picture = np.full((48, 64, 3), colour, np.uint8)
            picture[(slice(i, i + 8), slice(None)) if across else (slice(None), slice(i, i + 8))] //= 2
            yield av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")

    first, second = 30, 25  # 17 frames are a window; without the cut one would reach from 17 to 33
    joined = [*clip(first, (220, 180, 90), True), *clip(second, (30, 60, 110), False)]
    write_patches(tmp_path / "clips" / "joined.mp4", "libx264", joined)
    for cuts, starts in ((True, [0, first]), (False, [0, FRAMES, 2 * FRAMES])):
        cache(tmp_path / "clips", tmp_path / str(cuts), scene_cuts=cuts)
        assert [round(s.start_seconds * 8) for s in MemoryDataset.open(tmp_path / str(cuts))] == starts


def test_without_pyscenedetect_scene_cuts_say_what_to_install(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scenedetect.detectors", None)
    with pytest.raises(DatasetError, match="pip install 'scenedetect"):
        cache(clips, tmp_path / "out", scene_cuts=True)


def test_sizes_become_whole_cells_and_windows_whole_latents_no_longer_than_asked() -> None:
    settings = CacheSettings(width=850, height=489, fps=16, window_seconds=5)
    geometry = plan_geometry(settings, SPACE)
    assert (geometry.width, geometry.height, geometry.frames, geometry.latents) == (848, 480, 77, 20)
    with pytest.raises(DatasetError, match="smaller than one cell"):
        plan_geometry(dataclasses.replace(settings, width=15), SPACE)
    with pytest.raises(DatasetError, match="less than the 5 of two latents"):
        plan_geometry(dataclasses.replace(settings, window_seconds=0.25), SPACE)
    with pytest.raises(ValueError, match="4x4x3"):
        plan_geometry(dataclasses.replace(settings, rates=("4x4x3",)), SPACE)


def test_each_picture_is_the_last_one_shown_at_its_time_whatever_the_frame_rate_of_the_video(tmp_path: Path) -> None:
    times = [0.0, 0.05, 0.1, 0.6, 0.65, 1.3]
    path = write_video(tmp_path / "vfr.mkv", [20, 60, 100, 140, 180, 220], times)
    shown = [20, 100, 100, 100, 100, 140, 180, 180, 180, 180, 180, 220]
    assert np.abs(np.array(levels(path)) - shown).max() < 3


def test_the_first_frame_is_at_zero_even_when_the_video_starts_later(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.mkv", [20, 60, 100], [5.0, 5.125, 5.25])
    assert np.abs(np.array(levels(path)) - [20, 60, 100]).max() < 3


def test_time_stamps_that_are_mixed_up_among_b_frames_do_not_mix_up_the_pictures(tmp_path: Path) -> None:
    b_frames = {"bf": "3", "b-adapt": "0", "sc_threshold": "0"}
    wanted = [20 + 10 * i for i in range(16)]
    path = write_video(tmp_path / "mixed.mp4", wanted, mixed_up=True, codec=b_frames)
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times != sorted(times), "the file is not what this test is about"
    assert np.abs(np.array(levels(path)) - wanted).max() < 4


@pytest.mark.parametrize("size", [(63, 47), (64, 20), (17, 100)])
def test_odd_and_narrow_videos_cover_the_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "odd.mkv", [90] * 3, size=(size[0] & ~1, size[1] & ~1))
    pictures = list(VideoReader(path, 8, 64, 48))
    assert all(p.pixels.shape == (48, 64, 3) and abs(float(p.pixels.min()) - 90) < 4 for p in pictures)


@pytest.mark.parametrize(("degrees", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_turned_videos_are_shown_upright(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    """A mark at the top left goes where a counter-clockwise turn of the picture brings it."""
    path = write_video(tmp_path / "turned.mp4", [40] * 3, rotation=degrees, marked=True, size=(64, 64))
    picture = next(iter(VideoReader(path, 8, 32, 32))).pixels.astype(int)
    assert picture[corner].min() > 200 and (picture > 150).all(-1).sum() < 40


UPRIGHT = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
MIRRORED = [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]


def shown_by(directions: tuple[int, int, int, int], path: Path) -> Path:
    """A marked video of which a step to the right is shown as (a, b), a step down as (c, d): right and down."""
    a, b, c, d = directions
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    return write_video(path, [40] * 17, matrix=matrix, marked=True, size=(64, 32))


@pytest.mark.parametrize("directions", [*UPRIGHT, *MIRRORED])
def test_a_display_matrix_is_followed_to_each_corner(tmp_path: Path, directions: tuple[int, int, int, int]) -> None:
    path = shown_by(directions, tmp_path / "shown.mp4")
    a, b, c, d = directions
    width, height = (64, 32) if a else (32, 64)
    picture = next(iter(VideoReader(path, 8, width, height))).pixels.astype(int)
    right, down = -a - c, -b - d  # from the middle to where the top left corner goes
    corner = picture[height // 2 + down * (height // 2 - 2) - 1, width // 2 + right * (width // 2 - 2) - 1]
    assert corner.min() > 200 and (picture > 150).all(-1).sum() < 100
    assert first_look(path) == (width / height, directions in MIRRORED)


def test_a_mirrored_clip_that_was_cached_upside_down_is_encoded_anew_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown_by((-1, 0, 0, 1), tmp_path / "clips" / "mirrored.mp4")
    shown_by((-1, 0, 0, -1), tmp_path / "clips" / "turned.mp4")
    with monkeypatch.context() as before:
        before.setattr("memory_encoder.training.dataset.video.mirrored", lambda frame: False)
        assert cache(tmp_path / "clips", tmp_path / "out").encoded == 2
    assert cache(tmp_path / "clips", tmp_path / "out").encoded == 1


@pytest.mark.parametrize(
    ("moments", "message"),
    [([0.0, 0.125, 90.0], r"0\.12 s is followed by 90\.00 s"), ([0.0, 0.125], None)],
)
def test_a_clock_that_jumps_is_refused(tmp_path: Path, moments: list[float], message: str | None) -> None:
    path = write_video(tmp_path / "jump.mkv", [40] * len(moments), moments)
    if message is None:
        assert len(levels(path)) == 2
        return
    with pytest.raises(BadClip, match=message):
        levels(path)


def bad_folder(folder: Path) -> dict[str, str]:
    """A folder with one clip of each kind of damage, and what is said about each."""
    whole = counting(folder / "good.mp4", 40).read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "truncated.mkv").write_bytes((b := counting(folder / "tmp.mkv", 40).read_bytes())[: len(b) // 2])
    (folder / "tmp.mkv").unlink()
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video")
    counting(folder / "short.mp4", 5)
    with av.open(str(folder / "sound.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
    for name, caption in (
        ("json", '{"shots": ['),
        ("latin", "caf\xe9"),
        ("late", '{"shots": [{"start": 9, "prompt": "x"}]}'),
    ):
        counting(folder / f"{name}.mp4", 20)
        suffix = ".txt" if name == "latin" else ".json"
        (folder / f"{name}{suffix}").write_bytes(caption.encode("latin-1"))
    return {
        "truncated.mp4": "truncated|cannot be decoded|damaged",
        "truncated.mkv": "truncated|cannot be decoded|damaged",
        "zero.mp4": r"is empty \(0 bytes\)",
        "text.mp4": "cannot be decoded at its beginning",
        "short.mp4": r"too short: 0\.62 s are less than 2\.12 s",
        "sound.mkv": "no video stream",
        "json.mp4": r"json\.json cannot be used: the JSON is broken at line 1",
        "latin.mp4": r"latin\.txt is not UTF-8",
        "late.mp4": "no caption lies within the clip",
    }


def test_bad_clips_are_left_out_and_named_with_their_reason(tmp_path: Path) -> None:
    expected = bad_folder(tmp_path / "clips")
    report = cache(tmp_path / "clips", tmp_path / "out")
    dataset = MemoryDataset.open(tmp_path / "out")
    assert dataset.sources == ("good.mp4",) and len(dataset) == 2
    reasons: dict[str, str] = {}
    for name, reason in report.skipped:
        reasons[name] = f"{reasons.get(name, '')} {reason}"
    assert set(reasons) == set(expected) and dataset.skipped == report.skipped
    for name, pattern in expected.items():
        assert re.search(pattern, reasons[name]), (name, reasons[name])
        assert name in str(report)
    shards = {path.name.split("_")[0] for path in (tmp_path / "out" / "shards").iterdir()}
    assert shards == {"good.mp4", "late.mp4"}  # the latter's latents are good, for when its captions are


@pytest.mark.parametrize(
    "name", ["truncated.mp4", "zero.mp4", "text.mp4", "short.mp4", "sound.mkv", "json.mp4", "late.mp4"]
)
def test_each_bad_clip_is_refused_by_name_when_that_is_asked_for(tmp_path: Path, name: str) -> None:
    bad_folder(tmp_path / "clips")
    for path in (tmp_path / "clips").iterdir():
        if path.stem not in (Path(name).stem, "good"):
            path.unlink()
    (tmp_path / "clips" / "truncated.mkv").unlink(missing_ok=True)
    with pytest.raises(DatasetError, match=rf"clip {name}: .*; repair or remove it, or set on_bad to skip"):
        cache(tmp_path / "clips", tmp_path / "out", on_bad="refuse")
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_folder_without_a_usable_clip_is_refused_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(DatasetError, match="holds no video"):
        cache(tmp_path / "clips", tmp_path / "out")
    (tmp_path / "clips" / "zero.mp4").touch()
    with pytest.raises(DatasetError, match=r"no clip .* can be used: zero\.mp4: is empty"):
        cache(tmp_path / "clips", tmp_path / "out")


def test_a_caption_past_the_end_is_named_and_the_others_are_kept(clips: Path, tmp_path: Path) -> None:
    shots = [{"start": 0, "prompt": "first"}, {"start": 100, "prompt": "never"}]
    (clips / "a.json").write_text(json.dumps({"shots": shots}))
    report = cache(clips, tmp_path / "out", words=Words())
    assert report.skipped == (("a.mp4", "caption 2 starts at 100 s, but the clip ends at 4.50 s"),)
    assert MemoryDataset.open(tmp_path / "out")[1].prompt == "first"


def test_a_corrupt_shard_is_named_when_it_is_read_passed_over_when_asked_and_made_again_by_the_cache(
    clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cache(clips, out)
    [(file,)] = rows_of(out, "SELECT file FROM windows WHERE place = 1")
    shard = out / file
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    dataset = MemoryDataset.open(out)
    assert dataset[0].source == "a.mp4"
    for read in (lambda: dataset[1], lambda: dataset.sample(1)):
        with pytest.raises(CorruptShard, match=rf"{shard.name} is corrupt .*run the cache again"):
            read()
    assert MemoryDataset.open(out, on_bad="skip").sample(1).source == "deep/b.mkv"
    codec = CountingCodec()
    assert cache(clips, out, codec).encoded == 1
    assert torch.isfinite(MemoryDataset.open(out)[1].hr).all()
    shard.unlink()
    with pytest.raises(CorruptShard, match="cannot be read"):
        MemoryDataset.open(out)[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "not the index of a dataset"),
        ('{"format": "video_memory_dataset", "schema_version": 99}', "schema version 99"),
        ('{"format": "video_memory_dataset", "schema_version": 1}', "is damaged"),
    ],
)
def test_a_damaged_foreign_or_newer_index_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        MemoryDataset.open(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a\\..\\b", "C:/x"])
def test_an_index_cannot_name_files_outside_of_its_folder(clips: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    cache(clips, out)
    rows_of(out, "UPDATE windows SET file = ?", name)
    with pytest.raises(DatasetError, match="outside of its folder"):
        MemoryDataset.open(out)[0]
    as_version_1(out)
    with pytest.raises(DatasetError, match="outside of its folder"):
        MemoryDataset.open(out)[0]
    (out / "index.json").write_text(json.dumps(index_of(out) | {"windows": name}))
    with pytest.raises(DatasetError, match="outside of its folder"):
        MemoryDataset.open(out)


def test_a_table_of_windows_that_is_missing_or_damaged_is_refused_by_name(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out")
    table = tmp_path / "out" / index_of(tmp_path / "out")["windows"]
    table.write_bytes(b"no table" * 200)
    with pytest.raises(DatasetError, match=rf"{table.name} is damaged .*run the cache again"):
        MemoryDataset.open(tmp_path / "out")
    table.unlink()
    with pytest.raises(DatasetError, match=rf"{table.name} is missing; run the cache again"):
        MemoryDataset.open(tmp_path / "out")
    assert cache(clips, tmp_path / "out").encoded == 0 and len(MemoryDataset.open(tmp_path / "out")) == 3
