"""How clear the pictures are: MUSIQ through PyIQA, else NIQE, else the strength of the finest detail."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from ...damage import damage_named, read_state
from .footage import Clip
from .niqe import Niqe
from .report import Measure

DETAIL = Measure(
    "clarity", "log2 of the Laplacian's variance", True, "OpenCV's Laplacian",
    "how strong the finest detail is; it depends on what is shown, so that only shots of one film compare",
    threshold=2.0,
)  # fmt: skip
NIQE = Measure(
    "clarity", "NIQE", False, "NIQE with the authors' parameters",
    "how far the pictures' fine statistics lie from those of natural photographs; drawings lie far off", threshold=2.0,
)  # fmt: skip
MUSIQ = Measure(
    "clarity", "MUSIQ, 0 to 100", True, "MUSIQ (PyIQA)", "how clear people would find the pictures", threshold=10.0
)


@dataclass(frozen=True)
class Clarity:
    """The mean over a shot's pictures of what `score` gives for one, [H,W,3] uint8 RGB."""

    measure: Measure
    score: Callable[[np.ndarray], float | None]

    def take(self, clip: Clip) -> float | None:
        found = [self.score(picture) for picture in clip.looked_at]
        scores = [score for score in found if score is not None]
        return float(np.mean(scores)) if scores else None


def detail(picture: np.ndarray) -> float:
    """log2 of 1 + the variance of the Laplacian of a picture's grey values of 0..255."""
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    return float(np.log2(1 + cv2.Laplacian(grey, cv2.CV_64F).var()))


def by_detail() -> Clarity:
    return Clarity(DETAIL, detail)


def by_niqe(parameters: Path) -> Clarity:
    return Clarity(NIQE, Niqe.load(parameters).score)


def by_musiq(weights: Path) -> Clarity:
    """MUSIQ by PyIQA, which fetches nothing where weights are given.

    Raises ImportError without it, DamagedFileError for a file that is something else.
    """
    pyiqa = importlib.import_module("pyiqa")
    with damage_named(weights, "MUSIQ weights", "fetch them again; those of AVA do not fit"):
        read_state(weights)  # PyIQA would run whatever a file says
        metric = pyiqa.create_metric("musiq", pretrained_model_path=str(weights))

    @torch.no_grad()
    def score(picture: np.ndarray) -> float:
        return float(metric(torch.from_numpy(np.ascontiguousarray(picture)).movedim(-1, 0)[None].float() / 255))

    return Clarity(MUSIQ, score)
