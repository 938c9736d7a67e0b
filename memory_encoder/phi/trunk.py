"""Convolutions of the HR branch (paper Figure 3 and section 4.1), causal in time so that a film can be streamed."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn
from torch.nn import functional as F

from .config import EncoderConfig

Cache = tuple[Tensor, ...]
SILU_GAIN = 1.68  # 1 / sqrt(E[silu(z)^2]) for a standard normal z


class CausalConv3d(nn.Module):
    """Conv3d that looks only backwards in time; the first frame is repeated in front of the clip.

    `stream` takes any number of frames and keeps those not yet consumed, so that pieces give what the whole gives.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int],
        operations: Any = nn,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        # Odd kernels keep the picture's size; a kernel as large as its stride tiles it and needs no padding.
        space = tuple(0 if k == s else k // 2 for k, s in zip(kernel[1:], stride[1:], strict=True))
        self.conv = operations.Conv3d(
            in_channels, out_channels, kernel, stride=stride, padding=(0, *space), device=device, dtype=dtype
        )
        self.kernel, self.stride, self.space = kernel, stride, space

    def stream(self, x_BCTHW: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the outputs that are now complete and the inputs that later outputs still need."""
        kernel, stride = self.kernel[0], self.stride[0]
        if cache is None:
            cache = x_BCTHW[:, :, :1].expand(-1, -1, kernel - 1 if x_BCTHW.shape[2] else 0, -1, -1)
        x = torch.cat([cache, x_BCTHW], dim=2)
        count = max((x.shape[2] - kernel) // stride + 1, 0)
        rest = x[:, :, count * stride :]
        if count:
            return self.conv(x[:, :, : (count - 1) * stride + kernel]), rest
        size = ((n + 2 * p - k) // s + 1 for n, p, k, s in self._space(x))
        return x.new_empty(x.shape[0], self.conv.out_channels, 0, *size), rest

    def _space(self, x: Tensor) -> Any:
        return zip(x.shape[3:], self.space, self.kernel[1:], self.stride[1:], strict=True)


class Trunk(nn.Module):
    """64, 128, 256, 512 channels, then always 512; time is reduced first, then space (section 4.1)."""

    def __init__(self, config: EncoderConfig, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        strides = layer_strides(config)
        channels = [config.latent_channels, *config.channels]
        channels += [config.channels[-1]] * (len(strides) + 1 - len(channels))
        self.layers: Any = nn.ModuleList(
            CausalConv3d(channels[i], channels[i + 1], (3, 3, 3), stride, operations, device, dtype)
            for i, stride in enumerate(strides)
        )

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Weights that keep the variance through SiLU: there is no norm, and PyTorch's default leaves a hundredth."""
        for number, layer in enumerate(self.layers):
            weight, bias = layer.conv.weight, layer.conv.bias
            gain = SILU_GAIN if number else 1.0  # latents come in with a variance of about 1
            nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel()), generator=generator)
            nn.init.zeros_(bias)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Features [B,512,t,h,w] of a clip of whole cells."""
        return self.stream(x_BCTHW, ())[0]

    def stream(self, x_BCTHW: Tensor, caches: Cache) -> tuple[Tensor, Cache]:
        """Features [B,512,t,h,w] of the cells now complete, and the caches for the next call."""
        new: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x_BCTHW, cache = layer.stream(x_BCTHW, caches[i] if caches else None)
            x_BCTHW = F.silu(x_BCTHW)
            new.append(cache)
        return x_BCTHW, tuple(new)


class LargePatchifier(nn.Module):
    """The ablation "Large Patchifier": one projection as large as the compression (FramePack's recipe)."""

    def __init__(self, config: EncoderConfig, operations: Any = nn, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.rate = config.compression
        stride = config.stride
        self.layer = CausalConv3d(config.latent_channels, config.width, stride, stride, operations, device, dtype)

    def from_patchifier(self, weight: Tensor, bias: Tensor) -> None:
        """Repeats the host's patchifier weight [D,C',1,ph,pw] so that a still picture gives the host's own tokens."""
        rate, conv = self.rate, self.layer.conv
        weight = weight[:, : conv.in_channels]
        scale = 1 / (rate.time * rate.height * rate.width)
        large = repeat(weight, "d c t h w -> d c (t rt) (h rh) (w rw)", rt=rate.time, rh=rate.height, rw=rate.width)
        with torch.no_grad():
            conv.weight.copy_(large * scale)
            conv.bias.copy_(bias)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Tokens [B,D,t,h,w] of a clip of whole cells."""
        return self.stream(x_BCTHW, ())[0]

    def stream(self, x_BCTHW: Tensor, caches: Cache) -> tuple[Tensor, Cache]:
        """Tokens [B,D,t,h,w] of the cells now complete, and the cache for the next call."""
        tokens, cache = self.layer.stream(x_BCTHW, caches[0] if caches else None)
        return tokens, (cache,)


def fit(latents: Tensor, grid: tuple[int, int], config: EncoderConfig) -> Tensor:
    """Crops or pads (last row and column repeated) a latent [B,C,T,H,W] to whole cells."""
    height, width = grid[0] * config.stride[1], grid[1] * config.stride[2]
    latents = latents[..., :height, :width]
    missing = (0, width - latents.shape[-1], 0, height - latents.shape[-2], 0, 0)
    return F.pad(latents, missing, mode="replicate") if any(missing) else latents


def whole_cells(latents_BCTHW: Tensor, grid: tuple[int, int], config: EncoderConfig) -> Tensor:
    """A clip fitted to whole cells in space (see `fit`) and, its last latent repeated, in time."""
    missing = (1 - latents_BCTHW.shape[2]) % config.stride[0]  # cell 0 covers one latent
    clip = fit(latents_BCTHW, grid, config)
    return torch.cat([clip, clip[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2) if missing else clip


def layer_strides(config: EncoderConfig) -> list[tuple[int, int, int]]:
    """Strides of the convolutions: time is halved, then space, then stride 1 until the channels are reached."""
    time, height, width = (int(math.log2(n)) for n in config.stride)
    strides = [(2, 1, 1)] * time
    strides += [(1, 2 if i < height else 1, 2 if i < width else 1) for i in range(max(height, width))]
    return strides + [(1, 1, 1)] * (len(config.channels) - len(strides))


def reset_linear(layer: Any, generator: torch.Generator) -> None:
    """PyTorch's default initialisation of a convolution or linear layer, drawn from `generator`."""
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    if layer.bias is not None:
        bound = 1 / math.sqrt(layer.weight[0].numel())
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
