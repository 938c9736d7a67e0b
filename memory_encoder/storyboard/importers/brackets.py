"""Times in brackets: `[0s: text] [5s-10s: text]`, and `[0s] text` with the text behind the bracket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..cleaning import AROUND, Lines
from ..model import Shot, Storyboard, StoryboardError
from ..times import ANY_RANGE, ANY_TIME, BETWEEN, RATIOS, UNIT, Clock, is_code, is_time, range_of
from .reading import Entry, Reading, common_text, joined, shots_of

_CLOSERS = {"[": "]", "【": "】", "［": "］"}
_OPEN = re.compile(r"[\[【［]")
_BEFORE_TEXT = re.compile(rf"{ANY_RANGE}[:：]", re.IGNORECASE)
_ALONE = re.compile(  # [0s], [0s-5s], [0s:5s], [66%:]
    rf"\s{{0,9}}(?P<first>{ANY_TIME})\s{{0,9}}"
    rf"(?:{BETWEEN}\s{{0,9}}(?P<last>{ANY_TIME})?\s{{0,9}}|[:：](?P<to>{ANY_TIME})?)?[\]】］]",
    re.IGNORECASE,
)
_NUMBERS = re.compile(  # two numbers and no unit
    r"\s{0,9}\d{1,9}(?:\.\d{1,9})?\s{0,9}[:：-]\s{0,9}\d{1,9}(?:\.\d{1,9})?\s{0,9}[\]】］]"
)
_RATIO = re.compile(r"\s{0,9}(\d{1,2}:\d{1,2})(?![\d.:])")
_WITH_UNIT = re.compile(rf"\d\s?{UNIT}(?![a-z])", re.IGNORECASE)
_BETWEEN_SHOTS = AROUND + ",;，、；"


@dataclass(frozen=True)
class _Head:
    """A bracket that opens with a time. `body` is where a text inside of it begins, -1 when there is only a time.

    `sure` is False for what may be something else: [9:16], [0-5], [9:16, vertical].
    """

    start: int
    end: int
    body: int
    first: str
    last: str | None
    sure: bool = True


def begins(text: str) -> bool:
    """Whether the text opens with a time in brackets."""
    opening = len(text) - len(text.lstrip(AROUND))
    if text[opening : opening + 1] not in _CLOSERS:
        return False
    head = _head(text, opening)
    if head is not None and head.body < 0 and not head.sure:
        return looks_like(text)
    return head is not None and is_time(head.first)


def looks_like(text: str) -> bool:
    """Whether there are times in brackets; a lone [9:16] is the format of a picture, [4k: ...] is text."""
    inside, behind = _times(text)
    return inside is not None or bool(behind)


def parse(text: str, clock: Clock) -> Reading:
    """Reads the shots; what stands before the first one belongs to each of them."""
    inside, behind = _times(text)
    if inside is None:
        return _with_text_behind(text, behind, clock)
    mixed = next((head for head in behind if head.sure), None)
    if mixed is not None:
        raise StoryboardError(
            f"shot 1 (line {Lines(text).line(mixed.start)}): {text[mixed.start : mixed.end]!r} has its text behind it, "
            "others have it inside; write every shot as [start: text] or [start-end: text]"
        )
    return _with_text_inside(text, inside.start, clock)


def _times(text: str) -> tuple[_Head | None, list[_Head]]:
    """The brackets that are times: the first that has a text inside, and those before it that have it behind them."""
    opening = len(text) - len(text.lstrip(AROUND))
    alone = []
    for head in _heads(text):
        if head.body < 0:
            alone.append(head)
        elif is_time(head.first) and (head.sure or head.start == opening):
            return head, alone
    if any(head.sure for head in alone):
        return None, [head for head in alone if head.sure or not _is_format(head)]
    several = len({_ratio(head) for head in alone}) > 1
    counted = alone and "-" in text[alone[0].start : alone[0].end] and alone[0].first.strip("0. ")  # [5-10] people
    if not all(_is_format(head) for head in alone) and (several or (alone[0].start == opening and not counted)):
        return None, alone
    return None, []


def _heads(text: str) -> Iterator[_Head]:
    """Brackets that open with something like a time."""
    position = 0
    while (found := _OPEN.search(text, position)) is not None:
        head = _head(text, found.start())
        position = found.end() if head is None else head.end
        if head is not None:
            yield head


def _head(text: str, at: int) -> _Head | None:
    alone = _ALONE.match(text, at + 1)
    if alone is not None and is_time(alone["first"]):
        first, last = alone["first"], alone["last"] or alone["to"]
        sure = _NUMBERS.fullmatch(text, at + 1, alone.end()) is None
        if not sure or last is not None or _WITH_UNIT.search(alone[0]) or is_code(first):
            return _Head(at, alone.end(), -1, first, last, sure)
    before = _BEFORE_TEXT.match(text, at + 1)
    if before is None:
        return None
    sure = not (before[1].strip().isdigit() and text[before.end() : before.end() + 1].isdigit())
    ratio = _RATIO.match(text, at + 1)
    if not sure and ratio is not None and ratio[1] in RATIOS:  # [9:16, vertical]
        return None
    return _Head(at, before.end(), before.end(), before[1], before[2], sure)


def _is_format(head: _Head) -> bool:
    """Whether it is a picture's format: [9:16], [2.39:1]."""
    name = _ratio(head)
    return name in RATIOS or re.fullmatch(r"\d\.\d{1,2}:1(?:\.0+)?", name) is not None


