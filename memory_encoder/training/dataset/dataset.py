"""What travels through a MEMORY_DATASET socket and what the trainer reads: windows of latents with their captions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...frames import first_frame
from ...phi.config import EncoderConfig, Padding
from ...storyboard import Storyboard, StoryboardError
from .cache import FORMAT, INDEX, SCHEMA_VERSION
from .captions import prompt_at
from .settings import DatasetError, LatentSpace, OnBad, Split
from .text import EMPTY, NO_ENCODER, Conditioning, parse_text

_LOG = logging.getLogger("video_memory")
Content = TypeVar("Content")


class CorruptShard(DatasetError):
    """A file of the cache whose bytes are not those that were written."""


class VerifiedFile:
    """Reads a file; the first time its bytes are checked."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.path, self.sha256, self.verified = path, sha256, False

    def read(self, parse: Callable[[bytes], Content]) -> Content:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise CorruptShard(f"{self.path} cannot be read ({error.strerror}); run the cache again") from error
        if not self.verified and hashlib.sha256(content).hexdigest() != self.sha256:
            raise CorruptShard(f"{self.path} is corrupt (its hash is not the index's); run the cache again")
        self.verified = True
        try:
            return parse(content)
        except SafetensorError as error:
            raise CorruptShard(f"{self.path} is corrupt ({error}); run the cache again") from error


