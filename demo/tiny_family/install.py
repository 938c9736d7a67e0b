"""Put the tiny family into a ComfyUI models folder: python -m demo.tiny_family.install COMFYUI/models"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .make_host import write_host

WEIGHTS = Path(__file__).resolve().parent / "weights"
VAE_NAME = "tiny_wan_vae.safetensors"
HOST_NAME = "tiny_wan_host.safetensors"


def install_models(models: Path) -> list[Path]:
    """Copy or make the checkpoints below ``models`` (vae/, diffusion_models/) and return their paths.

    The VAE is copied. The host is copied when its trained weights are there, and else made from its seed.
    Raises FileNotFoundError when the VAE's weights are missing.
    """
    if not (WEIGHTS / VAE_NAME).is_file():
        raise FileNotFoundError(f"{WEIGHTS / VAE_NAME} is missing: train it as demo/tiny_family/README.md says.")
    vae = _copy(WEIGHTS / VAE_NAME, models / "vae" / VAE_NAME)
    target = models / "diffusion_models" / HOST_NAME
    host = _copy(WEIGHTS / HOST_NAME, target) if (WEIGHTS / HOST_NAME).is_file() else write_host(target)
    return [vae, host]


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
