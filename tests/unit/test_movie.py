"""Pictures and sound into MP4 as they come: what is in the file, flat memory, and no half files."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from memory_encoder.pictures.movie import MovieError, write_movie

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


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("rate", [4000, 37800, 44100, 192000])
def test_sound_of_any_rate_and_layout_comes_out_as_long_and_as_high_without_clipping(
    tmp_path: Path, channels: int, rate: int
):
    """A tone of 440 Hz at nine tenths in every channel at once, the worst case for a sum of them."""
    seconds, path = 1.5, tmp_path / "film.mp4"
    tone = 0.9 * torch.sin(torch.arange(int(seconds * rate)) * (2 * math.pi * 440 / rate))
    audio = {"waveform": tone.expand(1, channels, -1), "sample_rate": rate}
    write_movie(path, pictures(20, 28), 24, audio=audio)
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        heard = np.concatenate([frame.to_ndarray() for frame in file.decode(stream)], axis=1)
        found = stream.codec_context.sample_rate
        assert stream.codec_context.layout.name == {1: "mono", 2: "stereo", 3: "stereo", 4: "stereo"}.get(
            channels, "5.1"
        )
    assert abs(heard.shape[1] / found - seconds) < 2 * 1024 / found
    middle = heard[0, found // 4 : found + found // 4]  # a second of the left channel
    assert np.abs(np.fft.rfft(middle)).argmax() == 440
    assert 0.4 < np.abs(middle).max() < 1.0


@pytest.mark.parametrize("size", [(48, 64), (720, 1280)])
def test_colours_are_bt709_and_the_file_says_so(tmp_path: Path, size: tuple[int, int]):
    """The pixels are computed back from luma and chroma with the matrix that the tags name; players do the same."""
    colours = torch.tensor([[229, 51, 25], [40, 180, 60], [30, 60, 220], [128, 128, 128], [240, 240, 240]]) / 255
    picture = colours.repeat_interleave(size[1] // 5 + 1, 0)[: size[1]].expand(1, *size, 3)
    write_movie(tmp_path / "film.mp4", iter([picture]), 16, crf=10)
    with av.open(str(tmp_path / "film.mp4")) as file:
        codec = file.streams.video[0].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range) == (1, 13, 1, 1)
        planes = next(file.decode(video=0)).to_ndarray(format="yuv420p").astype(float)
    height, width = size
    luma = (planes[:height] - 16) / 219
    blue, red = ((plane.reshape(height // 2, -1) - 128) / 224 for plane in np.split(planes[height:], 2))
    for number, colour in enumerate(colours.tolist()):
        column = int((number + 0.5) * (width // 5 + 1))
        y, cb, cr = luma[height // 2, column], blue[height // 4, column // 2], red[height // 4, column // 2]
        found = y + 1.5748 * cr, y - 0.1873 * cb - 0.4681 * cr, y + 1.8556 * cb
        assert np.abs(np.array(found) - colour).max() < 4 / 255


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
        "import sys, os, signal, torch; from pathlib import Path\n"
        "from memory_encoder.pictures.movie import write_movie\n"
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
    for waveform, rate, word in (
        (torch.zeros(1, 9, 9), 8000, "channels"),
        (torch.zeros(2, 9), 8000, "shape"),
        (torch.zeros(1, 1, 9), 0, "sample rate"),
        (torch.full((1, 1, 9), torch.nan), 8000, "NaN"),
    ):
        with pytest.raises(MovieError, match=word):
            write_movie(tmp_path / "s.mp4", pictures(2), 16, audio={"waveform": waveform, "sample_rate": rate})
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
