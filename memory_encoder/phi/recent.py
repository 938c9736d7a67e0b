"""The baseline without a memory of everything: the last latents only, coarser with age (FramePack's schedule).

Each piece has its own projection, which starts as the host's patchifier repeated (as in the variant large_patchifier).
A single piece at 1x1x1 is a sliding window. Nothing of it is append-only: every section makes all tokens anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .config import EncoderConfig, Piece
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

    def forward(self, latents_BCTHW: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Tokens [B,M,D] and coordinates [M,3] of the last latents of a film that is `total` latents long."""
        tokens, coordinates = [], []
        stop = latents_BCTHW.shape[2]
        for piece, layer in zip(self.pieces[::-1], self.layers[::-1], strict=True):
            start = max(stop - piece.latents, 0)
            if start < stop:
                made, places = self._piece(piece, layer, latents_BCTHW[:, :, start:stop])
                places[:, 0] += total - latents_BCTHW.shape[2] + start
                tokens.insert(0, made)
                coordinates.insert(0, places)
            stop = start
        return torch.cat(tokens, dim=1), torch.cat(coordinates)

    def _piece(self, piece: Piece, layer: LargePatchifier, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and coordinates from the first latent of `x` on; a film's beginning fills up its first cell."""
        config, rate = piece_config(self.config, piece), piece.rate
        height, width = grid_for(x.shape[3], x.shape[4], config)
        missing = -x.shape[2] % rate.time
        x = fit(torch.cat([x[:, :, :1].expand(-1, -1, missing, -1, -1), x], dim=2), (height, width), config)
        made = layer.layer.conv(x)
        first = torch.arange(made.shape[2], dtype=torch.float32) * rate.time - missing
        times = (first.clamp(min=0) + first + rate.time - 1) / 2
        axes = (times, _centres(height, rate.height), _centres(width, rate.width))
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        return made.flatten(2).transpose(1, 2), places


def piece_config(config: EncoderConfig, piece: Piece) -> EncoderConfig:
    """The large patchifier that a piece of the schedule is."""
    return replace(config, variant="large_patchifier", rate=str(piece.rate))


def _centres(cells: int, size: int) -> Tensor:
    return torch.arange(cells, dtype=torch.float32) * size + (size - 1) / 2
