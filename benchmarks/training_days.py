"""Days that the presets' runs take, by their own draws and a public time for a token: a table of docs/training.md.

    python tools/environment.py run -m benchmarks.training_days [--write]

Nothing is measured here. `--write` puts the table into the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from memory_encoder.budget import HOSTS, HostShape
from memory_encoder.frames import TEMPORAL
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.training.draws import step_of, target_of, task_of
from memory_encoder.training.options import HostDefaults, Stage, TrainOptions
from memory_encoder.training.presets import PRESETS
from memory_encoder.training.step_bytes import sequence

PAGE = Path(__file__).resolve().parent.parent / "docs" / "training.md"
# Wan 2.2 5B, 512x512 and 81 frames, RTX 4090: tdrussell/diffusion-pipe, issue 340.
REPORTED_SECONDS, REPORTED_TOKENS, REPORTED_HOST = 2.2, 16 * 16 * 21, HOSTS["wan-5b"]
SECONDS_A_TOKEN = REPORTED_SECONDS / REPORTED_TOKENS
DRAWN = 1000  # clips
HEAD = "| preset | clips | tokens a clip, in the mean | seconds a clip | days |"


@dataclass(frozen=True)
class Run:
    """A stage of a preset. cards: that share its batches. options: given beside the preset."""

    preset: str
    host: HostShape
    stage: Stage
    name: str
    cards: int = 1
    options: dict[str, Any] = field(default_factory=dict)


RUNS = [
    Run("12gb-5b", HOSTS["wan-5b"], "retrieval", "`12gb-5b`, stage I"),
    Run("12gb-5b", HOSTS["wan-5b"], "continuation", "`12gb-5b`, stage II, sections up to 5 s"),
    Run("24gb-14b", HOSTS["wan-14b"], "retrieval", "`24gb-14b`, stage I"),
    Run("24gb-14b", HOSTS["wan-14b"], "continuation", "`24gb-14b`, stage II, sections up to 5 s"),
    Run("24gb-14b", HOSTS["wan-14b"], "continuation", "`24gb-14b`, stage II, `--section 8`", options={"section": 8}),
    Run("paper", HOSTS["hunyuan"], "retrieval", "`paper`, HunyuanVideo on eight cards, stage I", cards=8),
    Run("paper", HOSTS["hunyuan"], "continuation", "`paper`, HunyuanVideo on eight cards, stage II", cards=8),
]


def tokens(run: Run) -> Iterator[float]:
    """Of clips as the run draws them: section or Omega, and of what it may see what is there in the mean."""
    preset, host = PRESETS[run.preset], run.host
    given = TrainOptions(stage=run.stage, **preset.options(run.stage) | run.options)
    options = given.resolved(HostDefaults(), preset.fps, TEMPORAL, preset.window)
    patch = (1, host.patch, host.patch)
    config = EncoderConfig(
        "wan", host.width, host.channels, rate="4x4x2", variant="only_lr", padding="ceil", patch=patch
    )
    width, height = (side // host.spatial for side in preset.size)
    alone = replace(options, stage="continuation", window_share=0.0, retrieval_share=0.0)
    latent = height * width // host.patch**2
    for step in range(DRAWN):
        first, length = target_of(options, config.stride[0], step, "train", preset.window)
        retrieval = task_of(options, step_of(options, step, 0, "train"), "train") == "retrieval"
        seen = preset.window if retrieval else first
        whole = sequence([config], replace(alone, section=length), (host.channels, seen + length, height, width))
        target = length * latent
        window = 0 if retrieval else options.window_share * min(options.window, first) * latent
        yield target + (1 - (0 if retrieval else options.history_dropout)) * (whole - target + window)


def seconds(run: Run, clip: float) -> float:
    """Of one card for a clip of so many tokens."""
    return clip * SECONDS_A_TOKEN * run.host.parameters / REPORTED_HOST.parameters


def days_table() -> str:
    """For docs/training.md."""
    lines = [HEAD, "|---|---|---|---|---|"]
    for run in RUNS:
        preset = PRESETS[run.preset]
        clips, clip = preset.both["batch_size"], mean(tokens(run))
        days = preset.steps * clips * seconds(run, clip) / run.cards / 86400
        shown = f"{clip:,.0f} | {seconds(run, clip):.2g} | {days:.{0 if days >= 20 else 1}f}"
        lines.append(f"| {run.name} | {preset.steps:,} x {clips} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/training.md")
    args = parser.parse_args()
    table = days_table()
    if args.write:
        text = PAGE.read_text(encoding="utf-8")
        start = text.index(HEAD)
        PAGE.write_text(text[:start] + table + text[text.index("\n\n", start) :], encoding="utf-8")
    else:
        print(table)


if __name__ == "__main__":
    main()
