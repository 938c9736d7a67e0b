"""Tokens of the film's first picture in front of the text, as FramePack was trained (its image_projection)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .config import EncoderConfig
from .trunk import reset_linear

HIDDEN = 3  # widths of the host between the two projections


class PictureTokens(nn.Module):
    """CLIP vision tokens [B,N,picture_width] -> tokens of the host's width [B,N,D]."""

    def __init__(
        self,
        config: EncoderConfig,
        operations: Any = nn,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = HIDDEN * config.width
        self.up = operations.Linear(config.picture_width, hidden, device=device, dtype=dtype)
        self.down = operations.Linear(hidden, config.width, device=device, dtype=dtype)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """PyTorch's default, drawn from `generator`."""
        for layer in (self.up, self.down):
            reset_linear(layer, generator)

    def forward(self, seen_BNC: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.up(seen_BNC)))
