"""Several datasets in one run, each with a share of the batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ...phi.config import EncoderConfig, Padding
from .dataset import MemoryDataset, Sample
from .same_vae import may_be_one_vae
from .settings import DatasetError, LatentSpace, Split


@dataclass(frozen=True)
class Mixture:
    """What a run asks of a dataset, of several ones. Each batch comes from one of them.

    parts: the datasets. shares: of the batches, of each part; their sum is 1.
    """

    parts: tuple[MemoryDataset, ...]
    shares: tuple[float, ...]

    @property
    def space(self) -> LatentSpace:
        return self.parts[0].space

    @property
    def padding(self) -> Padding:
        return self.parts[0].padding

    @property
    def fps(self) -> float:
        return self.parts[0].fps

    @property
    def rates(self) -> tuple[str, ...]:
        """Rates that all of them have."""
        return tuple(rate for rate in self.parts[0].rates if all(rate in part.rates for part in self.parts))

    @property
    def sources(self) -> tuple[str, ...]:
        """See `MemoryDataset.sources`; a name may stand in several of them."""
        return tuple(source for part in self.parts for source in part.sources)

    @property
    def clips(self) -> int:
        """How many clips there are."""
        return sum(part.clips for part in self.parts)

    @property
    def longest(self) -> int:
        """See `MemoryDataset.longest`."""
        return max((part.longest for part in self.parts), default=0)

    @property
    def largest(self) -> tuple[int, int, int, int]:
        """See `MemoryDataset.largest`."""
        return max((part.largest for part in self.parts), key=lambda shape: shape[1] * shape[2] * shape[3])

    @property
    def shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """See `MemoryDataset.shapes`; those of all."""
        return tuple(dict.fromkeys(shape for part in self.parts for shape in part.shapes))

    @property
    def identity(self) -> str:
        """See `MemoryDataset.identity`."""
        each = zip(self.parts, self.shares, strict=True)
        return " + ".join(f"{part.name} {share:.4g} of {part.identity}" for part, share in each)

    @property
    def content(self) -> str:
        """See `MemoryDataset.content`."""
        return " ".join(part.content for part in self.parts)

    def __str__(self) -> str:
        each = zip(self.parts, self.shares, strict=True)
        return ", ".join(f"{part.name}: {share:.1%} of the batches, {len(part)} windows" for part, share in each)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def split(self, name: Split) -> Mixture:
        """The part that is trained on, or the part held out, of those datasets that have it."""
        parts = [part.split(name) for part in self.parts]
        kept = [(part, share) for part, share in zip(parts, self.shares, strict=True) if len(part)]
        total = sum(share for _, share in kept)
        return replace(self, parts=tuple(part for part, _ in kept), shares=tuple(share / total for _, share in kept))

    def draw(self, count: int, generator: torch.Generator) -> list[int]:
        """See `MemoryDataset.draw`: `count` windows of one shape of one dataset."""
        if not self.parts:
            raise DatasetError("the datasets hold no window of this split; hold out less, or add clips")
        [place] = torch.multinomial(torch.tensor(self.shares, dtype=torch.float64), 1, generator=generator).tolist()
        first = sum(len(part) for part in self.parts[:place])
        return [first + index for index in self.parts[place].draw(count, generator)]

    def sample(self, index: int) -> Sample:
        """See `MemoryDataset.sample`."""
        for part in self.parts:
            if index < len(part):
                return part.sample(index)
            index -= len(part)
        raise IndexError(f"window {index} past the last one")

    def check_encoder(self, config: EncoderConfig) -> None:
        """See `MemoryDataset.check_encoder`."""
        for part in self.parts:
            try:
                part.check_encoder(config)
            except DatasetError as error:
                raise DatasetError(f"{part.name}: {error}") from error


Data = MemoryDataset | Mixture
"""What a MEMORY_DATASET socket carries and a run trains on."""


def mixed(datasets: Sequence[tuple[Data, float | None]]) -> Data:
    """Datasets as one, with the shares that are given; the others have the rest of the batches by their windows.

    Where all are given, only their proportions count. Raises DatasetError for datasets that do not fit each other and
    for shares that cannot be.
    """
    if len(datasets) == 1:
        return datasets[0][0]
    given = [share for _, share in datasets if share is not None]
    if any(not share > 0 for share in given):
        raise DatasetError(f"shares {given} of datasets must be above 0; leave out the dataset, or its share")
    if len(given) < len(datasets) and sum(given) >= 1:
        raise DatasetError(f"shares {given} leave nothing for the datasets without one; lower them below 1 together")
    rest = sum(len(data.split("train")) for data, share in datasets if share is None)
    parts: list[MemoryDataset] = []
    shares: list[float] = []
    for data, share in datasets:
        if share is None:
            share = (1 - sum(given)) * len(data.split("train")) / max(1, rest)
        elif len(given) == len(datasets):
            share /= sum(given)
        own = list(zip(data.parts, data.shares, strict=True)) if isinstance(data, Mixture) else [(data, 1.0)]
        parts += [part for part, _ in own]
        shares += [share * part for _, part in own]
    for other in parts[1:]:
        _check_together(parts[0], other)
    return Mixture(tuple(parts), tuple(shares))


def open_datasets(names: Sequence[str]) -> Data:
    """Datasets such as "data/films" or "s3://bucket/faces:0.3", where 0.3 is the share of the batches."""
    return mixed([(MemoryDataset.open(source), share) for source, share in map(parse_share, names)])


def parse_share(text: str) -> tuple[str, float | None]:
    """Reads "FOLDER" or "FOLDER:SHARE"; a folder whose own name ends so is meant where there is one."""
    name, colon, share = str(text).rpartition(":")
    try:
        if colon and not Path(text).is_dir():
            return name, float(share)
    except ValueError:
        pass  # the colon of a drive, or of an address
    return str(text), None


def _check_together(one: MemoryDataset, other: MemoryDataset) -> None:
    mine = asdict(one.space) | {"padding": one.padding, "fps": float(one.fps)}
    theirs = asdict(other.space) | {"padding": other.padding, "fps": float(other.fps)}
    if may_be_one_vae(mine["vae"], theirs["vae"]):
        theirs["vae"] = mine["vae"]
    different = [f"{name} {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]]
    if different:
        raise DatasetError(
            f"datasets {one.name} and {other.name} do not fit together: {'; '.join(different)}; cache both with the "
            "same model, VAE and padding, at the same fps"
        )
