"""The random numbers of a training step, a pure function of seed, step and row.

Nothing depends on how many processes share a batch or on what ran before, so that resumed runs and runs on more
processes see the same numbers.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..objectives import continuation, retrieval
from ..objectives.continuation import Context, ContinuationDraw
from ..objectives.retrieval import RetrievalDraw
from .module import Batch
from .options import Stage, TrainOptions

Drawn = TypeVar("Drawn", RetrievalDraw, ContinuationDraw)
Step = int | str  # a step, or a clip of one
Draw = RetrievalDraw | ContinuationDraw
MOST_CONTEXT = 8  # latents; not from the paper


def generator_for(*parts: int | str) -> torch.Generator:
    """A generator whose seed is a hash of its arguments."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def task_of(options: TrainOptions, step: Step, kind: str) -> Stage:
    """What a step asks for: the run's stage, or retrieval in some steps of Stage II."""
    if options.stage != "continuation" or kind != "train":
        return options.stage
    chance = float(torch.rand((), generator=generator_for(options.seed, kind, "task", step)))
    return "retrieval" if chance < options.retrieval_share else options.stage


def step_of(options: TrainOptions, step: Step, row: int, kind: str) -> Step:
    """What the numbers of a row follow from: its step, or with `per_clip` the row too."""
    return f"{step}/{row}" if options.per_clip and kind == "train" and options.stage != "host" else step


def target_of(options: TrainOptions, stride: int, step: Step, kind: str, frames: int, row: int = 0) -> tuple[int, int]:
    """First latent and number of latents of what a row of a step asks for, of clips of `frames` latents: Omega or the
    section.

    The same in all rows of a step unless `per_clip`. Raises ValueError when the clips are too short.
    """
    step = step_of(options, step, row, kind)
    generator = generator_for(options.seed, kind, "target", step)
    task = task_of(options, step, kind)
    if task == "retrieval":
        omega = retrieval.draw_omega(frames, generator, stride)
        return omega.start, len(omega)
    section = section_of(options, step, kind, frames)
    aligned = _aligned(options, generator)
    if aligned:
        stride = math.lcm(stride if task == "continuation" else 1, options.section)
    if task == "host" and not aligned:
        return int(torch.randint(0, frames - section + 1, (), generator=generator)), section
    return continuation.draw_history(frames, section, stride, generator), section


def _aligned(options: TrainOptions, generator: torch.Generator) -> bool:
    """Whether a section starts where one of a film does: the first number of a target's generator.

    With a share of 0 it is asked for nothing, so that the draws of earlier runs stay as they were.
    """
    return options.aligned > 0 and float(torch.rand((), generator=generator)) < options.aligned


def _window_of(options: TrainOptions, step: Step, kind: str, first: int, cut: bool) -> int:
    """Latents of the sliding window before a section of Stage II; none after a cut: where the captions say that one is
    there, and where a section starts as one of a film does."""
    if options.stage != "continuation" or cut:
        return 0
    if _aligned(options, generator_for(options.seed, kind, "target", step)):
        return 0
    chance = float(torch.rand((), generator=generator_for(options.seed, kind, "window", step)))
    return min(options.window, first) if chance < options.window_share else 0


def history_of(options: TrainOptions, stride: int, frames: int) -> tuple[int, int]:
    """Latents of the longest history in whole cells before a section of a clip, and those of the section."""
    section = section_of(options, 0, "heldout", frames)
    return 1 + (frames - section - 1) // stride * stride, section


def section_of(options: TrainOptions, step: Step, kind: str, frames: int) -> int:
    """Latents of the section that a step makes of clips of `frames` latents; at most half of a clip too short for it.

    Raises ValueError when the clips are so short that nothing comes before it.
    """
    length = options.section if frames > options.section else frames // 2
    if length < 1:
        raise ValueError(f"clips of {frames} latents have no history before a section of {options.section}; use longer")
    if kind == "train" and options.stage == "continuation":
        generator = generator_for(options.seed, kind, "section", step)
        if float(torch.rand((), generator=generator)) < options.shorter_share:
            return int(torch.randint(1, length + 1, (), generator=generator))
    return length


TOGETHER = (
    "weights are split over processes (FSDP): the clips of a batch share task, frames, section and dropout, as with "
    "per_clip off, since the processes exchange gradients that all of them must have"
)


def drawn_for(options: TrainOptions, split: bool) -> TrainOptions:
    """The options that batches are drawn with. split: weights are split over processes.

    Those then exchange the gradients that are there: clips with tasks and dropouts of their own would leave a process
    without some that others have, and the exchange would never end.
    """
    return replace(options, per_clip=False) if split else options


