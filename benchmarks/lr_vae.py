"""What a small VAE at `lr_vae` changes in what a memory recalls: the tiny family's finest memory, other LR pictures.

    python tools/environment.py run -m benchmarks.lr_vae --small FILE [--poor FILE] [--clips FOLDER] [--seeds 2]

FILE is what demo.tiny_family.train_taehv writes; core loads it. `poor` is one that was trained for a minute. Beside
them the same small decoder read at another scale, as core reads a file that it takes for another model's, and grey.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from demo.tiny_family.clips import add_clips
from demo.tiny_family.evaluate_family import Judge, Variant, add_sample_arguments, held_out, over_seeds
from demo.tiny_family.install import WEIGHTS
from memory_encoder.evaluation.metrics import psnr
from memory_encoder.evaluation.score import means_of
from memory_encoder.files import write_bytes
from memory_encoder.injection.hosts.comfy_models import latent_format_named
from memory_encoder.pictures.codec import codec_of
from tools.machine import processor

RESULTS = Path(__file__).resolve().parent / "results" / "lr_vae.json"
RATE, FRAMES = "2x2x1", 49
WAYS = {
    "clip": "the clip itself, as in training",
    "vae": "the model's own VAE",
    "small": "a small VAE",
    "poor": "one that was trained for a minute",
    "other scale": "the small VAE, read at another model's scale",
    "none": "no picture: grey",
}
Decode = Callable[[Tensor], Tensor]


def decoders(judge: Judge, small: Path, poor: Path | None) -> dict[str, Decode]:
    """What makes pictures [1,T,H,W,3] of latents, by way."""
    from comfy.sd import VAE

    def by(state: dict[str, Tensor]) -> Decode:
        codec = codec_of(VAE(sd=state), latent_format_named("Wan21"), name="small")
        return lambda latents: codec.decode(latents).clamp(0, 1)

    found: dict[str, Decode] = {"vae": lambda latents: judge.codec.decode(latents).clamp(0, 1)}
    found["small"] = by(load_file(small))
    if poor is not None:
        found["poor"] = by(load_file(poor))
    # Core tells the scale by the file's precision: half is HunyuanVideo's, which this file was trained for.
    found["other scale"] = by({name: value.float() for name, value in load_file(small).items()})
    return found


def measured(judge: Judge, by: dict[str, Decode], pictures: Tensor, seed: int) -> dict[str, dict[str, float]]:
    """By way: how near what it shows comes to the VAE's pictures, and what is recalled to the clip [T,H,W,3]."""
    hr = judge.codec.encode(pictures[None])
    shown = {"clip": pictures[None]} | {way: decode(hr) for way, decode in by.items()}
    shown["none"] = torch.full_like(pictures[None], 0.5)
    found = {}
    for way, seen in shown.items():
        memory = judge.module.compress(hr, judge.lr(seen, hr.shape[2]))
        values = means_of(pictures, judge.recalled(memory, hr.shape, seed))
        found[way] = values | {"shown": float(psnr(shown["vae"][0], seen[0]).clamp(max=99).mean())}
    return found


def summary(values: dict[str, list[list[dict[str, dict[str, float]]]]]) -> dict[str, Any]:
    """Mean and standard error over seeds of the mean over clips. values: by group, for each seed, each clip."""
    result: dict[str, Any] = {}
    for group, seeds in values.items():
        for way in seeds[0][0]:
            of_way = result.setdefault(group, {}).setdefault(way, {})
            for name in seeds[0][0][way]:
                means = np.array([[clip[way][name] for clip in clips] for clips in seeds]).mean(1)
                of_way[name] = over_seeds(means)
    return result


def table(result: dict[str, Any]) -> str:
    """In Markdown."""
    over = f", standard error over {result['seeds']} seeds" if result["seeds"] > 1 else ", one seed"
    lines = [
        f"{result['rate']}, the first {result['frames']} frames of clips that no training saw and of "
        f"{result['films']} films; means{over}.",
        "",
        "| clips | the LR branch sees | against the VAE's pictures, PSNR dB | recalled, PSNR dB | SSIM | edges |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for group, ways in result["clips"].items():
        for way, values in ways.items():
            near = "" if way == "vae" else f"{values['shown']['mean']:.1f}"
            recalled = f"{values['psnr']['mean']:.2f}"
            recalled += f" ± {values['psnr']['standard_error']:.2f}" if result["seeds"] > 1 else ""
            others = " | ".join(f"{values[name]['mean']:.3f}" for name in ("ssim", "edges"))
            lines.append(f"| {group} | {WAYS[way]} | {near} | {recalled} | {others} |")
    return "\n".join(lines)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=Path, required=True, help="file of train_taehv")
    parser.add_argument("--poor", type=Path, help="another one that was hardly trained")
    add_clips(parser)
    add_sample_arguments(parser, films=4, seeds=2)
    args = parser.parse_args()
    judge = Judge(Variant.of_family(RATE), WEIGHTS, args.comfy)
    by, groups = decoders(judge, args.small, args.poor), held_out(args.clips, args.films, FRAMES)
    values: dict[str, list[list[dict[str, dict[str, float]]]]] = {group: [] for group in groups}
    for seed in range(args.seeds):
        for group, found in groups.items():
            values[group].append([])
            for name, pictures in found.items():
                values[group][-1].append(measured(judge, by, pictures, seed))
                said = ", ".join(f"{way} {one['psnr']:.2f}" for way, one in values[group][-1][-1].items())
                print(f"{group} {name}, seed {seed}: {said} dB", flush=True)
        result = {
            "seeds": seed + 1, "films": args.films, "frames": FRAMES, "rate": RATE, "torch": torch.__version__,
            "machine": processor(), "clips": summary(values),
        }  # fmt: skip
        write_bytes(RESULTS, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
