"""`python -m memory_encoder convert`: published checkpoints to files that core's loaders and ours read."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from types import ModuleType

from . import framepack, helios, lora_kinds
from .lora_conversion import convert_loras
from .lora_files import is_lora
from .weights import Checkpoint, ConversionError, opened

KINDS: tuple[ModuleType, ...] = (framepack, helios)


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a checkpoint of FramePack-F1 or Helios-Base in .safetensors: one file, one of its shards, the index of "
        "the shards, or their folder; or the LoRAs of StoryMem, Memento and others in .safetensors or .pth",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the converted files go")
    parser.add_argument("--name", default="", help="how their names begin; the input's name by default")
    kinds = ("auto", *_names(), *lora_kinds.KINDS)
    parser.add_argument("--kind", choices=kinds, default="auto", help="what the files are (default auto: as they say)")
    parser.add_argument(
        "--scale", type=float, help="what a LoRA was trained to be multiplied by, where its file does not say it"
    )


def run_convert(args: argparse.Namespace) -> None:
    """Raises ConversionError that names what is wrong, OSError when a file cannot be written."""
    if args.kind in lora_kinds.KINDS or (args.kind == "auto" and all(is_lora(path) for path in args.inputs)):
        print("\n".join(convert_loras(args.inputs, args.out, args.name, args.kind, args.scale)))
        return
    if args.scale is not None:
        raise ConversionError("--scale is that of a LoRA, and this is none; leave it out, or give --kind lora")
    with opened(args.inputs) as checkpoint:
        kind = _kind(checkpoint, args.kind)
        plan = kind.conversion(checkpoint)
        print("\n".join(plan.write(checkpoint, args.out, args.name or _name(args.inputs[0]))))


def _names() -> list[str]:
    return [kind.__name__.rsplit(".", 1)[-1] for kind in KINDS]


def _kind(checkpoint: Checkpoint, asked: str) -> ModuleType:
    keys = checkpoint.names
    for name, kind in zip(_names(), KINDS, strict=True):
        if asked in ("auto", name) and kind.matches(keys):
            return kind
    names = ", ".join(_names()) if asked == "auto" else asked
    raise ConversionError(
        f"{checkpoint.name} is not of the kind {names}: its tensors have names such as {', '.join(keys[:2])}; give the "
        "transformer's checkpoint as its authors publish it"
    )


def _name(path: Path) -> str:
    """A file name's own part, without the number of a shard."""
    stem = path.name.removesuffix(".json").removesuffix(".index").removesuffix(".safetensors")
    stem = re.sub(r"-\d+-of-\d+$", "", stem)
    if stem in ("diffusion_pytorch_model", "model", "transformer"):
        parents = [one for one in path.resolve().parents if one.name and one.name != "transformer"]
        stem = parents[0].name if parents else stem
    return stem
