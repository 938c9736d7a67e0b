"""VideoMemory: the compressed history of a film, append-only, with what is needed to append more."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .config import EncoderConfig, checked_json
from .encoder import Encoded, StreamState
from .files import save_tensors

MEMORY_FORMAT = "video_memory"
MEMORY_SCHEMA_VERSION = 1
_TENSORS = ("tokens", "coordinates", "tail", "tail_coordinates", "recent")


@dataclass(frozen=True)
class SectionRecord:
    """One appended section: its place on the film's latent lattice and what it was made of."""

    start_latent: int
    latents: int
    tokens: int
    prompt: str = ""
    seed: int | None = None


@dataclass(frozen=True)
class VideoMemory:
    """Memory tokens of a film of `latents` latent frames.

    tokens [B,M,D] with coordinates [M,3] (time, height, width) in token-grid units from the film's first latent are
    final; tail [B,M',D] belongs to the last, unfinished cell and is replaced by the next append. recent [B,C,k,H,W]
    holds the last normalised latents, uncompressed. lr_frames [B,k,h,w,3] are the down-sampled pictures that the LR
    branch still needs. encoder_id names the weights that made it. Values are never changed in place.
    """

    config: EncoderConfig
    tokens: Tensor
    coordinates: Tensor
    tail: Tensor
    tail_coordinates: Tensor
    recent: Tensor
    state: StreamState = field(repr=False)
    lr_frames: Tensor | None = field(default=None, repr=False)
    sections: tuple[SectionRecord, ...] = ()
    encoder_id: str = ""

    @property
    def latents(self) -> int:
        return self.state.latents

    @property
    def token_count(self) -> int:
        return self.tokens.shape[1] + self.tail.shape[1]

    def all_tokens(self) -> Tensor:
        """All memory tokens [B, token_count, D] in the order of the film."""
        return torch.cat([self.tokens, self.tail], dim=1)

    def all_coordinates(self) -> Tensor:
        """Coordinates [token_count, 3] of `all_tokens`."""
        return torch.cat([self.coordinates, self.tail_coordinates])

    def extended(
        self, encoded: Encoded, recent: Tensor, lr_frames: Tensor | None, prompt: str = "", seed: int | None = None
    ) -> VideoMemory:
        """The memory after one more section; `self` stays valid, so a film can branch."""
        record = SectionRecord(
            start_latent=self.latents,
            latents=encoded.state.latents - self.latents,
            tokens=encoded.tokens.shape[1] + encoded.tail.shape[1] - self.tail.shape[1],
            prompt=prompt,
            seed=seed,
        )
        return replace(
            self,
            tokens=torch.cat([self.tokens.to(encoded.tokens.dtype), encoded.tokens], dim=1),
            coordinates=torch.cat([self.coordinates, encoded.coordinates]),
            tail=encoded.tail,
            tail_coordinates=encoded.tail_coordinates,
            recent=recent,
            state=encoded.state,
            lr_frames=lr_frames,
            sections=(*self.sections, record),
        )

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
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors |= {f"cache.{i}": cache for i, cache in enumerate(self.state.caches)}
        optional = {"features": self.state.features, "lr": self.state.lr, "lr_frames": self.lr_frames}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        config = {
            "encoder": asdict(self.config),
            "encoder_id": self.encoder_id,
            "latents": self.latents,
            "size": self.state.size,
            "caches": len(self.state.caches),
            "sections": [asdict(record) for record in self.sections],
        }
        metadata = {
            "format": MEMORY_FORMAT,
            "schema_version": str(MEMORY_SCHEMA_VERSION),
            "config": json.dumps(config),
        }
        save_tensors(tensors, path, metadata)

    @classmethod
    def load(cls, path: Path) -> VideoMemory:
        """Reads a saved memory. Raises ValueError that names the file when it is damaged, foreign or too new."""
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"video memory {path.name} cannot be read ({error}); compress the history again"
            ) from error
        if metadata.get("format") != MEMORY_FORMAT:
            raise ValueError(f"{path.name} is not a video memory; choose a file made by Save Video Memory")
        config = checked_json(metadata, MEMORY_SCHEMA_VERSION, path.name)
        try:
            return cls._from_parts(config, tensors, path.name)
        except (KeyError, TypeError) as error:
            raise ValueError(f"video memory {path.name} is incomplete ({error}); compress the history again") from error

    @classmethod
    def _from_parts(cls, config: dict, tensors: dict[str, Tensor], source: str) -> VideoMemory:
        state = StreamState(
            latents=int(config["latents"]),
            size=(int(config["size"][0]), int(config["size"][1])),
            caches=tuple(tensors[f"cache.{i}"] for i in range(int(config["caches"]))),
            features=tensors.get("features"),
            lr=tensors.get("lr"),
        )
        memory = cls(
            config=EncoderConfig.from_dict(config["encoder"], source),
            state=state,
            lr_frames=tensors.get("lr_frames"),
            sections=tuple(SectionRecord(**record) for record in config["sections"]),
            encoder_id=str(config["encoder_id"]),
            **{name: tensors[name] for name in _TENSORS},
        )
        counts = {
            memory.tokens.shape[1] - memory.coordinates.shape[0],
            memory.tail.shape[1] - len(memory.tail_coordinates),
        }
        if counts != {0} or memory.tokens.shape[-1] != memory.config.width:
            raise ValueError(f"video memory {source} is inconsistent; compress the history again")
        return memory
