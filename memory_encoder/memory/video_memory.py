"""VideoMemory: the compressed history of a film, append-only, with what is needed to append more."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..damage import check_finite, damage_named, read_tensors, shortened
from ..digests import content_digest
from ..files import remove_abandoned, save_tensors
from ..frames import frames_in
from ..phi.config import EncoderConfig, checked_json
from ..phi.stream import Encoded, StreamState
from .growing import Growing, Piece
from .tail import MOST_LATENTS, Boundary, KeptEnd, SectionEnd, Tail, check_shape, end_from_tensors, later

MEMORY_FORMAT = "video_memory"
MEMORY_SCHEMA_VERSION = 1
DIGEST = "digest"  # of the metadata: of all the rest of the file


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
    hosts that have them in front of the text. end_kept: the file in which its end lies as well, if any. Values are
    never changed in place, and nothing that was there before is copied when a section comes behind it.
    """

    config: EncoderConfig
    tokens: Growing
    coordinates: Growing
    sections: tuple[SectionRecord, ...] = ()
    encoder_id: str = ""
    hidden: Growing | None = None
    others: tuple[VideoMemory, ...] = ()
    boundaries: tuple[SectionEnd | None, ...] = field(default=(), repr=False)
    picture: Tensor | None = None
    end_kept: KeptEnd | None = field(default=None, repr=False)

    @property
    def parts(self) -> tuple[VideoMemory, ...]:
        """One memory for each encoder, this one first."""
        return (self, *self.others)

    @property
    def latents(self) -> int:
        return self.origin + self.state.latents

    @property
    def token_count(self) -> int:
        return sum(part.tokens.length + part.tail.shape[1] for part in self.parts)

    def all_tokens(self) -> Tensor:
        """All memory tokens [B, token_count, D], for each encoder in the order of the film."""
        parts = [part.tokens.followed_by(part.tail).whole() for part in self.parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def all_coordinates(self) -> Tensor:
        """Coordinates [token_count, 3] of `all_tokens`, or [token_count, P, 3] (see `phi.recent`)."""
        places = [places for part in self.parts for places in (part.coordinates.whole(), part.tail_coordinates)]
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
            tokens=self.tokens.followed_by(encoded.tokens),
            coordinates=self.coordinates.followed_by(later(encoded.coordinates, self.origin)),
            tail=encoded.tail,
            tail_coordinates=later(encoded.tail_coordinates, self.origin),
            recent=recent,
            # Caches are views that would keep whole activations alive.
            state=replace(encoded.state, caches=tuple(cache.clone() for cache in encoded.state.caches)),
            lr_frames=lr_frames,
            sections=(*self.sections, record),
            hidden=grown(self.hidden, encoded.hidden),
            tail_hidden=encoded.tail_hidden,
            boundaries=self.boundaries_with_end(),
            end_kept=None,
        )

    def boundaries_with_end(self) -> tuple[SectionEnd | None, ...]:
        """One for each section, the last one too; None for those in files that were written without."""
        unknown = len(self.sections) - 1 - len(self.boundaries)
        return (*self.boundaries, *[None] * unknown, self._boundary()) if self.sections else ()

    def _boundary(self) -> SectionEnd | None:
        """How to go on from the end; None where all tokens are made anew with each section and are many: with `full`
        attention, and for hosts that were trained to read their last latents."""
        if self.config.attention == "full" or self.config.locked:
            return None
        if self.end_kept is not None:
            return self.end_kept
        end: dict[str, Any] = self.end() | {"state": replace(self.state, features=None, lr=None)}
        return Boundary(tokens=self.tokens.length, **end)

    @classmethod
    def empty(cls, config: EncoderConfig, batch: int = 1, encoder_id: str = "") -> VideoMemory:
        """A memory of nothing: no tokens, which leaves the host as it is."""
        return cls(
            config=config,
            tokens=Growing.of(torch.zeros(batch, 0, config.width), 1),
            coordinates=Growing.of(torch.zeros(0, 3), 0),
            tail=torch.zeros(batch, 0, config.width),
            tail_coordinates=torch.zeros(0, 3),
            recent=torch.zeros(batch, config.latent_channels, 0, 0, 0),
            state=StreamState(),
            encoder_id=encoder_id,
        )

    def save(self, path: Path) -> None:
        """Writes a safetensors file atomically: tokens, stream state and metadata with schema version and checksum."""
        tensors, config = self._to_tensors()
        for number, other in enumerate(self.others, 1):
            found, described = other._to_tensors()
            tensors |= {f"{number}.{name}": value for name, value in found.items()}
            config.setdefault("others", []).append(described)
        save_memory(path, MEMORY_FORMAT, MEMORY_SCHEMA_VERSION, config, tensors)

    @classmethod
    def load(cls, path: Path) -> VideoMemory:
        """Reads a saved memory.

        Raises ValueError that names the file when it is damaged, foreign or too new, OSError when it cannot be read.
        """
        with memory_damage_named(path):
            _, config, tensors = read_memory(path, {MEMORY_FORMAT: MEMORY_SCHEMA_VERSION})
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
        tensors |= {"tokens": self.tokens.whole(), "coordinates": self.coordinates.whole()}
        tensors |= {} if self.hidden is None else {"hidden": self.hidden.whole()}
        tensors |= {} if self.picture is None else {"picture": self.picture}
        boundaries: list[dict[str, Any] | None] = []
        for number, boundary in enumerate(self.boundaries):
            found, end = boundary.read().to_tensors() if boundary else ({}, None)
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
            tokens=Growing.of(tensors["tokens"], 1),
            coordinates=Growing.of(tensors["coordinates"], 0),
            hidden=grown(None, tensors.get("hidden")),
            picture=tensors.get("picture"),
            sections=tuple(SectionRecord(**record) for record in config["sections"]),
            encoder_id=str(config["encoder_id"]),
            boundaries=tuple(boundaries),
            **end_from_tensors(config, tensors),
        )
        memory.check()
        return memory

    def check(self) -> None:
        """Raises ValueError for a memory whose shapes, types and counts do not fit each other and its encoder."""
        config, batch, places = self.config, self.batch, ("tokens", "coordinates")
        tokens, coordinates = self.tokens.whole(), self.coordinates.whole()
        check_shape("tokens", tokens, (batch, None, config.width))
        check_shape("coordinates", coordinates, (tokens.shape[1], *coordinates.shape[1:-1], 3))
        if coordinates.ndim > 3:
            raise ValueError(f"{' and '.join(places)} do not fit each other")
        if self.hidden is not None:
            check_shape("hidden", self.hidden.whole(), (batch, tokens.shape[1], None))
        if self.picture is not None:
            check_shape("picture", self.picture, (batch, None, None))
        self.check_end(config, batch)
        check_records(self.sections)
        for boundary in self.boundaries:
            if boundary is not None:
                boundary.read().check_end(config, batch)
                if not 0 <= boundary.tokens <= tokens.shape[1]:
                    raise ValueError("an end of a section lies outside of the tokens")


