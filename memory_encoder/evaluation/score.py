"""How well a memory gives its frames back: against what needs no memory, the whole history, and the VAE alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .baselines import BASELINES, BEFORE, FLAT, LOW_RESOLUTION, THUMBNAIL, baselines, numbers_per_pixel
from .identification import Lineup
from .metrics import edges, lpips, lpips_available, psnr, ssim
from .recall import draw_history, guided

MEMORY, UNGUIDED, UNTRAINED, NONE, FULL, VAE = "memory", "unguided", "untrained", "none", "full", "vae"
KINDS = (MEMORY, UNGUIDED, UNTRAINED, NONE, *BASELINES, FULL, VAE)
"""memory: the encoder's tokens. unguided: the same without history guidance, where there is any. untrained: those of
an encoder of the same form that learned nothing. none: a picture that the host makes up. flat, frame_before, thumbnail,
low_resolution: pictures without a model, see `baselines`. full: every token of the history, a ceiling. vae: the hard
ceiling."""
LABELS = {
    MEMORY: "memory",
    UNGUIDED: "memory, without history guidance",
    UNTRAINED: "untrained encoder",
    NONE: "no memory (made up)",
    FLAT: "flat colour of each frame",
    BEFORE: "the frame before",
    THUMBNAIL: "thumbnail, a pixel for each token",
    LOW_RESOLUTION: "LR picture blown up",
    FULL: "whole history",
    VAE: "VAE alone",
}
EQUAL = 100.0  # dB that equal pictures count as in a mean
SMALLEST = 64  # pixels of the shorter side that LPIPS wants


@dataclass(frozen=True)
class ClipScore:
    """One clip: means over its frames by metric and kind, and its pictures [T,H,W,3] in 0..1 by kind.

    facts: of its memory, such as `tokens` and `numbers_per_pixel`.
    """

    name: str
    values: Mapping[str, Mapping[str, float]]
    pictures: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @property
    def psnr(self) -> Mapping[str, float]:
        """In dB, by kind."""
        return self.values["psnr"]

    @property
    def ssim(self) -> Mapping[str, float]:
        return self.values["ssim"]


@torch.no_grad()
def score_clip(
    name: str,
    pictures: Tensor,
    hr: Tensor,
    lr: Mapping[str, Tensor],
    module: Any,
    conditioning: Mapping[str, Any],
    decode: Callable[[Tensor], Tensor],
    seed: int,
    steps: int = 12,
    untrained: Any = None,
    horizon: int = 0,
    history_guidance: float = 1.0,
    shift: float = 3.0,
) -> ClipScore:
    """Scores one clip.

    pictures: [T,H,W,3] in 0..1. hr, lr: its normalised latents, and LR latents by rate. module: a TrainingModule (its
    `compress`, `uncompressed` and `predict`) on the device of hr, lr and conditioning. untrained: one whose encoders
    learned nothing; None leaves that kind out. horizon: the most memory tokens that the host sees, 0 for all.
    history_guidance: weight of every memory, see `recall.guided`. shift: of the sampler's timesteps. decode: latents ->
    pictures [B,T,H,W,3] in RAM. The same seed draws the same noise for every kind.
    """
    memory = module.compress(hr, lr, horizon)
    memories = {MEMORY: memory, NONE: None, FULL: module.uncompressed(hr)}
    if untrained is not None:
        memories[UNTRAINED] = untrained.compress(hr, lr, horizon)
    plain = partial(module.predict, conditioning=conditioning)
    ways = {kind: (guided(plain, history_guidance), seen) for kind, seen in memories.items()}
    if ways[MEMORY][0] is not plain:
        ways[UNGUIDED] = (plain, memory)
    drawn = {}  # all before the first is decoded, since a VAE may push the host out of the card's memory
    for kind, (predict, seen) in ways.items():
        generator = torch.Generator().manual_seed(seed)
        drawn[kind] = draw_history(predict, seen, tuple(hr.shape), generator, steps, shift, hr.device)
    shown = {kind: decode(made)[0].clamp(0, 1) for kind, made in (drawn | {VAE: hr}).items()}
    configs = [encoder.config for encoder in module.encoders]
    spatial = pictures.shape[1] // hr.shape[3]
    shown |= baselines(pictures, configs, spatial)
    tokens, width = memory.tokens.shape[1:]
    facts = {
        "tokens": tokens,
        "numbers_per_pixel": numbers_per_pixel(tokens, width, pictures),
    }
    return ClipScore(name, _values(pictures, shown), {"original": pictures} | shown, facts)


def means_of(pictures: Tensor, shown: Tensor) -> dict[str, float]:
    """Means over frames [T,H,W,3] in 0..1 by metric; LPIPS where it can be had."""
    metrics: list[Callable[..., Tensor]] = [psnr, ssim, edges]
    if min(pictures.shape[1:3]) >= SMALLEST and lpips_available():
        metrics.append(lpips)
    return {metric.__name__: float(metric(pictures, shown).clamp(max=EQUAL).mean()) for metric in metrics}


def _values(pictures: Tensor, shown: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    of_kinds = {kind: means_of(pictures, shown[kind]) for kind in KINDS if kind in shown}
    return {metric: {kind: means[metric] for kind, means in of_kinds.items()} for metric in of_kinds[VAE]}


def in_decibels(score: ClipScore) -> str:
    """One clip's PSNR by kind, in a line."""
    return "  ".join(f"{kind} {value:.2f} dB" for kind, value in score.psnr.items())


def lineup_of(scores: Sequence[ClipScore]) -> Lineup:
    """All clips in one lineup; each frame is looked for among those of all."""
    lineup = Lineup()
    for score in scores:
        shown = {kind: pictures for kind, pictures in score.pictures.items() if kind in KINDS}
        lineup.add(score.pictures["original"], shown)
    return lineup


def summary(scores: Sequence[ClipScore], facts: dict[str, Any], lineup: Lineup | None = None) -> dict[str, Any]:
    """What `report.json` holds: means over clips by metric and kind, each clip, and how it was measured."""
    lineup = lineup or lineup_of(scores)
    means = {
        metric: {kind: sum(score.values[metric][kind] for score in scores) / len(scores) for kind in kinds}
        for metric, kinds in scores[0].values.items()
    }
    clips = [{"name": s.name, **{m: dict(v) for m, v in s.values.items()}, **s.facts} for s in scores]
    found = {"identified": lineup.rates(), "chance": lineup.chance, "candidates": lineup.candidates}
    return {**means, **found, "clips": clips, **facts}


def comparison(report: Mapping[str, Any]) -> str:
    """A report as a markdown table, a line for each kind."""
    metrics = [metric for metric in ("psnr", "ssim", "edges", "lpips", "identified") if metric in report]
    heads = {"psnr": "PSNR dB", "ssim": "SSIM", "edges": "edges", "lpips": "LPIPS", "identified": "identified"}
    lines = ["| " + " | ".join(["", *(heads[metric] for metric in metrics)]) + " |", "|---" * (1 + len(metrics)) + "|"]
    for kind in (kind for kind in KINDS if kind in report["psnr"]):
        values = [f"{report[metric][kind]:.{2 if metric == 'psnr' else 3}f}" for metric in metrics]
        lines.append("| " + " | ".join([LABELS[kind], *values]) + " |")
    return "\n".join([*lines, f"A guess identifies {report['chance']:.3f}."])
