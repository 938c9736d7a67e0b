"""What a locked section keeps: what was made of its shot before, wherever in the film the shot is now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..storyboard import Section
from .opening import repeated_of

Record = Mapping[str, Any]


def records_of(plan: Sequence[Section], records: Mapping[int, Record]) -> dict[int, Record]:
    """By the index of a section the manifest's record of its shot, for those that have one.

    A shot is known again by its prompt: shots that were inserted, moved or deleted before it change its place alone.
    One whose prompt was changed is looked for in its place, unless what was made there is another shot's.
    """
    places, made = defaultdict(list), defaultdict(list)
    for section in plan:
        places[section.prompt].append(section.index)
    for index in sorted(records):
        made[records[index].get("prompt")].append(index)
    found = {}
    for section in plan:
        index = _record_of(section, records, places, made)
        if index is not None:
            found[section.index] = records[index]
    return found


def _record_of(
    section: Section, records: Mapping[int, Record], places: Mapping[str, list[int]], made: Mapping[Any, list[int]]
) -> int | None:
    """The index that the section's record has. places, made: sections of the plan and records by their prompt."""
    same, here = made.get(section.prompt, []), records.get(section.index)
    number = places[section.prompt].index(section.index)
    if len(same) == len(places[section.prompt]):
        return same[number]
    if here is not None and here.get("prompt") == section.prompt:
        return section.index
    if number < len(same):
        return same[number]
    return section.index if here is not None and here.get("prompt") not in places else None


def fits(record: Record, section: Section, about: Mapping[str, Any]) -> bool:
    """Whether what a record is of may stand in the section's place: as long, with the same frames shown, and latents of
    the same kind. about: what the film's records say of it."""
    kinds = {record.get("latent_format"), about.get("latent_format")} - {None}
    same = record.get("latents", section.latents) == section.latents and repeated_of(record) == section.repeated
    return same and len(kinds) < 2
