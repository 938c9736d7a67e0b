"""What comes before a film's first section, and films on disk read whole: opening and sections, one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..damage import damage_named
from ..digests import section_key
from ..files import FolderNameError
from ..frames import TEMPORAL, frames_in
from ..pictures.decoding import Part, frames_of
from .sections import SectionStore

FACTS = ("width", "height", "fps", "latent_format", "memory")  # of a film, in each record of its manifest


class StoredFilmError(ValueError):
    """A film on disk that is not there, not whole or does not fit; the message names it and says what to do."""


@dataclass(frozen=True)
class OpeningSection:
    """Latents that enter the memory at once, and what they were made of."""

    latents: int
    prompt: str = ""
    seed: int | None = None
    repeated: int | None = None  # as in a Part: None where they go on with the clip of those before

    def facts(self) -> dict[str, Any]:
        """The fields by name, without what an opening of one clip does not have."""
        facts = asdict(self)
        if self.repeated is None:
            del facts["repeated"]
        return facts


@dataclass(frozen=True)
class Opening:
    """Latents [1,C,T,h,w] in VAE space that a film opens with.

    sections: the last latents of the opening, as they enter the memory; those before are in it already (the end of a
    memory that the film continues). lead: the first so many latents are only decoded, for the VAE to see what came
    before; their pictures belong to the film before this one and are not shown. picture: the start image [1,H,W,3] in
    0..1, for a model that is shown it throughout the film.
    """

    latents: Tensor
    sections: tuple[OpeningSection, ...] = ()
    lead: int = 0
    picture: Tensor | None = None

    @property
    def frames(self) -> int:
        """Pictures that are shown."""
        return sum(frames_of(part.latents.shape[2], part.repeated) for part in self.parts()) - frames_in(self.lead)

    @cached_property
    def key(self) -> str:
        """Hash of the content, 64 hex digits."""
        ingredients = {"latents": self.latents, "pieces": [section.facts() for section in self.sections]}
        more = {"lead": self.lead or None, "picture": self.picture}  # old openings keep their keys
        return section_key("", ingredients | {name: value for name, value in more.items() if value is not None})

    def parts(self) -> Iterator[Part]:
        """The clips that it consists of: one, or those of a film whose sections are clips."""
        clips: list[int | None] = [None]
        sizes = [self.latents.shape[2] - sum(section.latents for section in self.sections)]
        for section in self.sections:
            if section.repeated is not None:
                sizes.append(0)
                clips.append(section.repeated)
            sizes[-1] += section.latents
        for latents, repeated in zip(self.latents.split(sizes, dim=2), clips, strict=True):
            if latents.shape[2]:
                yield Part(latents, repeated)

    def appended(self) -> Iterator[tuple[Tensor, OpeningSection]]:
        """What is to be appended to the memory, one by one."""
        sizes = [section.latents for section in self.sections]
        parts = self.latents[:, :, self.latents.shape[2] - sum(sizes) :].split(sizes, dim=2) if sizes else ()
        yield from zip(parts, self.sections, strict=True)

    def path(self, store: SectionStore) -> Path:
        """Where it lies beside the film's sections."""
        return _openings(store).path(self.key, 0)

    def keep(self, store: SectionStore) -> str:
        """Puts the opening on disk beside the film's sections, once, and returns its key."""
        openings = _openings(store)
        if openings.get(self.key) is None:
            metadata = {"pieces": json.dumps([section.facts() for section in self.sections]), "lead": str(self.lead)}
            picture = {} if self.picture is None else {"picture": self.picture}
            openings.put(self.key, 0, {"latents": self.latents, **picture}, metadata)
        return self.key


