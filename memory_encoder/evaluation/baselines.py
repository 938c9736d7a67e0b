"""What a memory has to beat: pictures that anyone could make of a clip with as little to go on. Not from the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..phi.config import EncoderConfig
from ..phi.low_resolution import downsample, lr_frame_indices
from ..phi.positions import grid_for

FLAT, BEFORE, THUMBNAIL, LOW_RESOLUTION = "flat", "frame_before", "thumbnail", "low_resolution"
BASELINES = (FLAT, BEFORE, THUMBNAIL, LOW_RESOLUTION)


def flat_colour(pictures: Tensor) -> Tensor:
    """Each frame as its own mean colour; pictures [T,H,W,3]."""
    return pictures.mean(dim=(1, 2), keepdim=True).expand_as(pictures).contiguous()


def frame_before(pictures: Tensor) -> Tensor:
    """Each frame as the one before it, the first as the one after it: what a film knows without any memory."""
    return torch.cat([pictures[:2][-1:], pictures[:-1]])


def thumbnail(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Each frame scaled down to `size` (height, width) and up again."""
    height, width = pictures.shape[1:3]
    small = F.interpolate(pictures.movedim(-1, 1), size=(min(size[0], height), min(size[1], width)), mode="area")
    return _enlarged(small, (height, width))


def low_resolution(pictures: Tensor, configs: Sequence[EncoderConfig], spatial: int = 8) -> Tensor:
    """What the LR branch is shown (paper section 3.1), blown up: fewer pixels, and of each cell in time one picture.

    Of several encoders the one that is shown the most.
    """
    config = min(configs, key=lambda one: math.prod(_rate(one)))
    time = config.stride[0]
    kept = lr_frame_indices(0, len(pictures), time)
    grid = grid_for(pictures.shape[1] // spatial, pictures.shape[2] // spatial, config)
    small = downsample(pictures[None, kept], grid, config, spatial)[0].movedim(-1, 1)
    whole = _enlarged(small, (small.shape[2] * _rate(config)[0], small.shape[3] * _rate(config)[1]))
    nearest = [min(round(frame / time), len(kept) - 1) for frame in range(len(pictures))]
    return whole[nearest, : pictures.shape[1], : pictures.shape[2]]


def thumbnail_size(configs: Sequence[EncoderConfig], height: int, width: int, spatial: int = 8) -> tuple[int, int]:
    """Height and width of a thumbnail with as many pixels as a cell of a memory has tokens, of all encoders together.

    height, width: of the pictures.
    """
    grids = [grid_for(height // spatial, width // spatial, config) for config in configs]
    if len(grids) == 1:
        return grids[0]
    tokens = sum(rows * columns for rows, columns in grids)
    rows = max(1, round(math.sqrt(tokens * height / width)))
    return rows, max(1, round(tokens / rows))


def baselines(pictures: Tensor, configs: Sequence[EncoderConfig], spatial: int = 8) -> dict[str, Tensor]:
    """BASELINES for pictures [T,H,W,3] in 0..1, by name; encoders without cells of one size have only the first two."""
    made = {FLAT: flat_colour(pictures), BEFORE: frame_before(pictures)}
    in_cells = [config for config in configs if config.variant != "recent"]
    if in_cells:
        made[THUMBNAIL] = thumbnail(pictures, thumbnail_size(in_cells, pictures.shape[1], pictures.shape[2], spatial))
        made[LOW_RESOLUTION] = low_resolution(pictures, in_cells, spatial)
    return made


def numbers_per_pixel(tokens: int, width: int, pictures: Tensor) -> float:
    """Numbers that a memory keeps for each pixel of the pictures [T,H,W,3] that it remembers."""
    return tokens * width / math.prod(pictures.shape[:3])


def _rate(config: EncoderConfig) -> tuple[int, int, int]:
    rate = config.compression
    return rate.height, rate.width, rate.time


def _enlarged(small: Tensor, size: tuple[int, int]) -> Tensor:
    """[N,3,h,w] -> pictures [N,H,W,3]."""
    large = F.interpolate(small, size=size, mode="bicubic", align_corners=False, antialias=False)
    return large.clamp(0, 1).movedim(1, -1)
