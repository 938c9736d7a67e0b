"""What an importer gives: the storyboard, and how the text was read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..cleaning import AROUND
from ..model import Shot, Storyboard, StoryboardError, Transition, check_count
from ..times import Clock, range_of, seconds_of

# How a text can be read; the editor has the same in each of its languages (js/strings/storyboard.mjs).
FORMS = {
    "json": "the storyboard's own JSON",
    "storymem": "a StoryMem script, one section each",
    "json_list": "a list of shots in JSON",
    "brackets": "times in brackets",
    "keyframes": "keyframes",
    "subtitles": "subtitles",
    "table": "a table",
    "list": "a list with times",
    "labels": "a list without times, one section each",
    "captions": "shot captions, one section each",
    "bars": "texts between bars, one section each",
    "plain": "plain text",
}
REMARKS = {
    "keys_seconds": "keys without a unit are seconds; set keyframe_unit to frames if they are frames",
    "keys_frames": "keys without a unit are frames",
    "codes": "time codes are minutes and seconds",
    "common": "the text before the shots was joined to every shot",
    "left_out": "words around the storyboard were left out",
    "columns": "other columns of the table were left out",
    "lines": "a line break does not begin a new shot; write | between shots if it should",
    "negative": "--neg went to the negative prompt",
}


_NEGATIVE = re.compile(
    r"(?<!\S)--neg(?:ative)?(?!\S)|(?<=\n)[*# \t]{0,9}negative(?:[ _]prompt)?(?:\*\*)?[ \t]{0,3}[:：](?:\*\*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reading:
    """A storyboard and how it was read: a key of FORMS, keys of REMARKS. `open_ended`: no sign ends a shot's text."""

    storyboard: Storyboard
    form: str
    remarks: tuple[str, ...] = ()
    open_ended: bool = False

    @property
    def note(self) -> str:
        """How it was read, in one line for people."""
        count = len(self.storyboard.shots)
        shots = "1 shot" if count == 1 else f"{count} shots"
        return "; ".join([f"Read as {shots} from {FORMS[self.form]}", *(REMARKS[remark] for remark in self.remarks)])

    def with_remark(self, remark: str) -> Reading:
        """The same with one more remark."""
        return replace(self, remarks=(*self.remarks, remark))

    def to_dict(self) -> dict[str, Any]:
        """For the editor: `{"form", "shots", "remarks", "note"}`."""
        return {
            "form": self.form, "shots": len(self.storyboard.shots), "remarks": list(self.remarks), "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A shot as it stands in a list: its time as written, its text, and the words that name its place in messages.

    With a `length` it has no `last`; without a `first` it begins where the shot before it ends.
    """

    first: str
    last: str | None
    text: str
    where: str
    name: str = ""
    length: str = ""


@dataclass(frozen=True)
class Part:
    """A shot without a time: it lasts one section."""

    prompt: str
    transition: Transition = "cut"
    name: str = ""
    stated: bool = False  # the text itself says the transition


def one_section_each(parts: Sequence[Part], section_seconds: float) -> Storyboard:
    """Shots that follow each other, each as long as a section."""
    check_count(len(parts))
    return Storyboard(
        tuple(
            Shot(
                part.prompt,
                number * section_seconds,
                (number + 1) * section_seconds,
                transition=part.transition,
                name=part.name,
                stated=part.stated,
            )
            for number, part in enumerate(parts)
        )
    )


def shots_of(entries: Sequence[Entry], clock: Clock, unit: str = "") -> tuple[Shot, ...]:
    """Shots of a list; times alone are starts, which only a first time of 0 tells from lengths."""
    shots: list[Shot] = []
    for entry in entries:
        if entry.length:
            start = shots[-1].end or 0.0 if shots else 0.0
            if entry.first:
                start = seconds_of(entry.first, f"{entry.where}: the start", clock, unit)
            end = start + seconds_of(entry.length, f"{entry.where}: the duration", clock, unit)
        else:
            start, end = range_of(entry.first, entry.last, entry.where, clock, unit)
        shots.append(Shot(entry.text, start, end, name=entry.name))
    if all(shot.end is None for shot in shots) and shots[0].start != 0:
        raise StoryboardError(
            f"{entries[0].where}: the first time is {entries[0].first.strip()!r}, and nothing says whether such "
            "times are starts or lengths; write start and end, such as 0-5s"
        )
    return tuple(shots)


def common_text(before: str) -> tuple[str, bool]:
    """What stands before the first shot and belongs to all, and whether a line that announces them is left out.

    Raises StoryboardError for a negative prompt, which would stand in every prompt."""
    lines = before.strip(AROUND + ",;").split("\n")
    if _NEGATIVE.search("\n" + before):
        raise StoryboardError(
            "a negative prompt stands before the first shot; write it behind the text of every shot, as --neg words"
        )
    announced = lines[-1].rstrip(AROUND + "*").endswith((":", "："))
    common = "\n".join(lines[:-1] if announced else lines).strip(AROUND + ",;，、；")
    return (common if any(letter.isalnum() for letter in common) else ""), announced


def joined(common: str, text: str, tail: str = "") -> str:
    """A shot's text between what stands before and behind all shots."""
    parts = [part.strip(AROUND) for part in (common, text, tail)]
    result = ""
    for part in parts:
        if result and part:
            result = result.rstrip(",，、 ")
            result += " " if re.search(r"[.!?;:。！？；]$", result) else ", "
        result += part
    return result


def with_negatives(reading: Reading) -> Reading:
    """`--neg words` or a line `Negative prompt: words` behind a prompt goes to the film's one negative prompt."""
    split = [_NEGATIVE.split(shot.prompt, maxsplit=1) for shot in reading.storyboard.shots]
    if not any(len(parts) == 2 for parts in split):
        return reading
    found = {parts[1].strip(AROUND + ",") if len(parts) == 2 else "" for parts in split}
    if len(found) > 1:
        raise StoryboardError(
            f"shot {next(n for n, parts in enumerate(split, 1) if len(parts) == 2)}: the negative prompt differs from "
            "shot to shot, but a film has one; write the same --neg in every shot, or take it out and use 'negative'"
        )
    shots = tuple(
        replace(shot, prompt=parts[0].rstrip(AROUND + ","))
        for shot, parts in zip(reading.storyboard.shots, split, strict=True)
    )
    return replace(reading, storyboard=Storyboard(shots, negative=found.pop())).with_remark("negative")
