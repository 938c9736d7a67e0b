"""The tiny family's table: retrieval on clips and films that it was never trained on, over several seeds.

    python -m demo.tiny_family.evaluate_family --clips CLIPS --out FOLDER [--rates 4x4x2,2x2x2,2x2x1] [--seeds 3]
        [--encoder FILE [--encoder FILE ...] --lora FILE [--name NAME]]

Measures what ``python -m memory_encoder evaluate`` measures, with a faster pass through the VAE: the family's memories
by rate, or what `--encoder` and `--lora` name, several encoders together. Writes for each ``retrieval_NAME.json``
(means with standard errors, every clip, and how far the memory lies above all else), a sheet of pictures for the real
clips and one for the films, and at the end prints a table. NAME is the rate unless said.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from memory_encoder.evaluation.recall import draw_history, guided
from memory_encoder.evaluation.score import LABELS, MEMORY, ClipScore, in_decibels, lineup_of, score_clip
from memory_encoder.files import write_bytes
from memory_encoder.injection.hosts.comfy_models import (
    PYTORCH_ATTENTION,
    load_comfy,
    load_host,
    load_lora,
    load_text_encoder,
)
from memory_encoder.injection.hosts.encoder_file import load_encoder, read_config
from memory_encoder.training.arguments import add_history_guidance
from memory_encoder.training.dataset.video import VideoReader
from memory_encoder.training.dataset.windows import lr_by_rate
from memory_encoder.training.evaluate_command import sheet
from memory_encoder.training.module import TrainingModule, untrained
from tools.machine import processor

from .clips import HELD_OUT_SEED, Clip, add_clips, list_clips
from .install import HOST_NAME, RATES, WEIGHTS
from .prepare import FPS, HEIGHT, TEXT_ENCODER, WIDTH, TinyCodec, film_of

FIRST_FILM = HELD_OUT_SEED + 100  # after those that watched the training


def held_out(clips: Path, films: int, count: int) -> dict[str, dict[str, Tensor]]:
    """Pictures [T,H,W,3] in 0..1 of the held-out clips (`real`) and films (`procedural`), 1 + 4k frames each."""
    return pictures_of(list_clips(clips, held_out=True), range(FIRST_FILM, FIRST_FILM + films), count)


def pictures_of(clips: Iterable[Clip], films: Iterable[int], count: int) -> dict[str, dict[str, Tensor]]:
    """The first `count` frames of clips and of films of these seeds, as `held_out` gives them."""
    real = {}
    for clip in clips:
        frames = [picture.pixels for picture in islice(VideoReader(clip.path, FPS, WIDTH, HEIGHT), count)]
        real[clip.name] = _whole(np.stack(frames))
    made = {f"film {seed}": _whole(film_of(seed, False).frames[:count]) for seed in films}
    return {"real": real, "procedural": made}


def _whole(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames[: 1 + (len(frames) - 1) // 4 * 4]).float() / 255


@dataclass(frozen=True)
class Variant:
    """What is measured: encoders, and the LoRA that was trained with them. name: of the files that are written."""

    name: str
    encoders: tuple[Path, ...]
    lora: Path

    @classmethod
    def of_family(cls, rate: str, weights: Path = WEIGHTS) -> Variant:
        """The family's memory of a rate."""
        encoder = weights / f"tiny_memory_{rate}.safetensors"
        return cls(rate, (encoder,), encoder.with_stem(f"{encoder.stem}_lora"))


def add_variant_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", type=Path, default=WEIGHTS, help="folder of the host and of the family's memories")
    add("--rates", default=",".join(RATES), help="of the family's memories")
    add("--encoder", type=Path, action="append", help="instead of them an encoder file; several are used together")
    add("--lora", type=Path, help="that was trained with --encoder")
    add("--name", help="of the files that are written for --encoder, by default the rates")


def add_sample_arguments(parser: argparse.ArgumentParser, films: int, seeds: int) -> None:
    parser.add_argument("--films", type=int, default=films)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")


