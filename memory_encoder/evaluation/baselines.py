"""What a memory has to beat: pictures that anyone could make of a clip with as little to go on. Not from the paper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..phi.config import EncoderConfig
from ..phi.low_resolution import downsample, lr_frame_indices
from ..phi.positions import grid_for

FLAT, BEFORE, THUMBNAIL, EQUAL_NUMBERS = "flat", "frame_before", "thumbnail", "thumbnail_numbers"
LOW_RESOLUTION, LR_LATENTS = "low_resolution", "lr_latents"
BASELINES = (FLAT, BEFORE, THUMBNAIL, EQUAL_NUMBERS, LOW_RESOLUTION, LR_LATENTS)


class Baseline(NamedTuple):
    """Pictures [T,H,W,3] in 0..1, and how many numbers they were made of."""

    pictures: Tensor
    numbers: int


def flat_colour(pictures: Tensor) -> Tensor:
    """Each frame as its own mean colour; pictures [T,H,W,3]."""
    return pictures.mean(dim=(1, 2), keepdim=True).expand_as(pictures).contiguous()


def frame_before(pictures: Tensor) -> Tensor:
    """Each frame as the one before it, the first as the next one that differs: what a film knows without a memory."""
    differs = (pictures != pictures[:1]).flatten(1).any(dim=1)
    return torch.cat([pictures[differs.int().argmax()[None]], pictures[:-1]])


def thumbnail(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Each frame scaled down to `size` (height, width) and up again."""
    height, width = pictures.shape[1:3]
    small = F.interpolate(pictures.movedim(-1, 1), size=(min(size[0], height), min(size[1], width)), mode="area")
    return _enlarged(small, (height, width))


def most_shown(configs: Sequence[EncoderConfig]) -> EncoderConfig:
    """Of several encoders the one whose LR branch is shown the most."""
    return min(configs, key=lambda one: math.prod(_rate(one)))


def low_resolution(pictures: Tensor, configs: Sequence[EncoderConfig], spatial: int = 8) -> Baseline:
    """The pictures that the LR branch's latents are made of (paper section 3.1), blown up: fewer pixels, and of each
    cell in time one picture. The encoder itself is shown less, see `lr_latents`."""
    config = most_shown(configs)
    kept = lr_frame_indices(0, len(pictures), config.stride[0])
    grid = grid_for(pictures.shape[1] // spatial, pictures.shape[2] // spatial, config)
    small = downsample(pictures[None, kept], grid, config, spatial)[0]
    return Baseline(_blown_up(small, config, pictures), small.numel())


def lr_latents(pictures: Tensor, config: EncoderConfig, decoded: Tensor, numbers: int) -> Baseline:
    """What the LR branch is shown, its latents, as the VAE shows them: [t,h,w,3] decoded, blown up like pictures."""
    return Baseline(_blown_up(decoded, config, pictures), numbers)


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


def equal_size(numbers: int, pictures: Tensor) -> tuple[int, int]:
    """Height and width of thumbnails of all frames [T,H,W,3] that together have no more than `numbers` numbers."""
    count, height, width, channels = pictures.shape
    pixels = numbers / (count * channels)
    rows = max(1, min(height, math.floor(pixels), math.floor(math.sqrt(pixels * height / width))))
    return rows, min(width, max(1, math.floor(pixels / rows)))


def baselines(
    pictures: Tensor, configs: Sequence[EncoderConfig], spatial: int = 8, numbers: int = 0
) -> Iterator[tuple[str, Baseline]]:
    """BASELINES for pictures [T,H,W,3] in 0..1 with their names, one after the other, since each is as large as the
    pictures; but LR_LATENTS, which need a VAE.

    numbers: that a memory keeps of them; without it EQUAL_NUMBERS is left out. Encoders without cells of one size have
    no THUMBNAIL and no LOW_RESOLUTION.
    """
    yield FLAT, Baseline(flat_colour(pictures), 3 * len(pictures))
    yield BEFORE, Baseline(frame_before(pictures), pictures.numel())
    in_cells = [config for config in configs if config.variant != "recent"]
    height, width = pictures.shape[1:3]
    sizes = {THUMBNAIL: thumbnail_size(in_cells, height, width, spatial)} if in_cells else {}
    sizes |= {EQUAL_NUMBERS: equal_size(numbers, pictures)} if numbers else {}
    for kind, size in sizes.items():
        yield kind, Baseline(thumbnail(pictures, size), len(pictures) * math.prod(size) * 3)
    if in_cells:
        yield LOW_RESOLUTION, low_resolution(pictures, in_cells, spatial)


def numbers_per_pixel(numbers: int, pictures: Tensor) -> float:
    """Numbers that something keeps for each pixel of the pictures [T,H,W,3] that it shows."""
    return numbers / math.prod(pictures.shape[:3])


def _rate(config: EncoderConfig) -> tuple[int, int, int]:
    rate = config.compression
    return rate.height, rate.width, rate.time


def _blown_up(small: Tensor, config: EncoderConfig, pictures: Tensor) -> Tensor:
    """Pictures [t,h,w,3] of the low frame rate at the size and times of `pictures`, the nearest for each frame."""
    rows, columns, _ = _rate(config)
    whole = _enlarged(small.movedim(-1, 1), (small.shape[1] * rows, small.shape[2] * columns))
    nearest = [min(round(frame / config.stride[0]), len(small) - 1) for frame in range(len(pictures))]
    return whole[nearest, : pictures.shape[1], : pictures.shape[2]]


def _enlarged(small: Tensor, size: tuple[int, int]) -> Tensor:
    """[N,3,h,w] -> pictures [N,H,W,3]."""
    large = F.interpolate(small, size=size, mode="bicubic", align_corners=False, antialias=False)
    return large.clamp(0, 1).movedim(1, -1)
