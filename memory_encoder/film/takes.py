"""Which take of each section a film uses, which sections are locked, and which pictures of the film a person pins or
bans: short texts, checked here.

Sections are counted from 1, as the report and the error messages count them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

MAX_TAKE = 9999
MAX_CHARACTERS = 100_000
_PICTURE = re.compile(r"([+-]?)\s*(\d{1,6}):(\d{1,7})")
_LOCK = re.compile(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?")


class TakesError(ValueError):
    """A list of takes or locks that cannot be used; the message names the entry and the cure."""


def parse_takes(text: str, sections: int) -> dict[int, int]:
    """`{"2": 1}` (section, take) -> takes above 0 by index, counted from 0. Empty text is no entry.

    Take 0 is what the seed gives by itself. Raises TakesError for anything but whole numbers of existing sections.
    """
    if not text.strip():
        return {}
    _check_length("redo", text)
    try:
        data = json.loads(text, object_pairs_hook=_without_repeats)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TakesError(
            f'redo: {text[:60]!r} is no JSON; write {{"2": 1}} for the first new take of section 2'
        ) from error
    if not isinstance(data, dict):
        raise TakesError('redo: the JSON is no object; write {"2": 1} for the first new take of section 2')
    takes = {}
    for name, take in data.items():
        index = _index(name, sections, "redo")
        if isinstance(take, bool) or not isinstance(take, int) or not 0 <= take <= MAX_TAKE:
            raise TakesError(f"redo: section {name} has the take {take!r}; write a whole number from 0 to {MAX_TAKE}")
        if take:
            takes[index] = take
    return takes


def parse_locks(text: str, sections: int) -> frozenset[int]:
    """`2, 4-6` -> indices of these sections, counted from 0. Raises TakesError that names a bad entry."""
    _check_length("locks", text)
    locked: set[int] = set()
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        match = _LOCK.fullmatch(entry)
        if match is None:
            raise TakesError(f"locks: {entry[:40]!r} is no section; write numbers such as 2 or ranges such as 4-6")
        first = _index(match[1], sections, "locks")
        last = _index(match[2] or match[1], sections, "locks")
        if last < first:
            raise TakesError(f"locks: {entry} runs backwards; write the smaller number first")
        locked.update(range(first, last + 1))
    return frozenset(locked)


def parse_pictures(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """`2:40, -3:16` -> names SECTION:FRAME of the pictures that always stay, and of those that never do.

    Frames are counted from 0 in their section; 0:N is the N-th picture of what came before the film. Raises TakesError
    that names a bad entry.
    """
    _check_length("pictures", text)
    marked: dict[str, set[str]] = {"": set(), "-": set()}
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        match = _PICTURE.fullmatch(entry)
        if match is None:
            raise TakesError(
                f"pictures: {entry[:40]!r} is no picture; write SECTION:FRAME, such as 2:40 for one that always stays "
                "and -3:16 for one that never does"
            )
        marked[match[1].strip("+")].add(f"{int(match[2])}:{int(match[3])}")
    if both := sorted(marked[""] & marked["-"]):
        raise TakesError(f"pictures: {both[0]} is pinned and banned; write it once")
    return frozenset(marked[""]), frozenset(marked["-"])


def take_seed(seed: int, take: int) -> int:
    """The seed of a section's take; take 0 is the seed itself."""
    if not take:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:{take}".encode()).digest()[:8], "big") >> 1


def apply_takes(seeds: Iterable[int], takes: Mapping[int, int]) -> list[int]:
    """Seeds of all sections with the takes mixed in; those without one stay as they are."""
    return [take_seed(seed, takes.get(index, 0)) for index, seed in enumerate(seeds)]


def _index(name: str, sections: int, where: str) -> int:
    if re.fullmatch(r"[1-9]\d{0,5}", name) is None:
        raise TakesError(f"{where}: {name[:40]!r} is no section; sections are counted from 1")
    if int(name) > sections:
        raise TakesError(
            f"{where}: section {name} does not exist, the film has {sections}; remove it from {where}, "
            "or press 'Clear takes and locks' on the node"
        )
    return int(name) - 1


def _check_length(where: str, text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise TakesError(f"{where}: the text has {len(text)} characters; at most {MAX_CHARACTERS} are read")


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise TakesError("redo: a section is named twice; keep one entry of each")
    return dict(pairs)