def variants(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[Variant]:
    """What the arguments of `add_variant_arguments` ask for; ends the program when they do not fit together."""
    if bool(args.encoder) != bool(args.lora) or (args.name and not args.encoder):
        parser.error("--encoder and --lora belong together, and --name to them; leave all away for the family's own")
    if args.encoder:
        name = args.name or "+".join(read_config(path).rate for path in args.encoder)
        return [Variant(name, tuple(args.encoder), args.lora)]
    return [Variant.of_family(rate, args.weights) for rate in args.rates.split(",")]


class Judge:
    """Host with LoRA, encoders and VAE."""

    def __init__(self, variant: Variant, weights: Path, comfy: str | None) -> None:
        load_comfy(comfy, (*PYTORCH_ATTENTION, "--cpu"))  # so small that a card would not be quicker
        patcher = load_lora(load_host(weights / HOST_NAME), variant.lora)
        first, *others = (load_encoder(path).requires_grad_(False) for path in variant.encoders)
        self.module = TrainingModule(first, patcher.model.diffusion_model, others=others)
        self.bare = TrainingModule(first, load_host(weights / HOST_NAME).model.diffusion_model, others=others)
        self.untrained = untrained(self.module, seed=0)
        self.codec = TinyCodec(comfy)()
        self.text = load_text_encoder([TEXT_ENCODER], "wan")

    def lr(self, pictures: Tensor, latents: int) -> dict[str, Tensor]:
        """LR latents of pictures [1,F,H,W,3] for every encoder."""
        return lr_by_rate(pictures, latents, (encoder.config for encoder in self.module.encoders), self.codec)

    def recalled(self, memory: Any, shape: torch.Size, seed: int, steps: int = 12, weight: float = 1.0) -> Tensor:
        """Pictures [T,H,W,3] of a whole history, latents of `shape`, drawn from its memory without a prompt.

        weight: of history guidance.
        """
        plain = partial(self.module.predict, conditioning={"context": self.text.encode("")})
        noise = torch.Generator().manual_seed(seed)
        return self.codec.decode(draw_history(guided(plain, weight), memory, tuple(shape), noise, steps))[0].clamp(0, 1)

    def scores(self, name: str, pictures: Tensor, seeds: Sequence[int], history_guidance: float) -> list[ClipScore]:
        """One score for each seed."""
        hr = self.codec.encode(pictures[None])
        lr = self.lr(pictures[None], hr.shape[2])
        arguments = (name, pictures, hr, lr, self.module, {"context": self.text.encode("")}, self.codec.decode)
        return [
            score_clip(*arguments, seed, untrained=self.untrained, history_guidance=history_guidance, bare=self.bare)
            for seed in seeds
        ]


def table(scores: dict[str, list[list[ClipScore]]]) -> dict[str, Any]:
    """For `real` and `procedural`, clips of as many seeds each: by metric and kind the mean and its standard error, see
    `over_clips`; each clip's own mean; and `above`, by how much the memory has more than each other kind, paired."""
    result: dict[str, Any] = {}
    for group, clips in scores.items():
        lineups = [lineup_of(of_seed) for of_seed in zip(*clips, strict=True)]
        rates = [lineup.rates_of_clips() for lineup in lineups]  # by seed and clip
        facts = clips[0][0].facts
        values = {
            metric: {kind: np.array([[s.values[metric][kind] for s in clip] for clip in clips]) for kind in kinds}
            for metric, kinds in clips[0][0].values.items()
        }
        values["identified"] = {kind: np.array([[of[kind] for of in seed] for seed in rates]).T for kind in rates[0][0]}
        result[group] = {"chance": lineups[0].chance}
        result[group] |= {fact: facts[fact] for fact in ("numbers_per_pixel", "numbers") if fact in facts}
        for metric, kinds in values.items():
            result[group][metric] = {kind: over_clips(value) for kind, value in kinds.items()}
        result[group]["above"] = {
            metric: {kind: over_clips(kinds[MEMORY] - value) for kind, value in kinds.items() if kind != MEMORY}
            for metric, kinds in values.items()
        }
        result[group]["clips"] = {
            clip[0].name: {
                metric: {kind: float(value[number].mean()) for kind, value in kinds.items()}
                for metric, kinds in values.items()
            }
            for number, clip in enumerate(clips)
        }
    return result


def over_clips(values: np.ndarray) -> dict[str, float]:
    """Mean of values [clips, seeds], and the larger of its standard errors over clips and over seeds."""
    both = [over_seeds(values.mean(axis=axis)) for axis in (0, 1)]
    return {"mean": float(values.mean()), "standard_error": max(one["standard_error"] for one in both)}


def over_seeds(means: np.ndarray) -> dict[str, float]:
    """Mean and standard error of one value for each seed, or of independent ones of another kind."""
    error = means.std(ddof=1) / len(means) ** 0.5 if len(means) > 1 else 0.0
    return {"mean": float(means.mean()), "standard_error": float(error)}


def markdown(tables: dict[str, dict[str, Any]]) -> str:
    """The numbers of all memories as a table."""
    lines = ["| rate | clips | shown | PSNR dB | SSIM | edges | identified |", "|---|---|---|---|---|---|---|"]
    for name, groups in tables.items():
        for group, values in groups.items():
            for kind in (kind for kind in LABELS if kind in values["psnr"]):
                psnr, *others = (values[metric][kind] for metric in ("psnr", "ssim", "edges", "identified"))
                shown = [f"{psnr['mean']:.2f} ± {psnr['standard_error']:.2f}", *(f"{v['mean']:.3f}" for v in others)]
                lines.append("| " + " | ".join([name, group, LABELS[kind], *shown]) + " |")
    return "\n".join(lines)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_clips(parser)
    add_variant_arguments(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=81, help="of each clip, from its beginning")
    add_sample_arguments(parser, films=6, seeds=3)
    add_history_guidance(parser)
    args = parser.parse_args()
    groups, tables = held_out(args.clips, args.films, args.frames), {}
    for variant in variants(parser, args):
        judge, scores = Judge(variant, args.weights, args.comfy), {}
        for group, found in groups.items():
            scores[group] = []
            for name, pictures in found.items():
                scores[group].append(judge.scores(name, pictures, range(args.seeds), args.history_guidance))
                first = scores[group][-1][0]
                print(f"{variant.name} {name}: {in_decibels(first)}", flush=True)
            picture: Any = cv2.imencode(".jpg", sheet([clip[0] for clip in scores[group]]))[1]
            write_bytes(args.out / f"retrieval_{variant.name}_{group}.jpg", picture.tobytes())
        tables[variant.name] = table(scores)
        facts = {
            "rate": "+".join(encoder.config.rate for encoder in judge.module.encoders),
            "seeds": args.seeds,
            "frames": args.frames,
            "steps": 12,
            "history_guidance": args.history_guidance,
            "torch": torch.__version__,
            "machine": processor(),
            **tables[variant.name],
        }
        write_bytes(args.out / f"retrieval_{variant.name}.json", json.dumps(facts, indent=1).encode())
    print(markdown(tables))


if __name__ == "__main__":
    main()
