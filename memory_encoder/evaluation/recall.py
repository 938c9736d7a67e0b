"""Draws frames of a history from a memory: the retrieval of section 3.1 as an Euler sampler on the host's velocity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..objectives.flow import shifted

Velocity = Callable[[Tensor, Tensor, Any, int], Tensor]
WINDOW = 4  # most frames that Stage I draws at once


def guided(predict: Velocity, weight: float) -> Velocity:
    """The velocity with history guidance, v() + weight * (v(H) - v()), see `injection.guidance`; the memory is H.

    0 and 1 leave it as it is; other weights take one more pass a step. Nothing changes where there is no memory.
    """

    def velocity(x_t: Tensor, t: Tensor, memory: Any, first: int) -> Tensor:
        seen = predict(x_t, t, memory, first)
        if memory is None:
            return seen
        plain = predict(x_t, t, None, first)
        return plain + weight * (seen - plain)

    return predict if weight in (0, 1) else velocity


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
    device: torch.device | None = None,
) -> Tensor:
    """All latents of a history of `shape` [B,C,T,H,W], a window at a time, each from the memory alone.

    device: where the host's velocity is made; noise is drawn on the CPU, the same for all.
    """
    parts, total = [], shape[2]
    for first, dropped in windows(range(total), total):
        noise = torch.randn(*shape[:2], min(WINDOW, total), *shape[3:], generator=generator)
        parts.append(draw_frames(predict, memory, noise.to(device), first, steps, shift)[:, :, dropped:])
    return torch.cat(parts, dim=2)


def windows(latents: range, total: int) -> Iterator[tuple[int, int]]:
    """For some latents of a history of `total`: the first latent of each window, and how many of its first are dropped.

    Windows are always as long as those that Stage I mostly draws, since shorter ones come out much worse; what is drawn
    twice or was not asked for is dropped.
    """
    for start in range(latents.start, latents.stop, WINDOW):
        first = max(min(start, latents.stop - WINDOW, total - WINDOW), 0)
        yield first, start - first
