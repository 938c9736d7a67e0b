"""Arguments that differ from row to row of a batch, and which rows a host can run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...injection.hosts.base import non_blocking

MASK = "attention_mask"
Rows = Tensor | Sequence[Tensor | None]
"""A tensor [B,...] or, where rows differ in length, one [1,...] for each row, None where a row has none."""


def together(values: Sequence[Tensor | None]) -> Rows:
    """Tensors [1,...] of all rows as one where their shapes are equal."""
    present = [value for value in values if value is not None]
    alike = len(present) == len(values) and len({value.shape for value in present}) == 1
    return torch.cat(present) if alike else tuple(values)


def moved(rows: Rows, device: torch.device) -> Rows:
    apart = non_blocking(device)
    if isinstance(rows, Tensor):
        return rows.to(device, non_blocking=apart)
    return tuple(row if row is None else row.to(device, non_blocking=apart) for row in rows)


Pass = tuple[list[int], dict[str, Tensor]]


def passes(arguments: Mapping[str, Rows], count: int, single: bool = False) -> list[Pass]:
    """The passes that a host makes of `count` rows: the rows of each and their arguments.

    As in core's sampling, rows go together when what they have is of equal shape. single: each row on its own, as
    core's HunyuanVideo takes rows with an attention mask.
    """
    if not single and all(isinstance(value, Tensor) for value in arguments.values()):
        return [(list(range(count)), dict(arguments))]  # type: ignore[arg-type]
    rows = []
    for place in range(count):
        own = {name: value[place : place + 1] for name, value in arguments.items()}
        rows.append({name: v if isinstance(v, Tensor) else v[0] for name, v in own.items()})
    found: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        shapes = tuple((name, None if value is None else tuple(value.shape)) for name, value in row.items())
        found.setdefault(place if single else shapes, []).append(place)
    return [
        (places, {n: torch.cat([rows[p][n] for p in places]) for n, v in rows[places[0]].items() if v is not None})
        for places in found.values()
    ]
