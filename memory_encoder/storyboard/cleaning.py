"""What stands around a storyboard in a pasted text: a language model's thinking, code fences, invisible characters."""

from __future__ import annotations

import bisect
import re

from .model import StoryboardError

# A space for the eye, or nothing at all; inside of prompts they stay (emoji and scripts are made with some of them).
INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad"
SPACES = " \t\r\n\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
AROUND = SPACES + INVISIBLE
OPENING = ("{", "[", "【", '"', "\u201c")  # a text that begins like a storyboard holds nothing around it

_THINKING = re.compile(r"<(/?)(think|thinking|thought|reasoning|reflection)>", re.IGNORECASE)
_FENCE = re.compile(r"[ \t]{0,20}(?:`{3,20}|~{3,20})[\w+-]{0,30}[ \t\r]{0,20}", re.ASCII)


def clean(text: str) -> tuple[str, bool]:
    """The storyboard's own part of a text, its lines where they were, and whether words were left out.

    Raises StoryboardError when thinking does not end, or several code blocks leave open which one is meant.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.lstrip(AROUND)[:1] in OPENING:
        return _trimmed(text), False
    answer = _without_thinking(text)
    before, inside, after = _around_fence(answer)
    return _trimmed(inside), answer is not text or bool((before + after).strip(AROUND))


class Lines:
    """Positions of a text as people count them; a text of many shots asks for many."""

    def __init__(self, text: str) -> None:
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._single = "\n" not in text.strip()

    def line(self, position: int) -> int:
        """The number of the line, counted from 1."""
        return bisect.bisect_left(self._breaks, position) + 1

    def place(self, position: int) -> str:
        """The character, and the line when there are several."""
        if self._single:
            return f"character {position + 1}"
        line = self.line(position)
        return f"line {line}, character {position - (self._breaks[line - 2] if line > 1 else -1)}"


def _trimmed(text: str) -> str:
    """Without what cannot be seen at both ends; line breaks at the beginning stay, since lines are counted."""
    begin = len(text) - len(text.lstrip(AROUND))
    return "\n" * text.count("\n", 0, begin) + text.strip(AROUND)


def _without_thinking(text: str) -> str:
    """Models think aloud before they answer; some leave out the tag that opens it."""
    tags = list(_THINKING.finditer(text))
    if not tags:
        return text
    if tags[-1][1] != "/":
        raise StoryboardError(
            f"line {Lines(text).line(tags[-1].start())}: the model's thinking ({tags[-1][0]}) does not end, so its "
            "answer is missing; let it write more tokens, or paste the storyboard alone"
        )
    end = tags[-1].end()
    if tags[0].start() > 0 and tags[0][1] != "/" and text[: tags[0].start()].strip(AROUND):
        raise StoryboardError(
            f"line {Lines(text).line(tags[0].start())}: a model's thinking ({tags[0][0]}) stands inside of the "
            "text; delete it"
        )
    return "\n" * text.count("\n", 0, end) + text[end:]


def _around_fence(text: str) -> tuple[str, str, str]:
    """What stands before, in and after the one code block; all of it is inside when there is none."""
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if _FENCE.fullmatch(line)]
    if not fences:
        return "", text, ""
    if len(fences) > 2:
        raise StoryboardError(
            f"line {fences[2] + 1}: the text has several code blocks; paste the one that holds the storyboard"
        )
    first, last = fences[0], fences[1] if len(fences) == 2 else len(lines)
    inside = "\n" * (first + 1) + "\n".join(lines[first + 1 : last])
    return "\n".join(lines[:first]), inside, "\n".join(lines[last + 1 :])
