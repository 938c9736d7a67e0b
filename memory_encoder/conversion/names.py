"""From the names of one library to those of another, with no key left over: tables of names, and what is fused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .weights import Checkpoint, ConversionError, Made

ENDS = ("weight", "bias")


@dataclass(frozen=True)
class Table:
    """Names below a prefix, `{}` standing for a block's number in both prefixes.

    simple: old name to new name, without `.weight` and `.bias`; parameters without them are whole names. fused: new
    name to the old ones whose rows follow each other in it. made: new name to an old one, and how its tensor changes.
    """

    source: str
    target: str
    simple: Mapping[str, str]
    fused: Mapping[str, tuple[str, ...]] | None = None
    made: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] | None = None


def converted(checkpoint: Checkpoint, tables: Sequence[Table]) -> tuple[list[Made], list[str]]:
    """The tensors that the tables make of a checkpoint, and the keys that they do not name.

    Raises ConversionError for a checkpoint that lacks what a table names.
    """
    result: list[Made] = []
    used: set[str] = set()
    for table in tables:
        for number in _numbers(checkpoint, table):
            source, target = table.source.format(number), table.target.format(number)
            for new, names, make in _steps(table):
                found = _tensors(checkpoint, [source + name for name in names])
                for end, keys in found.items():
                    rows = sum(checkpoint.shape(key)[0] for key in keys)
                    shape = (rows, *checkpoint.shape(keys[0])[1:])
                    result.append(Made(f"{target}{new}{end}", tuple(keys), shape, make))
                    used.update(keys)
    return result, [key for key in checkpoint.names if key not in used]


def check_nothing_left(left: Sequence[str], what: str, name: str) -> None:
    """Raises ConversionError that names keys which nothing was made of."""
    if left:
        raise ConversionError(
            f"{name} looks like {what}, but holds {len(left)} tensors of unknown names such as {', '.join(left[:3])}; "
            "give the published checkpoint, without LoRAs or quantisation of its own"
        )


def _steps(table: Table) -> list[tuple[str, tuple[str, ...], Callable[[list[Tensor]], Tensor]]]:
    steps = [(new, (old,), _first) for old, new in table.simple.items()]
    steps += [(new, olds, _rows) for new, olds in (table.fused or {}).items()]
    return steps + [
        (new, (old,), lambda tensors, change=change: change(tensors[0]))
        for new, (old, change) in (table.made or {}).items()
    ]


def _numbers(checkpoint: Checkpoint, table: Table) -> Sequence[int]:
    if "{}" not in table.source:
        return (0,)
    pattern = re.compile(re.escape(table.source).replace(r"\{\}", r"(\d+)"))
    found = {int(match[1]) for key in checkpoint.names if (match := pattern.match(key))}
    return range(max(found) + 1) if found else ()


def _tensors(checkpoint: Checkpoint, names: Sequence[str]) -> dict[str, list[str]]:
    """The keys of layers or parameters of these names, by what follows: `.weight`, `.bias` or nothing."""
    ends = ["." + end for end in ENDS if f"{names[0]}.{end}" in checkpoint] or [""]
    found = {end: [name + end for name in names] for end in ends}
    for keys in found.values():
        for key in keys:
            if key not in checkpoint:
                raise ConversionError(
                    f"{checkpoint.name} lacks {key}; give all files of the checkpoint, or download it again"
                )
    return found


def _first(tensors: list[Tensor]) -> Tensor:
    return tensors[0]


def _rows(tensors: list[Tensor]) -> Tensor:
    return torch.cat(tensors, dim=0)


def swapped_halves(tensor: Tensor) -> Tensor:
    """Scale and shift in the other order."""
    first, second = tensor.chunk(2, dim=0)
    return torch.cat([second, first], dim=0)
