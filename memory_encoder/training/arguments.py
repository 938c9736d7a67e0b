"""Options of the commands that need models; light, so that the command line starts at once."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..phi.config import AttentionScope, Variant
from .options import Stage, TrainOptions
from .presets import PRESETS

MOST_OF_HISTORY = 10_000  # tokens beside each window of four latents that are drawn unasked
GUIDANCE = 1.5  # what recall is measured with, see benchmarks/results/recall_guidance.md
OPTIONS = {
    "steps": "steps of the whole run",
    "batch_size": "clips of one step, over all cards; cut into smaller steps where a card has no room for it",
    "accumulate": "steps of that size that make one update",
    "optimizer": "adamw8bit keeps AdamW's moments in 8 bits; muon moves the LoRA's matrices, or a trained host's",
    "learning_rate": "of the LoRA, or of the host",
    "encoder_rate": "learning rate of the encoder as a share of the LoRA's",
    "weight_decay": "of AdamW and Muon",
    "warmup": "first steps, in which the learning rate rises",
    "cooldown": "last steps, in which the learning rate falls to zero",
    "clip": "largest norm of the gradient",
    "rank": "of the LoRA",
    "ema": "decay of the averaged weights, which are what is saved; 0 to 1",
    "shift": "of the timesteps; 0: what the model is sampled with",
    "min_t": "lowest timestep, 0 to 1; 0.875 (I2V 0.9) for the high-noise expert of Wan 2.2 14B",
    "max_t": "highest timestep, 0 to 1; 0.875 (I2V 0.9) for the low-noise expert of Wan 2.2 14B",
    "seed": "of new weights and of all random numbers",
    "section": "latents of the longest section of stage continuation; 0: 5 seconds, as the sampler makes, or less "
    "where clips or card have no room",
    "shorter_share": "share of sections that are of any smaller length; 0 to 1",
    "per_clip": "each clip of a batch has a task, a history and dropout of its own; off is quicker for small hosts",
    "history_dropout": "share of continuation steps without memory; 0 to 1",
    "corruption": "highest level of noise on the history's latents in continuation, against drift; 0 to 1",
    "clean_share": "share of retrieval steps that mask nothing, as a film's memory is asked; 0 to 1",
    "retrieval_share": "share of continuation steps that go on with retrieval; 0 to 1",
    "window": "latents of the sliding window",
    "window_share": "share of continuation steps that show the sliding window beside the memory; 0 to 1",
    "aligned": "share of sections that start where one of a film does; 0 to 1",
    "context": "stage host: share of steps that show other latents of the clip; 0 to 1",
    "coarse": "stage host: share of these that show LR latents; 0 to 1",
    "before": "stage host: share of these that end where the section starts; 0 to 1",
    "caption_dropout": "share of clips whose caption is left out; 0 to 1",
    "guidance": "told to a guidance-distilled model such as HunyuanVideo",
    "mixed_precision": "auto: bf16 where the device computes in it",
    "gradient_checkpointing": "less memory, a third more time",
    "train_host": "all weights of a small host instead of a LoRA",
    "checkpoint_every": "in steps",
    "keep_checkpoints": "how many of the last checkpoints stay",
    "max_skipped": "steps in a row whose loss or gradient is NaN or infinite that end the run; each is left out",
    "heldout_every": "in steps; 0 for never",
    "picture_every": "in steps; 0 for never",
    "resident_blocks": "blocks of the frozen host that stay on the card, the others come from RAM; -1 for all",
    "offload_inputs": "what gradient checkpointing keeps waits in RAM",
    "compile_blocks": "torch.compile for the host's blocks; the first steps take minutes",
    "ema_every": "steps between updates of the averaged weights",
    "reconstruction": "steps before the first in which the encoder alone learns to hold its latents; a few hundred",
}  # help for the fields of TrainOptions


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--dataset", action="append", required=True, metavar="FOLDER[:SHARE]",
        help="folder made by the cache or pack command, or the address of a packed one; several: each with a share of "
        "the batches, by its windows if not given",
    )  # fmt: skip
    add("--host", type=Path, required=True, help="diffusion model file")
    add("--out", type=Path, required=True, help="folder of the run; run the same command again to go on")
    add(
        "--stage", choices=get_args(Stage), required=True,
        help="retrieval: Stage I; continuation: Stage II; host: a small host itself without memory, with --train-host",
    )  # fmt: skip
    add("--preset", choices=tuple(PRESETS), help="a whole recipe; what is given beside it comes first")
    add(
        "--encoder", type=Path, action="append", default=[],
        help="encoder file to go on from; several: all are trained together and share the LoRA",
    )  # fmt: skip
    add("--from-scratch", action="store_true", help="in stage continuation: a new encoder, without stage retrieval")
    add("--lora", type=Path, help="LoRA file of this pack to go on from; without it a new one is made")
    add(
        "--teacher", type=Path,
        help="trained encoder file of a finer rate, whose tokens a new encoder first learns to give (--reconstruction)",
    )  # fmt: skip
    add("--rate", help="of a new encoder, beside those of --encoder; several with commas (4x4x2 without --encoder)")
    add(
        "--variant", default="proposed", choices=get_args(Variant),
        help="of a new encoder; recent is a baseline (default proposed)",
    )  # fmt: skip
    add(
        "--attention", default="frame", choices=get_args(AttentionScope),
        help="of a new encoder: within a step of time, to earlier ones, or to all (default frame)",
    )  # fmt: skip
    add("--cross-attention", action="store_true", default=None, help="a branch from the encoder into every block")
    add(
        "--memory-attention", choices=("joint", "cached"), help="how the host reads the memory; joint for a new encoder"
    )
    add("--channels", help="of new encoders' convolutions (64,128,256,512 without it)")
    add("--vae", help="VAE file, to draw recalled frames as the run goes")
    for field in fields(TrainOptions):
        if field.name in OPTIONS:
            _add_option(parser, field.name, field.default, get_type_hints(TrainOptions)[field.name])
    add("--card-gib", type=float, help="cut batches for a card of this size; by default the one that trains")
    add("--freeze-encoder", dest="train_encoder", action="store_false", default=None, help="train the LoRA alone")
    add("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")


class _OneFolder(argparse.Action):
    """A folder that is given once: of two the first would be left out in silence."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest, None) is not None:
            raise argparse.ArgumentError(
                self,
                f"{getattr(namespace, self.dest)} and {values} are two folders; put them below one, or give a command "
                "for each (train takes several datasets)",
            )
        setattr(namespace, self.dest, values)


