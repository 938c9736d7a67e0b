"""The cast and the look of a film: one line each for people and places, put into every prompt that names them.

A model sees one prompt at a time and knows no "Mira" from an earlier one: StoryMem and others advise to say in every
prompt again how she looks. A line without a name is the look of the whole film and goes into every prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

MAX_LINES = 100
MAX_NAME = 100  # characters
MAX_PICTURE = 500  # characters of a file's name
_IDEOGRAPHS = "\u2e80-\uffff"  # scripts that put no space between words
_ARTICLE = re.compile(r"(?:the|an?) ", re.IGNORECASE)
_CLOSING = tuple(",;.:!?)]，。；：！？、")  # may follow a description without another comma


@dataclass(frozen=True)
class CastLine:
    """How someone or some place looks (`name`), or how all of the film does (no name).

    picture: name of an image file that shows it, as ComfyUI's image loader names files; "" for none.
    """

    look: str
    name: str = ""
    picture: str = ""


def with_cast(prompt: str, cast: Sequence[CastLine]) -> str:
    """The prompt with the look of everything that it names, each once; what it says already is not said again."""
    for line in cast:
        if is_in(line, prompt, cast):
            continue
        if not line.name:
            prompt = f"{prompt.rstrip(' ,')}{_mark(prompt)} {line.look}"
        elif (found := _mention(line.name).search(prompt)) is not None:
            prompt = _said(prompt, found.end(), line)
    return prompt


def merged(cast: Sequence[CastLine], sheets: Sequence[CastLine]) -> tuple[CastLine, ...]:
    """The lines of a cast with those of character sheets, which have the last word on who they name."""
    given = {line.name.casefold(): line for line in sheets if line.name}
    kept = [line for line in cast if line.name.casefold() not in given and line not in sheets]
    pictures = {line.name.casefold(): line.picture for line in cast if line.name}
    return (
        *kept,
        *(replace(line, picture=line.picture or pictures.get(line.name.casefold(), "")) for line in sheets),
    )


def is_in(line: CastLine, prompt: str, cast: Sequence[CastLine]) -> bool:
    """Whether a prompt that went through `with_cast` shows what the line describes.

    "A girl" inside of "a girl with red hair" is somebody else, where the cast has both, as a man is in no "woman".
    """
    if line.look not in prompt:
        return False
    longer = {one.look for one in cast if line.look in one.look} - {line.look}
    for look in sorted(longer, key=len, reverse=True):
        prompt = prompt.replace(look, "\n")
    return _whole(re.escape(line.look)).search(prompt) is not None


def _mention(name: str) -> re.Pattern[str]:
    """A name as a word of its own. One in small letters ("the kitchen") may begin a sentence, and the article of "The
    kitchen" stand inside of one; "Will" is no "will"."""
    flags = re.IGNORECASE if name == name.lower() else 0
    article = found[0] if (found := _ARTICLE.match(name)) else ""
    rest = name[len(article) :]
    return _whole(f"(?i:{re.escape(article)}){re.escape(rest)}", flags)


def _whole(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """The pattern where no word goes on before or behind it."""
    begin, end = (rf"(?{sign}[^\W{_IDEOGRAPHS}])" for sign in ("<!", "!"))
    return re.compile(f"{begin}{pattern}{end}", flags)


def _said(prompt: str, at: int, line: CastLine) -> str:
    """Behind the name as an apposition, "Mira, a girl with red hair, waves"; at the end where the name is inflected."""
    before, after = prompt[:at], prompt[at:]
    if after[:1] in ("'", "\u2019", "-"):
        return f"{prompt.rstrip(' ,')}{_mark(prompt)} {line.name}: {line.look}"
    comma, space = ("，", "") if re.match(f"[{_IDEOGRAPHS}]", line.look) else (",", " ")
    rest = after.lstrip()
    closed = not rest or rest.startswith(_CLOSING)
    return f"{before}{comma}{space}{line.look}{'' if closed else comma}{after}"


def _mark(prompt: str) -> str:
    """What stands between a prompt and a sentence that is put behind it."""
    return "" if prompt.rstrip(" ,")[-1:] in ".!?;:。！？；" else "."
