"""What a locked section keeps: what was made of its shot before, wherever in the film the shot is now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..storyboard import Section
from .opening import repeated_of

Record = Mapping[str, Any]
MOST = 1000  # records of shots that are in the film no more


class Made:
    """What is known of a film when a run begins.

    records: of its manifest, in order. earlier: those that the manifest keeps beside them: of shots that are in the
    film no more, and, where a run did not end, of all that there was before it, for it writes its own in their places.
    """

    def __init__(self, records: Sequence[Record], earlier: Sequence[Record]) -> None:
        prompts = _prompts(records)
        if any(record.get("prompt") in prompts for record in earlier):
            before = {_name(record) for record in earlier}
            self.unfinished = {r["index"]: r for r in records if _name(r) not in before}
            self.whole = {record["index"]: record for record in earlier}
        else:
            self.unfinished = {}
            self.whole = {record["index"]: record for record in records}
            end = 1 + max(self.whole, default=-1)
            self.whole |= {end + place: {**record, "index": end + place} for place, record in enumerate(earlier)}

    def for_sections(self, plan: Sequence[Section]) -> dict[int, Record]:
        """By the index of a section the record of its shot, for those that have one.

        A shot is known again by its prompt: shots that were inserted, moved or deleted before it change its place
        alone. One whose prompt was changed is looked for in its place, unless what was made there is another shot's.
        """
        places = defaultdict(list)
        for section in plan:
            places[section.prompt].append(section.index)
        layers = [_Layer(records, places) for records in (self.unfinished, self.whole)]
        found = {}
        for section in plan:
            ways = (_Layer.surely, _Layer.by_number, _Layer.in_its_place)
            records = (way(layer, section) for way in ways for layer in layers)
            if (record := next((one for one in records if one is not None), None)) is not None:
                found[section.index] = record
        return found

    def to_keep(self, written: Iterable[Record]) -> list[Record]:
        """What the manifest of a run that has not ended keeps beside the records that are written."""
        names = {_name(record) for record in written}
        return [] if all(_name(record) in names for record in self.whole.values()) else [*self.whole.values()]

    def left_over(self, plan: Sequence[Section]) -> list[Record]:
        """What the manifest keeps when all of a plan is made: the newest of those whose shots are not in it."""
        wanted = {section.prompt for section in plan}
        known = (*self.unfinished.values(), *self.whole.values())
        return [record for record in known if record.get("prompt") not in wanted][:MOST]


class _Layer:
    """Records by index, and the sections of a plan by prompt (`places`)."""

    def __init__(self, records: Mapping[int, Record], places: Mapping[str, list[int]]) -> None:
        self.records, self.places = records, places
        self.made = defaultdict(list)
        for index in sorted(records):
            self.made[records[index].get("prompt")].append(index)

    def surely(self, section: Section) -> Record | None:
        """Of as many sections of this prompt as the plan has, or of the same place."""
        same, here = self.made.get(section.prompt, []), self.records.get(section.index)
        if len(same) == len(self.places[section.prompt]):
            return self.records[same[self._number(section)]]
        return here if here is not None and here.get("prompt") == section.prompt else None

    def by_number(self, section: Section) -> Record | None:
        """Of as many sections of this prompt before it."""
        same, number = self.made.get(section.prompt, []), self._number(section)
        return self.records[same[number]] if number < len(same) else None

    def in_its_place(self, section: Section) -> Record | None:
        """Of another prompt, which the plan does not have."""
        here = self.records.get(section.index)
        return here if here is not None and here.get("prompt") not in self.places else None

    def _number(self, section: Section) -> int:
        return self.places[section.prompt].index(section.index)


def fits(record: Record, section: Section, about: Mapping[str, Any]) -> bool:
    """Whether what a record is of may stand in the section's place: as long, with the same frames shown, and latents of
    the same kind. about: what the film's records say of it."""
    kinds = {record.get("latent_format"), about.get("latent_format")} - {None}
    same = record.get("latents", section.latents) == section.latents and repeated_of(record) == section.repeated
    return same and len(kinds) < 2


def _name(record: Record) -> tuple[Any, Any]:
    return record["index"], record["key"]


def _prompts(records: Iterable[Record]) -> set[Any]:
    return {record.get("prompt") for record in records}
