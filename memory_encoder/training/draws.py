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


def draw_rows(
    batch: Batch, options: TrainOptions, stride: int, step: int, first_row: int, kind: str = "train"
) -> RetrievalDraw | ContinuationDraw:
    """Draws for the rows of one process; Omega and the history's length are common to all rows of a step."""
    common = generator_for(options.seed, kind, step)
    rows = [batch.rows(i, i + 1) for i in range(batch.hr.shape[0])]
    generators = [generator_for(options.seed, kind, step, first_row + i) for i in range(len(rows))]
    frames = batch.hr.shape[2]
    if options.stage == "retrieval":
        omega = retrieval.draw_omega(frames, common)
        return _joined(
            [
                retrieval.draw(row.hr, row.lr, options.shift, generator, omega)
                for row, generator in zip(rows, generators, strict=True)
            ]
        )
    history = continuation.draw_history(frames, options.section, stride, common)
    drop = float(torch.rand((), generator=common) < options.history_dropout)
    return _joined(
        [
            continuation.draw(
                row.hr, options.section, options.shift, generator, stride, drop, options.corruption, history
            )
            for row, generator in zip(rows, generators, strict=True)
        ]
    )


def _joined(draws: Sequence[Drawn]) -> Drawn:
    """One draw for several rows: tensors are concatenated, everything else is the same in all."""
    values: dict[str, Any] = {}
    for name, first in vars(draws[0]).items():
        values[name] = torch.cat([getattr(d, name) for d in draws]) if isinstance(first, Tensor) else first
    return type(draws[0])(**values)
