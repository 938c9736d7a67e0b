"""How much moves: the optical flow of neighbouring frames by RAFT, else by OpenCV's DIS."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ...damage import damage_named, read_state
from ...frames import evenly
from .footage import Clip
from .report import Measure

PAIRS = 24  # of neighbouring frames of a shot, evenly chosen
ACROSS = 320  # pixels of the longer side at which DIS looks; RAFT takes whole pictures of up to 640
RAFT_ACROSS = 640
DIS_LEAST, RAFT_LEAST = 32, 128  # pixels of the shorter side that they take; RAFT takes multiples of 8
STILL = 0.05  # percent of the height a second: nothing moves at all, whatever the other shots do
FASTEST = 0.05  # share of a picture whose motion counts, as in VBench: people move before a background that rests

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]  # two pictures [H,W,3] uint8 to pixels [H,W,2]


@dataclass(frozen=True)
class Dynamics:
    """flow: of two pictures whose longer side is at most `across`."""

    measure: Measure
    flow: Flow
    across: int

    def take(self, clip: Clip) -> float | None:
        """Percent of the picture's height in a second: the median over pairs of frames, so that a cut is no motion."""
        count = len(clip.frames) - 1
        if count < 1:
            return None
        speeds = [self._speed(clip, index) for index in evenly(count, min(PAIRS, count))]
        return float(np.median(speeds))

    def _speed(self, clip: Clip, index: int) -> float:
        first, second = (fitted(clip.frames[i], self.across) for i in (index, index + 1))
        if np.array_equal(first, second):
            return 0.0
        lengths = np.linalg.norm(self.flow(first, second), axis=-1).ravel()
        count = max(1, round(FASTEST * len(lengths)))
        fast = float(np.partition(lengths, -count)[-count:].mean())
        return 100 * fast / first.shape[0] / max(float(clip.times[index + 1] - clip.times[index]), 1e-6)


def measure(tool: str) -> Measure:
    return Measure(
        "dynamics", "% of the picture's height a second", True, tool,
        "how fast the fastest twentieth of the picture moves; more is not better for every shot",
        threshold=math.log(20), logarithmic=True, surely=STILL,
    )  # fmt: skip


def dis_flow() -> Flow:
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        height, width = first.shape[:2]
        greys = (padded(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), DIS_LEAST) for picture in (first, second))
        return dis.calc(*greys, None)[:height, :width]

    return flow


def by_dis() -> Dynamics:
    return Dynamics(measure("OpenCV's DIS optical flow"), dis_flow(), ACROSS)


def by_raft(weights: Path, device: str | torch.device = "cpu") -> Dynamics:
    """torchvision's RAFT, large or small by the file's name.

    Raises ImportError without torchvision, DamagedFileError for a file that is something else.
    """
    kind = "raft_small" if "small" in weights.name else "raft_large"
    model: Any = getattr(importlib.import_module("torchvision.models.optical_flow"), kind)(weights=None)
    with damage_named(weights, f"{kind} weights", "fetch them again from torchvision"):
        model.load_state_dict(read_state(weights))
    model.eval().to(device)

    @torch.no_grad()
    def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        height, width = first.shape[:2]
        pair = [
            torch.from_numpy(padded(picture, RAFT_LEAST, 8)).movedim(-1, 0)[None].to(device) / 127.5 - 1
            for picture in (first, second)
        ]
        return model(*pair)[-1][0].movedim(0, -1)[:height, :width].cpu().numpy()

    return Dynamics(measure(f"{kind} (torchvision)"), flow, RAFT_ACROSS)


def padded(picture: np.ndarray, least: int, step: int = 1) -> np.ndarray:
    """A picture [H,W,...] with its last row and column repeated, as RAFT's authors do it, until both sides have so many
    pixels at least and are multiples of `step`."""
    more = [(0, max(least, -(-n // step) * step) - n) for n in picture.shape[:2]]
    return np.pad(picture, (*more, *[(0, 0)] * (picture.ndim - 2)), mode="edge")


def fitted(picture: np.ndarray, across: int) -> np.ndarray:
    """A picture whose longer side is at most `across` pixels."""
    scale = min(1.0, across / max(picture.shape[:2]))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale < 1 else picture)
