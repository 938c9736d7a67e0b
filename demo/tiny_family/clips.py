"""Real clips for the tiny family: which are held out, and a uint8 cache of short windows that training reads.

The clips folder is the one with a ``manifest.json`` beside it. Nothing of it is committed to this repository.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..clip import data_folder
from .procedural import make_film

# Never trained on, by any model of the tiny family. One of each kind: toy, street, animal.
HELD_OUT: tuple[str, ...] = (
    "mdn_toy_rabbit.mp4",
    "scikitvideo_bikes.mp4",
    "sam2_01_dog.mp4",
)
# Neither trained on nor measured: other clips, which are trained on, show the same man in the same room and shirt.
RELATED: tuple[str, ...] = ("asl/asl_student.mkv",)
# Procedural films with seeds from here on are for evaluation; training uses smaller ones.
HELD_OUT_SEED = 1_000_000
WINDOW_FRAMES = 9
TARGET_FPS = 16.0
CACHE_SHORT_SIDE = 144
CUT_SHARE = 0.35  # part of the training clips with a cut to another clip inside


@dataclass(frozen=True)
class Clip:
    """One line of the manifest."""

    name: str
    path: Path
    fps: float
    frames: int
    licence: str


def add_clips(parser: argparse.ArgumentParser) -> None:
    folder = data_folder() / "clips"
    parser.add_argument("--clips", type=Path, default=folder, help="folder with a manifest.json beside it")


def list_clips(folder: Path, held_out: bool = False) -> list[Clip]:
    """The training clips of ``folder`` (or the held-out ones), in the manifest's order.

    Raises FileNotFoundError when ``folder`` has no ``../manifest.json``.
    """
    manifest = folder.parent / "manifest.json"
    if not manifest.is_file():
        raise FileNotFoundError(f"{manifest} is missing: --clips must name the clips folder beside a manifest.json.")
    entries = json.loads(manifest.read_text())["clips"]
    clips = [Clip(e["name"], folder / e["name"], e["fps"], e["frames"], e["licence"]) for e in entries]
    return [c for c in clips if c.name not in RELATED and (c.name in HELD_OUT) == held_out]


def resize_short_side(frame: np.ndarray, short_side: int, multiple: int = 1) -> np.ndarray:
    """Resize [H, W, 3] so that the shorter side is ``short_side``; then centre-crop to a multiple."""
    height, width = frame.shape[:2]
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    new_h, new_w = (frame.shape[0] // multiple * multiple, frame.shape[1] // multiple * multiple)
    top, left = (frame.shape[0] - new_h) // 2, (frame.shape[1] - new_w) // 2
    return frame[top : top + new_h, left : left + new_w]


def read_frames(path: Path, step: int = 1) -> Iterator[np.ndarray]:
    """Every ``step``-th frame of a video as RGB uint8 [H, W, 3]. Raises ValueError for an unreadable file."""
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"{path} cannot be read as a video.")
    index = 0
    while video.grab():
        if index % step == 0:
            ok, frame = video.retrieve()
            if ok:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        index += 1
    video.release()


def clip_windows(clip: Clip, short_side: int = CACHE_SHORT_SIDE) -> np.ndarray:
    """Windows spread evenly over a clip at about 16 frames per second: uint8 [N, 9, H, W, 3]."""
    step = max(1, round(clip.fps / TARGET_FPS))
    total = clip.frames // step // WINDOW_FRAMES
    wanted = max(1, min(total, round(20 + clip.frames / clip.fps / 3)))
    starts = {int(i * total / wanted) for i in range(wanted)}
    windows: list[np.ndarray] = []
    window: list[np.ndarray] = []
    for index, frame in enumerate(read_frames(clip.path, step)):
        if index // WINDOW_FRAMES in starts:
            window.append(resize_short_side(frame, short_side))
        if index % WINDOW_FRAMES == WINDOW_FRAMES - 1:
            if len(window) == WINDOW_FRAMES:
                windows.append(np.stack(window))
            window = []
    return np.stack(windows)


def save_array(array: np.ndarray, path: Path) -> None:
    """Write an .npy file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as handle:
        np.save(handle, array)
    os.replace(partial, path)