def _ratio(head: _Head) -> str:
    return head.first.replace("：", ":") if head.last is None else f"{head.first}:{head.last}"


def _with_text_inside(text: str, position: int, clock: Clock) -> Reading:
    """`[start: text]` and `[start-end: text]`; brackets inside a text must be balanced."""
    common, announced = common_text(text[:position])
    shots: list[Shot] = []
    lines = Lines(text)
    codes = False
    while position < len(text):
        if text[position] in _BETWEEN_SHOTS:
            position += 1
            continue
        where = f"shot {len(shots) + 1} ({lines.place(position)})"
        if text[position] not in _CLOSERS:
            raise StoryboardError(
                f"{where}: there is text outside the brackets: {text[position : position + 30]!r}; "
                "write every shot as [start: text] or [start-end: text]"
            )
        close = _closing_bracket(text, position, where)
        head = _BEFORE_TEXT.match(text, position + 1, close)
        if head is None:
            times = re.split("[:：]", text[position + 1 : close], maxsplit=1)[0]
            raise StoryboardError(f"{where}: {times[:30]!r} is not a time; write [5s: text] or [5s-10s: text]")
        start, end = range_of(head[1], head[2], where, clock)
        codes = codes or is_code(head[1])
        shots.append(Shot(joined(common, text[head.end() : close]) if common else text[head.end() : close], start, end))
        position = close + 1
    return Reading(Storyboard(tuple(shots)), "brackets", _remarks(codes, common, announced))


def _closing_bracket(text: str, start: int, where: str) -> int:
    opening, closing = text[start], _CLOSERS[text[start]]
    depth = 0
    for position in range(start, len(text)):
        depth += {opening: 1, closing: -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise StoryboardError(f"{where}: the bracket is not closed; write a {closing} at the end of the shot's text")


def _with_text_behind(text: str, heads: list[_Head], clock: Clock) -> Reading:
    """`[0s] text [5s] text`: a shot's text goes on until the next time."""
    common, announced = common_text(text[: heads[0].start])
    entries = []
    lines = Lines(text)
    for number, (head, following) in enumerate(zip(heads, [*heads[1:], None], strict=True), 1):
        where = f"shot {number} (line {lines.line(head.start)})"
        first, last = head.first, head.last or _open_end(text, head)
        if last is not None and not head.sure and "-" not in text[head.start : head.end]:
            raise StoryboardError(
                f"{where}: [{_ratio(head)}] is neither a time code nor a range with a unit; "
                "write [1:05] for minutes and seconds, or [0s-5s]"
            )
        body = re.sub(
            r"^\s{0,9}[:：\u2013\u2014-]\s{0,9}", "", text[head.end : following.start if following else len(text)]
        )
        entries.append(Entry(first, last, joined(common, body.strip(_BETWEEN_SHOTS)), where))
    codes = any(is_code(entry.first) for entry in entries)
    return Reading(
        Storyboard(shots_of(entries, clock)), "brackets", _remarks(codes, common, announced), open_ended=True
    )


def _open_end(text: str, head: _Head) -> str | None:
    """`[66%:]` lasts to the film's end, which only a percentage needs to have said."""
    return "100%" if re.search(r"[%％]\s{0,9}[:-]\s{0,9}\W$", text[head.start : head.end]) else None


def _remarks(codes: bool, common: str, announced: bool) -> tuple[str, ...]:
    given = (("codes", codes), ("common", bool(common)), ("left_out", announced))
    return tuple(remark for remark, holds in given if holds)
