"""Pictures and sound into MP4 as they come: what is in the file, flat memory, and no half files."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from memory_encoder.movie import MovieError, write_movie

av = pytest.importorskip("av")
ROOT = Path(__file__).resolve().parents[2]


def pictures(*counts: int, size: tuple[int, int] = (32, 48)) -> Iterator[torch.Tensor]:
    """Pieces whose frames get lighter from the first to the last."""
    total, done = sum(counts), 0
    for count in counts:
        levels = (torch.arange(done, done + count).float() + 1) / (total + 1)
        yield levels[:, None, None, None].expand(-1, *size, 3)
        done += count


def test_frames_come_back_in_order_at_their_rate_with_their_metadata(tmp_path: Path):
    path = tmp_path / "film.mp4"
    count = write_movie(path, pictures(5, 8, 3), 24, metadata={"prompt": {"1": "a"}, "workflow": {"nodes": []}})
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        levels = [frame.to_ndarray(format="rgb24").mean() for frame in file.decode(stream)]
        assert (stream.codec_context.name, stream.average_rate, stream.width, stream.height) == ("h264", 24, 48, 32)
        assert json.loads(file.metadata["prompt"]) == {"1": "a"} and "workflow" in file.metadata
    assert count == len(levels) == 16 and levels == sorted(levels)
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_sound_runs_beside_the_pictures_and_ends_with_them(tmp_path: Path, seconds: float):
    path = tmp_path / "film.mp4"
    rate = 16000
    tone = torch.sin(torch.arange(int(seconds * rate)) * 0.17)[None, None] * 0.5
    write_movie(path, pictures(16, 16), 16, audio={"waveform": tone.expand(1, 2, -1), "sample_rate": rate})
    with av.open(str(path)) as file:
        sound = file.streams.audio[0]
        samples = sum(frame.samples for frame in file.decode(sound))
        assert sound.codec_context.channels == 2
    assert abs(samples / rate - min(seconds, 2.0)) < 0.15  # frames of 1024 samples
    with av.open(str(path)) as file:
        assert len(list(file.decode(video=0))) == 32


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_stopped_film_leaves_the_folder_as_it_was(tmp_path: Path, error: type[BaseException]):
    def watch(frames: int) -> None:
        if frames == 7:
            raise error

    with pytest.raises(error):
        write_movie(tmp_path / "film.mp4", pictures(5, 5), 16, watch=watch)
    assert list(tmp_path.iterdir()) == []


def test_killed_process_leaves_no_file_under_the_name_and_its_rest_is_removed_later(tmp_path: Path):
    code = (
        "import sys, os, signal, torch; from pathlib import Path; from memory_encoder.movie import write_movie\n"
        "def die(n):\n    if n == 150: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_movie(Path(sys.argv[1]), iter([torch.rand(160, 64, 64, 3)]), 16, watch=die)"
    )
    path = tmp_path / "film.mp4"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    left = list(tmp_path.iterdir())
    assert left and not path.exists() and all(one.name.startswith(".film.mp4.") for one in left)
    write_movie(tmp_path / "next.mp4", pictures(3), 16)
    assert [p.name for p in tmp_path.iterdir()] == ["next.mp4"]


def test_film_that_is_still_being_written_is_removed_by_no_other_one_however_old_it_looks(tmp_path: Path):
    def watch(frames: int) -> None:
        if frames == 3:
            for path in tmp_path.glob(".slow.mp4.*.tmp"):
                os.utime(path, (0, 0))
            write_movie(tmp_path / "quick.mp4", pictures(2), 16)

    assert write_movie(tmp_path / "slow.mp4", pictures(5), 16, watch=watch) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["quick.mp4", "slow.mp4"]


def test_pictures_that_cannot_be_a_film_are_refused_in_words(tmp_path: Path):
    with pytest.raises(MovieError, match="even"):
        write_movie(tmp_path / "odd.mp4", pictures(2, size=(33, 48)), 16)
    with pytest.raises(MovieError, match="no pictures"):
        write_movie(tmp_path / "none.mp4", iter([]), 16)
    with pytest.raises(MovieError, match="channels"):
        audio = {"waveform": torch.zeros(1, 3, 9), "sample_rate": 9}
        write_movie(tmp_path / "sound.mp4", pictures(2), 16, audio=audio)
    with pytest.raises(OSError, match="denied"):
        write_movie(Path("/proc/denied/film.mp4"), pictures(2), 16)
    assert list(tmp_path.iterdir()) == []


def test_resident_memory_does_not_grow_with_the_length_of_the_film(tmp_path: Path):
    """1200 frames of 320x192 would be 880 MB of floats; the process may grow by a tenth of that after the first 200."""

    def peaks() -> Iterator[torch.Tensor]:
        for piece in range(60):
            if piece == 10:
                seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            yield torch.rand(20, 192, 320, 3)
        seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    seen: list[int] = []
    write_movie(tmp_path / "long.mp4", peaks(), 24, crf=40)
    assert (seen[1] - seen[0]) * 1024 < 88e6, f"grew by {(seen[1] - seen[0]) / 1024:.0f} MB"
