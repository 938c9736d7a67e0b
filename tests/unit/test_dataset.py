"""The dataset cache with a stand-in VAE: what is stored, what is found again, and what becomes of bad data."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from einops import rearrange, repeat

from memory_encoder.compressor import Codec, _low_resolution
from memory_encoder.memory import VideoMemory
from memory_encoder.training import clips as clips_module
from memory_encoder.training.cache import CacheReport, build_cache, find_clips
from memory_encoder.training.clips import Progress
from memory_encoder.training.dataset import MemoryDataset
from memory_encoder.training.in_memory import dataset_from_latents
from memory_encoder.training.sample import collate
from memory_encoder.training.settings import (
    BadClip,
    CacheSettings,
    DatasetError,
    LatentSpace,
    fingerprint,
    heldout_names,
    parse_heldout,
    plan_geometry,
)
from memory_encoder.training.stored import CorruptShard
from memory_encoder.training.text import Conditioning, TextEncoder, stack
from memory_encoder.training.video import Picture, VideoReader
from memory_encoder.training.windows import cut_windows, low_resolution_latents

SPATIAL, TEXT = 8, 5
SPACE = LatentSpace("wan", "Wan21", "vae 1", 3, 4, SPATIAL, (1, 2, 2), TEXT, None)
SETTINGS = CacheSettings(width=64, height=48, fps=8, window_seconds=2.2, rates=("2x2x2", "2x2x1"), on_bad="skip")
FRAMES, LATENTS = 17, 5  # of a window with these settings
STEP = 5  # brightness from one frame of a test video to the next


class CountingCodec:
    """A causal VAE in miniature that counts its work: latent 0 is frame 0, latent k the last of frames 4k-3 .. 4k."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        self.encoded += 1
        x = rearrange(pictures, "b t h w c -> b c t h w")[:, :, ::4]
        return torch.nn.functional.avg_pool3d(x, (1, SPATIAL, SPATIAL)) * 255 / STEP

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        large = repeat(latents * STEP / 255, "b c t h w -> b t (h a) (w d) c", a=SPATIAL, d=SPATIAL)
        return torch.cat([large[:, :1], large[:, 1:].repeat_interleave(4, dim=1)], dim=1)

    def codec(self) -> Codec:
        return Codec(self.encode, self.decode, lambda latents: latents, temporal=4, spatial=SPATIAL)


class Words:
    """A text encoder that counts what it encodes."""

    def __init__(self, width: int = TEXT) -> None:
        self.encoded: list[str] = []
        self.width = width

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list[list[Any]]:
        self.encoded.append(tokens)
        return [[torch.full((1, 4, self.width), float(len(tokens))), {"pooled_output": None, "hooks": object()}]]


