"""Keyframes: `"0": "text", "5": "text"`, in braces or not, as prompt schedules write them."""

from __future__ import annotations

import json
import re

from ..cleaning import AROUND, Lines
from ..model import Shot, Storyboard, StoryboardError
from ..times import ANY_RANGE, BETWEEN, NUMBER, UNIT, Clock, is_code, range_of
from .reading import Reading, common_text, joined

_QUOTES = {'"': '"', "\u201c": "\u201d", "\u201e": "\u201c\u201d", "\u201d": "\u201d"}
_QUOTE = '["\u201c\u201d\u201e]'
_KEY = rf"{_QUOTE}{ANY_RANGE}{_QUOTE}\s{{0,20}}[:：]"
_BEGINS = re.compile(
    rf"\{{?\s{{0,20}}{_QUOTE}\s{{0,20}}{NUMBER}\s?[a-z]{{0,7}}\s{{0,20}}(?:{BETWEEN}[^\"\u201c\u201d]{{1,30}})?{_QUOTE}\s{{0,20}}[:：]",
    re.IGNORECASE,
)
_WITH_TEXT = re.compile(rf"{_KEY}\s{{0,20}}{_QUOTE}", re.IGNORECASE)
_PLAIN = rf"\d{{1,7}}(?:\.\d{{1,9}})?\s?{UNIT}?"
_SPAN = rf"{_PLAIN}(?:\s?{BETWEEN}\s?{_PLAIN})?"
_UNQUOTED = re.compile(rf"({_SPAN})[ \t]{{0,20}}[:：](?!\d)[ \t]{{0,20}}(.{{0,20000}})", re.IGNORECASE)
_COMMA = r"(?:(?<!\d)[,，]|[,，](?=[ \t]))"  # none of a number
_NEXT = re.compile(rf"(?:[;；]|{_COMMA})[ \t]{{0,9}}(?={_SPAN}[ \t]{{0,9}}[:：](?!\d))", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[,;，；][ \t]{0,9}(\d{1,6},\d{1,3})[ \t]{0,3}[:：](?!\d)")
RANGE = re.compile(ANY_RANGE, re.IGNORECASE)
_BLANK = AROUND


def begins(text: str) -> bool:
    """Whether the text opens with a quoted time and a colon."""
    return _BEGINS.match(text.lstrip(AROUND)) is not None


def looks_like(text: str) -> bool:
    """Whether there are quoted times before quoted texts, or every line is `0: text`."""
    return _WITH_TEXT.search(text) is not None or bool(_unquoted(text))


def parse(text: str, clock: Clock) -> Reading:
    """Reads the keyframes; a text before the first and one behind the last belong to each of them."""
    pairs, head, tail = (
        (_unquoted(text), "", "") if not (begins(text) or _WITH_TEXT.search(text)) else _quoted_pairs(text)
    )
    unit = "f" if clock.keyframe_unit == "frames" else ""
    head, announced = common_text(head)
    shots, plain = [], False
    for key, prompt, where in pairs:
        if comma := _DECIMAL_COMMA.search(prompt):
            raise StoryboardError(f"{where}: its text holds the time {comma[1]}; write it with a point")
        match = RANGE.fullmatch(key) if len(key) <= 100 else None
        first, last = (match[1], match[2]) if match else (key, None)
        plain = plain or (last or first).strip().replace(".", "", 1).isdigit()
        start, end = range_of(first, last, where, clock, unit)
        shots.append(Shot(joined(head, prompt, tail) if head or tail else prompt, start, end))
    remarks = ("keys_frames" if unit else "keys_seconds",) if plain and len(shots) > 1 else ()
    remarks += ("codes",) if any(is_code(key) for key, _, _ in pairs) else ()
    remarks += ("common",) if head or tail else ()
    return Reading(Storyboard(tuple(shots)), "keyframes", remarks + (("left_out",) if announced else ()))


def _unquoted(text: str) -> list[tuple[str, str, str]]:
    """`0: text` on every line, or one behind the other with commas or semicolons between them."""
    pairs = []
    lines = ((number, part) for number, line in enumerate(text.split("\n"), 1) for part in _NEXT.split(line))
    for number, line in lines:
        if not line.strip(AROUND):
            continue
        match = _UNQUOTED.fullmatch(line.strip(AROUND).rstrip(","))
        if match is None:
            return []
        pairs.append((match[1], match[2].strip(AROUND + "\"'"), f"shot {len(pairs) + 1} (line {number})"))
    return pairs if pairs and re.match(r"0+(?:\.0+)?(?![\d.])", pairs[0][0]) else []  # others may count the lines


def _quoted_pairs(text: str) -> tuple[list[tuple[str, str, str]], str, str]:
    """Key, text and place of each pair, and what stands before and behind all of them."""
    position = _skip(text, 0, len(text), _BLANK)
    head = ""
    if not begins(text):
        first = _WITH_TEXT.search(text)
        position = first.start() if first else position
        head = text[:position].rstrip(AROUND + "{")
    braces = text[position] == "{"
    end = len(text.rstrip(AROUND))
    if braces and text[end - 1] != "}":
        raise StoryboardError("the keyframes begin with { but do not end with }; write the } or leave both out")
    end = end - 1 if braces else end
    pairs, lines = [], Lines(text)
    position = _skip(text, position + 1 if braces else position, end, _BLANK + ",，")
    while position < end:
        where = f"shot {len(pairs) + 1} ({lines.place(position)})"
        if pairs and not braces and _is_tail(text[position:end]):
            return pairs, head, text[position:end].strip(AROUND + ",")
        key, position = _quoted(text, position, end, where, 'a time in quotes, such as "5"')
        position = _skip(text, position, end, _BLANK)
        if position >= end or text[position] not in ":：":
            raise StoryboardError(f'{where}: a colon is missing after "{key[:20]}"; write "5": "text"')
        position = _skip(text, position + 1, end, _BLANK)
        prompt, position = _quoted(text, position, end, where, "the shot's text in quotes")
        pairs.append((key, prompt, where))
        position = _skip(text, position, end, _BLANK + ",，")
    return pairs, head, ""


def _is_tail(rest: str) -> bool:
    """Words for every shot: they hold no quotation mark, which would be a shot that is written wrongly."""
    return not any(mark in rest for mark in _QUOTES) and any(letter.isalpha() for letter in rest)


def _skip(text: str, position: int, end: int, characters: str) -> int:
    while position < end and text[position] in characters:
        position += 1
    return position


def _quoted(text: str, position: int, end: int, where: str, wanted: str) -> tuple[str, int]:
    """The string that begins at `position`, and where it ends."""
    if position >= end or text[position] not in _QUOTES:
        found = f"{text[position : position + 20]!r}" if position < end else "the end"
        raise StoryboardError(
            f'{where}: {wanted} should follow, but there is {found}; write "5": "text", with \\" for quotes inside'
        )
    if text[position] != '"':
        closing = [at for mark in _QUOTES[text[position]] if (at := text.find(mark, position + 1, end)) >= 0]
        if not closing:
            raise StoryboardError(f"{where}: a quoted text is broken (it does not end); close it with \u201d")
        return text[position + 1 : min(closing)], min(closing) + 1
    try:
        value, position = json.JSONDecoder(strict=False).raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise StoryboardError(
            f'{where}: a quoted text is broken ({error.msg}); close it with " and write \\" inside it'
        ) from error
    return value, position