@dataclass(frozen=True)
class StoredFilm:
    """A film on disk: its manifest's records in order. What is read is checked against its checksum.

    stale: records behind these, of sections that were made for an earlier run of the film and do not follow.
    """

    store: SectionStore
    records: tuple[Mapping[str, Any], ...]
    stale: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return self.store.film

    def fact(self, name: str) -> Any:
        """One of FACTS, or None for films of versions that did not write it down."""
        return self.records[0].get(name)

    def opening(self) -> Opening | None:
        """What the film opens with; raises StoredFilmError when it should be there and is not."""
        key = self.records[0].get("opening")
        if not key:
            self._check_old_film()
            return None
        stored = _openings(self.store).get(key)
        if stored is None:
            raise StoredFilmError(f"film {self.name!r}: its opening is missing or damaged; queue its workflow again")
        with damage_named(stored.path, f"opening of film {self.name!r}", "queue its workflow again", StoredFilmError):
            sections = tuple(OpeningSection(**section) for section in json.loads(stored.metadata["pieces"]))
            lead, picture = int(stored.metadata.get("lead", 0)), stored.tensors.get("picture")
            return Opening(stored.tensors["latents"], sections, lead, picture)

    def section(self, index: int) -> Tensor:
        """Latents [1,C,T,h,w] of a section; raises StoredFilmError when it is missing, damaged or not finite."""
        stored = self.store.get(self.records[index]["key"])
        if stored is None or stored.latents is None:
            what = "missing or damaged" if stored is None else "not finite (NaN)"
            raise StoredFilmError(f"film {self.name!r}: section {index + 1} is {what}; queue the film's workflow again")
        return stored.latents

    def parts(self) -> Iterator[Part]:
        """Opening and sections, each read when it is asked for."""
        opening = self.opening()
        if opening is not None:
            yield from opening.parts()
        for index, record in enumerate(self.records):
            yield Part(self.section(index), repeated_of(record))

    def until(self, sections: int) -> Opening:
        """Opening and the first sections as the opening of another film."""
        if not 0 <= sections <= len(self.records):
            stale = f", and {len(self.stale)} of an earlier run that do not follow" if self.stale else ""
            raise StoredFilmError(
                f"branch_section {sections}: film {self.name!r} has {len(self.records)} finished sections{stale}; "
                f"give a number from 0 to {len(self.records)}"
            )
        opening = self.opening()
        latents = [] if opening is None else [opening.latents]
        parts = [] if opening is None else list(opening.sections)
        for index in range(sections):
            section, record = self.section(index), self.records[index]
            latents.append(section)
            seed = record.get("seed")
            seed = seed if type(seed) is int else None
            parts.append(OpeningSection(section.shape[2], str(record.get("prompt", "")), seed, repeated_of(record)))
        if not latents:
            raise StoredFilmError(f"branch_section 0: film {self.name!r} has no opening clip; give 1 or more")
        lead, picture = (0, None) if opening is None else (opening.lead, opening.picture)
        return Opening(torch.cat(latents, dim=2), tuple(parts), lead, picture)

    def _check_old_film(self) -> None:
        record = self.records[0]
        # Without an opening the first latent holds one frame, after one every latent holds as many as the others.
        if "opening" not in record and record.get("frames") == TEMPORAL * record.get("latents", 0):
            raise StoredFilmError(
                f"film {self.name!r} continues a clip that an earlier version did not keep; queue its workflow again"
            )


def repeated_of(record: Mapping[str, Any]) -> int | None:
    """What a manifest's record says of a section that is a clip of its own, see `Section.repeated`."""
    repeated = record.get("repeated")
    return repeated if type(repeated) is int and repeated >= 0 else None


def stored_film(root: Path, name: str, what: str = "film") -> StoredFilm:
    """The film of that name below `root`, up to the first section that does not follow; only read, nothing is moved.

    Raises StoredFilmError that names the input `what`.
    """
    try:
        store = SectionStore(root, name, move_aside=False)
    except FolderNameError as error:
        raise StoredFilmError(str(error).replace("film:", f"{what}:", 1)) from error
    records = store.manifest()
    if not records:
        known = sorted(path.parent.name for path in root.glob("*/manifest.json"))
        there = f"; there are {', '.join(known[:20])}" if known else ""
        raise StoredFilmError(f"{what}: no film {name!r} with finished sections in {root.name}{there}")
    count = unbroken(records)
    for number, record in enumerate(records[:count]):
        if record["index"] != number:
            raise StoredFilmError(f"{what}: film {name!r} lacks section {number + 1}; queue its workflow again")
    return StoredFilm(store, tuple(records[:count]), tuple(records[count:]))


def unbroken(records: Sequence[Mapping[str, Any]]) -> int:
    """How many records at the beginning of a manifest are one film: each section was made after the one before it.

    Those behind them were made for an earlier run of the film, such as with another storyboard. Versions that wrote no
    chain are told apart by what they say of the film alone.
    """
    for number in range(1, len(records)):
        before, record = records[number - 1], records[number]
        if record.get("previous") != before.get("chain"):
            return number
        if any(record.get(fact) != records[0].get(fact) for fact in (*FACTS, "opening")):
            return number
    return len(records)


def _openings(store: SectionStore) -> SectionStore:
    return SectionStore(store.folder, "opening", store.move_aside)
