"""The attention layer at the end of the HR branch (paper section 3.1); its scope in time is not from the paper."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .config import AttentionScope
from .trunk import reset_linear


class MemoryAttention(nn.Module):
    """One pre-LayerNorm self-attention layer with a residual.

    scope `frame`: within one compressed time step; `causal`: also all earlier steps; `full`: every step.
    """

    def __init__(
        self, width: int, heads: int, scope: AttentionScope, operations: Any = nn, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.heads, self.scope = heads, scope
        self.norm = operations.LayerNorm(width, device=device, dtype=dtype)
        self.qkv = operations.Linear(width, 3 * width, device=device, dtype=dtype)
        self.proj = operations.Linear(width, width, device=device, dtype=dtype)

    def reset_parameters(self, generator: torch.Generator) -> None:
        nn.init.ones_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)
        reset_linear(self.qkv, generator)
        reset_linear(self.proj, generator)

    def forward(self, x_BCthw: Tensor, past_BCthw: Tensor | None = None) -> Tensor:
        """Attends from the steps of `x` to the steps the scope allows; `past` holds earlier inputs of this layer."""
        batch, _, steps, height, width = x_BCthw.shape
        if steps == 0:
            return x_BCthw
        earlier = 0 if past_BCthw is None else past_BCthw.shape[2]
        source = x_BCthw if past_BCthw is None else torch.cat([past_BCthw, x_BCthw], dim=2)
        tokens = rearrange(source, "b c t h w -> b t (h w) c")
        q, k, v = (
            rearrange(part, "b t n (heads d) -> b heads t n d", heads=self.heads)
            for part in self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        )
        y = self._attend(q[:, :, earlier:], k, v, earlier)
        y = rearrange(self.proj(rearrange(y, "b heads t n d -> b t n (heads d)")), "b t n c -> b c t n")
        return x_BCthw + y.reshape(batch, -1, steps, height, width)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, earlier: int) -> Tensor:
        """q [B,heads,t,n,d]; k and v [B,heads,earlier+t,n,d]."""
        if self.scope == "frame":
            return _within_steps(q, k[:, :, earlier:], v[:, :, earlier:])
        if self.scope == "full":
            return F.scaled_dot_product_attention(q.flatten(2, 3), k.flatten(2, 3), v.flatten(2, 3)).view_as(q)
        # One step at a time needs no mask, and a stream computes the very same sums as the whole clip.
        steps = [
            F.scaled_dot_product_attention(
                q[:, :, i], k[:, :, : earlier + i + 1].flatten(2, 3), v[:, :, : earlier + i + 1].flatten(2, 3)
            )
            for i in range(q.shape[2])
        ]
        return torch.stack(steps, dim=2)


def _within_steps(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of [B,heads,t,n,d] within each step. Fused kernels take four dimensions; with five, all scores are laid
    out in float32: gigabytes for a long film at a fine rate."""
    if torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v)
    batch = q.shape[0]
    q, k, v = (part.transpose(1, 2).flatten(0, 1) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).unflatten(0, (batch, -1)).transpose(1, 2)
