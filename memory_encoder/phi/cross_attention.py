"""Cross-attention from the host's blocks to phi's last hidden states, beside the memory tokens (paper section 4.5).

As in IP-Adapter a branch of its own, stored with the encoder; its output starts at zero. Where the branch sits (after
each block), its width (phi's) and its rotary positions (the host's) are not from the paper.

Shapes: B batch, L video tokens, M memory tokens, D width of the host, C width of phi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .config import EncoderConfig
from .trunk import reset_linear


class CrossAttention(nn.Module):
    """One branch for each block of the host."""

    def __init__(self, config: EncoderConfig, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList(
            CrossBlock(config, operations, device, dtype) for _ in range(config.cross_blocks)
        )

    def reset_parameters(self, generator: torch.Generator) -> None:
        for block in self.blocks:
            block.reset_parameters(generator)


class CrossBlock(nn.Module):
    """Queries from the video, keys and values from the memory."""

    def __init__(self, config: EncoderConfig, operations: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        inner = config.channels[-1]
        self.head_dim = config.head_dim
        self.norm_video = operations.LayerNorm(config.width, elementwise_affine=False, **place)
        self.norm_memory = operations.LayerNorm(inner, **place)
        self.q = operations.Linear(config.width, inner, **place)
        self.k = operations.Linear(inner, inner, **place)
        self.v = operations.Linear(inner, inner, **place)
        self.out = operations.Linear(inner, config.width, **place)

    def reset_parameters(self, generator: torch.Generator) -> None:
        nn.init.ones_(self.norm_memory.weight)
        nn.init.zeros_(self.norm_memory.bias)
        for layer in (self.q, self.k, self.v):
            reset_linear(layer, generator)
        nn.init.zeros_(self.out.weight)  # nothing is added until it is trained
        nn.init.zeros_(self.out.bias)

    def forward(self, video_BLD: Tensor, video_rotary: Tensor, hidden_BMC: Tensor, memory_rotary: Tensor) -> Tensor:
        """What is added to the video tokens [B,L,D]. Rotary matrices are [1,L,1,d/2,2,2] and [1,M,1,d/2,2,2]."""
        memory = self.norm_memory(hidden_BMC)
        q = rotated(self._heads(self.q(self.norm_video(video_BLD))), video_rotary)
        k = rotated(self._heads(self.k(memory)), memory_rotary)
        v = self._heads(self.v(memory))
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.out(rearrange(y, "b heads l d -> b l (heads d)"))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b l (heads d) -> b l heads d", d=self.head_dim)


@dataclass(frozen=True)
class CrossMemory:
    """What one encoder gives the branch: its module, hidden states [B,M,C] and coordinates [M,3] of their cells."""

    module: CrossAttention
    hidden: Tensor
    coordinates: Tensor


def rotated(x_BLhd: Tensor, rotary: Tensor) -> Tensor:
    """Turns pairs of channels by the rotation matrices [..,L,1,d/2,2,2] of their tokens."""
    pairs = rearrange(x_BLhd, "b l h (d two) -> b l h d two", two=2)
    turned = (rotary.to(pairs.dtype) * pairs[..., None, :]).sum(-1)
    return rearrange(turned, "b l h d two -> b l h (d two)")
