"""The last latents only, coarser with age (FramePack's schedule): a baseline, and what FramePack and Helios trained.

Each piece has its own projection, which starts as the host's patchifier repeated (as in the variant large_patchifier).
A single piece at 1x1x1 is a sliding window. Nothing of it is append-only: every section makes all tokens anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .config import CompressionRate, EncoderConfig, Piece
from .positions import grid_for
from .trunk import LargePatchifier, fit


class RecentHistory(nn.Module):
    """Tokens of the last latents of a history, oldest first."""

    def __init__(self, config: EncoderConfig, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.config = config
        self.pieces = config.schedule[::-1]
        self.layers: Any = nn.ModuleList(
            LargePatchifier(piece_config(config, piece), operations, device, dtype) for piece in self.pieces
        )

    @property
    def latents(self) -> int:
        """Most latents that are seen."""
        return sum(piece.latents for piece in self.pieces)

    def from_patchifier(self, weight: Tensor, bias: Tensor) -> None:
        for layer in self.layers:
            layer.from_patchifier(weight, bias)

    def forward(self, latents_BCTHW: Tensor, total: int, anchor_BC1HW: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens [B,M,D] and coordinates of the last latents of a film that is `total` latents long.

        Coordinates are [M,3], with positions pooled [M,P,3] (see `_points`). anchor: the film's first latent, for a
        configuration that has one; by default the first of these.
        """
        tokens, coordinates = [], []
        anchor = latents_BCTHW[:, :, :1] if anchor_BC1HW is None else anchor_BC1HW
        if self.config.fill == "zeros":
            missing = max(self.latents - latents_BCTHW.shape[2], 0)
            latents_BCTHW = torch.nn.functional.pad(latents_BCTHW, (0, 0, 0, 0, missing, 0))
        stop = latents_BCTHW.shape[2]
        for piece, layer in zip(self.pieces[::-1], self.layers[::-1], strict=True):
            start = max(stop - piece.latents, 0)
            if start < stop:
                made, places = self._piece(piece, layer, latents_BCTHW[:, :, start:stop])
                places[..., 0] += total - latents_BCTHW.shape[2] + start
                tokens.insert(0, made)
                coordinates.insert(0, places)
            stop = start
        if self.config.anchor:
            made, places = self._piece(self.pieces[-1], self.layers[-1], anchor)
            places[..., 0] += total - self.latents - 1
            tokens.insert(0, made)
            coordinates.insert(0, places)
        return torch.cat(tokens, dim=1), torch.cat(coordinates)

    def _piece(self, piece: Piece, layer: LargePatchifier, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and coordinates from the first latent of `x` on; a film's beginning fills up its first cell."""
        config, rate = piece_config(self.config, piece), piece.rate
        size = [-(-side // patch) for side, patch in zip(x.shape[3:], self.config.patch[1:], strict=True)]
        height, width = grid_for(x.shape[3], x.shape[4], config)
        missing = -x.shape[2] % rate.time
        x = fit(torch.cat([x[:, :, :1].expand(-1, -1, missing, -1, -1), x], dim=2), (height, width), config)
        made = layer.layer.conv(x)
        first = torch.arange(made.shape[2], dtype=torch.float32) * rate.time - missing
        if self.config.positions == "pooled":
            places = self._points(first, rate, (height, width), size)
        else:
            times = (first.clamp(min=0) + first + rate.time - 1) / 2
            axes = (times, _centres(height, rate.height), _centres(width, rate.width))
            places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        return made.flatten(2).transpose(1, 2), places

    def _points(self, first: Tensor, rate: CompressionRate, grid: tuple[int, int], size: list[int]) -> Tensor:
        """P points [M,P,3] of each token, whose rotations have the mean of all cells that the token covers.

        Every rotary frequency belongs to one axis, so that the points of each axis need not be combined with those of
        the others. Cells beyond the picture count as its last row and column, as their latents do. Pieces with fewer
        cells name them several times.
        """
        count = max(max(piece.rate.time, piece.rate.height, piece.rate.width) for piece in self.pieces)

        def axis(starts: Tensor, cells: int, last: float) -> Tensor:
            covered = starts[:, None] + torch.arange(cells, dtype=torch.float32)
            return covered.clamp(0, last).repeat_interleave(count // cells, dim=1)

        time = axis(first, rate.time, torch.inf)
        height = axis(torch.arange(grid[0], dtype=torch.float32) * rate.height, rate.height, size[0] - 1)
        width = axis(torch.arange(grid[1], dtype=torch.float32) * rate.width, rate.width, size[1] - 1)
        shape = (len(time), *grid, count)
        points = (time[:, None, None], height[None, :, None], width[None, None])
        return torch.stack([axis.expand(shape) for axis in points], dim=-1).reshape(-1, count, 3)


def piece_config(config: EncoderConfig, piece: Piece) -> EncoderConfig:
    """The large patchifier that a piece of the schedule is."""
    return EncoderConfig(
        config.host,
        config.width,
        config.latent_channels,
        rate=str(piece.rate),
        variant="large_patchifier",
        padding=config.padding,
        patch=config.patch,
    )


def _centres(cells: int, size: int) -> Tensor:
    return torch.arange(cells, dtype=torch.float32) * size + (size - 1) / 2
