"""The autoregressive loop: generate a section, store it, compress it, go on (paper section 3.2, Figure 4b)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

import torch
from torch import Tensor

from ..digests import section_key
from ..memory.memory_file import Memory
from ..storyboard import Section
from .locked import Made, fits
from .sections import SectionStore, StoredSection, is_finite
from .takes import apply_takes

# Version of how a section is made of what is in its key; part of every key from 2 on (1: films of 0.1.0 stay usable).
# Raise it with any change after which the same ingredients give other pictures (positions, injection, noise, seeds,
# what a section sees of its past), so that no film mixes sections of both; not for what rounding alone changes.
METHOD = 1


class Renderer(Protocol):
    """What the loop needs from the world: sampling, compression, and a place to report to."""

    def sample(self, section: Section, seed: int, memory: Any) -> Tensor:
        """Latents [B,C,T,H,W] of one section, given the memory of everything before it."""
        ...

    def append(self, memory: Any, latents: Tensor, section: Section, seed: int) -> Any:
        """The memory with the section in it."""
        ...

    def section_done(self, section: Section, latents: Tensor, reused: bool) -> None:
        """Called when a section is on disk and in the memory; may raise to stop the film."""
        ...


@dataclass(frozen=True)
class RenderedSection:
    """One line of the report. previous, chain: hash of all that was made before the section, and with it.
    seen: see `render_film`.
    """

    section: Section
    seed: int
    key: str
    status: str
    memory_tokens: int
    take: int = 0
    previous: str = ""
    chain: str = ""
    seen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reused(self) -> bool:
        """Whether the section came from disk."""
        return self.status != "stored"


@dataclass(frozen=True)
class ExpectedSection:
    """What a run is going to do with a section, as far as names of files tell. kept: it is on disk and stays."""

    section: Section
    take: int
    kept: bool


@dataclass(frozen=True)
class Film:
    """Latents of all sections in order, the memory of the whole film, and what was done."""

    latents: Sequence[Tensor]
    memory: Any
    sections: tuple[RenderedSection, ...]


@dataclass(frozen=True)
class StoredLatents(Sequence[Tensor]):
    """Latents of a film's sections, each read from disk when it is asked for.

    Raises ValueError that names a section which is gone since, OSError when it cannot be read.
    """

    store: SectionStore
    sections: Sequence[RenderedSection]

    def __len__(self) -> int:
        return len(self.sections)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> StoredLatents: ...
    def __getitem__(self, index: int | slice) -> Tensor | StoredLatents:
        if isinstance(index, slice):
            return StoredLatents(self.store, self.sections[index])
        entry = self.sections[index]
        made = _latents(self.store.get(entry.key))
        if made is None:
            number = entry.section.index + 1
            raise ValueError(f"section {number} of film {self.store.film!r} is gone or damaged; queue the film again")
        return made


def render_film(
    plan: Sequence[Section],
    store: SectionStore,
    memory: Memory,
    film_ingredients: Mapping[str, Any],
    seed: int,
    renderer: Renderer,
    section_ingredients: Callable[[Section], Mapping[str, Any]] | None = None,
    locked: Callable[[Section], bool] = lambda section: False,
    takes: Mapping[int, int] | None = None,
    about: Mapping[str, Any] | None = None,
    latent_size: tuple[int, int, int] | None = None,
    begins: Callable[[Sequence[ExpectedSection]], None] = lambda expected: None,
    seen: Callable[[Any, Section], Mapping[str, Any]] = lambda memory, section: {},
) -> Film:
    """Renders the sections of `plan` after what `memory` holds.

    A section's key is a hash of everything that made it, the previous key included: sections made before with the
    same key are reused, from the first change on everything is rendered anew. Each section is on disk before the
    next one starts. A locked section keeps what was made of its shot before, whatever has changed but its length, size
    and kind of latents, also where another version of it lies on disk. `takes` gives sections, by index, another seed.
    `about` is what each record of the manifest says of the film. latent_size: channels, height and width of the
    latents, for what is to be known before a section is sampled. begins: called with what is expected of every section
    before the first one is made. seen: what a section sees of the memory before it where that is not all of it, as JSON
    values, for its key and the manifest.

    Raises ValueError that names the section when what was sampled is not finite (it is not stored), OSError when the
    disk has no room for the next one, BusyError when another process makes the film.
    """
    loop = _Loop(plan, store, renderer, section_ingredients, locked, takes or {}, dict(about or {}), latent_size, seen)
    with store.making():
        chain, seeds = section_key("", _versioned(film_ingredients)), section_seeds(plan, seed, takes)
        begins(loop.expected(memory, chain, seeds))
        return loop.run(memory, chain, seeds)


@dataclass
class _Loop:
    """One run of `render_film`."""

    plan: Sequence[Section]
    store: SectionStore
    renderer: Renderer
    section_ingredients: Callable[[Section], Mapping[str, Any]] | None
    locked: Callable[[Section], bool]
    takes: Mapping[int, int]
    about: dict[str, Any]
    latent_size: tuple[int, int, int] | None
    seen: Callable[[Any, Section], Mapping[str, Any]]
    keys: dict[tuple[str, int, str], str] = field(default_factory=dict)  # of sections, by what was made before them

    def expected(self, memory: Memory, chain: str, seeds: Sequence[int]) -> list[ExpectedSection]:
        """What `run` will do, without reading or making a section."""
        earlier, made = self._made_before()
        own = made.for_sections(self.plan)
        found: list[ExpectedSection] = []
        for section, seed in zip(self.plan, seeds, strict=True):
            record, seen = earlier.get(section.index), self.seen(memory, section)
            if found and record is not None:  # what it saw when it was made; only a run knows what it will see
                seen = {name: record.get(name) for name in seen}
            chain = self._key(chain, section, seed, seen)
            record = own.get(section.index) if self.locked(section) else None
            stays = record is not None and fits(record, section, self.about)
            if record is not None and stays and self.store.path(record["key"], record["index"]).is_file():
                kept = True
                chain = chain if record["key"] == chain else section_key(chain, {"locked": record["key"]})
            else:
                kept = self.store.path(chain, section.index).is_file()
            found.append(ExpectedSection(section, self.takes.get(section.index, 0), kept))
        return found

    def run(self, memory: Memory, chain: str, seeds: Sequence[int]) -> Film:
        earlier, before = self._made_before()
        own = before.for_sections(self.plan)
        done: list[RenderedSection] = []
        for section, seed in zip(self.plan, seeds, strict=True):
            seen = self.seen(memory, section)
            previous, key = chain, self._key(chain, section, seed, seen)
            chain, status, take = key, "reused", self.takes.get(section.index, 0)
            record = own.get(section.index) if self.locked(section) else None
            made = None if record is None else self._kept(record, section)
            if record is not None and made is not None and record["key"] != key:
                key, status, take = record["key"], "locked", record.get("take", 0)
                seed = record["seed"] if type(record.get("seed")) is int else seed  # it was made with
                chain = section_key(chain, {"locked": key})  # what follows sees other pictures than the key says
            made = _latents(self.store.get(key)) if made is None else made
            if made is None:
                made, status = self._sampled(section, seed, memory, key, previous), "stored"
            memory = self.renderer.append(memory, made, section, seed)
            done.append(RenderedSection(section, seed, key, status, memory.token_count, take, previous, chain, seen))
            later = [earlier[i] for i in range(len(done), len(self.plan)) if i in earlier]
            records = [*(_manifest_entry(entry) | self.about for entry in done), *later]
            ended = len(done) == len(self.plan)
            self.store.write_manifest(records, before.left_over(self.plan) if ended else before.to_keep(records))
            self.renderer.section_done(section, made, status != "stored")
        return Film(StoredLatents(self.store, done), memory, tuple(done))

    def _made_before(self) -> tuple[dict[int, Mapping[str, Any]], Made]:
        """The records of the manifest by index, and what is known of the film."""
        records, earlier = self.store.records()
        return {record["index"]: record for record in records}, Made(records, earlier)

    def _key(self, chain: str, section: Section, seed: int, seen: Mapping[str, Any]) -> str:
        """The hash of a section and all before it; conditioning is large and read once."""
        place = chain, section.index, str(seen)
        if place not in self.keys:
            more = self.section_ingredients(section) if self.section_ingredients else {}
            ingredients = {"section": section.facts(), "seed": seed} | dict(more) | dict(seen)
            self.keys[place] = section_key(chain, ingredients)
        return self.keys[place]

    def _sampled(self, section: Section, seed: int, memory: Memory, key: str, previous: str) -> Tensor:
        """A section made now and put on disk, if it can be. previous: hash of all that was made before it."""
        if self.latent_size is not None:
            size = section.latents * math.prod(self.latent_size) * torch.finfo(torch.float32).bits // 8
            self.store.check_space(size, f"section {section.index + 1} is not made")
        made = self.renderer.sample(section, seed, memory).cpu().contiguous()
        if not is_finite(made):
            raise ValueError(
                f"section {section.index + 1} ({section.prompt[:80]!r}): the model gave NaN or infinite values, so the "
                "section is not stored; often half precision or a fast attention is to blame (start ComfyUI without "
                "--fp16-unet, --use-sage-attention and the like), else a damaged model or LoRA or a very high cfg. "
                "Change that and queue again: the sections before it are reused"
            )
        take = self.takes.get(section.index, 0)
        about = {"prompt": section.prompt, "seed": str(seed), "take": str(take), "previous": previous}
        self.store.put(key, section.index, {"latents": made}, about)
        return made

    def _kept(self, record: Mapping[str, Any], section: Section) -> Tensor | None:
        """What a record is of, when it is there, fits and is as large; under the section's place from here on."""
        stored = self.store.get(record["key"]) if fits(record, section, self.about) else None
        made = _latents(stored)
        if stored is None or made is None or made.shape[2] != section.latents:
            return None
        if self.latent_size not in (None, (made.shape[1], *made.shape[3:])):
            return None
        if not self.store.path(record["key"], section.index).is_file():  # its shot has moved
            self.store.put(record["key"], section.index, stored.tensors, stored.metadata)
        return made