def draw_rows(
    batch: Batch, options: TrainOptions, stride: int, step: int, first_row: int, kind: str = "train"
) -> Draw | tuple[Draw, ...]:
    """Draws for the rows of one process; with `per_clip` one for each row, since their shapes differ.

    Whether a clip's section begins with a cut counts there alone: rows that are drawn together share a sliding window.
    """
    keys = [step_of(options, step, first_row + i, kind) for i in range(batch.hr.shape[0])]
    if keys[0] == step:
        return draw_together(batch, options, stride, step, first_row, kind)
    shared = replace(options, per_clip=False)  # their key says the row
    rows = [batch.rows(i, i + 1) for i in range(len(keys))]
    return tuple(
        draw_together(row, shared, stride, key, first_row + i, kind, cut=any(row.cuts))
        for i, (row, key) in enumerate(zip(rows, keys, strict=True))
    )


def draw_together(
    batch: Batch,
    options: TrainOptions,
    stride: int,
    step: Step,
    first_row: int,
    kind: str = "train",
    asked: tuple[Stage, int, int] | None = None,
    cut: bool = False,
) -> Draw:
    """One draw for all rows, whose shapes, places and dropout are the same.

    asked: task, first latent and number of latents, which are drawn too otherwise. cut: the section begins with one, so
    that no sliding window is shown. With a kind other than `train` nothing is dropped. What is asked for on its own is
    retrieved from a clip of which nothing is masked, all other retrieval masks as often as training does.
    """
    first, length = asked[1:] if asked else target_of(options, stride, step, kind, batch.hr.shape[2])
    task = asked[0] if asked else task_of(options, step, kind)
    levels = (options.min_t, options.max_t)
    rows = [batch.rows(i, i + 1) for i in range(batch.hr.shape[0])]
    generators = [generator_for(options.seed, kind, step, first_row + i) for i in range(len(rows))]
    if task == "retrieval":
        chance = float(torch.rand((), generator=generator_for(options.seed, kind, "clean", step)))
        clean = asked is not None or chance < options.clean_share
        return _joined(
            [
                retrieval.draw(row.hr, row.lr, options.shift, generator, range(first, first + length), clean, levels)
                for row, generator in zip(rows, generators, strict=True)
            ]
        )
    # One decision for all rows; a dropout of 0 or 1 leaves nothing to chance in the rows.
    chance = float(torch.rand((), generator=generator_for(options.seed, kind, "drop", step)))
    context = None
    if options.stage == "host":
        drop = chance >= options.context
        context = None if drop else _context(options, step, kind, batch, first)
    else:
        drop = kind == "train" and chance < options.history_dropout
    drawn = _joined(
        [
            continuation.draw(
                row.hr, length, options.shift, generator, stride, float(drop), options.corruption, first, levels, row.lr
            )
            for row, generator in zip(rows, generators, strict=True)
        ]
    )
    return replace(drawn, context=context, window=_window_of(options, step, kind, first, cut))


def _context(options: TrainOptions, step: Step, kind: str, batch: Batch, section: int) -> Context:
    """What a host sees beside its section; it may hold the section itself, which teaches to look frames up by time."""
    generator = generator_for(options.seed, kind, "context", step)
    frames = batch.hr.shape[2]
    if batch.lr and float(torch.rand((), generator=generator)) < options.coarse:
        whole = section == 0 or bool(torch.rand((), generator=generator) >= options.before)
        return Context(0, frames if whole else section, coarse=True)
    if section and float(torch.rand((), generator=generator)) < options.before:
        frames = section
    length = int(torch.randint(1, min(MOST_CONTEXT, frames) + 1, (), generator=generator))
    start = int(torch.randint(0, frames - length + 1, (), generator=generator))
    return Context(start, start + length, coarse=False)


def _joined(draws: Sequence[Drawn]) -> Drawn:
    """One draw for several rows: tensors are concatenated, everything else is the same in all."""
    return type(draws[0])(**{name: _rows([getattr(d, name) for d in draws]) for name in vars(draws[0])})


def _rows(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return {key: _rows([value[key] for value in values]) for key in values[0]}
    return torch.cat(list(values)) if isinstance(values[0], Tensor) else values[0]


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Leaves the global random states of Python, NumPy and PyTorch (CPU and `device`) as they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    kind = device.type if device.type in ("cuda", "xpu") else None  # others have no state that can be set aside
    places = [] if kind is None else [device.index or 0]
    try:
        with torch.random.fork_rng(places, device_type=kind or "cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
