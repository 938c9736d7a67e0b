"""What history guidance changes in recall: the tiny family's memories, asked for frames at several weights and steps.

    python tools/environment.py run -m benchmarks.recall_guidance [--clips FOLDER] [--films 6] [--seeds 1]

On clips that the memories were trained on, and on films beside those that measure them: what is chosen here, the weight
that recall is measured with, has then not been chosen on what it is measured on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from demo.tiny_family.clips import HELD_OUT_SEED, add_clips, list_clips
from demo.tiny_family.evaluate_family import Judge, Variant, add_sample_arguments, over_seeds, pictures_of
from demo.tiny_family.install import RATES, WEIGHTS
from demo.tiny_family.prepare import FPS
from memory_encoder.evaluation.identification import Lineup
from memory_encoder.evaluation.score import means_of
from memory_encoder.files import write_bytes
from memory_encoder.injection.selection import InjectedMemory
from tools.machine import processor

RESULTS = Path(__file__).resolve().parent / "results" / "recall_guidance"
FRAMES, EVERY = 49, 5  # every fifth of the training clips that are so long
IDENTIFIED = "identified"
COLUMNS = (("psnr", 2, 1), ("ssim", 3, 1), ("edges", 3, 1), (IDENTIFIED, 0, 100))  # digits, and times what


class Way(NamedTuple):
    """How frames are drawn: steps of Euler, and the weight of the memory."""

    steps: int
    weight: float

    @property
    def passes(self) -> int:
        """Of the host, for each window."""
        return self.steps * (1 if self.weight == 1 else 2)


WAYS = [Way(12, 1.0), Way(6, 1.5), Way(12, 1.5), Way(12, 2.5)]


class Remembered(NamedTuple):
    """A clip [T,H,W,3], the shape of its latents, and its memory."""

    pictures: Tensor
    shape: torch.Size
    memory: InjectedMemory

    @classmethod
    def by(cls, judge: Judge, pictures: Tensor) -> Remembered:
        hr = judge.codec.encode(pictures[None])
        return cls(pictures, hr.shape, judge.module.compress(hr, judge.lr(pictures[None], hr.shape[2])))


def measured(judge: Judge, clips: Sequence[Remembered], way: Way, seed: int) -> dict[str, float]:
    """Means over the clips of one group."""
    lineup, values = Lineup(), []
    for clip in clips:
        shown = judge.recalled(clip.memory, clip.shape, seed, *way)
        lineup.add(clip.pictures, {"made": shown})
        values.append(means_of(clip.pictures, shown))
    means = {name: float(np.mean([value[name] for value in values])) for name in values[0]}
    return means | {IDENTIFIED: lineup.rates()["made"]}


def report(result: Mapping[str, Any]) -> str:
    """The table, in Markdown."""
    lines = [
        "# History guidance in recall",
        "",
        f"Every frame of clips that the memories were trained on and of films beside those that measure them "
        f"({FRAMES} frames), drawn with `v() + weight * (v(memory) - v())`; weight 1 is unguided. Means over clips"
        + (f", standard error over {result['seeds']} seeds." if result["seeds"] > 1 else ", one seed."),
        "",
        "| memory | clips | steps | weight | passes | PSNR, dB | SSIM | edges | identified, % |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        shown = [f"{scale * row[name]['mean']:.{digits}f}" for name, digits, scale in COLUMNS]
        if result["seeds"] > 1:
            shown[0] += f" ± {row['psnr']['standard_error']:.2f}"
        count = f"{row['clips']} {'films' if row['group'] == 'procedural' else 'real clips'}"
        way = Way(row["steps"], row["weight"])
        lines.append(f"| {row['rate']} | {count} | {way.steps} | {way.weight:g} | {way.passes} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_clips(parser)
    add_sample_arguments(parser, films=6, seeds=1)
    args = parser.parse_args()
    chosen = [clip for clip in list_clips(args.clips) if clip.frames / clip.fps * FPS > FRAMES][::EVERY]
    groups = pictures_of(chosen, range(HELD_OUT_SEED, HELD_OUT_SEED + args.films), FRAMES)
    result: dict[str, Any] = {
        "seeds": args.seeds, "frames": FRAMES, "clips": {group: list(found) for group, found in groups.items()},
        "torch": torch.__version__, "machine": processor(), "rows": [],
    }  # fmt: skip
    for rate in RATES:
        judge = Judge(Variant.of_family(rate), WEIGHTS, args.comfy)
        for group, found in groups.items():
            clips = [Remembered.by(judge, pictures) for pictures in found.values()]
            for way in WAYS:
                seeds = [measured(judge, clips, way, seed) for seed in range(args.seeds)]
                means = {name: over_seeds(np.array([seed[name] for seed in seeds])) for name in seeds[0]}
                result["rows"].append({"rate": rate, "group": group, "clips": len(found), **way._asdict(), **means})
                print(f"{rate} {group} {way}: {means['psnr']['mean']:.2f} dB", flush=True)
                write_bytes(RESULTS.with_suffix(".json"), (json.dumps(result, indent=1) + "\n").encode())
                write_bytes(RESULTS.with_suffix(".md"), report(result).encode())


if __name__ == "__main__":
    main()
