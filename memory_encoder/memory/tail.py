"""The end of a history: what a memory must know of it to go on from there, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from torch import Tensor

from ..phi.stream import StreamState

T = TypeVar("T", bound="Tail")
_TENSORS = ("tail", "tail_coordinates", "recent")
_OPTIONAL = ("lr_frames", "tail_hidden")
_OF_STATE = ("features", "lr")


@dataclass(frozen=True, kw_only=True)
class Tail:
    """The unfinished cell, the last latents, and what phi streams on with. Its size does not grow with the film.

    tail [B,M',D] with tail_coordinates [M',3] and tail_hidden [B,M',C] belongs to the last, unfinished cell and is
    replaced by the next append. recent [B,C,k,H,W] holds the last normalised latents, uncompressed. lr_frames
    [B,k,h,w,3] are the down-sampled pictures that the LR branch still needs. origin: latents in front of those that
    `state` counts, in a memory joined to another.
    """

    tail: Tensor
    tail_coordinates: Tensor
    recent: Tensor
    state: StreamState = field(repr=False)
    lr_frames: Tensor | None = field(default=None, repr=False)
    tail_hidden: Tensor | None = None
    origin: int = 0

    def end(self) -> dict[str, Any]:
        """The fields of Tail by name, to go on with elsewhere."""
        return {one.name: getattr(self, one.name) for one in fields(Tail)}

    def moved(self: T, latents: int) -> T:
        """The same end with `latents` latents put in front of its film."""
        return replace(self, tail_coordinates=later(self.tail_coordinates, latents), origin=self.origin + latents)

    def end_to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and description, for a file."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors |= {f"cache.{i}": cache for i, cache in enumerate(self.state.caches)}
        optional = {name: getattr(self, name) for name in _OPTIONAL}
        optional |= {name: getattr(self.state, name) for name in _OF_STATE}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        return tensors, {
            "latents": self.state.latents,
            "size": self.state.size,
            "caches": len(self.state.caches),
            "origin": self.origin,
        }


def end_from_tensors(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of Tail from what `end_to_tensors` gave; raises KeyError or TypeError when something is missing."""
    state = StreamState(
        latents=int(described["latents"]),
        size=(int(described["size"][0]), int(described["size"][1])),
        caches=tuple(tensors[f"cache.{i}"] for i in range(int(described["caches"]))),
        **{name: tensors.get(name) for name in _OF_STATE},
    )
    values: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
    values |= {name: tensors.get(name) for name in _OPTIONAL}
    return values | {"state": state, "origin": int(described.get("origin", 0))}


@dataclass(frozen=True, kw_only=True)
class Boundary(Tail):
    """The end of an earlier section, without what it shares with the later memory.

    tokens: how many of the final tokens lie before it. `state` comes without features, whose beginning is shared too.
    """

    tokens: int

    def after(self, tokens: int, latents: int) -> Boundary:
        """The boundary when `tokens` tokens of `latents` latents are put in front of its film."""
        return replace(self.moved(latents), tokens=self.tokens + tokens)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and description, for a file."""
        tensors, described = self.end_to_tensors()
        return tensors, described | {"tokens": self.tokens}

    @classmethod
    def from_tensors(cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Boundary:
        """What `to_tensors` gave; raises KeyError or TypeError when something is missing."""
        return cls(tokens=int(described["tokens"]), **end_from_tensors(described, tensors))


def later(coordinates: Tensor, latents: int) -> Tensor:
    """Coordinates [M,3] moved along time."""
    return coordinates + coordinates.new_tensor([latents, 0, 0]) if latents else coordinates