def _versioned(ingredients: Mapping[str, Any]) -> Mapping[str, Any]:
    return ingredients if METHOD == 1 else {**ingredients, "method": METHOD}


def _latents(stored: StoredSection | None) -> Tensor | None:
    """A stored section's latents; one that holds none or NaN counts as missing, so that it is made again."""
    return None if stored is None else stored.latents


def section_seeds(plan: Sequence[Section], seed: int, takes: Mapping[int, int] | None = None) -> list[int]:
    """One seed per section from one generator; a shot's own seed starts a generator of its own, a take mixes in."""
    film = torch.Generator().manual_seed(seed)
    shots: dict[int, torch.Generator] = {}
    seeds = []
    for section in plan:
        drawn = _draw(film)  # drawn for every section, so that a shot's own seed moves no other section's
        if section.seed is not None:
            if section.shot_index not in shots:
                shots[section.shot_index] = torch.Generator().manual_seed(section.seed)
            drawn = _draw(shots[section.shot_index])
        seeds.append(drawn)
    return apply_takes(seeds, takes or {})


def _draw(generator: torch.Generator) -> int:
    return int(torch.randint(0, 2**63 - 1, (), generator=generator))


def _manifest_entry(entry: RenderedSection) -> dict[str, Any]:
    section = entry.section
    clip = {} if section.repeated is None else {"repeated": section.repeated}
    return {
        "index": section.index,
        "key": entry.key,
        "status": entry.status,
        "prompt": section.prompt,
        "seed": entry.seed,
        "take": entry.take,
        "start_seconds": section.start_seconds,
        "seconds": section.seconds,
        "frames": section.frames,
        "latents": section.latents,
        **clip,
        **entry.seen,
        "previous": entry.previous,
        "chain": entry.chain,
    }
