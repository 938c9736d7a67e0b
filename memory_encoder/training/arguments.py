"""Options of the commands that need models; light, so that the command line starts at once."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--clips", type=Path, required=True, help="folder of videos, with .txt or storyboard .json captions beside them"
    )
    add("--out", type=Path, required=True, help="folder of the dataset; run the same command again to go on")
    add("--host", required=True, help="diffusion model file (Wan 2.1 or 2.2, HunyuanVideo); its weights are not loaded")
    add("--vae", required=True, help="VAE file that belongs to it")
    add("--text-encoder", nargs="+", default=[], help="its text encoder files, or module:attribute; none: no captions")
    add("--text-type", help="core's name of the text encoder's kind; by default the host's")
    add("--width", type=int, default=832)
    add("--height", type=int, default=480)
    add("--fps", type=float, default=16.0, help="16 for Wan 14B, 24 for Wan 5B and Hunyuan")
    add("--window-seconds", type=float, default=5.0, help="longest piece that is trained on at once")
    add("--stride-seconds", type=float, default=0.0, help="from one piece to the next; 0: end to end")
    add("--rates", default="4x4x2", help="compression rates of the encoders to train, such as 4x4x2,2x2x2")
    add("--padding", choices=("ceil", "floor"), default="ceil", help="as in the encoder")
    add("--jobs", type=int, default=1, help="processes, each with its own VAE; 1 is right for one GPU")
    add("--on-bad", choices=("skip", "refuse"), default="skip", help="clips that cannot be used")
    add("--heldout", default="0.1", help="clips never trained on: file names with commas, or a share")
    add("--scene-cuts", action="store_true", help="no window over a cut (needs PySceneDetect)")
    add("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")
