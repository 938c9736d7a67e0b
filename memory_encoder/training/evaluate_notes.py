"""What an evaluation says beside its figures: how much it measured, and what they do not mean."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..injection.hosts.comfy_models import blocks_with_lora
from ..injection.hosts.encoder_file import read_trained_on
from ..phi.trained_on import TOLERANCE, TrainedOn
from .dataset.scan import composed, readable
from .run_files import HELD_OUT, clips_trained_on, names_in_line, not_a_pair


def what_is_measured(args: argparse.Namespace, trained: Sequence[TrainedOn | None]) -> str:
    """How much of each clip is measured, and beside it what each memory was trained on where that is something else."""
    seconds = args.frames / args.fps
    lines = [
        f"of each clip the first {seconds:.1f} s ({args.frames} frames), {args.width}x{args.height}, {args.fps:g} fps"
    ]
    for one in trained:
        if one is None:
            continue
        other = []
        if one.history_seconds > seconds * TOLERANCE:
            other.append(f"--frames {round(one.history_seconds * one.fps)} ({one.history_seconds:.1f} s)")
        if abs(args.fps - one.fps) > 0.01 * one.fps:
            other.append(f"--fps {one.fps:g}")
        if one.width and (one.width, one.height) != (args.width, args.height):
            other.append(f"--width {one.width} --height {one.height}")
        if other:
            lines.append(f"note: the memory was trained for something else; {', '.join(other)} would measure it so")
    return "\n".join(lines)


def remarks_on(
    args: argparse.Namespace, encoders: Sequence[Path], lora: Path | None, clips: Collection[str]
) -> list[str]:
    """What the figures of an evaluation do not mean, a sentence each. encoders, lora: their files. clips: names."""
    remarks = []
    if lora is None:
        remarks.append(
            "without --lora the model was never taught to read a memory; give the one that the encoder was trained with"
        )
    for encoder in encoders:
        if lora is not None and (strangers := not_a_pair(encoder, lora)):
            remarks.append(strangers)
        trained = read_trained_on(encoder)
        if trained is not None and (trained.min_t, trained.max_t) != (0, 1):
            remarks.append(
                f"{encoder.name} was trained at timesteps {trained.min_t:g} to {trained.max_t:g} alone, for one of two "
                "experts, and is asked here at all of them: the figures say little of what both make together"
            )
    if args.host and not args.text_encoder:
        remarks.append(
            "without --text-encoder the model is told one token of zeros, where it was trained with the text of an "
            "empty prompt; give its text encoder for figures to compare"
        )
    trained_on = {composed(name) for encoder in encoders for name in clips_trained_on(encoder)}
    if seen := sorted(readable(name) for name in clips if composed(name) in trained_on):
        remarks.append(
            f"{len(seen)} of {len(clips)} clips have the names of clips that were trained on ({names_in_line(seen)}): "
            f"what they score says nothing of new ones; those in {HELD_OUT} beside the encoder were held out"
        )
    return remarks


def lora_remarks(patcher: Any, lora: Path | None) -> list[str]:
    """What is to be said of a LoRA that is in the host's weights. patcher: core's ModelPatcher; lora: its file."""
    if lora is None:
        return []
    touched, blocks = blocks_with_lora(patcher)
    if touched == blocks:
        return []
    return [f"{lora.name} reaches {touched} of the host's {blocks} blocks: it is part of a LoRA, or of another model"]