def read_memory(path: Path, formats: Mapping[str, int]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Format, description and tensors of a memory's file; `formats` are those known, with the newest schema of each.

    For use within `memory_damage_named`. Raises ValueError when it is damaged, foreign or too new.
    """
    tensors, metadata = read_tensors(path)
    kind = metadata.get("format", "")
    if kind not in formats:
        raise ValueError(f"{path.name} is not a video memory; choose a file made by Save Video Memory")
    config = checked_json(metadata, formats[kind], path.name)
    said = metadata.pop(DIGEST, None)  # files of 0.1.0 have none
    if said is not None and said != content_digest(tensors, metadata):
        raise ValueError("its content does not match its checksum")
    for name, tensor in tensors.items():
        check_finite(shortened(name, 100), tensor)
    return kind, config, tensors


def save_memory(path: Path, kind: str, version: int, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a memory's file atomically, with a checksum. Raises OSError that names the file."""
    metadata = {"format": kind, "schema_version": str(version), "config": json.dumps(config)}
    remove_abandoned(path.parent)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_tensors(plain, path, metadata | {DIGEST: content_digest(plain, metadata)})


def memory_damage_named(path: Path) -> contextlib.AbstractContextManager[None]:
    """Turns what goes wrong while a memory is read and built into one error that names the file."""
    return damage_named(path, "video memory", "compress the history again")


def check_records(records: Iterable[SectionRecord]) -> None:
    """Raises ValueError for records that say of a section what cannot be."""
    for record in records:
        counts = (record.start_latent, record.latents, record.tokens)
        if not all(type(count) is int and 0 <= count <= MOST_LATENTS for count in counts):
            raise ValueError("a section has no possible place or length")
        if not isinstance(record.prompt, str) or type(record.seed) not in (int, type(None)):
            raise ValueError("a section's prompt is no text, or its seed no number")


def grown(before: Growing | None, *pieces: Piece | None) -> Growing | None:
    """What is there of `before` and of the pieces along the tokens behind it."""
    found = [piece for piece in pieces if piece is not None]
    if before is None and found:
        return Growing(1, (), found[0].dtype).followed_by(*found)
    return before if before is None else before.followed_by(*found)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
