"""Rectified flow (paper Eq. 1) and its distribution of timesteps."""

from __future__ import annotations

import torch
from torch import Tensor


def noised(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """X_t = (1 - t) X_0 + t eps (Eq. 1); t [B] in 0..1, or of any shape that broadcasts from the left."""
    t = _aligned(t, clean)
    return (1 - t) * clean + t * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """What the host predicts: eps - X_0."""
    return noise - clean


def shifted(u: Tensor, shift: float) -> Tensor:
    """The timestep shift of SD3 and Wan: s u / (1 + (s - 1) u)."""
    return shift * u / (1 + (shift - 1) * u)


def shifted_logit_normal(
    count: int, shift: float = 1.0, low: float = 0.0, high: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """`count` timesteps from the shifted logit-normal distribution, truncated to (low, high).

    The paper writes L(0, 1) for the timestep and L(0.2, 1) for the noise that masks frames (section 3.1).
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"timesteps between {low} and {high}: give 0 <= low < high <= 1")
    if shift <= 0:
        raise ValueError(f"shift {shift} must be positive")
    first, last = (float(cumulative(torch.tensor(edge, dtype=torch.float64), shift)) for edge in (low, high))
    uniform = torch.rand(count, dtype=torch.float64, generator=generator)
    quantile = (first + uniform * (last - first)).clamp(1e-12, 1 - 1e-12)
    return shifted(torch.sigmoid(torch.special.ndtri(quantile)), shift).clamp(low, high).float()


def cumulative(t: Tensor, shift: float) -> Tensor:
    """Distribution function of the untruncated shifted logit-normal at t."""
    u = t / (shift - (shift - 1) * t)
    return torch.special.ndtr(torch.logit(u))


def _aligned(t: Tensor, like: Tensor) -> Tensor:
    return t.to(like).reshape(*t.shape, *[1] * (like.ndim - t.ndim))
