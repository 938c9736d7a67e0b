"""What the held-out loss is made of: by task, by how far back in time, and what it would be without a memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..objectives.continuation import ContinuationDraw
from ..objectives.flow import velocity
from ..objectives.retrieval import OMEGA_SIZES, RetrievalDraw, cell_spans
from .draws import draw_together, history_of
from .module import Batch
from .options import Stage, TrainOptions
from .run_files import points_of
from .source import Target

THIRDS = ("newest", "middle", "oldest")  # of the clip
WITHOUT_MEMORY, NOTHING = "without memory", "predicting nothing"

Rows = Callable[[Target], Batch]
Loss = Callable[[Batch, Any], Tensor]


@torch.no_grad()
def heldout_parts(
    options: TrainOptions, stride: int, index: int, first_row: int, rows: Rows, loss: Loss
) -> dict[str, Tensor]:
    """Losses on one batch of held-out clips, the one with number `index`, with the same random numbers every time.

    rows: the batch, given which latents a clip of some length is asked for. loss: of a batch and its draws; where
    processes share a batch all of them must call this. `retrieval newest`, `middle`, `oldest`: frames of that third of
    the clip, nothing masked, from its memory. `continuation`: the next section, from the memory alone, since a sliding
    window would tell what no memory has to. `without memory`: the last of these
    with no memory. `predicting nothing`: its E|v|^2, what a model that always answers zero would have.
    """
    asked: list[tuple[str, Stage, Callable[[int], tuple[int, int]]]] = [
        (f"retrieval {name}", "retrieval", _third(place, stride)) for place, name in enumerate(THIRDS)
    ]
    if options.stage == "continuation":
        asked.append(("continuation", "continuation", lambda frames: history_of(options, stride, frames)))
    parts: dict[str, Tensor] = {}
    for name, task, target in asked:
        batch = rows(lambda frames, row, asked=target: asked(frames))
        first, length = target(batch.hr.shape[2])
        drawn = draw_together(batch, options, stride, index, first_row, "heldout", asked=(task, first, length))
        drawn = replace(drawn, window=0) if isinstance(drawn, ContinuationDraw) else drawn
        parts[name] = loss(batch, drawn)
        if name == asked[-1][0]:
            shown = batch.hr[:, :, first : first + length]
            parts[WITHOUT_MEMORY] = loss(batch, _alone(drawn, first, length))
            parts[NOTHING] = velocity(shown, drawn.noise.to(shown)).float().square().mean()
    return parts


def describe_parts(parts: Mapping[str, float]) -> str:
    """In a line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in parts.items())


def baselines_in(entries: list[Any]) -> dict[str, Any]:
    """Of entries of a run's losses: `without_memory`, points [step, held-out loss without a memory], and `nothing`, the
    loss of predicting nothing, None where it was not measured.
    """
    parts = [{**entry["parts"], "step": entry["step"]} for entry in entries if isinstance(entry.get("parts"), dict)]
    nothing = points_of(parts, NOTHING)
    return {"without_memory": points_of(parts, WITHOUT_MEMORY), "nothing": nothing[-1][1] if nothing else None}


def _third(place: int, stride: int) -> Callable[[int], tuple[int, int]]:
    """The whole cells in the middle of a third of a clip, counted from its end."""

    def target(frames: int) -> tuple[int, int]:
        spans = cell_spans(frames, stride)
        count = min(max(1, max(OMEGA_SIZES) // stride), len(spans))
        middle = len(spans) * (2 * (len(THIRDS) - 1 - place) + 1) // (2 * len(THIRDS))
        start = min(max(0, middle - count // 2), len(spans) - count)
        return spans[start].start, spans[start + count - 1].stop - spans[start].start

    return target


def _alone(drawn: RetrievalDraw | ContinuationDraw, first: int, length: int) -> ContinuationDraw:
    """The same frames, noise and timesteps, without a memory."""
    return ContinuationDraw(first, length, drawn.t, drawn.noise, True, None, None)
