"""What a memory must know of the end of an earlier section to go on from there, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..phi.encoder import StreamState

_TENSORS = ("tail", "tail_coordinates", "recent")
_OPTIONAL = ("lr_frames", "tail_hidden")


@dataclass(frozen=True)
class Boundary:
    """The memory as it was at a boundary, without what it shares with the later one.

    tokens: how many of the final tokens lie before it. The other fields are those of VideoMemory; `state` comes without
    features, whose beginning is shared as well. Its size does not grow with the film.
    """

    tokens: int
    tail: Tensor
    tail_coordinates: Tensor
    recent: Tensor
    state: StreamState = field(repr=False)
    lr_frames: Tensor | None = None
    tail_hidden: Tensor | None = None
    origin: int = 0

    def after(self, tokens: int, latents: int) -> Boundary:
        """The boundary when `tokens` tokens of `latents` latents are put in front of its film."""
        places = self.tail_coordinates.clone()
        places[:, 0] += latents
        return replace(self, tokens=self.tokens + tokens, tail_coordinates=places, origin=self.origin + latents)

    def to_parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and description, for a file."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors |= {f"cache.{i}": cache for i, cache in enumerate(self.state.caches)}
        tensors |= {name: value for name in _OPTIONAL if (value := getattr(self, name)) is not None}
        return tensors, {
            "tokens": self.tokens,
            "latents": self.state.latents,
            "size": self.state.size,
            "caches": len(self.state.caches),
            "origin": self.origin,
        }

    @classmethod
    def from_parts(cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Boundary:
        """What `to_parts` gave; raises KeyError or TypeError when something is missing."""
        state = StreamState(
            latents=int(described["latents"]),
            size=(int(described["size"][0]), int(described["size"][1])),
            caches=tuple(tensors[f"cache.{i}"] for i in range(int(described["caches"]))),
        )
        values: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
        values |= {name: tensors.get(name) for name in _OPTIONAL}
        return cls(tokens=int(described["tokens"]), state=state, origin=int(described["origin"]), **values)
