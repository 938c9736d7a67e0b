"""Puts trained files of runs into the weights folder, in half precision.

python -m demo.tiny_family.export RUN/host.safetensors tiny_wan_host
python -m demo.tiny_family.export RUN/encoder.safetensors tiny_memory_4x4x2
python -m demo.tiny_family.export RUN/lora.safetensors tiny_memory_4x4x2_lora
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors import safe_open

from .install import WEIGHTS
from .wan_vae import save_weights


def export(source: Path, target: Path) -> Path:
    """Writes the tensors of `source` as float16 with its metadata; returns `target`."""
    with safe_open(str(source), framework="pt") as file:
        metadata = dict(file.metadata() or {})
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    save_weights(state, target, metadata)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("name", help="file name without .safetensors")
    args = parser.parse_args()
    path = export(args.source, WEIGHTS / f"{args.name}.safetensors")
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
