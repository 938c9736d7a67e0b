"""The end of a history: what a memory must know of it to go on from there, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from ..phi.config import EncoderConfig
from ..phi.stream import StreamState
from .kept import of_part, read_state, state_damage_named

T = TypeVar("T", bound="Tail")
_TENSORS = ("tail", "tail_coordinates", "recent")
_OPTIONAL = ("lr_frames", "tail_hidden")
_OF_STATE = ("features", "lr")
MOST_LATENTS = 1_000_000  # and the most tokens of one section: far beyond any film


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

    def check_end(self, config: EncoderConfig, batch: int) -> None:
        """Raises ValueError for an end whose shapes, types and counts do not fit each other and the encoder."""
        state, (height, width) = self.state, self.state.size
        counts = (state.latents, height, width, self.origin)
        if not all(0 <= count <= MOST_LATENTS for count in counts):
            raise ValueError("its length or size is not possible")
        check_shape("tail", self.tail, (batch, None, config.width))
        check_shape(
            "tail_coordinates", self.tail_coordinates, (self.tail.shape[1], *self.tail_coordinates.shape[1:-1], 3)
        )
        check_shape("recent", self.recent, (batch, config.latent_channels, None, height, width))
        if self.tail_hidden is not None:
            check_shape("tail_hidden", self.tail_hidden, (batch, self.tail.shape[1], None))
        if self.lr_frames is not None:
            check_shape("lr_frames", self.lr_frames, (batch, None, None, None, 3))
        parts = {f"cache.{number}": cache for number, cache in enumerate(state.caches)}
        for name, value in (parts | {name: getattr(state, name) for name in _OF_STATE}).items():
            if value is not None:
                check_shape(name, value, (batch, None, None, None, None))

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

    def read(self) -> Boundary:
        """Itself; see `KeptEnd`."""
        return self

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and description, for a file."""
        tensors, described = self.end_to_tensors()
        return tensors, described | {"tokens": self.tokens}

    @classmethod
    def from_tensors(cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Boundary:
        """What `to_tensors` gave; raises KeyError or TypeError when something is missing."""
        return cls(tokens=int(described["tokens"]), **end_from_tensors(described, tensors))


@dataclass(frozen=True)
class KeptEnd:
    """A boundary that lies in the file of a kept state, as the end of its memory number `part` (see `delta`).

    moved: latents in front of the film since it was written.
    """

    path: Path
    part: int
    tokens: int
    moved: int = 0

    def after(self, tokens: int, latents: int) -> KeptEnd:
        """As in Boundary."""
        return replace(self, tokens=self.tokens + tokens, moved=self.moved + latents)

    def read(self) -> Boundary:
        """The boundary; raises ValueError that names the file when it is gone or damaged, OSError when unreadable."""
        with state_damage_named(self.path):
            tensors, described = read_state(self.path)
            found, one = of_part(tensors, self.part), described["parts"][self.part]
            end = end_from_tensors(one, {name: found[name] for name in found if name not in _OF_STATE})
            return Boundary(tokens=self.tokens, **end).moved(self.moved)


SectionEnd: TypeAlias = Boundary | KeptEnd


def check_shape(name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError for a tensor that is not of floats or not of this shape; None is any length."""
    fits = value.ndim == len(shape) and all(want in (None, size) for want, size in zip(shape, value.shape, strict=True))
    if not fits or not value.is_floating_point():
        raise ValueError(f"{name} is {value.dtype} of shape {tuple(value.shape)}, which does not fit")


def later(coordinates: Tensor, latents: int) -> Tensor:
    """Coordinates [M,3] moved along time."""
    return coordinates + coordinates.new_tensor([latents, 0, 0]) if latents else coordinates
