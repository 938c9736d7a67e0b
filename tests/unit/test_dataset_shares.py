"""A cache that several processes make together: each a share, one index, and nothing lost with one of them."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from memory_encoder.training.dataset.cache import CacheReport, build_cache
from memory_encoder.training.dataset.clips import Progress, file_hash
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.dataset.index import Findings, address_of
from memory_encoder.training.dataset.settings import DatasetError
from memory_encoder.training.dataset.share import Share
from memory_encoder.training.dataset.text import TextEncoder
from tests.unit.dataset_clips import SETTINGS, SPACE, CountingCodec, Words, cache, counting, write_video


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number in range(5):
        counting(tmp_path / "clips" / f"{number}.mp4", 17 + 17 * (number % 2))
        (tmp_path / "clips" / f"{number}.txt").write_text(f"words of {number // 2}")
    (tmp_path / "clips" / "empty.mp4").touch()
    (tmp_path / "clips" / "stray.txt").write_text("x")
    return tmp_path / "clips"


def shared(clips: Path, out: Path, share: Share, codec: CountingCodec | None = None, **changes: object) -> CacheReport:
    words = TextEncoder("words 1", Words)
    made = (codec or CountingCodec()).codec
    return build_cache(clips, out, SETTINGS, SPACE, made, words, share=share, **changes)  # type: ignore[arg-type]


def index_bytes(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in (out / "index.json", *out.glob("index-*.sqlite"))]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shares_in_any_order_make_the_index_of_one_process(clips: Path, tmp_path: Path, order: tuple[int, ...]) -> None:
    out = tmp_path / "out"
    reports = []
    for done, number in enumerate(order):
        assert not (out / "index.json").exists()
        reports.append(shared(clips, out, Share(number, 3)))
        assert reports[-1].missing == (None if done == 2 else tuple(sorted(order[done + 1 :])))
    cache(clips, tmp_path / "one", words=Words())
    assert index_bytes(out) == index_bytes(tmp_path / "one")
    assert (reports[-1].train, reports[-1].encoded, reports[-1].clips) == (7, 7, 5)
    assert "not done yet: " in str(reports[0]) and "left out: empty.mp4" in str(reports[-1])
    assert not list((out / "shares").iterdir())  # all of it is in the index
    assert len(MemoryDataset.open(out)) == 7


def test_what_a_dataset_holds_is_known_by_its_content_though_its_windows_are_called_the_same(
    clips: Path, tmp_path: Path
) -> None:
    def content(name: str, words: bool = True) -> str:
        cache(clips, tmp_path / name, words=Words() if words else None)
        return MemoryDataset.open(tmp_path / name).split("train").content

    before = content("before")
    assert content("again") == before != content("without", words=False)
    (clips / "0.txt").write_text("other words")
    captions = content("captions")
    write_video(clips / "0.mp4", range(200, 217))
    assert len({before, captions, content("clip")}) == 3
    assert MemoryDataset.open(tmp_path / "before").identity == MemoryDataset.open(tmp_path / "clip").identity


class Killed(BaseException):
    """What no code of ours catches."""


def test_a_share_that_is_killed_loses_nothing_and_neither_do_the_others(clips: Path, tmp_path: Path) -> None:
    codec = CountingCodec()

    def kill(progress: Progress) -> None:
        if codec.encoded >= 3:  # one window
            raise Killed

    with pytest.raises(Killed):
        shared(clips, tmp_path / "out", Share(0, 2), codec, watch=kill)
    assert shared(clips, tmp_path / "out", Share(1, 2)).missing == (0,)
    again = CountingCodec()
    report = shared(clips, tmp_path / "out", Share(0, 2), again)
    assert again.encoded == 3 * 2 and report.missing is None and report.train == 7  # of its three windows one was there
    assert shared(clips, tmp_path / "out", Share(), third := CountingCodec()).encoded == third.encoded == 0


def test_other_clips_or_settings_are_not_put_together_with_what_is_left(clips: Path, tmp_path: Path) -> None:
    shared(clips, tmp_path / "out", Share(0, 2))
    counting(clips / "new.mp4", 17)
    assert shared(clips, tmp_path / "out", Share(1, 2)).missing == (0,)
    assert shared(clips, tmp_path / "out", Share(0, 2)).clips == 6


def captions(out: Path) -> dict[str, str | None]:
    return {sample.source: sample.prompt for sample in MemoryDataset.open(out)}


def shares_left(out: Path) -> list[Path]:
    return list((out / "shares").glob("*.sqlite"))


@pytest.mark.parametrize("form", ["text", "captions.json"])
def test_what_a_process_found_before_captions_were_corrected_enters_no_index(
    clips: Path, tmp_path: Path, form: str
) -> None:
    """Process 1 ended, process 2 was killed; captions are corrected and both started, and the second ends first."""
    out = tmp_path / "out"

    def say(word: str) -> None:
        words = {path.name: f"{word} words" for path in clips.glob("?.mp4")}
        for name, caption in words.items() if form == "text" else ():
            (clips / name).with_suffix(".txt").write_text(caption)
        if form == "captions.json":
            for path in clips.glob("?.txt"):
                path.unlink()
            (clips / form).write_text(json.dumps(words))

    say("old")
    shared(clips, out, Share(0, 2))
    say("new")
    first = shared(clips, out, Share(1, 2))
    assert first.missing == first.strange == (0,) and not (out / "index.json").exists()
    assert "what process 1 has found, which is of other clips, captions or settings" in str(first)
    assert shared(clips, out, Share(0, 2)).missing is None
    assert set(captions(out).values()) == {"new words"} and not shares_left(out)


def test_what_a_process_found_of_a_clip_that_was_replaced_enters_no_index(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shared(clips, out, Share(0, 2))
    counting(clips / "0.mp4", 51)
    assert shared(clips, out, Share(1, 2)).missing == (0,)
    assert shared(clips, out, Share(0, 2)).train == 9  # three windows in place of one
    shared(clips, out, Share(0, 2))
    os.utime(clips / "0.mp4", (0, 0))  # of the same size
    assert shared(clips, out, Share(1, 2)).strange == (0,)


def test_a_clip_that_arrives_between_two_starts_is_said_by_the_one_that_ends_last(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "not put together" not in str(shared(clips, out, Share(0, 2)))
    counting(clips / "new.mp4", 17)
    assert "start all processes again" in str(shared(clips, out, Share(1, 2)))
    assert shared(clips, out, Share(0, 2)).clips == 6 and not shares_left(out)


def test_a_process_takes_away_what_it_left_before_as_soon_as_it_begins(clips: Path, tmp_path: Path) -> None:
    """Otherwise one that ends sooner would put it together in place of what this run is about to find."""
    out = tmp_path / "out"
    shared(clips, out, Share(0, 2))
    other: list[CacheReport] = []

    def end_sooner(needed: object) -> None:
        assert not shares_left(out)
        other.append(shared(clips, out, Share(1, 2)))

    assert shared(clips, out, Share(0, 2), before=end_sooner).missing is None
    assert other[0].missing == (0,) and not other[0].strange and not shares_left(out)


def test_no_share_is_left_beside_an_index_however_many_processes_there_were(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in range(2):
        shared(clips, out, Share(number, 3))
    assert len(shares_left(out)) == 2
    shared(clips, out, Share())
    assert not shares_left(out)


def test_a_share_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DatasetError, match="share 2 of 2 cannot be"):
        Share.of_this_process()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(DatasetError, match="no numbers"):
        Share.of_this_process()


def test_a_text_that_two_processes_made_counts_as_it_lies_on_the_disk(tmp_path: Path) -> None:
    """Cards that round otherwise make other bytes of one prompt, and the last one to write wins."""
    (tmp_path / "text").write_bytes(b"what the other card made")
    findings = Findings()
    findings.text("a prompt", "text", "00" * 32)
    findings.texts_as_they_are(tmp_path)
    assert findings.index().text("a prompt") == ("text", file_hash(tmp_path / "text"))


@pytest.mark.parametrize(
    "path,address",
    [
        (PurePosixPath("/data/a b.sqlite"), "file:///data/a%20b.sqlite"),
        (PureWindowsPath("C:/data/a.sqlite"), "file:///C:/data/a.sqlite"),
        (PureWindowsPath("//nas/data/a.sqlite"), "file:////nas/data/a.sqlite"),
    ],
)
def test_sqlite_is_told_of_a_file_in_its_own_way(path: PurePath, address: str) -> None:
    assert address_of(path) == f"{address}?mode=ro&immutable=1"


def test_an_index_that_says_the_same_is_not_replaced_beneath_its_readers(tmp_path: Path) -> None:
    findings = Findings()
    findings.text("a prompt", "text", "00" * 32)
    name = findings.write_index(tmp_path, "index")
    before = (tmp_path / name).stat().st_ino
    assert findings.write_index(tmp_path, "index") == name and (tmp_path / name).stat().st_ino == before
    assert [path.name for path in tmp_path.glob("*.sqlite")] == [name]
