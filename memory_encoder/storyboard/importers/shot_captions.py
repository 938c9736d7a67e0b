"""`[global caption] ... [per shot caption] ... [shot cut] ...`, as HoloCine's prompts are written."""

from __future__ import annotations

import re

from ..cleaning import AROUND, Lines
from ..model import StoryboardError
from ..times import Clock
from .reading import Part, Reading, joined, one_section_each

_MARK = re.compile(r"\[(global caption|per shot caption|shot cut)\]:?", re.IGNORECASE)
_COUNT = re.compile(r"\s{0,9}\bThis (?:scene|video|film) (?:contains|has) \d{1,4} shots?\.?", re.IGNORECASE)


def looks_like(text: str) -> bool:
    """Whether the text has one of the three marks."""
    return _MARK.search(text) is not None


def parse(text: str, clock: Clock) -> Reading:
    """Each shot's caption behind the global one, without its sentence that counts the shots."""
    marks = list(_MARK.finditer(text))
    words = text[: marks[0].start()].strip(AROUND)
    common, captions = "", [words] if words else []
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        body = text[mark.end() : following.start() if following else len(text)].strip(AROUND)
        if mark[1].lower() == "global caption":
            if common or captions:
                raise StoryboardError(
                    f"line {Lines(text).line(mark.start())}: {mark[0]} has to stand once, before all shots; "
                    "write [global caption] ... [per shot caption] ... [shot cut] ..."
                )
            common = _COUNT.sub("", body)
        else:
            captions.append(body)
    if not captions:
        raise StoryboardError(
            "the text has a [global caption] and no shots; write [per shot caption] ... [shot cut] ... behind it"
        )
    parts = [Part(joined(common, caption) if caption else "") for caption in captions]
    return Reading(
        one_section_each(parts, clock.section_seconds), "captions", ("common",) if common else (), open_ended=True
    )
