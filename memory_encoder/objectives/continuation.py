"""Stage II: autoregressive fine-tuning (paper section 3.2, Eq. 4).

    E || (eps - X_0) - G(X_t, t, c, phi(H)) ||^2

The history H is clean and X_0 is the section that follows it. phi keeps training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .flow import noised, shifted_logit_normal, velocity
from .retrieval import Compress, Predict


@dataclass(frozen=True)
class Context:
    """Latents of the clip, shown uncompressed, or as LR tokens of the cells up to latent `stop` when `coarse`."""

    start: int
    stop: int
    coarse: bool


@dataclass(frozen=True)
class ContinuationDraw:
    """The random numbers of one step: where the section starts, noise, timestep, and what happens to the history."""

    history: int
    section: int
    t: Tensor
    noise: Tensor
    drop_history: bool
    corruption: Tensor | None
    corruption_noise: Tensor | None
    window: int = 0  # last latents of the history that are shown uncompressed beside the memory
    context: Context | None = None  # what is shown in the history's place in the pretraining of a host
    corruption_lr: Mapping[str, Tensor] = field(default_factory=dict)  # noise on LR latents by rate


def draw(
    clip: Tensor,
    section: int,
    shift: float,
    generator: torch.Generator,
    stride: int = 1,
    history_dropout: float = 0.1,
    corruption: float = 0.0,
    history: int | None = None,
    levels: tuple[float, float] = (0.0, 1.0),
    lr: Mapping[str, Tensor] | None = None,
) -> ContinuationDraw:
    """Random numbers for clips [B,C,T,H,W]: a section of `section` latents after at least one latent of history.

    stride: latents per cell in time; the history ends with a cell, since an LR latent that reached beyond it would
    show the target.

    history_dropout: share of steps without memory, which history guidance needs. corruption: highest level of noise
    on the history, against drift, in both branches: of a film that drifts both are made. Both are not from the paper.
    levels: range of the target's timestep. lr: LR latents of the clips by rate, which are corrupted too.
    Raises ValueError when the clip is too short.
    """
    batch, channels, frames, height, width = clip.shape
    if frames <= section:
        raise ValueError(f"clip of {frames} latents holds no history before a section of {section}; use longer clips")
    history = draw_history(frames, section, stride, generator) if history is None else history
    corrupted = corruption > 0
    return ContinuationDraw(
        history=history,
        section=section,
        t=shifted_logit_normal(batch, shift, *levels, generator=generator),
        noise=torch.randn(batch, channels, section, height, width, generator=generator),
        drop_history=bool(torch.rand((), generator=generator) < history_dropout),
        corruption=torch.rand(batch, generator=generator) * corruption if corrupted else None,
        corruption_noise=torch.randn(batch, channels, history, height, width, generator=generator)
        if corrupted
        else None,
        corruption_lr={rate: torch.randn(value.shape, generator=generator) for rate, value in (lr or {}).items()}
        if corrupted
        else {},
    )


def draw_history(frames: int, section: int, stride: int, generator: torch.Generator) -> int:
    """Latents of history before a section, 1 + a multiple of `stride`."""
    return 1 + stride * int(torch.randint(0, (frames - section - 1) // stride + 1, (), generator=generator))


def continuation_loss(
    clip: Tensor, lr: Mapping[str, Tensor], drawn: ContinuationDraw, compress: Compress, predict: Predict
) -> Tensor:
    """Eq. 4 for a batch of clips [B,C,T,H,W].

    lr: clean LR latents of the history alone, by rate. compress and predict: see `retrieval.retrieval_loss`; the
    section's true time is the end of the history. Without history (dropout) `predict` gets None for a memory.
    """
    start = drawn.history
    history, target = clip[:, :, :start], clip[:, :, start : start + drawn.section]
    if drawn.corruption is not None and drawn.corruption_noise is not None:
        level = drawn.corruption.to(history)
        history = noised(history, drawn.corruption_noise.to(history), level)
        drawn_lr = {rate: drawn.corruption_lr[rate][:, :, : value.shape[2]] for rate, value in lr.items()}
        lr = {rate: noised(value, drawn_lr[rate].to(value), level) for rate, value in lr.items()}
    memory = None if drawn.drop_history else compress(history, lr)
    noise, t = drawn.noise.to(target), drawn.t.to(target)
    predicted = predict(noised(target, noise, t), t, memory, start)
    return torch.mean((velocity(target, noise) - predicted).float().square())
