"""Coordinates of memory tokens.

A token sits at the physical midpoint of the latents it covers, in token-grid units (one unit is one latent frame
along time and one patch along height and width). Not from the paper, which does not say.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import EncoderConfig


def cells_for(latents: int, stride: int) -> tuple[int, int]:
    """(complete, started) cells in time for a clip of `latents` latent frames.

    The VAE is causal, 1 + 4k frames: cell 0 covers latent 0 alone, cell j covers latents (j-1)*stride+1 .. j*stride.
    """
    if latents <= 0:
        return 0, 0
    return 1 + (latents - 1) // stride, 1 + -(-(latents - 1) // stride)


def grid_for(height: int, width: int, config: EncoderConfig) -> tuple[int, int]:
    """Cells along height and width for a latent of that size; raises ValueError when nothing would be left."""
    _, stride_h, stride_w = config.stride
    if config.padding == "ceil":
        return -(-height // stride_h), -(-width // stride_w)
    grid = height // stride_h, width // stride_w
    if 0 in grid:
        raise ValueError(
            f"latent of {height}x{width} is smaller than one cell of {stride_h}x{stride_w} at rate {config.rate}; "
            "use a larger picture, a lower rate or padding ceil"
        )
    return grid


def cell_times(first: int, last: int, stride: int, latents: int) -> Tensor:
    """Midpoints [last - first] of the cells first .. last-1, in latent frames; the last cell may be cut short."""
    cells = torch.arange(first, last, dtype=torch.float32)
    start = ((cells - 1) * stride + 1).clamp(min=0)
    end = (cells * stride).clamp(max=latents - 1)
    return (start + end) / 2


def cell_coordinates(first: int, last: int, grid: tuple[int, int], config: EncoderConfig, latents: int) -> Tensor:
    """Coordinates [(last-first)*h*w, 3] as (time, height, width), time counted from the film's first latent."""
    if config.positions == "index":
        return lattice_coordinates(last - first, *grid, start=first)
    rate = config.compression
    time = cell_times(first, last, config.stride[0], latents)
    height = torch.arange(grid[0], dtype=torch.float32) * rate.height + (rate.height - 1) / 2
    width = torch.arange(grid[1], dtype=torch.float32) * rate.width + (rate.width - 1) / 2
    return torch.stack(torch.meshgrid(time, height, width, indexing="ij"), dim=-1).reshape(-1, 3)


def lattice_coordinates(frames: int, height: int, width: int, start: float = 0.0) -> Tensor:
    """Coordinates [frames*height*width, 3] of uncompressed tokens, the first frame at time `start`."""
    axes = (torch.arange(n, dtype=torch.float32) for n in (frames, height, width))
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    grid[:, 0] += start
    return grid
