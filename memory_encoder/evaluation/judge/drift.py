"""Colours and sharpness that slide away while a shot goes on, as they do where a model feeds on its own pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from scipy.stats import theilslopes

from ...frames import evenly
from .clarity import detail
from .dynamics import ACROSS, Flow, dis_flow, fitted
from .footage import Clip
from .report import Measure

FRAMES = 24  # of a shot, evenly chosen
SHORTEST = 4  # frames from which a slope says something
SEEN = 0.1  # share of a picture that must be in sight in the next one too
ASTRAY = 1.0  # pixels that the flow there and back may end beside where it began
BLUR = 2.0  # pixels: sums of many pixels know steps finer than those of 8 bits
COLOUR = Measure(
    "colour_drift", "ΔE (CIELAB) from beginning to end", False,
    "Theil-Sen slope of the colours of what stays in sight (OpenCV's DIS optical flow)",
    "how far the colours slide away within the shot; what moves into the picture or out of it counts for nothing",
    threshold=6.0,
)  # fmt: skip
SHARPNESS = Measure(
    "sharpness_drift", "% from beginning to end", False, "Theil-Sen slope of the Laplacian's strength",
    "how much fine detail grows or fades within the shot", threshold=30.0,
)  # fmt: skip


@dataclass(frozen=True)
class Drift:
    """The length of the slope of some numbers of each frame; a few odd frames do not turn it.

    numbers: of pictures, one list for each.
    """

    measure: Measure
    numbers: Callable[[Sequence[np.ndarray]], Sequence[Sequence[float]]]
    scale: float = 1.0

    def take(self, clip: Clip) -> float | None:
        picked = evenly(len(clip.frames), min(FRAMES, len(clip.frames)))
        if len(picked) < SHORTEST:
            return None
        values = np.array(self.numbers([clip.frames[i] for i in picked]))
        slopes = [slope(clip.times[picked], one) for one in values.T]
        return self.scale * clip.seconds * float(np.linalg.norm(slopes))


def colour_drift() -> Drift:
    return Drift(COLOUR, colour_path)


def sharpness_drift() -> Drift:
    """Half of log2 of a variance is log2 of a strength; small changes of its natural logarithm are shares."""
    return Drift(SHARPNESS, lambda pictures: [[detail(picture) / 2] for picture in pictures], 100 * math.log(2))


def colour_path(pictures: Sequence[np.ndarray]) -> list[list[float]]:
    """L, a, b of each picture beside those of the first: the sum of the changes of what is in sight in neighbours."""
    flow = dis_flow()
    small = [fitted(picture, ACROSS) for picture in pictures]
    changes = [colour_change(first, second, flow) for first, second in pairwise(small)]
    return [[float(n) for n in place] for place in np.cumsum([np.zeros(3), *changes], axis=0)]


def colour_change(first: np.ndarray, second: np.ndarray, flow: Flow) -> np.ndarray:
    """Median change of L, a, b of the points that both pictures show; of their means where they share too little."""
    there, back = flow(first, second), flow(second, first)
    y, x = np.indices(first.shape[:2], dtype=np.float32)
    at = x + there[..., 0], y + there[..., 1]
    returned = there + cv2.remap(back, *at, cv2.INTER_LINEAR)
    height, width = first.shape[:2]
    inside = (at[0] >= 0) & (at[0] <= width - 1) & (at[1] >= 0) & (at[1] <= height - 1)
    seen = inside & (np.linalg.norm(returned, axis=-1) < ASTRAY)
    if seen.mean() < SEEN:
        return np.subtract(mean_colour(second), mean_colour(first))
    before, after = _soft_lab(first), cv2.remap(_soft_lab(second), *at, cv2.INTER_LINEAR)
    return np.median((after - before)[seen], axis=0)


def _soft_lab(picture: np.ndarray) -> np.ndarray:
    soft = cv2.GaussianBlur(picture.astype(np.float32) / 255, (0, 0), BLUR)
    return cv2.cvtColor(soft, cv2.COLOR_RGB2LAB)


def mean_colour(picture: np.ndarray) -> list[float]:
    """L, a, b of a picture [H,W,3] uint8 RGB."""
    small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
    return [float(n) for n in cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).mean(axis=(0, 1))]


def slope(times: np.ndarray, values: np.ndarray) -> float:
    """Change a second: the median over all pairs."""
    found: Any = theilslopes(values, times)
    return float(found.slope)


def film_drift(
    starts: Sequence[float], colours: Sequence[Sequence[float]], details: Sequence[float]
) -> dict[str, float]:
    """What slides over the whole film, a minute, from one mean of each shot: `colour` in ΔE, `sharpness` in percent.

    Shots differ for good reason: what is said is 0 unless the slope is one in 19 of 20 films like this. Of fewer than
    four shots nothing is said.
    """
    if len(starts) < SHORTEST:
        return {}
    times = np.array(starts) / 60
    parts = [_sure_slope(times, np.array(one)) for one in zip(*colours, strict=True)]
    sharpness = 100 * math.log(2) * _sure_slope(times, np.array(details) / 2)
    return {"colour": float(np.linalg.norm(parts)), "sharpness": float(sharpness)}


def _sure_slope(times: np.ndarray, values: np.ndarray) -> float:
    found: Any = theilslopes(values, times, 0.95)
    return float(found.slope) if found.low_slope > 0 or found.high_slope < 0 else 0.0
