"""Write a tiny, untrained host in Wan 2.1 T2V checkpoint format, loaded by core's UNETLoader.

    python -m demo.tiny_family.make_host --out COMFYUI/models/diffusion_models/tiny_wan_host.safetensors

Core reads the width from ``head.modulation`` (a multiple of 128), counts the blocks, and takes the head count and the
text width from the safetensors metadata ``config``. The weights follow from the seed; a later step trains them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .wan_vae import LATENT_CHANNELS, save_weights

TEXT_DIM = 64  # width of the demo text encoder
FREQUENCY_DIM = 256  # sinusoidal timestep width, fixed in core


@dataclass(frozen=True)
class HostConfig:
    """Sizes of the tiny host."""

    dim: int = 256
    heads: int = 4
    layers: int = 4
    ffn_dim: int = 768
    seed: int = 0

    def metadata(self) -> dict[str, str]:
        """What core cannot read from the tensors: head count and text width.

        One entry only: safetensors writes several in random order, and equal models should be equal files.
        """
        transformer = {"num_heads": self.heads, "text_dim": TEXT_DIM}
        return {"config": json.dumps({"transformer": transformer, "seed": self.seed})}


def host_shapes(config: HostConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a Wan 2.1 T2V checkpoint of this size."""
    dim, ffn, channels = config.dim, config.ffn_dim, LATENT_CHANNELS
    linears = {
        "text_embedding.0": (dim, TEXT_DIM),
        "text_embedding.2": (dim, dim),
        "time_embedding.0": (dim, FREQUENCY_DIM),
        "time_embedding.2": (dim, dim),
        "time_projection.1": (6 * dim, dim),
        "head.head": (4 * channels, dim),
    }
    shapes: dict[str, tuple[int, ...]] = {"head.modulation": (1, 2, dim)}
    for block in (f"blocks.{i}" for i in range(config.layers)):
        shapes[f"{block}.modulation"] = (1, 6, dim)
        shapes |= {f"{block}.norm3.weight": (dim,), f"{block}.norm3.bias": (dim,)}
        linears |= {f"{block}.ffn.0": (ffn, dim), f"{block}.ffn.2": (dim, ffn)}
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            shapes |= {f"{attention}.norm_{x}.weight": (dim,) for x in "qk"}
            linears |= {f"{attention}.{x}": (dim, dim) for x in "qkvo"}
    shapes |= {"patch_embedding.weight": (dim, channels, 1, 2, 2), "patch_embedding.bias": (dim,)}
    for name, (rows, columns) in linears.items():
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    return shapes


def make_host(config: HostConfig) -> dict[str, Tensor]:
    """The initialised state dict, float32, keys as in Wan 2.1 T2V.

    Xavier for linear layers, randn / sqrt(dim) for modulation, a small head so that the first predictions are near
    zero. Raises ValueError when the width does not suit core's detection.
    """
    if config.dim % 128 or config.dim % config.heads:
        raise ValueError(f"dim must be a multiple of 128 and of heads, got dim {config.dim}, heads {config.heads}")
    generator = torch.Generator().manual_seed(config.seed)
    return {name: _init(name, shape, config.dim, generator) for name, shape in sorted(host_shapes(config).items())}


def _init(name: str, shape: tuple[int, ...], dim: int, generator: torch.Generator) -> Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape)
    if "norm" in name:
        return torch.ones(shape)
    noise = torch.randn(shape, generator=generator)
    if name.endswith("modulation"):
        return noise / dim**0.5
    deviation = (2 / (shape[0] + noise[0].numel())) ** 0.5
    if name == "head.head.weight":
        deviation *= 0.1
    return noise * deviation


def write_host(path: Path, config: HostConfig | None = None) -> Path:
    """Write the checkpoint (fp16, atomic) and return its path."""
    config = config or HostConfig()
    save_weights(make_host(config), path, config.metadata())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=HostConfig.layers)
    parser.add_argument("--seed", type=int, default=HostConfig.seed)
    args = parser.parse_args()
    path = write_host(args.out, HostConfig(layers=args.layers, seed=args.seed))
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, untrained)")


if __name__ == "__main__":
    main()
