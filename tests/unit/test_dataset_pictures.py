"""Clips that are no plain SDR pictures, and captions that miss their clip: right in the cache, said in its report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory_encoder.training.dataset.captions import captions_of, read_folder_captions
from memory_encoder.training.dataset.hdr import ToneMapping
from memory_encoder.training.dataset.video import VideoReader, treatment

from .dataset_clips import Words, cache, counting, rows_of, write_patches

av: Any = pytest.importorskip("av")
CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
PATCHES = np.array([[200, 40, 40], [40, 180, 60], [128, 128, 128], [230, 230, 230]])
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TOLERANCE = 12  # levels


def light(patches: np.ndarray) -> np.ndarray:
    """Of BT.2020 primaries, in reference whites."""
    coded = patches / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4) @ TO_BT2020.T


def pq(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10000) ** (1305 / 8192)
    return ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(nits: np.ndarray) -> np.ndarray:
    """Signal that a screen of 1000 nits shows as so many."""
    shown = nits / 1000
    luma = shown @ np.array([0.2627, 0.6780, 0.0593])
    scene = shown * luma[..., None] ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def four(rgb: np.ndarray, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """[4,3] as four quarters of a picture."""
    width, height = size
    quarters = rgb.reshape(2, 2, 3).repeat(height // 2, 0).repeat(width // 2, 1)
    return np.ascontiguousarray(quarters)


def middles(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return np.array([pixels[place] for place in places]).astype(int)


def srgb(nits: np.ndarray) -> np.ndarray:
    value = nits / 203
    return np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)


def hdr_clip(path: Path, transfer: str) -> Path:
    """Ten bits of BT.2020, luma and chroma computed here."""
    signal = {"PQ": pq, "HLG": hlg, "BT.2020": srgb}[transfer](203 * light(PATCHES))
    luma = signal @ np.array([0.2627, 0.6780, 0.0593])
    planes = 876 * luma + 64, 896 * (signal[:, 2] - luma) / 1.8814 + 512, 896 * (signal[:, 0] - luma) / 1.4746 + 512
    whole = four(np.rint(np.stack(planes, -1))).astype(np.uint16)
    frames = []
    for _ in range(17):
        frame = av.VideoFrame(64, 48, "yuv420p10le")
        for number, plane in enumerate(frame.planes):
            content = whole[..., number] if number == 0 else whole[::2, ::2, number]
            rows = np.zeros((content.shape[0], plane.line_size // 2), np.uint16)
            rows[:, : content.shape[1]] = content
            plane.update(rows.tobytes())
        frames.append(frame)
    return write_patches(path, "libx265", frames, (9, {"PQ": 16, "HLG": 18, "BT.2020": 14}[transfer], 9))


@pytest.mark.parametrize("transfer", ["PQ", "HLG", "BT.2020"])
def test_hdr_clip_has_the_colours_that_an_ordinary_screen_shows(tmp_path: Path, transfer: str):
    path = hdr_clip(tmp_path / "clips" / "hdr.mp4", transfer)
    reader = VideoReader(path, 8, 64, 48)
    found = [middles(picture.pixels) for picture in reader]
    assert len(found) == 17 and np.abs(np.array(found) - PATCHES).max() <= TOLERANCE
    report = cache(tmp_path / "clips", tmp_path / "out")
    done = "colours of BT.2020 were converted" if transfer == "BT.2020" else f"HDR ({transfer}) was tone-mapped"
    assert f"1 clip whose {done}: hdr.mp4" in str(report)
    again = cache(tmp_path / "clips", tmp_path / "out")
    assert again.encoded == 0 and again.notes == report.notes


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
def test_highlights_are_rolled_off_in_order_and_keep_their_hue(transfer: str):
    values = np.arange(0, 65536, 257, dtype=np.uint16)
    grey = ToneMapping(transfer, 9)(values[:, None, None].repeat(3, 2))[:, 0]
    assert (np.diff(grey.astype(int), axis=0) >= 0).all() and grey[0].max() == 0 and grey[-1].min() >= 250
    assert np.abs(grey.astype(int) - grey[:, :1]).max() <= 1
    orange = ToneMapping(transfer, 1)(np.array([[[60000, 50000, 40000]]], np.uint16))[0, 0].astype(int)
    assert orange[0] > orange[1] > orange[2]


def test_case_of_pq_is_tone_mapped():
    if not CASES.is_dir():
        pytest.skip("the cases are not beside this checkout")
    picture = next(iter(VideoReader(CASES / "P_hdr_pq.mp4", 16, 160, 120)))
    assert np.abs(middles(picture.pixels) - PATCHES).max() <= TOLERANCE


@pytest.mark.parametrize(("codec", "name"), [("libvpx-vp9", "clear.webm"), ("qtrle", "clear.mov")])
def test_transparent_parts_are_black_and_the_report_says_so(tmp_path: Path, codec: str, name: str):
    """The hidden colour is the brightest magenta."""
    rgba = np.concatenate([four(PATCHES), np.full((48, 64, 1), 255)], -1).astype(np.uint8)
    rgba[:24, :32] = 255, 0, 255, 0
    rgba[24:, :32, 3] = 128
    form = "argb" if codec == "qtrle" else "yuva420p"
    frames = [av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format=form) for _ in range(17)]
    write_patches(tmp_path / "clips" / name, codec, frames)
    report = cache(tmp_path / "clips", tmp_path / "out")
    assert f"1 clip whose transparent parts became black: {name}" in str(report)
    found = middles(next(iter(VideoReader(tmp_path / "clips" / name, 8, 64, 48))).pixels)
    wanted = PATCHES * np.array([0, 1, 0.5, 1])[:, None]
    assert np.abs(found - wanted).max() <= TOLERANCE


def test_case_of_alpha_is_over_black():
    if not CASES.is_dir():
        pytest.skip("the cases are not beside this checkout")
    reader = VideoReader(CASES / "P_alpha.webm", 16, 160, 120)
    pictures = [picture.pixels for picture in reader]
    assert len(pictures) == 20 and "transparent parts became black" in reader.changed
    assert max(picture[:8, :8].max() for picture in pictures) <= 4


def test_keys_of_plain_clips_are_those_of_before_and_broken_files_have_none(tmp_path: Path):
    assert treatment(counting(tmp_path / "plain.mp4")) == ""
    (tmp_path / "no.mp4").write_bytes(b"<html>")
    assert treatment(tmp_path / "no.mp4") == ""


def test_captions_that_miss_their_clip_are_counted_and_suffixes_may_be_capital(tmp_path: Path):
    clips = tmp_path / "clips"
    for name in ("UPPER.MP4", "clip_1.mp4", "more/b.v1.mp4", "more/c.mp4"):
        counting(tmp_path / "made.mp4")
        (clips / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / "made.mp4", clips / name)
    for name in ("UPPER.TXT", "clip1.txt", "more/b.v1.Txt", "more/d.json"):
        (clips / name).write_text("a red cup" if name != "more/d.json" else "{}")
    words = Words()
    report = cache(clips, tmp_path / "out", words=words)
    assert "2 text files that belong to no clip: clip1.txt, more/d.json" in report.notes
    assert "2 clips without a caption: clip_1.mp4, more/c.mp4" in report.notes
    assert len(report.notes) == 2 and "a red cup" in words.encoded and not report.skipped
    captioned = {name for (name,) in rows_of(tmp_path / "out", "SELECT source FROM clips WHERE captions IS NOT NULL")}
    assert captioned == {"UPPER.MP4", "more/b.v1.mp4"}
    without = cache(clips, tmp_path / "out")
    line = "2 clips whose captions are lost, since no text encoder was given: UPPER.MP4, more/b.v1.mp4"
    assert line in without.notes and line in str(without)


def test_case_of_captions_is_counted(tmp_path: Path):
    if not CASES.is_dir():
        pytest.skip("the cases are not beside this checkout")
    report = cache(CASES / "P_uncaptioned", tmp_path / "out", words=Words(), window_seconds=1.0)
    assert "1 text file that belongs to no clip: clip1.txt" in report.notes
    assert "1 clip without a caption: clip_1.mp4" in report.notes


def test_text_files_in_the_cache_itself_are_no_strays(tmp_path: Path):
    counting(tmp_path / "clip.mp4")
    for _ in range(2):
        assert cache(tmp_path, tmp_path / "out").notes == ("1 clip without a caption: clip.mp4",)


@pytest.mark.parametrize(
    "caption",
    [
        "[9:16] a dancer on a roof",
        "A tall portrait shot [9:16] of a dancer on a roof",
        "[2.39:1] a street",
        "[1950s photo] a street",
        "[3d render] a cat",
        "{a dog|a cat} runs",
        "a dog | a cat",
        "1. a dog\n2. a cat",
        "at 0:30 a dog, at 0:45 a cat",
    ],
)
def test_caption_with_brackets_that_are_no_times_is_one_caption(tmp_path: Path, caption: str):
    counting(tmp_path / "clip.mp4")
    (tmp_path / "clip.txt").write_text(caption)
    found = captions_of("clip.mp4", read_folder_captions(tmp_path), 5, 8)
    assert found is not None and [(shot.start, shot.prompt) for shot in found.shots] == [(0, caption)]


def test_caption_with_times_is_still_a_storyboard(tmp_path: Path):
    counting(tmp_path / "clip.mp4")
    for text in ("[0s: a door] [1s-2s: rain]", '{"shots": [{"start": 0, "prompt": "a"}, {"start": 1, "prompt": "b"}]}'):
        (tmp_path / "clip.txt").write_text(text)
        found = captions_of("clip.mp4", read_folder_captions(tmp_path), 5, 8)
        assert found is not None and [shot.start for shot in found.shots] == [0, 1]


SHOTS = '{"shots": [{"start": 0, "prompt": "a"}, {"start": 1, "prompt": "b"}]}'


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{SHOTS}\n```",
        f"<think>two</think>\n{SHOTS}",
        "[0秒: a] [1秒: b]",
        "【0秒：a】【1秒：b】",
        "0-1s: a\n1-2s: b",
        "0:00 a\n0:01 b",
        "1\n00:00:00,000 --> 00:00:01,000\na\n\n2\n00:00:01,000 --> 00:00:02,000\nb",
    ],
)
def test_times_in_a_text_beside_a_clip_are_read_however_they_are_written(tmp_path: Path, text: str):
    counting(tmp_path / "clip.mp4")
    (tmp_path / "clip.txt").write_text(text, encoding="utf-8")
    found = captions_of("clip.mp4", read_folder_captions(tmp_path), 5, 8)
    assert found is not None and [(shot.start, shot.prompt) for shot in found.shots] == [(0, "a"), (1, "b")]


def test_report_says_how_much_of_portrait_clips_is_kept(tmp_path: Path):
    counting(tmp_path / "clips" / "tall.mp4", size=(48, 96))
    counting(tmp_path / "clips" / "wide.mp4")
    report = cache(tmp_path / "clips", tmp_path / "out")
    line = next(note for note in report.notes if "cropped" in note)
    assert line.endswith("tall.mp4") and line.startswith("1 clip cropped to less than 90% of the picture (least ")
    assert abs(int(line.split("least ")[1].split("%")[0]) / 100 - 0.375) < 0.01
