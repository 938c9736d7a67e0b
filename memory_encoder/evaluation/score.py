"""How well a memory gives its frames back: against what needs no memory, the whole history, and the VAE alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
AT_ONCE = 4  # frames that are copied and measured together


@dataclass(frozen=True)
class ClipScore:
    """One clip: means over its frames by metric and kind, and its pictures [T,H,W,3] in 0..1 by kind.

    kept: which frames of the original the other pictures are, None for all.
    facts: of its memory, such as `tokens` and `numbers_per_pixel`; `numbers` by kind, for each pixel; how many
    `frames` were measured, and which were left out.
    """

    name: str
    values: Mapping[str, Mapping[str, float]]
    pictures: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    kept: Sequence[int] | None = None

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
    keep: Sequence[int] | None = None,
    whole_history: bool = True,
    bare: Any = None,
) -> ClipScore:
    """Scores one clip. Beside its pictures those of one kind at a time are in RAM, and of each the frames to `keep`.

    pictures: [T,H,W,3] in 0..1, of which `counted` are measured, all where none is. hr, lr: its normalised latents, and
    LR latents by rate. module: a TrainingModule (its `compress`, `uncompressed` and `predict`) on the device of hr, lr
    and conditioning. untrained: one whose encoders learned nothing; None leaves that kind out. horizon: the most memory
    tokens that the host sees, 0 for all. history_guidance: weight of every memory, see `recall.guided`. shift: of the
    sampler's timesteps. decode: latents -> pictures [B,T,H,W,3] in RAM. whole_history: whether FULL is drawn, which has
    a token for each of the host's patches; without room for it on the card it is left out. bare: a TrainingModule of
    the host without the memory's LoRA, for a host that has learned to read a whole history by itself: that LoRA reads
    memory alone, and would spoil it. None draws FULL through `module`. The same seed draws the same noise for every
    kind.
    """
    asked = counted(pictures)
    memory = module.compress(hr, lr, horizon)
    memories = {MEMORY: memory, NONE: None}
    if untrained is not None:
        memories[UNTRAINED] = untrained.compress(hr, lr, horizon)
    plain = partial(module.predict, conditioning=conditioning)
    ways = {kind: (guided(plain, history_guidance), seen) for kind, seen in memories.items()}
    if whole_history:
        reader = bare or module
        whole = guided(partial(reader.predict, conditioning=conditioning), history_guidance)
        ways[FULL] = whole, reader.uncompressed(hr)
    if ways[MEMORY][0] is not plain:
        ways[UNGUIDED] = (plain, memory)
    drawn = {}  # all before the first is decoded, since a VAE may push the host out of the card's memory
    for kind, (predict, seen) in ways.items():
        generator = torch.Generator().manual_seed(seed)
        try:
            drawn[kind] = draw_history(predict, seen, tuple(hr.shape), generator, steps, shift, hr.device)
        except torch.cuda.OutOfMemoryError:
            if kind != FULL:
                raise
    tokens, width = memory.tokens.shape[1:]
    of_kinds = dict.fromkeys(drawn, tokens * width) | {NONE: 0, FULL: hr.numel(), VAE: hr.numel()}
    configs = [encoder.config for encoder in module.encoders]

    def shown() -> Iterator[tuple[str, Baseline]]:
        for kind, made in (drawn | {VAE: hr}).items():
            yield kind, Baseline(decode(made)[0].clamp(0, 1), of_kinds[kind])
        yield from baselines(pictures, configs, pictures.shape[1] // hr.shape[3], tokens * width)
        if seeing := [config for config in configs if config.has_lr]:
            config = most_shown(seeing)
            small = lr[config.rate]
            yield LR_LATENTS, lr_latents(pictures, config, decode(small)[0].clamp(0, 1), small.numel())

    device = hr.device if hr.device.type == "cuda" else None  # others have no float64, or are the processor
    means, numbers, kept = {}, {}, {}
    for kind, one in shown():
        means[kind] = means_of(pictures, one.pictures, asked.measured, device)
        numbers[kind] = numbers_per_pixel(one.numbers, pictures)
        kept[kind] = one.pictures if keep is None else one.pictures[list(keep)]
    kinds = [kind for kind in KINDS if kind in means]
    facts = {"tokens": tokens, "numbers_per_pixel": numbers[MEMORY], "numbers": {kind: numbers[kind] for kind in kinds}}
    facts |= {"frames": len(asked.measured)} | ({"left_out": asked.left_out} if asked.left_out else {})
    values = {metric: {kind: means[kind][metric] for kind in kinds} for metric in means[VAE]}
    return ClipScore(name, values, {"original": pictures} | {kind: kept[kind] for kind in kinds}, facts, keep)


def means_of(
    pictures: Tensor, shown: Tensor, frames: Sequence[int] | None = None, device: torch.device | None = None
) -> dict[str, float]:
    """Means over frames [T,H,W,3] in 0..1 by metric; LPIPS where it can be had. frames: some of them alone. device:
    where they are measured, which is many times faster on a card; LPIPS stays where the pictures are."""
    frames = range(len(pictures)) if frames is None else frames
    parts = [list(frames[first : first + AT_ONCE]) for first in range(0, len(frames), AT_ONCE)]
    means = {}
    for metric in (psnr, ssim, edges):
        values = [metric(pictures[part].to(device), shown[part].to(device)).cpu() for part in parts]
        means[metric.__name__] = float(torch.cat(values).clamp(max=EQUAL).mean())
    if min(pictures.shape[1:3]) >= SMALLEST and lpips_available():
        means["lpips"] = float(lpips(pictures[list(frames)], shown[list(frames)]).mean())
    return means


def in_decibels(score: ClipScore) -> str:
    """One clip's PSNR by kind, in a line."""
    return "  ".join(f"{kind} {value:.2f} dB" for kind, value in score.psnr.items())


