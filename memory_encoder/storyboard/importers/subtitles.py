"""Subtitle files, SRT and WebVTT: a line of times with an arrow, then the text, then an empty line."""

from __future__ import annotations

import re

from ..model import Storyboard, StoryboardError
from ..times import CODE, Clock
from .reading import Entry, Reading, shots_of

_ARROW = re.compile(rf"[ \t]{{0,20}}({CODE})[ \t]{{0,9}}-->[ \t]{{0,9}}({CODE})(?:[ \t][^\n]{{0,200}})?")
_HEADER = re.compile(r"WEBVTT\b.{0,200}|NOTE\b.{0,200}|STYLE|Kind:.{0,100}|Language:.{0,100}")
_TAG = re.compile(  # of voices, fonts and places; <lora:...> is none of them
    r"</?(?:[bciuv]|font|lang|ruby|rt)(?:[ .][^<>\n]{0,100})?>|\{\\[^{}\n]{0,100}\}", re.IGNORECASE
)
_FORM = "write 00:00:00,000 --> 00:00:05,000 and the text in the lines below it"


def looks_like(text: str) -> bool:
    """Whether a line is two time codes with an arrow between them."""
    return any(_ARROW.fullmatch(line.rstrip()) for line in text.split("\n"))


def parse(text: str, clock: Clock) -> Reading:
    """Reads the subtitles; their numbers, a header and empty lines are no text."""
    lines = [line.strip(" \t") for line in text.split("\n")]
    arrows = [number for number, line in enumerate(lines) if _ARROW.fullmatch(line)]
    entries = []
    for shot, (at, following) in enumerate(zip(arrows, [*arrows[1:], len(lines)], strict=True), 1):
        body = lines[at + 1 : following]
        if following < len(lines) and body and body[-1].isdigit():
            body = body[:-1]  # the number of the next one
        match = _ARROW.fullmatch(lines[at])
        assert match is not None
        words = _TAG.sub("", "\n".join(body)).strip()
        entries.append(Entry(match[1], match[2], words, f"shot {shot} (line {at + 1})"))
    for number, line in enumerate(lines[: arrows[0]], 1):
        if line and not line.isdigit() and not _HEADER.fullmatch(line):
            raise StoryboardError(
                f"line {number}: {line[:40]!r} stands before the first time of the subtitles; {_FORM}"
            )
    return Reading(Storyboard(shots_of(entries, clock)), "subtitles")
