"""The LR branch's pictures: fewer frames, fewer pixels, never a resized latent (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from .config import EncoderConfig


def lr_frame_indices(first_frame: int, count: int, rate_time: int) -> list[int]:
    """Which of `count` pictures, the first being film frame `first_frame`, belong to the low frame rate.

    Every `rate_time`-th frame of the film is kept, frame 0 included, so that LR latent j shows cell j.
    """
    return [i for i in range(count) if (first_frame + i) % rate_time == 0]


def encode_cells(
    frames: Tensor, encode: Callable[[Tensor], Tensor], temporal: int, done: int, complete: int, started: int
) -> tuple[Tensor, Tensor]:
    """LR latents [B,C,t,h,w] of the cells done .. started-1, and the LR frames that the next append needs.

    frames: LR frames [B,k,h,w,3] from the last one of cell done-1 on (from frame 0 when nothing is done). LR latent 0
    is frame 0 alone; LR latent j is made of frames 4j-3 .. 4j (for a VAE of 4 frames per latent), led in by one
    frame. Of an unfinished cell the last frame is held; it is encoded by itself, so that complete cells do not
    depend on it.
    """
    end = temporal * (complete - max(done, 1))
    parts = []
    if complete > done:
        encoded = encode(frames[:, : end + 1])
        parts.append(encoded[:, :, 1:] if done else encoded)
    rest = frames[:, end:]
    if started > complete:
        held = rest[:, -1:].expand(-1, temporal + 1 - rest.shape[1], -1, -1, -1)
        parts.append(encode(torch.cat([rest, held], dim=1))[:, :, 1:])
    return torch.cat(parts, dim=2), rest


def downsample(pictures_BTHWC: Tensor, grid: tuple[int, int], config: EncoderConfig, spatial: int) -> Tensor:
    """Averages pictures down by the rate, after cropping or padding them to whole cells.

    pictures: [B,T,H,W,3] in 0..1. grid: cells along height and width. spatial: pixels per latent.
    Returns [B,T,h,w,3] that the VAE and the patchifier turn into exactly `grid` tokens.
    """
    rate = config.compression
    height = grid[0] * config.stride[1] * spatial
    width = grid[1] * config.stride[2] * spatial
    batch = pictures_BTHWC.shape[0]
    x = rearrange(pictures_BTHWC[..., :3], "b t h w c -> (b t) c h w")[..., :height, :width]
    if x.shape[0]:
        x = F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]), mode="replicate")
    x = (
        F.avg_pool2d(x, (rate.height, rate.width))
        if x.shape[0]
        else x[..., : height // rate.height, : width // rate.width]
    )
    return rearrange(x, "(b t) c h w -> b t h w c", b=batch)
