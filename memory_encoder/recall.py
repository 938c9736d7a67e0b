"""Draws frames of a history from a memory: the retrieval of section 3.1 as an Euler sampler on the host's velocity."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .flow import shifted

Velocity = Callable[[Tensor, Tensor, Any, int], Tensor]
WINDOW = 4  # most frames that Stage I draws at once


@torch.no_grad()
def draw_frames(
    predict: Velocity, memory: Any, noise: Tensor, first: int, steps: int = 12, shift: float = 3.0
) -> Tensor:
    """Latents first .. of a history, from noise [B,C,T,H,W] of their shape; predict is G(x_t, t, memory, first)."""
    x, times = noise, shifted(torch.linspace(1, 0, steps + 1), shift)
    for now, then in pairwise(times):
        x = x + (then - now) * predict(x, now.expand(x.shape[0]).to(x), memory, first)
    return x


def draw_history(
    predict: Velocity,
    memory: Any,
    shape: tuple[int, ...],
    generator: torch.Generator,
    steps: int = 12,
    shift: float = 3.0,
) -> Tensor:
    """All latents of a history of `shape` [B,C,T,H,W], a window at a time, each from the memory alone."""
    parts = []
    for first in range(0, shape[2], WINDOW):
        count = min(WINDOW, shape[2] - first)
        noise = torch.randn(*shape[:2], count, *shape[3:], generator=generator)
        parts.append(draw_frames(predict, memory, noise, first, steps, shift))
    return torch.cat(parts, dim=2)
