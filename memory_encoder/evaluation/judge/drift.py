"""Colours and sharpness that slide away while a shot goes on, as they do where a model feeds on its own pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy.stats import theilslopes

from ...frames import evenly
from .clarity import detail
from .footage import Clip
from .report import Measure

FRAMES = 24  # of a shot, evenly chosen
SHORTEST = 4  # frames from which a slope says something
COLOUR = Measure(
    "colour_drift", "ΔE (CIELAB) from beginning to end", False, "Theil-Sen slope of the mean colour",
    "how far the picture's mean colour slides away within the shot", threshold=6.0,
)  # fmt: skip
SHARPNESS = Measure(
    "sharpness_drift", "% from beginning to end", False, "Theil-Sen slope of the Laplacian's strength",
    "how much fine detail grows or fades within the shot", threshold=30.0,
)  # fmt: skip


@dataclass(frozen=True)
class Drift:
    """The length of the slope of some numbers of each frame; a few odd frames do not turn it."""

    measure: Measure
    numbers: Callable[[np.ndarray], Sequence[float]]
    scale: float = 1.0

    def take(self, clip: Clip) -> float | None:
        picked = evenly(len(clip.frames), min(FRAMES, len(clip.frames)))
        if len(picked) < SHORTEST:
            return None
        values = np.array([self.numbers(clip.frames[i]) for i in picked])
        slopes = [slope(clip.times[picked], one) for one in values.T]
        return self.scale * clip.seconds * float(np.linalg.norm(slopes))


def colour_drift() -> Drift:
    return Drift(COLOUR, mean_colour)


def sharpness_drift() -> Drift:
    """Half of log2 of a variance is log2 of a strength; small changes of its natural logarithm are shares."""
    return Drift(SHARPNESS, lambda picture: [detail(picture) / 2], 100 * math.log(2))


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
