"""What lies in a folder of clips: kinds and names of files, links, and what may not be read."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest

from memory_encoder.cli import main
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.dataset.settings import DatasetError
from tests.unit.dataset_clips import (
    FRAMES,
    CountingCodec,
    Words,
    cache,
    counting,
)


@pytest.mark.parametrize(
    ("suffix", "container", "codec"),
    [
        (".MTS", "mpegts", "libx264"),
        (".m2ts", "mpegts", "libx264"),
        (".3gp", "3gp", "libx264"),
        (".wmv", "asf", "wmv2"),
    ],
)
def test_clips_of_cameras_and_of_other_systems_are_seen_and_read_whole(
    tmp_path: Path, suffix: str, container: str, codec: str
) -> None:
    (tmp_path / "clips").mkdir()
    mode = {"mpegts_m2ts_mode": "1"} if suffix == ".m2ts" else {}
    with av.open(str(tmp_path / "clips" / f"a{suffix}"), "w", format=container, options=mode) as out:
        stream = out.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * level, np.uint8), "rgb24")))
        out.mux(stream.encode())
    report = cache(tmp_path / "clips", tmp_path / "out")
    assert (report.train, report.skipped) == (1, ())


def test_what_is_neither_clip_nor_caption_and_what_is_not_followed_is_counted_and_named(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    counting(clips / "a.mp4")
    counting(tmp_path / "elsewhere" / "b.mp4")
    (clips / "captions.json").write_text('{"a.mp4": "x"}')
    assert not [note for note in cache(clips, tmp_path / "out", words=Words()).notes]
    for name in ("sound.wav", "film.xyz", ".hidden", "deep/notes.pdf"):
        (clips / name).parent.mkdir(exist_ok=True)
        (clips / name).touch()
    try:
        (clips / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    (clips / "gone.mp4").symlink_to(tmp_path / "gone.mp4")
    (clips / "one.mp4").symlink_to(tmp_path / "elsewhere" / "b.mp4")
    report = cache(clips, tmp_path / "out", words=Words())
    assert report.clips == 2  # a link to a clip is one
    assert report.notes[:3] == (
        "3 files of another kind than clips and captions: deep/notes.pdf, film.xyz, sound.wav",
        "1 linked folder not followed, whose clips are not seen: linked",
        "1 path that cannot be looked at: gone.mp4",
    )
    for clip in clips.glob("*.mp4"):
        clip.unlink()
    with pytest.raises(DatasetError, match=r"holds no video .*\(1 linked folder not followed.*known are \.mp4"):
        cache(clips, tmp_path / "out")


@pytest.mark.parametrize("command", ["cache --host h", "evaluate --host h"])
def test_a_second_folder_of_clips_is_refused_and_not_taken_in_place_of_the_first(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--vae", "v", "--out", "out", "--clips", "one", "--clips", "two"])
    assert "argument --clips: one and two are two folders; put them below one" in capsys.readouterr().err


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing it fails, as for somebody without the right."""
    counting(tmp_path / "clips" / "a.mp4")
    counting(tmp_path / "clips" / "barred" / "b.mp4")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("barred"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    assert "1 path that cannot be looked at: barred" in cache(tmp_path / "clips", tmp_path / "out").notes


def test_a_name_that_is_no_text_leaves_out_its_clip_alone_and_says_so_before_it_is_encoded(tmp_path: Path) -> None:
    """As archives of other systems leave them; an index holds text."""
    clips, codec = tmp_path / "clips", CountingCodec()
    counting(clips / "good.mp4")
    odd = os.fsencode(clips) + b"/caf\xe9"
    try:
        os.rename(counting(clips / "a.mp4"), odd + b".mp4")
    except OSError:
        pytest.skip("this file system takes text alone")
    Path(os.fsdecode(odd + b" 2.txt")).write_text("a stray one")
    reason = "has a name that is not UTF-8 text, which no index holds; rename it"
    for _ in range(2):
        report = cache(clips, tmp_path / "out", codec)
        assert report.skipped == (("caf\\udce9.mp4", reason),) and report.clips == 1
        assert codec.encoded == 3  # one window
        assert f"left out: caf\\udce9.mp4: {reason}".encode() in str(report).encode()
        assert "1 text file that belongs to no clip: caf\\udce9 2.txt" in report.notes
    with pytest.raises(DatasetError, match=r"clip caf\\udce9.mp4: has a name that is not UTF-8 text.*rename it"):
        cache(clips, tmp_path / "out", on_bad="refuse")


def test_a_caption_for_a_name_that_is_no_text_is_named_as_one_of_no_clip(tmp_path: Path) -> None:
    counting(tmp_path / "clips" / "a.mp4")
    (tmp_path / "clips" / "captions.json").write_text('{"a.mp4": "x", "b\\ud83d.mp4": "y"}')
    [(name, reason)] = cache(tmp_path / "clips", tmp_path / "out", words=Words()).skipped
    assert name == "b\\ud83d.mp4" and "not among the clips" in reason


@pytest.mark.parametrize(("clip", "said"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("form", ["captions.json", "beside"])
def test_a_clip_has_its_caption_however_the_accents_of_its_name_are_composed(
    tmp_path: Path, clip: Literal["NFC", "NFD"], said: Literal["NFC", "NFD"], form: str
) -> None:
    """A Mac gives names in pieces that everybody types as one letter."""
    name, typed = (unicodedata.normalize(kind, "café.mp4") for kind in (clip, said))
    counting(tmp_path / "clips" / name)
    if form == "beside":
        (tmp_path / "clips" / typed).with_suffix(".txt").write_text("a cup")
    else:
        (tmp_path / "clips" / form).write_text(json.dumps({typed: "a cup"}))
    report = cache(tmp_path / "clips", tmp_path / "out", words=Words(), heldout=(typed,))
    assert (report.skipped, report.notes, report.heldout) == ((), (), 1)
    [sample] = MemoryDataset.open(tmp_path / "out")
    assert (sample.prompt, sample.source) == ("a cup", name)


def test_two_captions_for_names_that_differ_in_their_accents_alone_are_refused(tmp_path: Path) -> None:
    counting(tmp_path / "clips" / "café.mp4")
    both = {unicodedata.normalize(kind, "café.mp4"): kind for kind in ("NFC", "NFD")}
    (tmp_path / "clips" / "captions.json").write_text(json.dumps(both))
    with pytest.raises(DatasetError, match=r"café\.mp4 is named twice, in two ways of writing it; keep one"):
        cache(tmp_path / "clips", tmp_path / "out")
