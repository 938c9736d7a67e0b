"""A horizon: which tokens of a long film the host sees when all of them are more than it shall see.

The near past at the finest rate of the memory's encoders, what is before it at the next one, and so on; of what is
further back than the coarsest can hold an even share of its tokens. As every section was compressed at every rate when
it was made, this is what compressing the far past anew from its latents would give, at no cost. Where there is one
encoder the near past is whole and the rest is thinned. The choice follows from places alone, so that it is the same
however a film came about. Not from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..memory.video_memory import VideoMemory

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def spread_order(count: int) -> Tensor:
    """An order of `count` things in which the first ones, however many are taken, are evenly spread."""
    return torch.arange(1, count + 1, dtype=torch.float64) * _GOLDEN_RATIO % 1


def within_horizon(memory: VideoMemory, budget: int) -> list[Tensor] | None:
    """For each encoder the indices of the tokens that are seen, at most `budget` in all; None: all of all encoders."""
    if not budget or memory.token_count <= budget:
        return None
    times = [part.coordinates.followed_by(part.tail_coordinates).whole()[:, 0] for part in memory.parts]
    return near_and_far(times, [part.config.stride[0] for part in memory.parts], budget)


def seen_tokens(memory: VideoMemory, budget: int) -> tuple[Tensor, Tensor]:
    """Tokens [B,M,D] within the horizon and their coordinates, for each encoder in the order of the film."""
    chosen = within_horizon(memory, budget)
    if chosen is None:
        return memory.all_tokens(), memory.all_coordinates()
    pairs = list(zip(memory.parts, chosen, strict=True))
    tokens = [part.tokens.followed_by(part.tail).picked(indices) for part, indices in pairs]
    places = [part.coordinates.followed_by(part.tail_coordinates).picked(indices) for part, indices in pairs]
    return torch.cat(tokens, dim=1), torch.cat(places)


def near_and_far(times: Sequence[Tensor], strides: Sequence[int], budget: int) -> list[Tensor]:
    """For each encoder the indices of at most `budget` tokens in all, near ones at fine rates and far ones at coarse.

    times: of each encoder's tokens, ascending: midpoints of cells of its stride, in latents.
    """
    chosen = [torch.zeros(0, dtype=torch.long) for _ in times]
    levels = sorted(range(len(times)), key=lambda number: -len(times[number]))  # fine to coarse
    left, begins, start = budget, float("inf"), 0  # begins: the time from which on the film is seen
    for place, number in enumerate(levels):
        cells = times[number] - (strides[number] - 1) / 2  # where they begin
        end, start = int((cells < begins).sum()), 0
        if end > left:
            share = left // (len(levels) - place + 1)  # one of them is for what is thinned
            if place + 1 < len(levels):
                share = max(share, _before_coarser(times[number][:end], times[levels[place + 1]], left))
            start = int((times[number][:end] <= times[number][end - share - 1]).sum())  # whole time steps
        chosen[number] = torch.arange(start, end)
        left -= end - start
        if not start:
            return chosen
        begins = float(cells[start]) if start < end else begins
    thinned = spread_order(start).argsort()[:left].sort().values
    chosen[levels[-1]] = torch.cat([thinned, chosen[levels[-1]]])
    return chosen


def _before_coarser(fine: Tensor, coarse: Tensor, left: int) -> int:
    """How many of the last tokens of `fine` leave room for all before them at the coarser rate."""
    ratio, step = len(coarse) / len(fine), int((coarse == coarse[-1]).sum())
    return 0 if ratio >= 1 else int((left - 2 * step - ratio * len(fine)) / (1 - ratio))
