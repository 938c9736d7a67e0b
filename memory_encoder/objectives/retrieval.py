"""Stage I: frame-retrieval pretraining (paper section 3.1, Eq. 3).

    E || (eps - H_Omega) - G((H_Omega)_t, t, c, phi(mask(H))) ||^2

Of a clip H the frames in a random set Omega stay clean and all others drown in noise; the host has to draw H[Omega]
from the memory of the whole masked clip. Since Omega is random, phi must keep every frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..phi.config import CompressionRate
from ..phi.positions import cells_for
from .flow import noised, shifted_logit_normal, velocity

Compress = Callable[[Tensor, Mapping[str, Tensor]], Any]
Predict = Callable[[Tensor, Tensor, Any, int], Tensor]

OMEGA_SIZES, OMEGA_WEIGHTS = (1, 2, 4), (0.1, 0.3, 0.6)  # not from the paper
MASK_RANGE = (0.2, 1.0)  # L(0.2, 1), section 3.1


@dataclass(frozen=True)
class RetrievalDraw:
    """The random numbers of one step: Omega, the masking noise of both branches (LR by rate), timestep and noise."""

    omega: range
    mask_level: Tensor
    mask_hr: Tensor
    mask_lr: Mapping[str, Tensor]
    t: Tensor
    noise: Tensor


def draw_omega(latents: int, generator: torch.Generator, stride: int = 1) -> range:
    """A contiguous random set of latent frames, in whole cells of `stride` latents (see `cell_spans`).

    A set that began inside of a cell would never show that cell's LR latent clean. Contiguity, sizes and whole cells
    are not from the paper.
    """
    weights = torch.tensor(OMEGA_WEIGHTS)
    size = OMEGA_SIZES[int(torch.multinomial(weights, 1, generator=generator))]
    spans = cell_spans(latents, stride)
    count = min(-(-size // stride), len(spans))
    start = int(torch.randint(0, len(spans) - count + 1, (), generator=generator))
    return range(spans[start].start, spans[start + count - 1].stop)


def draw(
    history: Tensor,
    lr: Mapping[str, Tensor],
    shift: float,
    generator: torch.Generator,
    omega: range | None = None,
    clean: bool = False,
    levels: tuple[float, float] = (0.0, 1.0),
) -> RetrievalDraw:
    """Random numbers for a batch of clips [B,C,T,H,W] and their LR latents [B,C,t,h,w] by rate, all from `generator`.

    omega: drawn too unless given, on cells of the rates. clean: nothing is masked, and the other numbers are the same.
    levels: range of the target's timestep.
    """
    batch, _, frames = history.shape[:3]
    omega = omega or draw_omega(frames, generator, max(map(time_stride, lr), default=1))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    level = shifted_logit_normal(batch, shift, *MASK_RANGE, generator=generator)
    return RetrievalDraw(
        omega=omega,
        mask_level=torch.zeros_like(level) if clean else level,
        mask_hr=normal(*history.shape),
        mask_lr={rate: normal(*latents.shape) for rate, latents in lr.items()},
        t=shifted_logit_normal(batch, shift, *levels, generator=generator),
        noise=normal(batch, history.shape[1], len(omega), *history.shape[3:]),
    )


def masked(latents: Tensor, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Noise-as-mask: steps where `clean` [T] is true stay as they are, the others get noise of `level` [B]."""
    return torch.where(clean.to(latents.device)[:, None, None], latents, noised(latents, noise.to(latents), level))


def clean_frames(omega: range, frames: int) -> Tensor:
    """Bool [frames]: the HR latents in Omega."""
    clean = torch.zeros(frames, dtype=torch.bool)
    clean[omega.start : omega.stop] = True
    return clean


def time_stride(rate: str) -> int:
    """Latents in time that an LR latent of this rate shows."""
    return CompressionRate.parse(rate).time


def cell_spans(frames: int, stride: int) -> list[range]:
    """The latents that each LR latent shows: the first alone, then (j-1)*stride+1 .. j*stride, as far as there are."""
    _, cells = cells_for(frames, stride)
    return [range(max((j - 1) * stride + 1, 0), min(j * stride + 1, frames)) for j in range(cells)]


def clean_cells(omega: range, frames: int, stride: int) -> Tensor:
    """Bool [cells]: LR latents all of whose frames lie in Omega; one that shows a masked frame would leak it."""
    clean = clean_frames(omega, frames)
    return torch.stack([clean[span.start : span.stop].all() for span in cell_spans(frames, stride)])


def retrieval_loss(
    history: Tensor, lr: Mapping[str, Tensor], drawn: RetrievalDraw, compress: Compress, predict: Predict
) -> Tensor:
    """Eq. 3 for a batch of clips.

    history: clean latents H [B,C,T,H,W]. lr: clean LR latents [B,C,t,h,w] by rate; each is masked cell by cell.
    compress: phi, from masked HR and LR latents to a memory. predict: G(x_t, t, memory, first), where `first` is the
    true time of the first target frame. Returns the mean squared error, a scalar.
    """
    frames, level = history.shape[2], drawn.mask_level.to(history)
    masked_hr = masked(history, clean_frames(drawn.omega, frames), drawn.mask_hr, level)
    masked_lr = {
        rate: masked(latents, clean_cells(drawn.omega, frames, time_stride(rate)), drawn.mask_lr[rate], level)
        for rate, latents in lr.items()
    }
    memory = compress(masked_hr, masked_lr)
    target = history[:, :, drawn.omega.start : drawn.omega.stop]
    noise, t = drawn.noise.to(target), drawn.t.to(target)
    predicted = predict(noised(target, noise, t), t, memory, drawn.omega.start)
    return torch.mean((velocity(target, noise) - predicted).float().square())
