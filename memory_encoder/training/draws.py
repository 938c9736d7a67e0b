"""The random numbers of a training step, a pure function of seed, step and row.

Nothing depends on how many processes share a batch or on what ran before, so that resumed runs and runs on more
processes see the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import continuation, retrieval
from ..continuation import ContinuationDraw
from ..retrieval import RetrievalDraw
from .module import Batch
from .options import TrainOptions

Drawn = TypeVar("Drawn", RetrievalDraw, ContinuationDraw)


def generator_for(*parts: int | str) -> torch.Generator:
    """A generator whose seed is a hash of its arguments."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def target_of(options: TrainOptions, stride: int, step: int, kind: str, frames: int) -> tuple[int, int]:
    """First latent and number of latents of what a step asks for, of clips of `frames` latents: Omega or the section.

    The same in all rows of a step. Raises ValueError when the clips are too short.
    """
    generator = generator_for(options.seed, kind, "target", step)
    if options.stage == "retrieval":
        omega = retrieval.draw_omega(frames, generator)
        return omega.start, len(omega)
    if frames <= options.section:
        raise ValueError(f"clips of {frames} latents have no history before a section of {options.section}; use longer")
    if options.stage == "host":
        return int(torch.randint(0, frames - options.section + 1, (), generator=generator)), options.section
    return continuation.draw_history(frames, options.section, stride, generator), options.section


def draw_rows(
    batch: Batch, options: TrainOptions, stride: int, step: int, first_row: int, kind: str = "train"
) -> RetrievalDraw | ContinuationDraw:
    """Draws for the rows of one process."""
    first, length = target_of(options, stride, step, kind, batch.hr.shape[2])
    rows = [batch.rows(i, i + 1) for i in range(batch.hr.shape[0])]
    generators = [generator_for(options.seed, kind, step, first_row + i) for i in range(len(rows))]
    if options.stage == "retrieval":
        return _joined(
            [
                retrieval.draw(row.hr, row.lr, options.shift, generator, range(first, first + length))
                for row, generator in zip(rows, generators, strict=True)
            ]
        )
    # One decision for all rows; a dropout of 0 or 1 leaves nothing to chance in the rows.
    chance = torch.rand((), generator=generator_for(options.seed, kind, "drop", step))
    drop = float(options.stage == "host" or (kind == "train" and chance < options.history_dropout))
    return _joined(
        [
            continuation.draw(row.hr, length, options.shift, generator, stride, drop, options.corruption, first)
            for row, generator in zip(rows, generators, strict=True)
        ]
    )


def _joined(draws: Sequence[Drawn]) -> Drawn:
    """One draw for several rows: tensors are concatenated, everything else is the same in all."""
    values: dict[str, Any] = {}
    for name, first in vars(draws[0]).items():
        values[name] = torch.cat([getattr(d, name) for d in draws]) if isinstance(first, Tensor) else first
    return type(draws[0])(**values)