def _add_option(parser: argparse.ArgumentParser, name: str, default: Any, kind: Any) -> None:
    """One field of TrainOptions; what is not given stays None, so that a preset or the run's beginning decides."""
    settings: dict[str, Any] = {"help": f"{OPTIONS[name]} (default {default})"}
    if kind is bool:
        settings["action"] = argparse.BooleanOptionalAction
        settings["help"] = f"{OPTIONS[name]} (default {'on' if default else 'off'})"
    elif get_args(kind):
        settings["choices"] = get_args(kind)
    else:
        settings["type"] = kind
    parser.add_argument(f"--{name.replace('_', '-')}", default=None, **settings)


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--clips", type=Path, required=True, action=_OneFolder, help="folder of videos")
    add("--out", type=Path, required=True, help="folder for report.json and sheet.png")
    for name in ("host", "vae", "lora"):
        add(f"--{name}", help=f"{name} file; by default that of the tiny family")
    add("--encoder", action="append", help="encoder file, once for each encoder; by default that of the tiny family")
    add("--text-encoder", nargs="+", default=[], help="for the empty prompt: files, or module:attribute")
    add("--text-type", help="core's name of the text encoder's kind")
    add("--width", type=int, default=128, help="of the clips in pixels, cropped to cover (default 128)")
    add("--height", type=int, default=96, help="of the clips in pixels (default 96)")
    add("--fps", type=float, default=16.0, help="frames a second that clips are read at (default 16)")
    add("--frames", type=int, default=81, help="of each clip, from its beginning (default 81)")
    add("--steps", type=int, default=12, help="of the sampler (default 12)")
    add(
        "--shift",
        type=float,
        default=0.0,
        help="of its timesteps; 0, the default: of the memory's training, else the model's own",
    )
    add("--seed", type=int, default=0, help="of the noise (default 0)")
    add("--horizon", type=int, default=0, help="most memory tokens that are seen, 0 for all (default 0)")
    add("--guidance", type=float, default=6.0, help="told to a guidance-distilled model, HunyuanVideo (default 6)")
    add_history_guidance(parser)
    add(
        "--whole-history",
        action="store_true",
        help=f"also draw from the whole history where that is more than {MOST_OF_HISTORY:,} tokens: hours a clip, and "
        "much of a card",
    )
    add("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")