def cache_clips(folder: Path, cache: Path, short_side: int = CACHE_SHORT_SIDE) -> None:
    """Decode every training clip once into ``cache/real__NAME.npy``; existing files are kept."""
    for clip in list_clips(folder):
        target = cache / f"real__{clip.name.replace('/', '_')}.npy"
        if target.exists():
            continue
        windows = clip_windows(clip, short_side)
        save_array(windows, target)
        print(f"cached {clip.name}: {windows.shape}", flush=True)


def cache_films(cache: Path, count: int, short_side: int = CACHE_SHORT_SIDE) -> None:
    """Render ``count`` procedural films into ``cache/procedural__*.npy``, half of them 4:3 and half 16:9."""
    for number, width in enumerate((short_side * 4 // 3, short_side * 16 // 9 // 8 * 8)):
        target = cache / f"procedural__{width}.npy"
        if target.exists():
            continue
        windows = []
        for seed in range(number, count, 2):
            film = make_film(seed, shots=5, width=width, height=short_side, frames_per_shot=2 * WINDOW_FRAMES)
            windows.append(film.frames[1:].reshape(-1, WINDOW_FRAMES, short_side, width, 3))
        save_array(np.concatenate(windows), target)
        print(f"rendered {len(windows)} films of width {width}", flush=True)


class WindowSampler:
    """Random crops of cached windows. ``real_share`` is the part of real clips when procedural ones are there too; a
    crop shows up to ``zoom`` times its side. ``cuts`` is the part of clips with a cut to another one inside, and
    ``aligned`` that of the cuts which lie between two latents, as those of a film do."""

    def __init__(
        self, cache: Path, real_share: float = 0.65, zoom: float = 1.5, cuts: float = CUT_SHARE, aligned: float = 0.0
    ) -> None:
        self.groups: dict[str, list[np.ndarray]] = {}
        for path in sorted(cache.glob("*__*.npy")):
            self.groups.setdefault(path.name.split("__")[0], []).append(np.load(path, mmap_mode="r"))
        if not self.groups:
            raise FileNotFoundError(f"No cached windows in {cache}: run the prepare command first.")
        self.real_share, self.zoom, self.cuts, self.aligned = real_share, zoom, cuts, aligned

    def _pick(self, rng: np.random.Generator) -> np.ndarray:
        name = "real" if rng.random() < self.real_share else "procedural"
        arrays = self.groups.get(name) or next(iter(self.groups.values()))
        weights = np.sqrt([len(a) for a in arrays])
        array = arrays[rng.choice(len(arrays), p=weights / weights.sum())]
        return array[rng.integers(len(array))]

    def batch(self, rng: np.random.Generator, count: int, frames: int, size: int) -> np.ndarray:
        """Crops as float32 [count, 3, frames, size, size] in [-1, 1]; some clips hold a cut."""
        out = np.empty((count, frames, size, size, 3), np.float32)
        for i in range(count):
            cut = int(rng.integers(1, frames)) if frames > 1 and rng.random() < self.cuts else frames
            if cut < frames and rng.random() < self.aligned:
                cut = 1 + (cut - 1) // 4 * 4
            out[i, :cut] = self._crop(rng, cut, size)
            if cut < frames:
                out[i, cut:] = self._crop(rng, frames - cut, size)
        return np.ascontiguousarray(out.transpose(0, 4, 1, 2, 3)) / 127.5 - 1.0

    def _crop(self, rng: np.random.Generator, frames: int, size: int) -> np.ndarray:
        """A random part of a random window, uint8 [frames, size, size, 3]."""
        window = self._pick(rng)
        start = rng.integers(window.shape[0] - frames + 1)
        side = min(round(size * rng.uniform(1.0, self.zoom)), window.shape[1])  # 1.5: short side 144 shown as 96
        top, left = (int(rng.integers(n - side + 1)) for n in window.shape[1:3])
        crop = window[start : start + frames, top : top + side, left : left + side]
        crop = np.ascontiguousarray(crop[:, :, ::-1] if rng.random() < 0.5 else crop)
        if side == size:
            return crop
        return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in crop])
