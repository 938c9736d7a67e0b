"""Analytic FLOPs of one step of a Wan-shaped host (a multiplication and an addition are two operations).

Counted are matrix products: projections, attention, embeddings and head. Norms, activations and the use of rotary
embeddings are not; they grow with the tokens like the projections do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TIME_WIDTH = 256  # sinusoidal embedding of the timestep, before the first projection


@dataclass(frozen=True)
class WanShape:
    """Sizes of a Wan host. `spatial` is the VAE's stride along height and width, `channels` those of its latents."""

    width: int
    ffn: int
    heads: int
    layers: int
    channels: int = 16
    spatial: int = 8
    text_tokens: int = 512
    text_width: int = 4096
    patch: tuple[int, int, int] = (1, 2, 2)

    @property
    def patch_values(self) -> int:
        """Latent values behind one token."""
        return self.channels * math.prod(self.patch)


def block_flops(shape: WanShape, tokens: int) -> int:
    """One block over `tokens` tokens: self-attention among all of them, cross-attention to the text, feed-forward."""
    width, text = shape.width, shape.text_tokens
    self_attention = 8 * tokens * width**2 + 4 * tokens**2 * width
    cross_attention = 4 * (tokens + text) * width**2 + 4 * tokens * text * width
    return self_attention + cross_attention + 4 * tokens * width * shape.ffn


def cross_flops(shape: WanShape, section: int, memory: int, inner: int) -> int:
    """One branch of cross-attention of width `inner` from the section to the memory's hidden states."""
    return 4 * section * shape.width * inner + 4 * memory * inner**2 + 4 * section * memory * inner


def step_flops(
    shape: WanShape, section: int, memory: int = 0, context: int = 0, cached: int = 0, cross: int = 0
) -> int:
    """One forward pass with batch 1, in FLOPs.

    section: tokens that are denoised. memory: tokens that are in the blocks alone, with a second timestep embedding.
    context: tokens of core's context latents, which also pass the first projection and the head and whose rotary
    embedding is turned once more, by 2x2 matrices. cached: tokens whose keys and values are there already. cross: width
    of a cross-attention branch to the hidden states of `memory`.
    """
    width = shape.width
    embedded = section + context
    patchify = 2 * embedded * shape.patch_values * width
    text = 2 * shape.text_tokens * width * (shape.text_width + width)
    time = 2 * width * (TIME_WIDTH + 7 * width) * (2 if memory else 1)
    head = 2 * embedded * shape.patch_values * width
    rotary = 8 * context * (width // shape.heads)
    block = block_flops(shape, section + memory + context) + 4 * section * cached * width
    if cross:
        block += cross_flops(shape, section, memory, cross)
    return patchify + text + time + head + rotary + shape.layers * block