def write_video(path: Path, levels: Iterable[int], times: Iterable[float] | None = None, **options: Any) -> Path:
    """Grey pictures of these levels at 8 frames per second, or at these times; lossless enough to read levels back."""
    levels = list(levels)
    width, height = options.get("size", (64, 48))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as out:
        stream = out.add_stream("libx264", rate=8, options={"qp": "1", "g": "8", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation := options.get("rotation"):
            stream.set_display_rotation(rotation)
        moments = list(times) if times is not None else [i / 8 for i in range(len(levels))]
        for level, moment, following in zip(levels, moments, [*moments[1:], moments[-1] + 1 / 8], strict=True):
            picture = np.full((height, width, 3), level, np.uint8)
            if options.get("marked"):
                picture[:8, :8] = 255  # top left
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round(moment * 1000), Fraction(1, 1000)
            frame.duration = round((following - moment) * 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def counting(path: Path, frames: int = 17, **options: Any) -> Path:
    """A video whose frame i is about STEP * i + 20 bright."""
    return write_video(path, [20 + STEP * i % 230 for i in range(frames)], **options)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    counting(tmp_path / "clips" / "a.mp4", 36)
    counting(tmp_path / "clips" / "deep" / "b.mkv", 17)
    return tmp_path / "clips"


def cache(
    clips: Path, out: Path, codec: CountingCodec | None = None, words: Words | None = None, **changes: Any
) -> CacheReport:
    watch = changes.pop("watch", lambda progress: None)
    settings = dataclasses.replace(SETTINGS, **changes)
    encoder = TextEncoder("words 1", lambda: words) if words else None
    return build_cache(clips, out, settings, SPACE, (codec or CountingCodec()).codec, encoder, watch=watch)


def levels(path: Path, fps: float = 8, size: tuple[int, int] = (64, 48)) -> list[float]:
    return [float(picture.pixels.mean()) for picture in VideoReader(path, fps, *size)]


# --- windows and their latents


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
    expected, _ = _low_resolution(config, codec, VideoMemory.empty(config), torch.zeros(1, 3, latents, 6, 8))
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


# --- decoding


def test_each_picture_is_the_last_one_shown_at_its_time_whatever_the_frame_rate_of_the_video(tmp_path: Path) -> None:
    times = [0.0, 0.05, 0.1, 0.6, 0.65, 1.3]
    path = write_video(tmp_path / "vfr.mkv", [20, 60, 100, 140, 180, 220], times)
    shown = [20, 100, 100, 100, 100, 140, 180, 180, 180, 180, 180, 220]
    assert np.abs(np.array(levels(path)) - shown).max() < 3


def test_the_first_frame_is_at_zero_even_when_the_video_starts_later(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.mkv", [20, 60, 100], [5.0, 5.125, 5.25])
    assert np.abs(np.array(levels(path)) - [20, 60, 100]).max() < 3


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


# --- bad data


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
    shards = {path.name for path in (tmp_path / "out" / "shards").iterdir()}
    assert shards == {Path(w["file"]).name for w in _index(tmp_path / "out")["clips"][0]["windows"]}


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


def _index(out: Path) -> dict[str, Any]:
    return json.loads((out / "index.json").read_text())


def test_a_corrupt_shard_is_named_when_it_is_read_passed_over_when_asked_and_made_again_by_the_cache(
    clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cache(clips, out)
    shard = out / _index(out)["clips"][0]["windows"][1]["file"]
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
        ("{", "cannot be read"),
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
    cache(clips, tmp_path / "out")
    index = _index(tmp_path / "out")
    index["clips"][0]["windows"][0]["file"] = name
    (tmp_path / "out" / "index.json").write_text(json.dumps(index))
    with pytest.raises(DatasetError, match="outside of its folder"):
        MemoryDataset.open(tmp_path / "out")


# --- going on


def test_a_second_run_encodes_nothing_and_writes_the_same_index(clips: Path, tmp_path: Path) -> None:
    (clips / "a.txt").write_text("a caption")
    codec, words = CountingCodec(), Words()
    assert cache(clips, tmp_path / "out", codec, words).encoded == 3
    index, done, said = (tmp_path / "out" / "index.json").read_bytes(), codec.encoded, list(words.encoded)
    assert cache(clips, tmp_path / "out", codec, words).encoded == 0
    assert (codec.encoded, words.encoded) == (done, said) and said == ["", "a caption"]
    assert (tmp_path / "out" / "index.json").read_bytes() == index


def test_other_captions_encode_text_alone(clips: Path, tmp_path: Path) -> None:
    codec, words = CountingCodec(), Words()
    cache(clips, tmp_path / "out", codec, words)
    done = codec.encoded
    (clips / "a.txt").write_text("new words")
    cache(clips, tmp_path / "out", codec, words)
    assert codec.encoded == done and words.encoded == ["", "new words"]
    assert MemoryDataset.open(tmp_path / "out")[0].prompt == "new words"


@pytest.mark.parametrize("change", [{"fps": 7.0}, {"width": 48}, {"rates": ("2x2x4",)}, {"stride_seconds": 1.0}])
def test_other_settings_are_encoded_anew(clips: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    cache(clips, tmp_path / "out")
    assert cache(clips, tmp_path / "out", **change).encoded > 0


def test_another_clip_under_the_same_name_is_encoded_anew_and_others_are_not(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out")
    write_video(clips / "deep" / "b.mkv", [30] * 17)
    assert cache(clips, tmp_path / "out").encoded == 1


class Killed(BaseException):
    """What no code of ours catches."""


@pytest.mark.parametrize("after", [1, 2])
def test_a_run_killed_between_shards_goes_on_where_it_was_to_the_same_index(
    clips: Path, tmp_path: Path, after: int
) -> None:
    codec = CountingCodec()

    def kill(progress: Progress) -> None:
        if codec.encoded >= after * 3:  # one window takes three calls of the VAE
            raise Killed

    with pytest.raises(Killed):
        cache(clips, tmp_path / "out", codec, watch=kill)
    assert not (tmp_path / "out" / "index.json").exists()
    (tmp_path / "out" / "shards" / ".half.tmp").write_bytes(b"half")
    assert cache(clips, tmp_path / "out").encoded == 3 - after
    assert not list((tmp_path / "out").rglob("*.tmp"))
    cache(clips, tmp_path / "whole")
    indexes = [(tmp_path / name / "index.json").read_bytes() for name in ("out", "whole")]
    assert indexes[0] == indexes[1]


def test_two_processes_make_the_index_of_one(clips: Path, tmp_path: Path) -> None:
    codec = importlib.import_module("tests.unit.test_dataset").picklable_codec  # the name that a new process knows
    for name, jobs in (("one", 1), ("two", 2)):
        build_cache(clips, tmp_path / name, SETTINGS, SPACE, codec, jobs=jobs)
    assert (tmp_path / "one" / "index.json").read_bytes() == (tmp_path / "two" / "index.json").read_bytes()


def picklable_codec() -> Codec:
    return CountingCodec().codec()


# --- captions


def test_the_nearest_caption_in_time_is_the_prompt_of_a_window_and_of_a_section(clips: Path, tmp_path: Path) -> None:
    (clips / "a.txt").write_text("[0s: early] [2.5s-3s: middle] [4s: late]")
    cache(clips, tmp_path / "out", words=Words())
    first, second = (MemoryDataset.open(tmp_path / "out")[i] for i in (0, 1))
    assert (first.prompt, second.prompt) == ("early", "middle")
    assert second.seconds_at(0) == 17 / 8 and second.seconds_at(1) == 18 / 8 and second.seconds_at(LATENTS) == 34 / 8
    assert [second.prompt_for(k, 1) for k in range(LATENTS)] == ["early", "middle", "middle", "late", "late"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("captions.json", '{"a.mp4": "seen", "b.mkv": "seen"}'),
        ("captions.json", '[{"file": "a.mp4", "caption": "seen"}, {"file": "deep/b.mkv", "caption": "seen"}]'),
        ("captions.json", '{"a.mp4": [{"start": 0, "prompt": "seen"}], "deep/b.mkv": {"0": "seen"}}'),
        ("captions.jsonl", '{"file_name": "./a.mp4", "text": "seen"}\n\n{"video": "deep\\\\b.mkv", "prompt": "seen"}'),
    ],
)
def test_one_file_can_caption_the_whole_folder(clips: Path, tmp_path: Path, file: str, text: str) -> None:
    (clips / file).write_text(text)
    report = cache(clips, tmp_path / "out", words=Words())
    assert {s.prompt for s in MemoryDataset.open(tmp_path / "out")} == {"seen"} and not report.skipped


def test_a_file_beside_the_clip_wins_and_a_plain_text_may_hold_anything(clips: Path, tmp_path: Path) -> None:
    (clips / "captions.json").write_text('{"a.mp4": "folder", "c.mp4": "who"}')
    (clips / "a.txt").write_text("a | b {c} [d]\n")
    report = cache(clips, tmp_path / "out", words=Words())
    assert MemoryDataset.open(tmp_path / "out")[0].prompt == "a | b {c} [d]"
    assert [name for name, _ in report.skipped] == ["c.mp4"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("captions.json", "{", "captions.json cannot be read"),
        ("captions.jsonl", '{"file": "a.mp4", "text": "x"}\nx', "line 2"),
        ("captions.json", '[{"file": "a.mp4"}]', "entry 1: write"),
        ("captions.json", '[{"file": "a", "text": "x"}, {"file": "a", "text": "y"}]', "entry 2: a is named twice"),
    ],
)
def test_a_folder_file_that_cannot_be_read_whole_is_refused(
    clips: Path, tmp_path: Path, file: str, text: str, message: str
) -> None:
    (clips / file).write_text(text)
    with pytest.raises(DatasetError, match=message):
        cache(clips, tmp_path / "out")


def test_a_json_file_that_is_no_storyboard_is_not_taken_for_a_prompt(clips: Path, tmp_path: Path) -> None:
    (clips / "a.json").write_text("{shots: oh no}")
    assert "it is no storyboard" in cache(clips, tmp_path / "out").skipped[0][1]


def test_each_prompt_is_encoded_once_and_the_empty_one_is_there_for_dropout(clips: Path, tmp_path: Path) -> None:
    for name in ("a", "deep/b"):
        (clips / f"{name}.txt").write_text("same")
    words = Words()
    cache(clips, tmp_path / "out", words=words)
    dataset = MemoryDataset.open(tmp_path / "out")
    assert words.encoded == ["", "same"]
    assert dataset.conditioning("same").cross_attn.mean() == 4 and dataset.conditioning("").cross_attn.mean() == 0
    assert list(dataset.conditioning("same").core()[0][1]) == []  # what is no tensor is not kept
    with pytest.raises(DatasetError, match="'other' is not in the dataset"):
        dataset.conditioning("other")


def test_without_a_text_encoder_every_prompt_is_empty_and_captions_are_kept(clips: Path, tmp_path: Path) -> None:
    (clips / "a.txt").write_text("kept")
    cache(clips, tmp_path / "out")
    dataset = MemoryDataset.open(tmp_path / "out")
    assert dataset[0].prompt == "kept" and not dataset.has_text
    assert torch.equal(dataset.conditioning("kept").cross_attn, torch.zeros(1, 1, TEXT))


def test_a_text_encoder_of_another_model_is_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="texts of width 7, but wan reads 5"):
        cache(clips, tmp_path / "out", words=Words(7))


def test_prompts_of_several_lengths_share_a_batch_padded_with_zeros() -> None:
    texts = [
        Conditioning(torch.ones(1, n, 3), {"pooled_output": torch.ones(1, 2), "attention_mask": torch.ones(1, n)})
        for n in (2, 4)
    ]
    stacked = stack(texts)
    assert {name: tuple(value.shape) for name, value in stacked.items()} == {
        "context": (2, 4, 3),
        "y": (2, 2),
        "attention_mask": (2, 4),
    }
    assert stacked["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]] and stacked["context"][0, 2:].sum() == 0


# --- held out, drawing, fitting


def test_whole_clips_are_held_out_by_name_or_share_and_stay_out_when_others_come(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out", heldout=("b.mkv",))
    dataset = MemoryDataset.open(tmp_path / "out")
    assert dataset.split("train").sources == ("a.mp4",) and dataset.split("heldout").sources == ("deep/b.mkv",)
    names = [f"clip {i}.mp4" for i in range(400)]
    out = heldout_names(names, 0.25)
    assert 60 < len(out) < 140 and heldout_names(names[:200], 0.25) == out & set(names[:200])
    assert parse_heldout(" 0.25 ") == 0.25 and parse_heldout("a.mp4, b.mkv") == ("a.mp4", "b.mkv")
    with pytest.raises(DatasetError, match=r"'c\.mp4', which is not among"):
        cache(clips, tmp_path / "out", heldout=("c.mp4",))


def test_what_is_drawn_follows_from_the_generator_and_no_window_comes_twice_too_early(
    clips: Path, tmp_path: Path
) -> None:
    cache(clips, tmp_path / "out")
    dataset = MemoryDataset.open(tmp_path / "out")
    draws = [dataset.draw(7, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[0][:3]) == sorted(draws[0][3:6]) == [0, 1, 2]
    hr, lr = collate([dataset[i] for i in draws[0]], "2x2x2")
    assert hr.shape == (7, 3, LATENTS, 6, 8) and lr is not None and lr.shape == (7, 3, 3, 4, 4)
    with pytest.raises(DatasetError, match="no window of this split"):
        dataset.split("heldout").draw(1, torch.Generator())


def test_tensors_read_under_inference_mode_can_be_trained_on(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out")
    with torch.inference_mode():
        dataset = MemoryDataset.open(tmp_path / "out")
        tensors = [dataset[0].hr, dataset[0].lr["2x2x2"], dataset.conditioning("").cross_attn]
    assert not any(tensor.is_inference() for tensor in tensors)


def test_an_encoder_that_does_not_fit_the_dataset_is_refused(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out")
    dataset = MemoryDataset.open(tmp_path / "out")
    fits = SPACE.encoder_config("2x2x2", "ceil")
    dataset.check_encoder(fits)
    for change, message in (
        ({"rate": "4x4x2"}, "no LR latents at rate 4x4x2, only 2x2x2, 2x2x1"),
        ({"padding": "floor"}, "padding ceil"),
        ({"latent_channels": 16}, "with 3 channels, the encoder is for wan with 16"),
    ):
        with pytest.raises(DatasetError, match=message):
            dataset.check_encoder(dataclasses.replace(fits, **change))
    dataset.check_encoder(dataclasses.replace(fits, rate="4x4x2", variant="without_lr", channels=(8,)))


def test_fingerprints_tell_weights_apart_and_do_not_depend_on_their_order() -> None:
    weights = {"a": torch.randn(300, 5), "b": torch.arange(3), "c": torch.zeros(0)}
    same = {name: weights[name].clone() for name in reversed(weights)}
    assert fingerprint(weights) == fingerprint(same)
    assert fingerprint(weights | {"b": torch.arange(3) + 1}) != fingerprint(weights) != fingerprint({"a": weights["a"]})


# --- latents that are in memory already


def core_text(value: float) -> list[list[Any]]:
    return [[torch.full((1, 2, TEXT), value), {"pooled_output": None}]]


def test_latents_in_memory_make_a_dataset_with_their_own_texts() -> None:
    codec = CountingCodec().codec()
    first, second = torch.rand(1, 3, 5, 6, 8), torch.rand(2, 3, 3, 6, 8)
    texts = [core_text(1.0), [core_text(2.0)[0], core_text(3.0)[0]]]
    with torch.inference_mode():
        dataset = dataset_from_latents([first.clone(), second], texts, SPACE, codec, ("2x2x2",), 8.0)
    assert [s.hr.shape[1] for s in dataset] == [5, 3, 3] and not dataset[0].hr.is_inference()
    assert torch.equal(dataset[2].hr, second[1])
    assert [float(dataset.conditioning(s.prompt).cross_attn.mean()) for s in dataset] == [1, 2, 3]
    config = SPACE.encoder_config("2x2x2", "ceil")
    assert torch.equal(dataset[0].lr["2x2x2"], low_resolution_latents(codec.decode(first), 5, config, codec)[0])
    for seed in range(8):  # a batch is of one size
        assert len({dataset[i].hr.shape for i in dataset.draw(2, torch.Generator().manual_seed(seed))}) == 1


@pytest.mark.parametrize(
    ("latents", "texts", "message"),
    [
        ([torch.zeros(1, 3, 4, 4)], 1, "entry 0 has shape"),
        ([torch.zeros(1, 3, 1, 4, 4)], 1, "at least 2 frames"),
        ([torch.zeros(1, 16, 3, 4, 4)], 1, "VAE that belongs to the model"),
        ([torch.zeros(1, 3, 3, 4, 4)] * 3, 2, "2 entries for 3 latents"),
        ([], 1, "latents are empty"),
    ],
)
def test_latents_that_do_not_fit_are_refused(latents: list[torch.Tensor], texts: int, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        dataset_from_latents(latents, [core_text(0)] * texts, SPACE, CountingCodec().codec(), ("2x2x2",), 8.0)


def test_videos_are_found_below_the_folder_but_not_in_the_cache_or_hidden(clips: Path) -> None:
    counting(clips / ".hidden" / "c.mp4", 3)
    counting(clips / "cache" / "d.mp4", 3)
    (clips / "notes.txt").write_text("x")
    assert list(find_clips(clips, clips / "cache")) == ["a.mp4", "deep/b.mkv"]
