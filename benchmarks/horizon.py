"""What a horizon costs in recall: the tiny family's finest memory, all of it and parts, near frames and far ones.

    python tools/environment.py run -m benchmarks.horizon [--clips FOLDER] [--films 6] [--seeds 3]

Films of four seconds that no training saw, and held-out real clips. `horizon` is what the sampler does: the near past
whole and the far past thinned. `newest`: only the last tokens, as many of them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from demo.tiny_family.clips import add_clips
from demo.tiny_family.evaluate_family import Judge, Variant, add_sample_arguments, held_out, over_seeds
from demo.tiny_family.install import WEIGHTS
from memory_encoder.evaluation.metrics import psnr
from memory_encoder.files import write_bytes
from memory_encoder.injection.selection import InjectedMemory
from tools.machine import processor

RESULTS = Path(__file__).resolve().parent / "results" / "horizon"
RATE, FRAMES = "2x2x1", 65  # what the memory was trained on: up to 4.2 s
SHARES = (1.0, 0.5, 0.25, 0.125)
WAYS = ("horizon", "newest")
HALVES = ("all", "far", "near")


def newest(memory: InjectedMemory, count: int) -> InjectedMemory:
    """The last tokens alone."""
    return replace(memory, tokens=memory.tokens[:, -count:], coordinates=memory.coordinates[-count:])


def recalled(judge: Judge, pictures: Tensor, seed: int) -> dict[str, list[float]]:
    """PSNR of each frame, by way and share."""
    hr = judge.codec.encode(pictures[None])
    lr = judge.lr(pictures[None], hr.shape[2])
    whole = judge.module.compress(hr, lr)
    found = {}
    for share in SHARES:
        count = int(share * whole.tokens.shape[1])
        seen = {"horizon": judge.module.compress(hr, lr, count), "newest": newest(whole, count)}
        for way in WAYS if share < 1 else WAYS[:1]:
            shown = judge.recalled(seen[way], hr.shape, seed)
            found[f"{way} {share:g}"] = psnr(pictures, shown).clamp(max=60).tolist()
    return found


def table(values: dict[str, dict[str, list[list[list[float]]]]]) -> dict[str, Any]:
    """Mean and standard error over seeds of the mean over clips: of all frames, the far half and the near half.

    values: by group and way, each frame of each clip for each seed.
    """
    result: dict[str, Any] = {}
    for group, ways in values.items():
        for way, seeds in ways.items():
            for half in HALVES:
                means = torch.tensor([[fmean(half_of(frames, half)) for frames in clips] for clips in seeds]).mean(1)
                result.setdefault(group, {}).setdefault(way, {})[half] = over_seeds(means.numpy())
    return result


def half_of(frames: list[float], half: str) -> list[float]:
    """Of a clip of any length; the near half has the middle one."""
    middle = len(frames) // 2
    return {"all": frames, "far": frames[:middle], "near": frames[middle:]}[half]


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    lines = [
        "# Recall within a horizon",
        "",
        f"The tiny family's memory at {RATE}, {FRAMES} frames of films and clips that no training saw; PSNR in dB, "
        f"mean over clips and standard error over {result['seeds']} seeds. `horizon` sees the near past whole and the "
        "far past thinned, `newest` the last tokens alone. Neither was trained for.",
        "",
        "| clips | tokens seen | way | all frames | far half | near half |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for group, ways in result["clips"].items():
        for name, halves in ways.items():
            way, share = name.split()
            cells = [f"{halves[half]['mean']:.2f} ± {halves[half]['standard_error']:.2f}" for half in halves]
            lines.append(f"| {group} | {100 * float(share):g} % | {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_clips(parser)
    add_sample_arguments(parser, films=6, seeds=3)
    args = parser.parse_args()
    judge = Judge(Variant.of_family(RATE), WEIGHTS, args.comfy)
    groups = held_out(args.clips, args.films, FRAMES)
    values: dict[str, dict[str, list[list[list[float]]]]] = {}
    for seed in range(args.seeds):
        for group, found in groups.items():
            for name, pictures in found.items():
                for way, frames in recalled(judge, pictures, seed).items():
                    seeds = values.setdefault(group, {}).setdefault(way, [])
                    if len(seeds) == seed:
                        seeds.append([])
                    seeds[seed].append(frames)
                print(f"{group} {name}, seed {seed}", flush=True)
        write(values, seed + 1, args.films)


def write(values: dict[str, dict[str, list[list[list[float]]]]], seeds: int, films: int) -> None:
    """What is there after so many seeds."""
    result = {
        "seeds": seeds, "films": films, "frames": FRAMES, "rate": RATE, "torch": torch.__version__,
        "machine": processor(), "clips": table(values),
    }  # fmt: skip
    write_bytes(RESULTS.with_suffix(".json"), (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(RESULTS.with_suffix(".md"), report(result).encode())


if __name__ == "__main__":
    main()
