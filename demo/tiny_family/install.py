"""Put the tiny family into a ComfyUI models folder: python -m demo.tiny_family.install COMFYUI/models"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
VAE_NAME = "tiny_wan_vae.safetensors"
HOST_NAME = "tiny_wan_host.safetensors"
RATES = ("4x4x2", "2x2x2", "2x2x1")
# Folder of ComfyUI's models for each file.
FILES = {
    VAE_NAME: "vae",
    HOST_NAME: "diffusion_models",
    **{f"tiny_memory_{rate}.safetensors": "memory_encoders" for rate in RATES},
    **{f"tiny_memory_{rate}_lora.safetensors": "loras" for rate in RATES},
}


def install_models(models: Path) -> list[Path]:
    """Copies the family below ``models`` and returns the paths; raises FileNotFoundError that names a missing file."""
    for name in FILES:
        if not (WEIGHTS / name).is_file():
            raise FileNotFoundError(f"{WEIGHTS / name} is missing: train it as demo/tiny_family/README.md says.")
    return [_copy(WEIGHTS / name, models / folder / name) for name, folder in FILES.items()]


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(source, partial)
    os.replace(partial, target)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for path in install_models(Path(sys.argv[1])):
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
