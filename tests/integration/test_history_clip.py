"""A clip of any frame rate opens a film at the film's own speed, ends where it ended, and keeps its sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch

from .worlds import World, make_world

PACK = "video_memory_history_clip_test"
CASE = Path(__file__).resolve().parents[3] / "shared" / "cases" / "P_fps30_2s.mp4"
RATE = 8000


@pytest.fixture(scope="module")
def world(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    out = tmp_path_factory.mktemp("clips")
    before, comfy.folder_paths.output_directory = comfy.folder_paths.output_directory, str(out)
    yield make_world(comfy, load_pack, PACK, out)
    comfy.folder_paths.output_directory = before


def clip_file(path: Path, frames: int, fps: int, sound: bool = True) -> Path:
    """Frame i is about 2 * i bright; the sound's level rises to 1 at the end."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=fps, options={"qp": "1"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = out.add_stream("pcm_s16le", rate=RATE, layout="mono") if sound else None
        for number in range(frames):
            picture = np.full((48, 64, 3), 2 * number, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(video.encode(None))
        if audio:
            samples = np.linspace(0, 32767, frames * RATE // fps).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return path


def brightness(images: torch.Tensor) -> list[int]:
    return [round(float(image.mean()) * 255 / 2) for image in images]


def loaded(comfy: Any, path: Path) -> Any:
    return comfy.module("comfy_api.latest").InputImpl.VideoFromFile(str(path))


def test_a_clip_of_thirty_frames_a_second_keeps_its_speed_its_end_and_its_sound(
    comfy: Any, world: World, tmp_path: Path
) -> None:
    video = loaded(comfy, clip_file(tmp_path / "clip.mkv", 60, 30))
    images, audio, report = world.call("VideoMemoryClip", video, 16.0, 0.0)
    shown = brightness(images)
    assert len(shown) == 33 and abs(shown[-1] - 59) <= 1
    assert all(abs(index - (59 - (32 - n) * 30 / 16)) <= 1.6 for n, index in enumerate(shown[1:], 1))
    assert "33 frames at 16 fps (2.06 s) of 2.00 s at 30 fps" in report
    sound = audio["waveform"][0, 0]
    assert abs(len(sound) / audio["sample_rate"] - 33 / 16) < 0.01
    assert sound[-1] > 0.99 and abs(float(sound[len(sound) // 2]) - 0.5) < 0.03
    with torch.inference_mode():
        latent = {"samples": world.inputs["vae"].encode(images)}
    film, _, told = world.film("after", "a door", history=latent)
    assert film["samples"].shape[2] == 9 + 2
    assert "opens with 33 frames (2.06 s at 16 fps), from which the first shot goes on" in told
    saved = world.run(
        "VideoMemorySaveFilm", world.inputs["vae"], "video/after", 0.0, 18.0, False, latent=film, audio=audio
    )
    assert " 41 frames (2.56 s) at 16 fps" in saved.result[1] and " 41 frames (2.56 s) at 16 fps" in told


def test_only_the_end_of_a_long_clip_is_taken_and_read(comfy: Any, world: World, tmp_path: Path) -> None:
    asked: list[int] = []

    class Watched(comfy.module("comfy_api.latest").InputImpl.VideoFromFile):
        def as_trimmed(self, *args: Any, **values: Any) -> Any:
            trimmed = super().as_trimmed(*args, **values)
            asked.append(trimmed.get_components().images.shape[0])
            return trimmed

    video = Watched(str(clip_file(tmp_path / "long.mkv", 120, 16)))
    images, audio, report = world.call("VideoMemoryClip", video, 16.0, 1.0)
    assert len(images) == 17 and abs(brightness(images)[-1] - 119) <= 1 and abs(brightness(images)[0] - 103) <= 1
    assert asked and asked[0] <= 33, "as much as is needed and a second more"
    assert "6.44 s at its beginning are left out" in report
    assert abs(audio["waveform"].shape[-1] / audio["sample_rate"] - 17 / 16) < 0.01
    assert float(audio["waveform"][0, 0, -1]) > 0.98


def test_forty_frames_lose_the_first_three_and_a_silent_clip_is_silent(
    comfy: Any, world: World, tmp_path: Path
) -> None:
    api = comfy.module("comfy_api.latest")
    images = torch.arange(40.0)[:, None, None, None].expand(-1, 48, 64, 3) / 255
    video = api.InputImpl.VideoFromComponents(api.Types.VideoComponents(images=images, frame_rate=Fraction(16)))
    chosen, audio, report = world.call("VideoMemoryClip", video, 16.0, 5.0)
    assert torch.equal(chosen, images[3:]) and "0.19 s at its beginning are left out" in report
    assert audio["waveform"].abs().max() == 0 and audio["waveform"].shape[-1] == round(37 / 16 * 44100)
    long = api.InputImpl.VideoFromComponents(api.Types.VideoComponents(images=images, frame_rate=Fraction(8)))
    assert torch.equal(world.call("VideoMemoryClip", long, 8.0, 1.0)[0], images[31:])


def test_case_of_thirty_frames_a_second_is_an_opening_of_two_seconds(comfy: Any, world: World) -> None:
    if not CASE.is_file():
        pytest.skip("the cases are not beside this checkout")
    images, _, _ = world.call("VideoMemoryClip", loaded(comfy, CASE), 16.0, 5.0)
    assert len(images) == 33