def inside(folder: Path, name: str) -> Path:
    """A file of the dataset; an index from elsewhere may not name files outside of its folder."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name:
        raise DatasetError(f"the index in {folder} names the file {name!r} outside of its folder; do not use it")
    return folder / parts


@dataclass(frozen=True)
class Sample:
    """One window, taken for the beginning of a film. Times are seconds from the clip's beginning.

    hr [C,T,H,W]; lr: for each rate [C,t,h,w]. All float32, in the host's normalised space.
    """

    source: str
    start_seconds: float
    fps: float
    temporal: int
    captions: Storyboard | None
    hr: Tensor
    lr: Mapping[str, Tensor]

    @property
    def latents(self) -> int:
        return self.hr.shape[1]

    @property
    def prompt(self) -> str:
        """The caption nearest to the middle of the window; "" without captions."""
        return self.prompt_for(0, self.latents)

    def prompt_for(self, first: int, latents: int) -> str:
        """The caption nearest to the middle of the section of `latents` latents that starts at latent `first`."""
        return prompt_at(self.captions, (self.seconds_at(first) + self.seconds_at(first + latents)) / 2)

    def seconds_at(self, latent: int) -> float:
        """When a latent begins: latent 0 is one frame, every other one `temporal` frames."""
        return self.start_seconds + first_frame(latent, self.temporal) / self.fps


def collate(samples: Sequence[Sample], rates: Sequence[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
    """A batch of windows of one size: hr [B,C,T,H,W], and by rate the LR latents [B,C,t,h,w] of `rates`.

    A history that ends with a cell, after n latents, has the first `cells_for(n, stride)[0]` of them.
    """
    hr = torch.stack([sample.hr for sample in samples])
    return hr, {rate: torch.stack([sample.lr[rate] for sample in samples]) for rate in rates}


@dataclass(frozen=True)
class Entry:
    """Where a window comes from. `load` reads its tensors: hr and lr.RATE."""

    source: str
    split: Split
    start_seconds: float
    shape: tuple[int, ...]
    captions: Storyboard | None
    load: Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class MemoryDataset:
    """Windows of latents, read when asked for.

    space: what the latents mean. rates, padding: what the LR latents were made for. texts: a conditioning by prompt.
    skipped: (name, reason) of what the cache left out. on_bad: whether `sample` passes over a corrupt shard.
    """

    entries: tuple[Entry, ...]
    space: LatentSpace
    rates: tuple[str, ...]
    padding: Padding
    fps: float
    texts: Mapping[str, Callable[[], Conditioning]]
    has_text: bool = True
    skipped: tuple[tuple[str, str], ...] = ()
    on_bad: OnBad = "refuse"

    @classmethod
    def open(cls, folder: Path, on_bad: OnBad = "refuse") -> MemoryDataset:
        """Opens a cache folder; shards are read and verified when they are first used.

        Raises DatasetError that names the index when it is missing, damaged, foreign or too new.
        """
        path = folder / INDEX
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DatasetError(f"{folder} holds no {INDEX}; make it with: python -m memory_encoder cache") from error
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read ({error}); run the cache again") from error
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise DatasetError(f"{path} is not the index of a dataset; choose a folder made by Cache Training Clips")
        if not isinstance(index.get("schema_version"), int) or index["schema_version"] > SCHEMA_VERSION:
            raise DatasetError(f"{path} has schema version {index.get('schema_version')}; update ComfyUI-VideoMemory")
        try:
            return cls._from_index(index, folder, on_bad)
        except (KeyError, TypeError, AttributeError, StoryboardError) as error:
            raise DatasetError(f"{path} is damaged ({error!r}); run the cache again") from error

    @classmethod
    def _from_index(cls, index: dict[str, Any], folder: Path, on_bad: OnBad) -> MemoryDataset:
        space, settings, geometry = _space(index["space"]), index["settings"], index["geometry"]
        size = geometry["height"] // space.spatial, geometry["width"] // space.spatial
        shape = (space.channels, geometry["latents"], *size)
        entries = []
        for clip in index["clips"]:
            captions = None if clip["captions"] is None else Storyboard.from_dict(clip["captions"])
            for window in clip["windows"]:
                read = VerifiedFile(inside(folder, window["file"]), window["sha256"]).read
                load = partial(read, safetensors.torch.load)
                start = float(window["start_seconds"])
                entries.append(Entry(clip["source"], clip["split"], start, shape, captions, load))
        texts: dict[str, Callable[[], Conditioning]] = {
            text["prompt"]: partial(VerifiedFile(inside(folder, text["file"]), text["sha256"]).read, parse_text)
            for text in index["texts"]
        }
        return cls(
            entries=tuple(entries),
            space=space,
            rates=tuple(settings["rates"]),
            padding=settings["padding"],
            fps=float(settings["fps"]),
            texts=texts,
            has_text=index["text_encoder"] != NO_ENCODER,
            skipped=tuple((skipped["source"], skipped["reason"]) for skipped in index["skipped"]),
            on_bad=on_bad,
        )

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        """Raises CorruptShard that names the file when its bytes are not those that were cached."""
        entry = self.entries[index]
        with torch.inference_mode(False):  # tensors that training may use
            tensors = {name: value.float() for name, value in entry.load().items()}
        return Sample(
            source=entry.source,
            start_seconds=entry.start_seconds,
            fps=self.fps,
            temporal=self.space.temporal,
            captions=entry.captions,
            hr=tensors["hr"],
            lr={rate: tensors[f"lr.{rate}"] for rate in self.rates},
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.source for entry in self.entries))

    @property
    def longest(self) -> int:
        """Latents of the longest window, 0 without any."""
        return max((entry.shape[1] for entry in self.entries), default=0)

    def split(self, name: Split) -> MemoryDataset:
        """The part of the dataset that is trained on, or the part held out; clips are never divided."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.split == name))

    def conditioning(self, prompt: str) -> Conditioning:
        """The encoded prompt; "" is the empty prompt of caption dropout.

        Without a text encoder every prompt is the empty one. Raises DatasetError for a prompt that was not cached.
        """
        if not self.has_text:
            prompt = EMPTY
        if prompt not in self.texts:
            raise DatasetError(f"prompt {prompt[:60]!r} is not in the dataset; run the cache again")
        with torch.inference_mode(False):
            return self.texts[prompt]()

    def draw(self, count: int, generator: torch.Generator) -> list[int]:
        """Indices of `count` windows of one size, at random; none comes twice as long as there are enough.

        A pure function of the generator's state, and quick: nothing is read. Raises DatasetError for an empty dataset.
        """
        if not self.entries:
            raise DatasetError("the dataset holds no window of this split; hold out less, or add clips")
        first = int(torch.randint(len(self.entries), (), generator=generator))
        alike = self._alike(first)
        places: list[int] = []
        while len(places) < count:
            places += torch.randperm(len(alike), generator=generator).tolist()
        return [alike[place] for place in places[:count]]

    def sample(self, index: int) -> Sample:
        """The window, or with on_bad "skip", when its shard is corrupt, the next sound one of the same size.

        Raises CorruptShard that names the file, with on_bad "skip" only when no sound one is left.
        """
        try:
            return self[index]
        except CorruptShard as error:
            if self.on_bad == "refuse":
                raise
            _LOG.warning("passed over: %s", error)
        alike = self._alike(index)
        place = alike.index(index)
        for other in alike[place + 1 :] + alike[:place]:
            with contextlib.suppress(CorruptShard):
                return self[other]
        raise CorruptShard(f"every shard of the size of window {index} is corrupt; run the cache again")

    def _alike(self, index: int) -> list[int]:
        shape = self.entries[index].shape
        return [number for number, entry in enumerate(self.entries) if entry.shape == shape]

    def check_encoder(self, config: EncoderConfig) -> None:
        """Raises DatasetError when an encoder cannot be trained on these latents; the message says what to change."""
        found = (config.host, config.latent_channels, tuple(config.patch))
        if found != (self.space.host, self.space.channels, tuple(self.space.patch)):
            raise DatasetError(
                f"dataset holds latents of {self.space.host} with {self.space.channels} channels, the encoder is for "
                f"{config.host} with {config.latent_channels}; cache the clips again with the encoder's model and VAE"
            )
        if config.has_lr and config.rate not in self.rates:
            raise DatasetError(
                f"dataset has no LR latents at rate {config.rate}, only {', '.join(self.rates)}; cache that rate too"
            )
        if config.has_lr and config.padding != self.padding:
            raise DatasetError(
                f"dataset was cached with padding {self.padding}, the encoder pads by {config.padding}; use the same"
            )


def _space(values: dict[str, Any]) -> LatentSpace:
    known: dict[str, Any] = {field.name: values[field.name] for field in fields(LatentSpace)}
    return replace(LatentSpace(**known), patch=tuple(values["patch"]))  # JSON knows lists only
