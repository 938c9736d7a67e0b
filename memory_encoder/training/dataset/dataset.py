"""What travels through a MEMORY_DATASET socket and what the trainer reads: windows of latents with their captions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import safetensors.torch
import torch
from torch import Tensor

from ...damage import damage_named, shortened
from ...files import NotPlainError, read_plain
from ...frames import evenly, first_frame
from ...phi.config import EncoderConfig, Padding
from ...storyboard import Storyboard
from .cache import FORMAT, PACKED_SCHEMA_VERSION
from .captions import is_cut, prompt_at
from .index import Bucket, Findings, Index, inside
from .packed import Chunks, fetched, is_address
from .settings import INDEX, DatasetError, LatentSpace, OnBad, Split
from .text import EMPTY, NO_ENCODER, Conditioning, parse_text

_LOG = logging.getLogger("video_memory")
SHUFFLED = 1 << 16  # windows of one shape that are shuffled for a draw, as it always was; of more, some are picked
PROBED = 64  # windows that tell a dataset from others
Content = TypeVar("Content")


class CorruptShard(DatasetError):
    """A file of the cache whose bytes are not those that were written."""


def _damage_named(path: Path) -> contextlib.AbstractContextManager[None]:
    return damage_named(path, "index", "run the cache again", DatasetError)


class Store(Protocol):
    """Where a dataset's tensors lie. Raises CorruptShard for what cannot be read."""

    def window(self, file: str, sha256: str) -> dict[str, Tensor]:
        """Tensors of a window: hr and lr.RATE."""
        ...

    def text(self, file: str, sha256: str) -> Conditioning:
        """An encoded prompt."""
        ...


