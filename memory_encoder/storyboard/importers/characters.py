"""Character sheets: who looks how, as people and language models write it beside a story or in a text of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..cast import CastLine
from ..cleaning import AROUND, clean
from ..model import MAX_TEXT_BYTES, StoryboardError, cast_from, checked_size
from .json_text import decode, find_json

_FIELDS = ("cast", "characters", "character_sheets", "character_sheet")
_NAMES = ("name", "character", "id")
_LOOKS = (
    "look", "looks", "description", "visual_description", "appearance", "gender", "age", "face", "hair", "build",
    "clothes", "clothing", "outfit", "details",
)  # fmt: skip
_BULLET = re.compile(r"(?:[-*•#]{1,100}|\d{1,3}[.)])[ \t]")
# What stands before a look; the look is the rest of the line.
_NAMED = re.compile(r"[*_]{0,3}(?P<name>[^:：*]{1,100}?)[*_]{0,3}[ \t]{0,9}[:：][*_]{0,3}(?=\s)")
_IDEOGRAPHIC = re.compile(r"(?P<name>[^:：]{1,100})：(?=.)", re.DOTALL)
_WHOLE_FILM = re.compile(r"style|look|film|风格|画风|整体|スタイル|画風|全体", re.IGNORECASE)  # no one's name
_HEADING = re.compile(r"#{1,100}[ \t]|[^:：]{0,100}[:：][*_]{0,3}\Z")  # "Characters:" announces lines


def read_characters(text: str) -> tuple[CastLine, ...]:
    """The lines of a text "Mira: a girl with red hair", or of JSON {"Mira": "a girl with red hair"}; words without a
    name are the look of the whole film. Empty for an empty text.

    Raises StoryboardError that names the line.
    """
    if isinstance(text, str) and len(text) <= MAX_TEXT_BYTES and not text.strip(AROUND):
        return ()
    text, _ = clean(checked_size(text))
    if text.strip(AROUND)[:1] in ("{", "["):
        data, _ = decode(text, max(find_json(text), text.find(text.strip(AROUND)[0])))
        named = next((data[field] for field in _FIELDS if isinstance(data, dict) and field in data), data)
        return cast_from(_lines_of(named))
    lines = [line.strip(AROUND) for line in text.split("\n")]
    return cast_from([_line_of(line) for line in lines if line and not _HEADING.match(line)])


def with_cast_lines(data: dict[str, Any]) -> dict[str, Any]:
    """A decoded storyboard whose characters, however they are called, stand in 'cast' as in our own JSON.

    Raises StoryboardError for two lists of them.
    """
    found = [field for field in _FIELDS if field in data]
    if not found:
        return data
    if len(found) > 1:
        raise StoryboardError(f"'{found[0]}' and '{found[1]}' both say who looks how; keep one")
    rest = {field: value for field, value in data.items() if field != found[0]}
    return rest | {"cast": _lines_of(data[found[0]])}


def _lines_of(value: Any) -> Any:
    """A list of lines; what is not understood stays as it is, and is refused with its place by `cast_from`."""
    if isinstance(value, Mapping) and not any(isinstance(value.get(key), str) for key in ("name", "look")):
        value = [_with_name(name, sheet) for name, sheet in value.items()]
    elif isinstance(value, Mapping):
        value = [value]
    return [_line_of(line) for line in value] if isinstance(value, list) else value


def _with_name(name: str, sheet: Any) -> Any:
    named = {} if _WHOLE_FILM.fullmatch(name) else {"name": name}
    return named | (dict(sheet) if isinstance(sheet, Mapping) else {"look": sheet})


def _line_of(line: Any) -> Any:
    if isinstance(line, str):
        return _written(line)
    if not isinstance(line, Mapping) or set(line) <= {"name", "look", "picture"}:
        return line
    names = [key for key in _NAMES if isinstance(line.get(key), str)]
    looks = [key for key in line if key in _LOOKS and isinstance(line[key], (str, int)) and line[key] != ""]
    if not looks:
        return line
    rest = {key: value for key, value in line.items() if key not in (*names, *looks)}
    name = {"name": line[names[0]]} if names else {}
    return name | {"look": ", ".join(_look(key, line[key]) for key in looks)} | rest


def _look(field: str, value: str | int) -> str:
    """A number alone is an age, and says so."""
    words = str(value).strip(AROUND + ",;.")
    return f"{words} years old" if field == "age" and words.isdigit() else words


def _written(line: str) -> dict[str, str]:
    words = line.strip(AROUND)
    if bullet := _BULLET.match(words):
        words = words[bullet.end() :].strip(AROUND)
    named = _NAMED.match(words) or _IDEOGRAPHIC.match(words)
    look = words[named.end() :].strip(AROUND) if named else ""
    if named is None or not look:
        return {"look": words}
    name = named["name"].strip(AROUND + "*_")
    return {"look": look} if _WHOLE_FILM.fullmatch(name) else {"name": name, "look": look}
