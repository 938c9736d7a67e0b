"""How well a memory gives its frames back: against what needs no memory, the whole history, and the VAE alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .baselines import (
    BASELINES,
    BEFORE,
    EQUAL_NUMBERS,
    FLAT,
    LOW_RESOLUTION,
    LR_LATENTS,
    THUMBNAIL,
    Baseline,
    baselines,
    lr_latents,
    most_shown,
    numbers_per_pixel,
)
from .counted import counted
from .identification import Lineup
from .metrics import edges, lpips, lpips_available, psnr, ssim
from .recall import draw_history, guided

MEMORY, UNGUIDED, UNTRAINED, NONE, FULL, VAE = "memory", "unguided", "untrained", "none", "full", "vae"
KINDS = (MEMORY, UNGUIDED, UNTRAINED, NONE, *BASELINES, FULL, VAE)
"""memory: the encoder's tokens. unguided: the same without history guidance, where there is any. untrained: those of
an encoder of the same form that learned nothing. none: a picture that the host makes up. flat, frame_before, thumbnail,
thumbnail_numbers, low_resolution: pictures without a model, see `baselines`; lr_latents with the VAE alone. full: every
token of the history, a ceiling. vae: the hard ceiling."""
LABELS = {
    MEMORY: "memory",
    UNGUIDED: "memory, without history guidance",
    UNTRAINED: "untrained encoder",
    NONE: "no memory (made up)",
    FLAT: "flat colour of each frame",
    BEFORE: "the frame before",
    THUMBNAIL: "thumbnail, a pixel for each token of a cell",
    EQUAL_NUMBERS: "thumbnail of as many numbers",
    LOW_RESOLUTION: "LR picture blown up",
    LR_LATENTS: "LR latents, decoded and blown up",
    FULL: "whole history",
    VAE: "VAE alone",
}
EQUAL = 10 * math.log10(12 * 255**2)  # 58.9 dB, what rounding to 8 bits leaves: no picture counts as nearer in a mean
SMALLEST = 64  # pixels of the shorter side that LPIPS wants


@dataclass(frozen=True)
class ClipScore:
    """One clip: means over its frames by metric and kind, and its pictures [T,H,W,3] in 0..1 by kind.

    facts: of its memory, such as `tokens` and `numbers_per_pixel`; `numbers` by kind, for each pixel; how many
    `frames` were measured, and which were left out.
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

    pictures: [T,H,W,3] in 0..1, of which `counted` are measured, all where none is. hr, lr: its normalised latents, and
    LR latents by rate. module: a TrainingModule (its `compress`, `uncompressed` and `predict`) on the device of hr, lr
    and conditioning. untrained: one whose encoders learned nothing; None leaves that kind out. horizon: the most memory
    tokens that the host sees, 0 for all. history_guidance: weight of every memory, see `recall.guided`. shift: of the
    sampler's timesteps. decode: latents -> pictures [B,T,H,W,3] in RAM. The same seed draws the same noise for every
    kind.
    """
    asked = counted(pictures)
    measured = asked.measured
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
    tokens, width = memory.tokens.shape[1:]
    of_kinds = dict.fromkeys(drawn, tokens * width) | {NONE: 0, FULL: hr.numel(), VAE: hr.numel()}
    shown = {kind: Baseline(decode(made)[0].clamp(0, 1), of_kinds[kind]) for kind, made in (drawn | {VAE: hr}).items()}
    configs = [encoder.config for encoder in module.encoders]
    shown |= baselines(pictures, configs, pictures.shape[1] // hr.shape[3], tokens * width)
    if seeing := [config for config in configs if config.has_lr]:
        config = most_shown(seeing)
        small = lr[config.rate]
        shown[LR_LATENTS] = lr_latents(pictures, config, decode(small)[0].clamp(0, 1), small.numel())
    ordered = {kind: shown[kind] for kind in KINDS if kind in shown}
    numbers = {kind: numbers_per_pixel(one.numbers, pictures) for kind, one in ordered.items()}
    facts = {"tokens": tokens, "numbers_per_pixel": numbers[MEMORY], "numbers": numbers, "frames": len(measured)}
    facts |= {"left_out": asked.left_out} if asked.left_out else {}
    made = {kind: one.pictures for kind, one in ordered.items()}
    values = _values(pictures[measured], {kind: one[measured] for kind, one in made.items()})
    return ClipScore(name, values, {"original": pictures} | made, facts)


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
    numbers = {kind: sum(s.facts["numbers"][kind] for s in scores) / len(scores) for kind in scores[0].facts["numbers"]}
    clips = [
        {"name": s.name, **{m: dict(v) for m, v in s.values.items()}, "identified": rates, **s.facts}
        for s, rates in zip(scores, lineup.rates_of_clips(), strict=True)
    ]
    found = {"identified": lineup.rates(), "chance": lineup.chance, "candidates": lineup.candidates}
    return {**means, **found, "numbers": numbers, "clips": clips, **facts}


COLUMNS = {"psnr": ("PSNR dB", 2), "ssim": ("SSIM", 3), "edges": ("edges", 3), "lpips": ("LPIPS", 3),
           "identified": ("identified", 3), "numbers": ("numbers a pixel", 4)}  # fmt: skip
"""Heads and digits of a report's table by metric."""


def comparison(report: Mapping[str, Any]) -> str:
    """A report as a markdown table, a line for each kind."""
    columns = {metric: column for metric, column in COLUMNS.items() if metric in report}
    heads = ["", *(head for head, _ in columns.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for kind in (kind for kind in KINDS if kind in report["psnr"]):
        found = [(report[metric].get(kind), digits) for metric, (_, digits) in columns.items()]
        cells = ["" if value is None else f"{value:.{digits}f}" for value, digits in found]
        lines.append("| " + " | ".join([LABELS[kind], *cells]) + " |")
    return "\n".join([*lines, f"A guess identifies {report['chance']:.3f}."])
