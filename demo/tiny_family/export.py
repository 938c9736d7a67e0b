"""Puts trained files of runs into the weights folder, in half precision.

python -m demo.tiny_family.export RUN/host.safetensors tiny_wan_host
python -m demo.tiny_family.export RUN/encoder.safetensors tiny_memory_4x4x2
python -m demo.tiny_family.export RUN/lora.safetensors tiny_memory_4x4x2_lora [--rank 48]

`--rank` cuts a LoRA down to what its largest singular values say.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .install import WEIGHTS
from .wan_vae import save_weights

DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def export(source: Path, target: Path, rank: int = 0) -> Path:
    """Writes the tensors of `source` as float16 with its metadata; returns `target`. rank: of a LoRA, 0 for its own."""
    with safe_open(str(source), framework="pt") as file:
        metadata = dict(file.metadata() or {})
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    save_weights(of_rank(state, rank) if rank else state, target, metadata)
    return target


def of_rank(state: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The LoRA of at most `rank` whose products are nearest to those of a LoRA, both halves equally large."""
    found: dict[str, Tensor] = {}
    for name in (name.removesuffix(DOWN) for name in state if name.endswith(DOWN)):
        left, values, right = torch.linalg.svd(
            state[name + UP].float() @ state[name + DOWN].float(), full_matrices=False
        )
        root = values[:rank].sqrt()
        found[name + DOWN] = (root[:, None] * right[:rank]).contiguous()
        found[name + UP] = (left[:, :rank] * root).contiguous()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("name", help="file name without .safetensors")
    parser.add_argument("--rank", type=int, default=0, help="of a LoRA that is cut down (default: as it is)")
    args = parser.parse_args()
    path = export(args.source, WEIGHTS / f"{args.name}.safetensors", args.rank)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