def add_history_guidance(parser: argparse.ArgumentParser) -> None:
    weight = f"of a memory against what is drawn without; 1 takes half of the passes (default {GUIDANCE})"
    parser.add_argument("--history-guidance", type=float, default=GUIDANCE, help=f"weight {weight}")


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--clips", type=Path, required=True, action=_OneFolder,
        help="folder of videos, with .txt or storyboard .json captions beside them",
    )  # fmt: skip
    add("--out", type=Path, required=True, help="folder of the dataset; run the same command again to go on")
    add("--host", required=True, help="diffusion model file (Wan 2.1 or 2.2, HunyuanVideo); its weights are not loaded")
    add("--vae", required=True, help="VAE file that belongs to it")
    add("--text-encoder", nargs="+", default=[], help="its text encoder files, or module:attribute; none: no captions")
    add("--text-type", help="core's name of the text encoder's kind; by default the host's")
    add("--width", type=int, default=832, help="of the clips in pixels, cropped to cover (default 832)")
    add("--height", type=int, default=480, help="of the clips in pixels (default 480)")
    add("--fps", type=float, default=16.0, help="16 for Wan 14B, 24 for Wan 5B and Hunyuan (default 16)")
    add("--window-seconds", type=float, default=25.0, help="longest piece trained on at once (default 25)")
    add("--stride-seconds", type=float, default=0.0, help="from one piece to the next; 0: end to end (default 0)")
    add("--rates", default="4x4x2", help="compression rates of the encoders to train, with commas (default 4x4x2)")
    add("--padding", choices=("ceil", "floor"), default="ceil", help="as in the encoder (default ceil)")
    add(
        "--jobs",
        type=int,
        default=1,
        help="processes, each with its own VAE, that share the cards; 1 for each card (default 1)",
    )
    add("--on-bad", choices=("skip", "refuse"), default="skip", help="clips that cannot be used (default skip)")
    add("--heldout", default="0.1", help="clips never trained on: file names with commas, or a share (default 0.1)")
    add("--scene-cuts", action="store_true", help="no window over a cut (needs PySceneDetect)")
    add(
        "--buckets", default="auto",
        help="sizes for clips of other aspect: auto (usual ones, one area), none, or 480x832,640x640 (default auto)",
    )  # fmt: skip
    add(
        "--min-window-seconds", type=float, default=1.0,
        help="a clip or scene shorter than a window is one shorter window, down to this; 0: none (default 1)",
    )  # fmt: skip
    add("--estimate", action="store_true", help="say what it will take on disk, and stop")
    add("--ignore-space", action="store_true", help="go on where the disk seems too small")
    add("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")


def add_pack_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="folder made by the cache command")
    add("--out", type=Path, required=True, help="empty folder for the large files; copy it where you like")
    add("--chunk-mib", type=int, default=1024, help="size of a large file, which packing takes in RAM (default 1024)")
