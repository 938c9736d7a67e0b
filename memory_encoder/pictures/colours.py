"""Colours of a section moved towards those of the first one: mean and spread per channel, within gentle limits.

Drift over a long film is slow and small, a change of scene is large: the limits take away the first and leave most of
the second. Luma and chroma of Rec. 709 are used, of gamma-coded values, in which equal steps look about equal. The
whole correction is one affine map of red, green and blue for each section. Not from the paper.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_SHIFT = (0.06, 0.03, 0.03)  # of the means of luma and both chromas; the whole range is 1
MAX_SCALE = 1.15  # of the spreads, upwards and downwards

_RED, _GREEN, _BLUE = 0.2126, 0.7152, 0.0722
_TO_OPPONENT = torch.tensor(
    [
        [_RED, _GREEN, _BLUE],
        [-_RED / (2 - 2 * _BLUE), -_GREEN / (2 - 2 * _BLUE), 0.5],
        [0.5, -_GREEN / (2 - 2 * _RED), -_BLUE / (2 - 2 * _RED)],
    ],
    dtype=torch.float64,
)
_FROM_OPPONENT = torch.linalg.inv(_TO_OPPONENT)


class ColourStatistics:
    """Mean and spread of luma and both chromas over any number of pictures, which are not kept."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros(3, dtype=torch.float64)
        self.products = torch.zeros(3, 3, dtype=torch.float64)

    def add(self, pictures: Tensor) -> None:
        """Adds pictures [...,3] in 0..1."""
        for picture in pictures.flatten(0, -4):  # one at a time: float64 is twice the size
            rgb = picture[..., :3].reshape(-1, 3).double().cpu()
            self.count += rgb.shape[0]
            self.total += rgb.sum(0)
            self.products += rgb.T @ rgb

    def mean(self) -> Tensor:
        """[3]: luma, blue chroma, red chroma."""
        return _TO_OPPONENT @ (self.total / max(1, self.count))

    def spread(self) -> Tensor:
        """[3] standard deviations."""
        mean = self.total / max(1, self.count)
        covariance = self.products / max(1, self.count) - torch.outer(mean, mean)
        return (_TO_OPPONENT @ covariance @ _TO_OPPONENT.T).diagonal().clamp(min=0).sqrt()


def colour_match(source: ColourStatistics, target: ColourStatistics) -> Callable[[Tensor], Tensor]:
    """The map of pictures [...,3] that moves those of `source` towards those of `target`, within the limits."""
    limit = torch.tensor(MAX_SHIFT, dtype=torch.float64)
    shift = (target.mean() - source.mean()).clamp(-limit, limit)
    floor = 1 / 255  # the spread of a plain picture says nothing
    scale = ((target.spread() + floor) / (source.spread() + floor)).clamp(1 / MAX_SCALE, MAX_SCALE)
    matrix = _FROM_OPPONENT @ torch.diag(scale) @ _TO_OPPONENT
    offset = _FROM_OPPONENT @ (source.mean() * (1 - scale) + shift)

    def match(pictures: Tensor) -> Tensor:
        rgb = pictures[..., :3]
        return (rgb @ matrix.T.to(rgb) + offset.to(rgb)).clamp(0, 1)

    return match
