"""VideoMemory: the compressed history of a film, append-only, with what is needed to append more."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..files import remove_abandoned, save_tensors, unreadable
from ..frames import frames_in
from ..phi.config import EncoderConfig, checked_json
from ..phi.stream import Encoded, StreamState
from .tail import Boundary, Tail, end_from_tensors, later

MEMORY_FORMAT = "video_memory"
MEMORY_SCHEMA_VERSION = 1
_OPTIONAL = ("hidden", "picture")


@dataclass(frozen=True)
class SectionRecord:
    """One appended section: its place on the film's latent lattice and what it was made of."""

    start_latent: int
    latents: int
    tokens: int
    prompt: str = ""
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class VideoMemory(Tail):
    """Memory tokens of a film of `latents` latent frames, and the end from which it goes on (see Tail).

    tokens [B,M,D] with coordinates [M,3] (time, height, width) in token-grid units from the film's first latent are
    final. encoder_id names the weights that made it. hidden [B,M,C] are phi's hidden states at the same places, for
    encoders with cross-attention. others are memories of the same history by further encoders (paper section 4.5):
    what enters the host is the tokens of all. boundaries say, for every section but the last, how to go on from its
    end (see `branching`), None where that is not known. picture [B,N,D] are tokens of the film's first picture, for
    hosts that have them in front of the text. Values are never changed in place.
    """

    config: EncoderConfig
    tokens: Tensor
    coordinates: Tensor
    sections: tuple[SectionRecord, ...] = ()
    encoder_id: str = ""
    hidden: Tensor | None = None
    others: tuple[VideoMemory, ...] = ()
    boundaries: tuple[Boundary | None, ...] = field(default=(), repr=False)
    picture: Tensor | None = None

    @property
    def parts(self) -> tuple[VideoMemory, ...]:
        """One memory for each encoder, this one first."""
        return (self, *self.others)

    @property
    def latents(self) -> int:
        return self.origin + self.state.latents

    @property
    def token_count(self) -> int:
        return sum(part.tokens.shape[1] + part.tail.shape[1] for part in self.parts)

    def all_tokens(self) -> Tensor:
        """All memory tokens [B, token_count, D], for each encoder in the order of the film."""
        return torch.cat([tokens for part in self.parts for tokens in (part.tokens, part.tail)], dim=1)

    def all_coordinates(self) -> Tensor:
        """Coordinates [token_count, 3] of `all_tokens`, or [token_count, P, 3] (see `phi.recent`)."""
        places = [places for part in self.parts for places in (part.coordinates, part.tail_coordinates)]
        return torch.cat([one for one in places if len(one)] or places)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its latents."""
        return self.state.size

    @property
    def batch(self) -> int:
        """How many clips it is of."""
        return self.tokens.shape[0]

    @property
    def frames(self) -> int:
        """Frames that its latents hold."""
        return frames_in(self.latents)

    def contents(self) -> Tensor:
        """What a section that reads it is made of, for the section's key."""
        return self.all_tokens()

    def extended(
        self, encoded: Encoded, recent: Tensor, lr_frames: Tensor | None, prompt: str = "", seed: int | None = None
    ) -> VideoMemory:
        """The memory after one more section; `self` stays valid, so a film can branch."""
        record = SectionRecord(
            start_latent=self.latents,
            latents=encoded.state.latents - self.state.latents,
            tokens=encoded.tokens.shape[1] + encoded.tail.shape[1] - self.tail.shape[1],
            prompt=prompt,
            seed=seed,
        )
        return replace(
            self,
            tokens=torch.cat([self.tokens.to(encoded.tokens.dtype), encoded.tokens], dim=1),
            coordinates=torch.cat([self.coordinates, later(encoded.coordinates, self.origin)]),
            tail=encoded.tail,
            tail_coordinates=later(encoded.tail_coordinates, self.origin),
            recent=recent,
            # Caches are views that would keep whole activations alive.
            state=replace(encoded.state, caches=tuple(cache.clone() for cache in encoded.state.caches)),
            lr_frames=lr_frames,
            sections=(*self.sections, record),
            hidden=concatenated(self.hidden, encoded.hidden),
            tail_hidden=encoded.tail_hidden,
            boundaries=self.boundaries_with_end(),
        )

    def boundaries_with_end(self) -> tuple[Boundary | None, ...]:
        """One for each section, the last one too; None for those in files that were written without."""
        unknown = len(self.sections) - 1 - len(self.boundaries)
        return (*self.boundaries, *[None] * unknown, self._boundary()) if self.sections else ()

    def _boundary(self) -> Boundary | None:
        """How to go on from the end; None where all tokens are made anew with each section and are many: with `full`
        attention, and for hosts that were trained to read their last latents."""
        if self.config.attention == "full" or self.config.locked:
            return None
        end: dict[str, Any] = self.end() | {"state": replace(self.state, features=None, lr=None)}
        return Boundary(tokens=self.tokens.shape[1], **end)

    @classmethod
    def empty(cls, config: EncoderConfig, batch: int = 1, encoder_id: str = "") -> VideoMemory:
        """A memory of nothing: no tokens, which leaves the host as it is."""
        return cls(
            config=config,
            tokens=torch.zeros(batch, 0, config.width),
            coordinates=torch.zeros(0, 3),
            tail=torch.zeros(batch, 0, config.width),
            tail_coordinates=torch.zeros(0, 3),
            recent=torch.zeros(batch, config.latent_channels, 0, 0, 0),
            state=StreamState(),
            encoder_id=encoder_id,
        )

    def save(self, path: Path) -> None:
        """Writes a safetensors file atomically: tokens, stream state and metadata with a schema version."""
        tensors, config = self._to_tensors()
        for number, other in enumerate(self.others, 1):
            found, described = other._to_tensors()
            tensors |= {f"{number}.{name}": value for name, value in found.items()}
            config.setdefault("others", []).append(described)
        metadata = {
            "format": MEMORY_FORMAT,
            "schema_version": str(MEMORY_SCHEMA_VERSION),
            "config": json.dumps(config),
        }
        remove_abandoned(path.parent)
        save_tensors(tensors, path, metadata)

    @classmethod
    def load(cls, path: Path) -> VideoMemory:
        """Reads a saved memory.

        Raises ValueError that names the file when it is damaged, foreign or too new, OSError when it cannot be read.
        """
        config, tensors = read_memory(path, {MEMORY_FORMAT: MEMORY_SCHEMA_VERSION})[1:]
        with damage_named(path):
            return cls.from_file(config, tensors, path.name)

    @classmethod
    def from_file(cls, config: dict[str, Any], tensors: dict[str, Tensor], source: str) -> VideoMemory:
        """What `save` wrote; raises ValueError and the like when something is missing or wrong."""
        others = tuple(
            cls._from_tensors(described, _below(f"{number}.", tensors), source)
            for number, described in enumerate(config.get("others", []), 1)
        )
        return replace(cls._from_tensors(config, tensors, source), others=others)

    def _to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and description of one encoder's memory."""
        tensors, described = self.end_to_tensors()
        tensors |= {"tokens": self.tokens, "coordinates": self.coordinates}
        tensors |= {name: value for name in _OPTIONAL if (value := getattr(self, name)) is not None}
        boundaries: list[dict[str, Any] | None] = []
        for number, boundary in enumerate(self.boundaries):
            found, end = boundary.to_tensors() if boundary else ({}, None)
            tensors |= {f"boundary.{number}.{name}": value for name, value in found.items()}
            boundaries.append(end)
        return tensors, described | {
            "encoder": asdict(self.config),
            "encoder_id": self.encoder_id,
            "boundaries": boundaries,
            "sections": [asdict(record) for record in self.sections],
        }

    @classmethod
    def _from_tensors(cls, config: dict, tensors: dict[str, Tensor], source: str) -> VideoMemory:
        boundaries = (
            described and Boundary.from_tensors(described, _below(f"boundary.{number}.", tensors))
            for number, described in enumerate(config.get("boundaries", []))
        )
        memory = cls(
            config=EncoderConfig.from_dict(config["encoder"], source),
            tokens=tensors["tokens"],
            coordinates=tensors["coordinates"],
            **{name: tensors.get(name) for name in _OPTIONAL},
            sections=tuple(SectionRecord(**record) for record in config["sections"]),
            encoder_id=str(config["encoder_id"]),
            boundaries=tuple(boundaries),
            **end_from_tensors(config, tensors),
        )
        counts = {
            memory.tokens.shape[1] - memory.coordinates.shape[0],
            memory.tail.shape[1] - len(memory.tail_coordinates),
        }
        if counts != {0} or memory.tokens.shape[-1] != memory.config.width:
            raise ValueError(f"video memory {source} is inconsistent; compress the history again")
        return memory


def read_memory(path: Path, formats: Mapping[str, int]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Format, description and tensors of a memory's file; `formats` are those known, with the newest schema of each.

    Raises ValueError that names the file when it is damaged, foreign or too new, OSError when it cannot be read.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except OSError as error:
        raise unreadable(path, error) from error
    except (SafetensorError, LookupError, AttributeError, ValueError) as error:
        raise ValueError(f"video memory {path.name} cannot be read ({error}); compress the history again") from error
    kind = metadata.get("format", "")
    if kind not in formats:
        raise ValueError(f"{path.name} is not a video memory; choose a file made by Save Video Memory")
    return kind, checked_json(metadata, formats[kind], path.name), tensors


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a memory is built from its file into ValueError that names the file."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, ValueError) and path.name in str(error):
            raise  # in our own words
        raise ValueError(
            f"video memory {path.name} is incomplete or damaged ({str(error)[:200]}); compress the history again"
        ) from error


def concatenated(*parts: Tensor | None) -> Tensor | None:
    """Concatenation along the tokens of the parts that are there, in the type of the last."""
    found = [part for part in parts if part is not None]
    return torch.cat([part.to(found[-1].dtype) for part in found], dim=1) if found else None


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
