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

from .wan_vae import LATENT_CHANNELS, add_comfyui_to_path, save_weights

TEXT_DIM = 64  # width of the demo text encoder


@dataclass(frozen=True)
class HostConfig:
    """Sizes of the tiny host."""

    dim: int = 256
    heads: int = 4
    layers: int = 4
    ffn_dim: int = 768
    seed: int = 0

    def metadata(self) -> dict[str, str]:
        """What core cannot read from the tensors: head count and text width."""
        transformer = {"num_heads": self.heads, "text_dim": TEXT_DIM}
        return {"config": json.dumps({"transformer": transformer}), "format": "pt", "seed": str(self.seed)}


def make_host(config: HostConfig) -> dict[str, Tensor]:
    """The initialised state dict, float32, keys as in Wan 2.1 T2V.

    Xavier for linear layers, randn / sqrt(dim) for modulation, a small head so that the first predictions are near
    zero. Raises ValueError when the width does not suit core's detection.
    """
    if config.dim % 128 or config.dim % config.heads:
        raise ValueError(f"dim must be a multiple of 128 and of heads, got dim {config.dim}, heads {config.heads}")
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    model = WanModel(
        model_type="t2v",
        in_dim=LATENT_CHANNELS,
        out_dim=LATENT_CHANNELS,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        num_heads=config.heads,
        num_layers=config.layers,
        text_dim=TEXT_DIM,
        dtype=torch.float32,
        device=torch.device("cpu"),
        operations=comfy.ops.disable_weight_init,
    )
    generator = torch.Generator().manual_seed(config.seed)
    state = {name: _init(name, value, config.dim, generator) for name, value in sorted(model.state_dict().items())}
    return state


def _init(name: str, value: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    fresh = torch.zeros(value.shape)
    if name.endswith("bias"):
        return fresh
    if "norm" in name:
        return fresh + 1
    if name.endswith("modulation"):
        return torch.randn(value.shape, generator=generator) / dim**0.5
    fan_in = value[0].numel()
    deviation = (2 / (fan_in + value.shape[0])) ** 0.5
    if name == "head.head.weight":
        deviation *= 0.1
    return torch.randn(value.shape, generator=generator) * deviation


def write_host(path: Path, config: HostConfig | None = None) -> Path:
    """Write the checkpoint (fp16, atomic) and return its path."""
    config = config or HostConfig()
    save_weights(make_host(config), path, config.metadata())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--comfyui", help="ComfyUI folder (default: COMFYUI_PATH)")
    parser.add_argument("--layers", type=int, default=HostConfig.layers)
    parser.add_argument("--seed", type=int, default=HostConfig.seed)
    args = parser.parse_args()
    add_comfyui_to_path(args.comfyui)
    path = write_host(args.out, HostConfig(layers=args.layers, seed=args.seed))
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, untrained)")


if __name__ == "__main__":
    main()