def lineup_of(scores: Sequence[ClipScore]) -> Lineup:
    """All clips in one lineup; each frame is looked for among those of all."""
    lineup = Lineup()
    for score in scores:
        shown = {kind: pictures for kind, pictures in score.pictures.items() if kind in KINDS}
        lineup.add(score.pictures["original"], shown, score.kept)
    return lineup


def summary(scores: Sequence[ClipScore], facts: dict[str, Any], lineup: Lineup | None = None) -> dict[str, Any]:
    """What `report.json` holds: means over clips by metric and kind, each clip, and how it was measured. Kinds that not
    every clip has, since there was no room for them, are in the clips alone."""
    lineup = lineup or lineup_of(scores)
    kinds = [kind for kind in scores[0].facts["numbers"] if all(kind in score.facts["numbers"] for score in scores)]
    means = {
        metric: {kind: sum(score.values[metric][kind] for score in scores) / len(scores) for kind in kinds}
        for metric in scores[0].values
    }
    telling = lineup.chance <= MOST_CHANCE
    numbers = {kind: sum(score.facts["numbers"][kind] for score in scores) / len(scores) for kind in kinds}
    clips = [
        {"name": s.name, **{m: dict(v) for m, v in s.values.items()}, "identified": rates if telling else {}, **s.facts}
        for s, rates in zip(scores, lineup.rates_of_clips(), strict=True)
    ]
    identified = {kind: rate for kind, rate in lineup.rates().items() if kind in kinds and telling}
    found = {"identified": identified, "chance": lineup.chance, "candidates": lineup.candidates}
    return {**means, **found, "numbers": numbers, "clips": clips, **facts}


MOST_CHANCE = 1 / 8
FEW = (
    "Which frame is which was not asked: too few frames differ, so that a guess would often be right. Give more "
    "clips, or longer ones."
)
COLUMNS = {"psnr": ("PSNR dB", 2), "ssim": ("SSIM", 3), "edges": ("edges", 3), "lpips": ("LPIPS", 3),
           "identified": ("identified", 3), "numbers": ("numbers a pixel", 4)}  # fmt: skip
"""Heads and digits of a report's table by metric."""


def comparison(report: Mapping[str, Any]) -> str:
    """A report as a markdown table, a line for each kind."""
    columns = {metric: column for metric, column in COLUMNS.items() if report.get(metric)}
    heads = ["", *(head for head, _ in columns.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for kind in (kind for kind in KINDS if kind in report["psnr"]):
        found = [(report[metric].get(kind), digits) for metric, (_, digits) in columns.items()]
        cells = ["" if value is None else f"{value:.{digits}f}" for value, digits in found]
        lines.append("| " + " | ".join([LABELS[kind], *cells]) + " |")
    told = f"A guess identifies {report['chance']:.3f}." if report["identified"] else FEW
    return "\n".join([*lines, told])
