"""Memories cut at the end of an earlier section, and joined one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from ..phi.positions import cells_for
from .memory_file import Memory, holds_pictures
from .tail import later
from .video_memory import SectionRecord, VideoMemory, grown


def section_numbers(records: Sequence[SectionRecord]) -> list[int]:
    """The section to which each record belongs, as people count: 1 is the first, 0 a clip that opens the film.

    Sections are what a sampler made; clips that were compressed by hand belong to the section before them. In a memory
    of clips alone every clip counts as a section.
    """
    made = [record.seed is not None for record in records]
    return list(accumulate(map(int, made))) if any(made) else list(range(1, len(records) + 1))


def section_ends(records: Sequence[SectionRecord]) -> list[int]:
    """How many records a memory has that ends before the first section, after it, after the second, ..."""
    numbers = section_numbers(records)
    return [bisect_right(numbers, number) for number in range(max(numbers, default=0) + 1)]


def cut(memory: Memory, sections: int) -> Any:
    """The memory as it was after `sections` sections, to the bit; going on from it gives what it gave then.

    Negative numbers count from the end: -1 leaves out the last section. Raises ValueError for a section that does not
    exist and for a boundary of which nothing was kept.
    """
    ends = section_ends(memory.sections)
    count = len(ends) - 1
    wanted = sections + count if sections < 0 else sections
    if not 0 <= wanted <= count:
        raise ValueError(f"section {sections}: the memory has {count} sections; give a number from 0 to {count}")
    if holds_pictures(memory):
        return memory.until(ends[wanted])
    first, *others = (_cut(part, ends[wanted], wanted) for part in memory.parts)
    return replace(first, others=tuple(others))


def join(first: Memory, second: Memory) -> Any:
    """Both histories one after the other: `second` is moved behind the last latent of `first`.

    What is appended continues `second` exactly as it would alone. Raises ValueError for memories of different encoders,
    sizes or batches.
    """
    for nothing, other in ((first, second), (second, first)):
        if not nothing.latents and not nothing.sections:
            return other
    _check_kin(first, second)
    if any(part.config.locked for part in second.parts):
        raise ValueError(
            "memory and memory_after hold the last latents of their films alone, which cannot be joined; "
            "compress the second film's latents after the first's instead"
        )
    if holds_pictures(first) or holds_pictures(second):
        assert holds_pictures(first) and holds_pictures(second), "memories of one encoder are of one kind"
        return first.followed_by(second)
    joined, *others = (_join(a, b) for a, b in zip(first.parts, second.parts, strict=True))
    return replace(joined, others=tuple(others))


def _cut(memory: VideoMemory, records: int, section: int) -> VideoMemory:
    """One encoder's memory after the first `records` records."""
    if records == len(memory.sections):
        return memory
    if records == 0:
        return VideoMemory.empty(memory.config, memory.batch, memory.encoder_id)
    boundary = memory.boundaries[records - 1] if records <= len(memory.boundaries) else None
    if memory.config.locked:
        raise ValueError(
            f"section {section}: a memory of the last latents alone cannot be cut there, since it lacks those before "
            "them; branch off the film on disk instead (branch_film), or compress the history up to there again"
        )
    if boundary is None:
        raise ValueError(
            f"section {section}: the memory cannot be cut there, since it was made with attention full, saved by an "
            "earlier version, or joined with attention causal; compress the history up to that section again"
        )
    end, features = boundary.read(), memory.state.features
    if features is not None:  # of complete cells only, so that the earlier ones are its beginning
        features = features[:, :, : cells_for(end.state.latents, memory.config.stride[0])[0]].clone()
    return replace(
        memory,
        tokens=memory.tokens.until(boundary.tokens),
        coordinates=memory.coordinates.until(boundary.tokens),
        hidden=None if memory.hidden is None else memory.hidden.until(boundary.tokens),
        sections=memory.sections[:records],
        boundaries=memory.boundaries[: records - 1],
        others=(),
        end_kept=None,
        **end.end() | {"state": replace(end.state, features=features)},
    )


def _join(first: VideoMemory, second: VideoMemory) -> VideoMemory:
    """One encoder's memories; the unfinished cell of the first stays as it is."""
    tokens, latents = first.tokens.length + first.tail.shape[1], first.latents
    # The features that a causal attention goes on from are those of the second memory alone.
    kept = first.boundaries_with_end() if first.state.features is None else (None,) * len(first.sections)
    moved = (boundary and boundary.after(tokens, latents) for boundary in second.boundaries)
    return replace(
        second.moved(latents),
        tokens=first.tokens.followed_by(first.tail, *second.tokens.pieces),
        coordinates=first.coordinates.followed_by(first.tail_coordinates, later(second.coordinates.whole(), latents)),
        sections=(
            *first.sections,
            *(replace(record, start_latent=record.start_latent + latents) for record in second.sections),
        ),
        hidden=grown(first.hidden, first.tail_hidden, *() if second.hidden is None else second.hidden.pieces),
        others=(),
        end_kept=None,
        boundaries=(*kept, *moved),
    )


def _check_kin(first: Memory, second: Memory) -> None:
    ids = [[part.encoder_id for part in memory.parts] for memory in (first, second)]
    configs = [[part.config for part in memory.parts] for memory in (first, second)]
    if ids[0] != ids[1] or configs[0] != configs[1]:
        raise ValueError("memory_after was made by another encoder than memory; compress both with the same one")
    if first.size != second.size:
        (h1, w1), (h2, w2) = first.size, second.size
        raise ValueError(
            f"memory_after has latents of {w2}x{h2}, memory of {w1}x{h1}; a film has one size: compress both in it"
        )
    batches = first.batch, second.batch
    if batches[0] != batches[1]:
        raise ValueError(f"memory holds {batches[0]} clips, memory_after {batches[1]}; join equally many")
