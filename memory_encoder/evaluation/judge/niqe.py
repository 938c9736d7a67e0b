"""NIQE (Mittal, Soundararajan and Bovik 2013): how far a picture's fine statistics lie from those of photographs.

Lower is better. What photographs are like comes from a file of parameters, the authors' own, as PyIQA and BasicSR ship
them: `mu_pris_param` [1,36], `cov_pris_param` [36,36], `gaussian_window` [7,7].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.special import gamma

from ...damage import damage_named

BLOCK = 96  # pixels; the size for which the parameters were made
FEWEST = 4  # blocks from which a covariance says something
_LUMA = np.array([65.481, 128.553, 24.966]) / 255  # BT.601, as MATLAB's rgb2ycbcr


class NiqeError(ValueError):
    """A file that holds no parameters of NIQE."""


@dataclass(frozen=True)
class Niqe:
    """mean [36], covariance [36,36] of natural photographs; window: smoothing, [7,7]."""

    mean: np.ndarray
    covariance: np.ndarray
    window: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Niqe:
        """Raises NiqeError for a file that is something else."""
        with damage_named(path, "NIQE parameters", "fetch them again", NiqeError), np.load(path) as file:
            mean, covariance = file["mu_pris_param"].ravel(), file["cov_pris_param"]
            window = file["gaussian_window"]
            if mean.shape != (36,) or covariance.shape != (36, 36) or window.shape != (7, 7):
                raise ValueError(f"shapes are {mean.shape}, {covariance.shape}, {window.shape}")
            return cls(mean, covariance, window)

    def score(self, picture: np.ndarray) -> float | None:
        """Of a picture [H,W,3] uint8 RGB; None for one of fewer than FEWEST blocks or whose blocks are all flat."""
        if not large_enough(picture.shape[1], picture.shape[0]):
            return None
        grey = np.round(picture[..., :3] @ _LUMA + 16)
        rows, columns = grey.shape[0] // BLOCK, grey.shape[1] // BLOCK
        grey = grey[: rows * BLOCK, : columns * BLOCK]
        half = _halved(grey)
        features = np.concatenate([self._features(grey, BLOCK), self._features(half, BLOCK // 2)], axis=1)
        whole = features[np.isfinite(features).all(axis=1)]
        if len(whole) < 2:
            return None
        away = self.mean - np.nanmean(features, axis=0)
        spread = np.linalg.pinv((self.covariance + np.cov(whole, rowvar=False)) / 2)
        return float(np.sqrt(away @ spread @ away))

    def _features(self, grey: np.ndarray, size: int) -> np.ndarray:
        """[blocks, 18] of the picture's contrast, evened out (equations 1 to 8)."""
        mean = cv2.filter2D(grey, cv2.CV_64F, self.window, borderType=cv2.BORDER_REPLICATE)
        square = cv2.filter2D(grey**2, cv2.CV_64F, self.window, borderType=cv2.BORDER_REPLICATE)
        even = (grey - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
        rows, columns = even.shape[0] // size, even.shape[1] // size
        blocks = even.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)
        alpha, left, right = self._asymmetric(blocks)
        found = [alpha, (left + right) / 2]
        for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
            alpha, left, right = self._asymmetric(blocks * np.roll(blocks, shift, axis=(1, 2)))
            found += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha), left, right]
        return np.stack(found, axis=1)

    def _asymmetric(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shape, left and right width of the asymmetric generalised Gaussian that fits a block; NaN for a flat one."""
        flat = blocks.reshape(len(blocks), -1)
        squares = flat**2
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.sqrt((squares * (flat < 0)).sum(1) / (flat < 0).sum(1))
            right = np.sqrt((squares * (flat > 0)).sum(1) / (flat > 0).sum(1))
            lean = left / right
            ratio = np.abs(flat).mean(1) ** 2 / squares.mean(1)
            ratio *= (lean**3 + 1) * (lean + 1) / (lean**2 + 1) ** 2
        shapes, ratios = self._shapes
        alpha = shapes[np.abs(ratios[None] - np.nan_to_num(ratio)[:, None]).argmin(1)]
        alpha = np.where(np.isfinite(ratio), alpha, np.nan)
        width = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
        return alpha, left * width, right * width

    @cached_property
    def _shapes(self) -> tuple[np.ndarray, np.ndarray]:
        """Shapes that are tried, and the moments' ratio of each."""
        shapes = np.arange(0.2, 10.001, 0.001)
        return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


def large_enough(width: int, height: int) -> bool:
    """Whether pictures of that size have FEWEST blocks."""
    return (height // BLOCK) * (width // BLOCK) >= FEWEST


def _halved(grey: np.ndarray) -> np.ndarray:
    """Bicubic with antialiasing, as MATLAB's imresize."""
    small = torch.from_numpy(grey)[None, None]
    size = (grey.shape[0] // 2, grey.shape[1] // 2)
    return torch.nn.functional.interpolate(small, size=size, mode="bicubic", antialias=True)[0, 0].numpy()
