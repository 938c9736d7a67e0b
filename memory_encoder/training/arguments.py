"""Options of the commands that need models; light, so that the command line starts at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from ..phi.config import Variant


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="folder made by the cache command")
    add("--host", type=Path, required=True, help="diffusion model file")
    add("--out", type=Path, required=True, help="folder of the run; run the same command again to go on")
    add("--stage", choices=("host", "retrieval", "continuation"), required=True)
    add(
        "--encoder", type=Path, action="append", default=[],
        help="encoder file to go on from; several: all are trained together and share the LoRA",
    )  # fmt: skip
    add("--from-scratch", action="store_true", help="in stage continuation: a new encoder, without stage retrieval")
    add("--lora", type=Path, help="LoRA file of this pack to go on from; without it a new one is made")
    add("--rate", help="of a new encoder, beside those of --encoder; several with commas (4x4x2 without --encoder)")
    add("--variant", default="proposed", choices=get_args(Variant), help="of a new encoder; recent is a baseline")
    add("--attention", default="frame", choices=("frame", "causal", "full"))
    add("--cross-attention", action="store_true", default=None, help="a branch from the encoder into every block")
    add(
        "--memory-attention", choices=("joint", "cached"), help="how the host reads the memory; joint for a new encoder"
    )
    add("--channels", help="of new encoders' convolutions, such as 64,128,256,512")
    add("--vae", help="VAE file, to draw recalled frames as the run goes")
    for name in ("steps", "batch-size", "accumulate", "warmup", "cooldown", "rank", "seed", "section", "window"):
        add(f"--{name}", type=int)
    for name in ("checkpoint-every", "heldout-every", "picture-every"):
        add(f"--{name}", type=int, help="in steps; 0 for never" if name != "checkpoint-every" else "in steps")
    for name in ("learning-rate", "encoder-rate", "weight-decay", "clip", "ema", "shift"):
        add(f"--{name}", type=float)
    for name in (
        "history-dropout",
        "corruption",
        "caption-dropout",
        "clean-share",
        "retrieval-share",
        "window-share",
        "aligned",
        "context",
        "coarse",
        "before",
    ):
        add(f"--{name}", type=float, help="0 to 1")
    add("--min-t", type=float, help="lowest timestep, 0 to 1; 0.875 (I2V 0.9) for the high-noise expert of Wan 2.2 14B")
    add("--max-t", type=float, help="highest timestep, 0 to 1; 0.875 (I2V 0.9) for the low-noise expert of Wan 2.2 14B")
    add("--guidance", type=float, help="told to a guidance-distilled model such as HunyuanVideo; 6 as in sampling")
    add("--optimizer", choices=("adamw", "muon"))
    add("--card-gib", type=float, help="cut batches for a card of this size; by default the one that trains")
    add("--mixed-precision", choices=("no", "bf16"))
    add("--gradient-checkpointing", action="store_true", default=None, help="less memory, a third more time")
    add("--freeze-encoder", dest="train_encoder", action="store_false", default=None)
    add("--train-host", action="store_true", default=None, help="all weights of a small host instead of a LoRA")
    add("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--clips", type=Path, required=True, help="folder of videos")
    add("--out", type=Path, required=True, help="folder for report.json and sheet.png")
    for name in ("host", "vae", "lora"):
        add(f"--{name}", help=f"{name} file; by default that of the tiny family")
    add("--encoder", action="append", help="encoder file, once for each encoder; by default that of the tiny family")
    add("--text-encoder", nargs="+", default=[], help="for the empty prompt: files, or module:attribute")
    add("--text-type", help="core's name of the text encoder's kind")
    add("--width", type=int, default=128)
    add("--height", type=int, default=96)
    add("--fps", type=float, default=16.0)
    add("--frames", type=int, default=81, help="of each clip, from its beginning")
    add("--steps", type=int, default=12, help="of the sampler")
    add("--seed", type=int, default=0)
    add("--guidance", type=float, default=6.0, help="told to a guidance-distilled model such as HunyuanVideo")
    add("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")


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
