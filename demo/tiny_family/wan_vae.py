"""The tiny video autoencoder in ComfyUI's Wan 2.1 VAE format: building, a training forward, and saving.

The module is ComfyUI's own ``comfy.ldm.wan.vae.WanVAE`` with a small base width, so that its state dict loads through
core's VAELoader (which reads the width from ``decoder.head.0.gamma``). Core encodes and decodes in chunks of two
frames with a feature cache, which suits inference. Training wants one pass over the whole clip: ``encode_clip`` and
``decode_clip`` walk the same submodules without the cache and give the same numbers (``tests`` assert it).

Shapes: pixels [B, 3, 1+4n, 8h, 8w] in [-1, 1]; latents [B, 16, 1+n, h, w].
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

LATENT_CHANNELS = 16
TEMPORAL_DOWNSAMPLE = [False, True, True]  # what core's loader passes for every Wan 2.1 VAE
POSTERIOR_STD = 0.1  # fixed width of the posterior in training units; not from the paper


def add_comfyui_to_path(folder: str | None = None) -> None:
    """Make ``import comfy`` work on the CPU. ``folder`` defaults to the environment variable COMFYUI_PATH.

    Raises FileNotFoundError when no ComfyUI is found.
    """
    if "comfy" not in sys.modules:
        path = folder or os.environ.get("COMFYUI_PATH", "")
        if not path or not (Path(path) / "comfy" / "sd.py").is_file():
            raise FileNotFoundError(f"No ComfyUI at {path!r}: set COMFYUI_PATH to a ComfyUI folder.")
        sys.path.insert(0, path)
        import comfy.cli_args

        comfy.cli_args.args.cpu = not torch.cuda.is_available()


def build_vae(dim: int, seed: int = 0) -> Any:
    """A freshly initialised WanVAE of base width ``dim``.

    Image-first initialisation (not from the paper): a causal convolution starts with its newest tap alone, and the
    temporal resamplers start as copies, so that from step 0 what is learned on single frames also works on clips.
    """
    from comfy.ldm.wan.vae import WanVAE

    vae = WanVAE(dim=dim, z_dim=LATENT_CHANNELS, temperal_downsample=TEMPORAL_DOWNSAMPLE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                _init_weight(name, parameter, generator)
        # The unused half of conv1 is the log-variance of the posterior. It is constant.
        vae.conv1.weight[LATENT_CHANNELS:].zero_()
        vae.conv1.bias[LATENT_CHANNELS:].fill_(2 * torch.tensor(POSTERIOR_STD).log())
    return vae


def _init_weight(name: str, weight: Tensor, generator: torch.Generator) -> None:
    if name.endswith("time_conv.weight"):
        weight.zero_()
        out_channels, in_channels = weight.shape[:2]
        eye = torch.eye(in_channels).repeat(out_channels // in_channels, 1)
        weight[:, :, -1, 0, 0].copy_(eye)
        return
    taps = weight if weight.ndim == 4 else weight[:, :, -1]
    fan_in = taps.shape[1] * taps.shape[2] * taps.shape[3]
    gain = 1.6 if ".residual." in name or ".head." in name else 1.0  # SiLU halves the variance
    if name.endswith(("residual.6.weight", "proj.weight")):
        gain *= 0.3  # blocks start near the identity
    if name.endswith("decoder.head.2.weight"):
        gain *= 0.2
    weight.normal_(0.0, gain * fan_in**-0.5, generator=generator)
    if weight.ndim == 5 and weight.shape[2] > 1:
        weight[:, :, :-1].mul_(0.05)


def norm_silu(x: Tensor, gamma: Tensor) -> Tensor:
    """RMS norm over channels, gain and SiLU in one expression that torch.compile fuses."""
    return F.silu(x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-12) * gamma)


def _causal(conv: Any, x: Tensor) -> Tensor:
    weight = conv.weight
    padding = conv.padding
    if weight.shape[2] > 1 and x.shape[2] == 1:
        weight = weight[:, :, -1:]  # the earlier taps would only see zeros
    elif weight.shape[2] > 1 and conv._padding:
        x = F.pad(x, (0, 0, 0, 0, conv._padding, 0))
    return F.conv3d(x, weight, conv.bias, conv.stride, padding)


def _frames(x: Tensor, layer) -> Tensor:
    """Apply a 2D layer to every frame of [B, C, T, H, W]."""
    b, _, t, _, _ = x.shape
    y = layer(x.transpose(1, 2).flatten(0, 1))
    return y.unflatten(0, (b, t)).transpose(1, 2)


def _residual(block: Any, x: Tensor, norm) -> Tensor:
    r = block.residual
    h = _causal(r[2], norm(x, r[0].gamma))
    h = _causal(r[6], norm(h, r[3].gamma))
    skip = x if isinstance(block.shortcut, nn.Identity) else _causal(block.shortcut, x)
    return skip + h


def _attention(block: Any, x: Tensor) -> Tensor:
    def per_frame(f: Tensor) -> Tensor:
        n, c, h, w = f.shape
        g = f * torch.rsqrt(f.square().mean(1, keepdim=True) + 1e-12) * block.norm.gamma
        qkv = F.conv2d(g, block.to_qkv.weight, block.to_qkv.bias).reshape(n, 3, c, h * w).transpose(2, 3)
        out = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return F.conv2d(out.transpose(1, 2).reshape(n, c, h, w), block.proj.weight, block.proj.bias)

    return x + _frames(x, per_frame)


def _resample(layer: Any, x: Tensor) -> Tensor:
    conv = layer.resample[1]
    if layer.mode == "upsample3d" and x.shape[2] > 1:
        b, c, t, h, w = x.shape
        rest = _causal(layer.time_conv, x[:, :, 1:]).reshape(b, 2, c, t - 1, h, w)
        rest = torch.stack((rest[:, 0], rest[:, 1]), 3).reshape(b, c, 2 * t - 2, h, w)
        x = torch.cat([x[:, :, :1], rest], 2)
    if layer.mode.startswith("upsample"):
        return _frames(x, lambda f: F.conv2d(F.interpolate(f, scale_factor=2.0), conv.weight, conv.bias, padding=1))
    x = _frames(x, lambda f: F.conv2d(F.pad(f, (0, 1, 0, 1)), conv.weight, conv.bias, stride=2))
    if layer.mode == "downsample3d" and x.shape[2] > 1:
        x = torch.cat([x[:, :, :1], _causal(layer.time_conv, x)], 2)
    return x


def _walk(layers: Any, x: Tensor, norm) -> Tensor:
    for layer in layers:
        kind = type(layer).__name__
        if kind == "ResidualBlock":
            x = _residual(layer, x, norm)
        elif kind == "AttentionBlock":
            x = _attention(layer, x)
        else:
            x = _resample(layer, x)
    return x


def encode_clip(vae: Any, pixels: Tensor, norm=norm_silu) -> Tensor:
    """Posterior mean [B, 16, 1+n, h, w] of pixels [B, 3, 1+4n, 8h, 8w]; equals ``vae.encode``."""
    e = vae.encoder
    x = _walk(e.middle, _walk(e.downsamples, _causal(e.conv1, pixels), norm), norm)
    x = _causal(e.head[2], norm(x, e.head[0].gamma))
    return _causal(vae.conv1, x)[:, :LATENT_CHANNELS]


def decode_clip(vae: Any, latents: Tensor, norm=norm_silu) -> Tensor:
    """Pixels [B, 3, 1+4n, 8h, 8w] of latents [B, 16, 1+n, h, w]; equals ``vae.decode``."""
    d = vae.decoder
    x = _causal(d.conv1, _causal(vae.conv2, latents))
    x = _walk(d.upsamples, _walk(d.middle, x, norm), norm)
    return _causal(d.head[2], norm(x, d.head[0].gamma))


@torch.no_grad()
def fold_latent_statistics(vae: Any, mean: Tensor, std: Tensor, target_mean: Tensor, target_std: Tensor) -> None:
    """Rescale each latent channel from (mean, std) to (target_mean, target_std) inside the two 1x1 convolutions.

    ``decode(encode(x))`` is unchanged. All four are [16]. In place.
    """
    scale = target_std / std
    shift = target_mean - mean * scale
    n = LATENT_CHANNELS
    vae.conv1.weight[:n].mul_(scale.view(-1, 1, 1, 1, 1))
    vae.conv1.bias[:n].mul_(scale).add_(shift)
    vae.conv1.bias[n:].add_(2 * scale.log())  # the log-variance scales along
    vae.conv2.bias.sub_((vae.conv2.weight[:, :, 0, 0, 0] * (shift / scale)).sum(1))
    vae.conv2.weight.div_(scale.view(1, -1, 1, 1, 1))


def save_weights(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write an fp16 safetensors file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({k: v.detach().to(torch.float16).contiguous() for k, v in state.items()}, partial, metadata)
    partial.chmod(0o644)  # safetensors writes files that only their owner may read
    os.replace(partial, path)
