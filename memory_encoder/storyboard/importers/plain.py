"""`first | second | third`, and text that is one shot."""

from __future__ import annotations

import re
from itertools import pairwise

from ..model import Shot, Storyboard, check_count
from ..times import Clock
from .reading import Part, Reading, one_section_each

_PAIRS = {")": "(", "]": "[", "}": "{", "】": "【", "」": "「", "\u201d": "\u201c"}
_SIGN = re.compile(r"[()\[\]{}【】「」\u201c\u201d|｜\"]")


def parse(text: str, clock: Clock) -> Reading:
    """A shot of one section between every two bars; without a bar the whole text is one shot."""
    bars = _bars(text)
    if bars:
        edges = [-1, *bars, len(text)]
        check_count(len(bars) + 1)
        parts = [Part(text[start + 1 : end]) for start, end in pairwise(edges)]
        return Reading(one_section_each(parts, clock.section_seconds), "bars")
    lines = [line for line in text.splitlines() if line.strip()]
    return Reading(Storyboard((Shot(text, 0.0),)), "plain", ("lines",) if len(lines) > 1 else ())


def _bars(text: str) -> list[int]:
    """The bars outside of pairs, since {red|blue} is part of a prompt. A bracket without its other half is none: :("""
    bars: list[int] = []
    open_at: list[tuple[str, int]] = []  # sign, how many bars came before it
    for found in _SIGN.finditer(text):
        sign, at = found[0], found.start()
        if sign in "|｜":
            bars.append(at)
        elif sign == '"':
            before, after = text[at - 1 : at], text[at + 1 : at + 2]
            if open_at and open_at[-1][0] == '"' and not after.isalnum():
                del bars[open_at.pop()[1] :]
            elif not before.isalnum() and after and not after.isspace():
                open_at.append((sign, len(bars)))
        elif sign in _PAIRS:
            depth = next(
                (d for d in range(len(open_at) - 1, max(len(open_at) - 9, -1), -1) if open_at[d][0] == _PAIRS[sign]),
                None,
            )
            if depth is not None:
                del bars[open_at[depth][1] :]
                del open_at[depth:]
        else:
            open_at.append((sign, len(bars)))
    return bars
