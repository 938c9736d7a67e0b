"""The autoregressive loop: generate a section, store it, compress it, go on (paper section 3.2, Figure 4b)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .memory import VideoMemory
from .sections import SectionStore, StoredSection, section_key
from .storyboard import Section
from .takes import apply_takes


class Renderer(Protocol):
    """What the loop needs from the world: sampling, compression, and a place to report to."""

    def sample(self, section: Section, seed: int, memory: VideoMemory) -> Tensor:
        """Latents [B,C,T,H,W] of one section, given the memory of everything before it."""
        ...

    def append(self, memory: VideoMemory, latents: Tensor, section: Section, seed: int) -> VideoMemory:
        """The memory with the section in it."""
        ...

    def section_done(self, section: Section, latents: Tensor, reused: bool) -> None:
        """Called when a section is on disk and in the memory; may raise to stop the film."""
        ...


@dataclass(frozen=True)
class RenderedSection:
    """One line of the report."""

    section: Section
    seed: int
    key: str
    status: str
    memory_tokens: int
    take: int = 0

    @property
    def reused(self) -> bool:
        """Whether the section came from disk."""
        return self.status != "stored"


@dataclass(frozen=True)
class Film:
    """Latents of all sections in order, the memory of the whole film, and what was done."""

    latents: tuple[Tensor, ...]
    memory: VideoMemory
    sections: tuple[RenderedSection, ...]


def render_film(
    plan: Sequence[Section],
    store: SectionStore,
    memory: VideoMemory,
    film_ingredients: Mapping[str, Any],
    seed: int,
    renderer: Renderer,
    section_ingredients: Callable[[Section], Mapping[str, Any]] | None = None,
    locked: Callable[[Section], bool] = lambda section: False,
    takes: Mapping[int, int] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Film:
    """Renders the sections of `plan` after what `memory` holds.

    A section's key is a hash of everything that made it, the previous key included: sections made before with the
    same key are reused, from the first change on everything is rendered anew. Each section is on disk before the
    next one starts. A locked section keeps what was made in its place before, whatever has changed.
    `takes` gives sections, by index, another seed. `about` is what each record of the manifest says of the film.
    """
    earlier = {int(record["index"]): record for record in store.manifest()}
    chain = section_key("", film_ingredients)
    latents: list[Tensor] = []
    done: list[RenderedSection] = []
    for section, section_seed in zip(plan, section_seeds(plan, seed, takes), strict=True):
        made_of = {"section": asdict(section), "seed": section_seed}
        chain = key = section_key(chain, made_of | dict(section_ingredients(section) if section_ingredients else {}))
        stored, status, take = store.get(key), "reused", (takes or {}).get(section.index, 0)
        if stored is None and locked(section) and (kept := _kept(store, earlier.get(section.index), section)):
            stored, key, status = kept, kept.key, "locked"
            take = earlier[section.index].get("take", 0)
            chain = section_key(chain, {"locked": key})  # what follows sees other pictures than the key speaks of
        if stored is None:
            made = renderer.sample(section, section_seed, memory).cpu().contiguous()
            store.put(key, section.index, {"latents": made}, {"prompt": section.prompt, "seed": str(section_seed)})
            status = "stored"
        else:
            made = stored.tensors["latents"]
        memory = renderer.append(memory, made, section, section_seed)
        latents.append(made)
        done.append(RenderedSection(section, section_seed, key, status, memory.token_count, take))
        later = [earlier[i] for i in range(len(done), len(plan)) if i in earlier]
        store.write_manifest([*(_manifest_entry(entry) | dict(about or {}) for entry in done), *later])
        renderer.section_done(section, made, stored is not None)
    return Film(tuple(latents), memory, tuple(done))


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


def _kept(store: SectionStore, record: Mapping[str, Any] | None, section: Section) -> StoredSection | None:
    """What the manifest says was made in a section's place before, when it is there and as long."""
    stored = None if record is None else store.get(record["key"])
    return stored if stored is not None and stored.tensors["latents"].shape[2] == section.latents else None


def _draw(generator: torch.Generator) -> int:
    return int(torch.randint(0, 2**63 - 1, (), generator=generator))


def _manifest_entry(entry: RenderedSection) -> dict[str, Any]:
    section = entry.section
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
    }