@dataclass(frozen=True)
class Shards:
    """Files in the folder of a dataset, or items of large files; their bytes are checked whenever they are read.

    packed: reads an item by its number, where the dataset is packed.
    """

    folder: Path
    packed: Chunks | None = None

    def window(self, file: str, sha256: str) -> dict[str, Tensor]:
        return self._read(file, sha256, safetensors.torch.load)

    def text(self, file: str, sha256: str) -> Conditioning:
        return self._read(file, sha256, parse_text)

    def checked(self, file: str, sha256: str) -> bytes:
        """The bytes of a file. Raises CorruptShard when they are not those that were written."""
        path = inside(self.folder, file)
        try:
            content = read_plain(path) if self.packed is None else self.packed(file)
        except (OSError, NotPlainError) as error:
            raise CorruptShard(f"{path} cannot be read ({error}); run the cache again") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise CorruptShard(f"{self._named(file)} is corrupt (its hash is not the index's); {self._cure}")
        return content

    def _read(self, file: str, sha256: str, parse: Callable[[bytes], Content]) -> Content:
        content = self.checked(file, sha256)
        with damage_named(Path(self._named(file)), "shard", self._cure, CorruptShard):
            return parse(content)

    def _named(self, file: str) -> str:
        return str(inside(self.folder, file)) if self.packed is None else f"{self.packed.source}, item {file},"

    @property
    def _cure(self) -> str:
        return "run the cache again" if self.packed is None else "pack or copy the dataset again"


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
    text: Callable[[str], Conditioning]  # encodes a prompt

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

    def is_cut(self, latent: int) -> bool:
        """Whether the captions say that a shot begins with a cut at a latent: in its middle another one is on than in
        the middle of the latent before it."""
        edges = [self.seconds_at(edge) for edge in (latent - 1, latent, latent + 1)] if latent else [0.0] * 3
        return is_cut(self.captions, (edges[0] + edges[1]) / 2, (edges[1] + edges[2]) / 2)

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
class MemoryDataset:
    """Windows of latents, read when asked for; those of one shape have numbers that follow each other.

    index, store: which windows there are, and their tensors. buckets: those of the index that belong to this part of
    the dataset. space: what the latents mean. rates, padding: what the LR latents were made for. on_bad: whether
    `sample` passes over a corrupt shard.
    """

    index: Index
    store: Store
    space: LatentSpace
    rates: tuple[str, ...]
    padding: Padding
    fps: float
    buckets: tuple[Bucket, ...]
    has_text: bool = True
    on_bad: OnBad = "refuse"
    name: str = "dataset"

    @classmethod
    def open(cls, source: str | Path, on_bad: OnBad = "refuse") -> MemoryDataset:
        """Opens a folder that was cached or packed, or the address of a packed one; windows are read and verified when
        they are used.

        Raises DatasetError that names the index when it is missing, damaged, foreign or too new.
        """
        folder = fetched(str(source)) if is_address(source) else Path(source)
        path = folder / INDEX
        try:
            with _damage_named(path):
                head = json.loads(read_plain(path))
        except FileNotFoundError as error:
            raise DatasetError(f"{folder} holds no {INDEX}; make it with: python -m memory_encoder cache") from error
        except OSError as error:
            raise DatasetError(str(error)) from error
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise DatasetError(f"{path} is not the index of a dataset; choose a folder made by Cache Training Clips")
        if not isinstance(head.get("schema_version"), int) or head["schema_version"] > PACKED_SCHEMA_VERSION:
            version = shortened(str(head.get("schema_version")), 20)
            raise DatasetError(f"{path} has schema version {version}; update ComfyUI-VideoMemory")
        with _damage_named(path):
            space, settings = _space(head["space"]), head["settings"]
            if "windows" in head:
                index = Index.open(inside(folder, head["windows"]))
            else:
                index = index_of_version_1(head, space)
            return cls(
                index=index,
                store=Shards(folder, chunks_of(head, source, folder)),
                space=space,
                rates=tuple(settings["rates"]),
                padding=settings["padding"],
                fps=float(settings["fps"]),
                buckets=index.buckets,
                has_text=head["text_encoder"] != NO_ENCODER,
                on_bad=on_bad,
                name=folder.name,
            )

    def __len__(self) -> int:
        return sum(bucket.windows for bucket in self.buckets)

    def __getitem__(self, index: int) -> Sample:
        """Raises CorruptShard that names the file when its bytes are not those that were cached."""
        first, bucket = self._bucket(index)
        window = self.index.window(bucket, index - first)
        with torch.inference_mode(False):  # tensors that training may use
            tensors = {name: value.float() for name, value in self.store.window(window.file, window.sha256).items()}
        shape = (self.space.channels, bucket.latents, bucket.height, bucket.width)
        missing = {"hr", *(f"lr.{rate}" for rate in self.rates)} - tensors.keys()
        if missing or tuple(tensors["hr"].shape) != shape:
            raise CorruptShard(f"{window.file} of {self.name} is not what its index says; run the cache again")
        return Sample(
            source=window.source,
            start_seconds=window.start_seconds,
            fps=self.fps,
            temporal=self.space.temporal,
            captions=window.captions,
            hr=tensors["hr"],
            lr={rate: tensors[f"lr.{rate}"] for rate in self.rates},
            text=self.conditioning,
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def sources(self) -> tuple[str, ...]:
        """The clips of this part of the dataset."""
        return tuple(source for split in self._splits for source in self.index.sources(split))

    @property
    def clips(self) -> int:
        """How many clips there are in this part of the dataset."""
        return sum(self.index.clips(split) for split in self._splits)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of what the cache left out."""
        return self.index.skipped

    @property
    def largest(self) -> tuple[int, int, int, int]:
        """Shape [C,T,H,W] of the windows that take most."""
        bucket = max(self.buckets, key=lambda b: b.latents * b.height * b.width)
        return self.space.channels, bucket.latents, bucket.height, bucket.width

    @property
    def shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shapes [C,T,H,W] of the longest windows of each size."""
        longest: dict[tuple[int, int], int] = {}
        for bucket in self.buckets:
            size = bucket.height, bucket.width
            longest[size] = max(bucket.latents, longest.get(size, 0))
        return tuple((self.space.channels, latents, *size) for size, latents in longest.items())

    @property
    def longest(self) -> int:
        """Latents of the longest window, 0 without any."""
        return max((bucket.latents for bucket in self.buckets), default=0)

    @property
    def identity(self) -> str:
        """What tells these windows from others, by their shapes and some of their names: a draw follows from both."""
        digest = hashlib.sha256(repr(self.buckets).encode())
        for index in evenly(len(self), min(len(self), PROBED)):
            first, bucket = self._bucket(index)
            window = self.index.window(bucket, index - first)
            digest.update(f"{window.source} {window.start_seconds}\n".encode("utf-8", "surrogateescape"))
        return f"{len(self)} windows ({digest.hexdigest()[:8]})"

    @property
    def content(self) -> str:
        """What changes with any window, caption or encoded prompt of this part of the dataset; it reads the index."""
        return " ".join(self.index.content(split) for split in self._splits)

    def split(self, name: Split) -> MemoryDataset:
        """The part of the dataset that is trained on, or the part held out; clips are never divided."""
        return replace(self, buckets=tuple(bucket for bucket in self.buckets if bucket.split == name))

    def conditioning(self, prompt: str) -> Conditioning:
        """The encoded prompt; "" is the empty prompt of caption dropout.

        Without a text encoder every prompt is the empty one. Raises DatasetError for a prompt that was not cached.
        """
        found = self.index.text(prompt if self.has_text else EMPTY)
        if found is None:
            raise DatasetError(f"prompt {prompt[:60]!r} is not in the dataset; run the cache again")
        with torch.inference_mode(False):
            return self.store.text(*found)

    def draw(self, count: int, generator: torch.Generator) -> list[int]:
        """Indices of `count` windows of one shape, at random; none comes twice as long as there are enough.

        A pure function of the generator's state, and quick however many there are: nothing is read. Raises DatasetError
        for an empty dataset.
        """
        if not self.buckets:
            raise DatasetError("the dataset holds no window of this split; hold out less, or add clips")
        first, bucket = self._bucket(int(torch.randint(len(self), (), generator=generator)))
        return [first + place for place in _places(count, bucket.windows, generator)]

    def sample(self, index: int) -> Sample:
        """The window, or with on_bad "skip", when its shard is corrupt, the next sound one of the same shape.

        Raises CorruptShard that names the file, with on_bad "skip" only when no sound one is left.
        """
        try:
            return self[index]
        except CorruptShard as error:
            if self.on_bad == "refuse":
                raise
            _LOG.warning("passed over: %s", error)
        first, bucket = self._bucket(index)
        for step in range(1, bucket.windows):
            with contextlib.suppress(CorruptShard):
                return self[first + (index - first + step) % bucket.windows]
        raise CorruptShard(f"every shard of the size of window {index} is corrupt; run the cache again")

    @property
    def _splits(self) -> tuple[Split, ...]:
        return tuple(dict.fromkeys(bucket.split for bucket in self.buckets))

    def _bucket(self, index: int) -> tuple[int, Bucket]:
        """The bucket of a window, and the index of its first one."""
        first = 0
        for bucket in self.buckets:
            if 0 <= index - first < bucket.windows:
                return first, bucket
            first += bucket.windows
        raise IndexError(f"window {index} of {first}")

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


def chunks_of(head: dict[str, Any], source: str | Path, folder: Path) -> Chunks | None:
    """The large files of a packed dataset; None for any other. folder: where its head lies on this machine."""
    if "chunks" not in head:
        if is_address(source):
            raise DatasetError(
                f"{source} is not packed; pack the dataset (python -m memory_encoder pack) and copy that"
            )
        return None
    local = inside(folder, head["chunks"])
    return Chunks(f"{source}/{head['chunks']}" if is_address(source) else str(local))


def index_of_version_1(head: dict[str, Any], space: LatentSpace) -> Index:
    """The index of a dataset whose index.json holds everything, as it was before."""
    geometry, findings = head["geometry"], Findings()
    shape = geometry["latents"], geometry["height"] // space.spatial, geometry["width"] // space.spatial
    for number, clip in enumerate(head["clips"]):
        captions = None if clip["captions"] is None else Storyboard.from_dict(clip["captions"])
        findings.clip(number, clip["source"], clip["split"], captions)
        for window in clip["windows"]:
            findings.window(number, float(window["start_seconds"]), shape, window["file"], window["sha256"])
    for text in head["texts"]:
        findings.text(text["prompt"], text["file"], text["sha256"])
    for skipped in head["skipped"]:
        findings.skip(-1, skipped["source"], skipped["reason"])
    return findings.index()


def _places(count: int, of: int, generator: torch.Generator) -> list[int]:
    """`count` numbers below `of` at random, none twice before all have come."""
    if of > max(SHUFFLED, 2 * count):
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            chosen[int(torch.randint(of, (), generator=generator))] = None
        return list(chosen)
    places: list[int] = []
    while len(places) < count:
        places += torch.randperm(of, generator=generator)[: count - len(places)].tolist()
    return places


def _space(values: dict[str, Any]) -> LatentSpace:
    known: dict[str, Any] = {field.name: values[field.name] for field in fields(LatentSpace)}
    return replace(LatentSpace(**known), patch=tuple(values["patch"]))  # JSON knows lists only
