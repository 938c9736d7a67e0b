"""How well a memory gives its frames back: against no memory, the whole history uncompressed, and the VAE alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .metrics import psnr, ssim
from .recall import draw_history

KINDS = ("memory", "none", "full", "vae")
"""memory: the encoder's tokens. none: the floor. full: every token of the history, a ceiling. vae: the hard ceiling."""


@dataclass(frozen=True)
class ClipScore:
    """Mean PSNR (dB) and SSIM of one clip's frames for each kind, and its pictures [T,H,W,3] in 0..1."""

    name: str
    psnr: Mapping[str, float]
    ssim: Mapping[str, float]
    pictures: Mapping[str, Tensor]


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
) -> ClipScore:
    """Scores one clip.

    pictures: [T,H,W,3] in 0..1. hr, lr: its normalised latents, and LR latents by rate. module: a TrainingModule (its
    `compress`, `uncompressed` and `predict`) on the device of hr, lr and conditioning. decode: latents -> pictures
    [B,T,H,W,3] in RAM. The same seed draws the same noise for every kind.
    """
    memories = {"memory": module.compress(hr, lr), "none": None, "full": module.uncompressed(hr)}
    predict = partial(module.predict, conditioning=conditioning)
    drawn = {}  # all before the first is decoded, since a VAE may push the host out of the card's memory
    for kind, memory in memories.items():
        generator = torch.Generator().manual_seed(seed)
        drawn[kind] = draw_history(predict, memory, tuple(hr.shape), generator, steps, device=hr.device)
    shown = {"original": pictures} | {kind: decode(made)[0] for kind, made in (drawn | {"vae": hr}).items()}
    scores = {
        metric.__name__: {kind: float(metric(pictures, shown[kind].clamp(0, 1)).mean()) for kind in KINDS}
        for metric in (psnr, ssim)
    }
    return ClipScore(name, scores["psnr"], scores["ssim"], shown)


def summary(scores: Sequence[ClipScore], facts: dict[str, Any]) -> dict[str, Any]:
    """What `report.json` holds: means over clips, each clip, and how it was measured."""

    def means(metric: str) -> dict[str, float]:
        return {kind: sum(getattr(s, metric)[kind] for s in scores) / len(scores) for kind in KINDS}

    clips = [{"name": s.name, "psnr": dict(s.psnr), "ssim": dict(s.ssim)} for s in scores]
    return {"psnr": means("psnr"), "ssim": means("ssim"), "clips": clips, **facts}
