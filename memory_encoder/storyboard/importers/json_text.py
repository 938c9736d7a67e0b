"""JSON as people and language models write it: with words around it, comments, commas too many, typographic quotes."""

from __future__ import annotations

import re
from typing import Any

from ..cleaning import AROUND, Lines
from ..model import StoryboardError, decode_json, show

_START = re.compile(r"\{\s{0,200}(?:[\"\u201c\u201d}]|//|/\*|#)|\[\s{0,200}[\[{\"\u201c]")
_LINE_START = re.compile(r"^[ \t\u00a0\u3000\u200b\ufeff]{0,40}(?=[\[{])", re.MULTILINE)
_INLINE = re.compile(r"[\[{]\s{0,200}\{?\s{0,200}[\"\u201c]\w{1,40}[\"\u201d]\s{0,20}[:：]")
_KNOWN = re.compile(r"[\"\u201c](?:shots|scenes|prompts|prompt|start|video_prompts)[\"\u201d]\s{0,20}[:：]")
_SYNTAX = {"：": ":", "，": ",", "｛": "{", "｝": "}", "［": "[", "］": "]"}
_CLOSING = {"\u201c": "\u201d\u201c", "\u201d": "\u201d", "\u201e": "\u201c\u201d"}


def find_json(text: str) -> int:
    """Where a JSON text begins, words before it allowed; -1 when there is none."""
    begin = len(text) - len(text.lstrip(AROUND))
    if _START.match(text, begin):
        return begin
    if not _KNOWN.search(text):
        return -1
    for found in _LINE_START.finditer(text):
        if _START.match(text, found.end()):
            return found.end()
    inline = _INLINE.search(text)
    return -1 if inline is None else inline.start()


def decode(text: str, begin: int) -> tuple[Any, bool]:
    """The JSON value that begins there, and whether there are words around it.

    Raises StoryboardError with line and column, and when a second JSON follows.
    """
    plain = _as_strict(text, begin)
    data, end = decode_json(plain, begin)
    after = plain[end:].strip(AROUND)
    if re.search(r"[{}\[\]]", after):
        at = end + len(plain[end:]) - len(plain[end:].lstrip(AROUND))
        raise StoryboardError(
            f"line {Lines(plain).line(at)}: there is more behind the JSON: {show(after)}; "
            'keep one JSON object, with all shots in its list: {"shots": [...]}'
        )
    return data, bool(after or text[:begin].strip(AROUND))


def _as_strict(text: str, begin: int) -> str:
    """The text with what strict JSON has no words for replaced, sign by sign; strings stay as they are."""
    out = list(text[:begin])
    position, last = begin, -1  # `last` is where the newest sign that is no space stands in `out`
    while position < len(text):
        sign = text[position]
        if sign == '"':
            end = _end_of_string(text, position)
            out.extend(text[position:end])
        elif sign in _CLOSING:
            end = _end_of_typographic(text, position, out)
        elif sign == "#" or text.startswith("//", position):
            end = _ending(text, text.find("\n", position), 0)
            out.extend(" " * (end - position))
            position = end
            continue
        elif text.startswith("/*", position):
            end = _ending(text, text.find("*/", position + 2), 2)
            out.extend("\n" if c == "\n" else " " for c in text[position:end])
            position = end
            continue
        else:
            sign = _SYNTAX.get(sign, " " if sign in AROUND and sign not in "\t\r\n" else sign)
            if sign in "]}" and last >= 0 and out[last] == ",":
                out[last] = " "
            out.append(sign)
            end = position + 1
            if sign in AROUND:
                position = end
                continue
        last, position = len(out) - 1, end
    return "".join(out)


def _end_of_string(text: str, start: int) -> int:
    position = start + 1
    while position < len(text) and text[position] != '"':
        position += 2 if text[position] == "\\" else 1
    return min(position + 1, len(text))


def _end_of_typographic(text: str, start: int, out: list[str]) -> int:
    """Copies a string in typographic quotes as one in straight quotes."""
    closing = _CLOSING[text[start]]
    position = start + 1
    out.append('"')
    while position < len(text) and text[position] not in closing:
        step = 2 if text[position] == "\\" else 1
        out.append('\\"' if text[position] == '"' else text[position : position + step])
        position += step
    out.append('"')
    return min(position + 1, len(text))


def _ending(text: str, found: int, length: int) -> int:
    return len(text) if found < 0 else found + length
