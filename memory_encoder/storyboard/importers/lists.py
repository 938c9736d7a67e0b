"""Lists of shots, a line each: `0-5s: text`, `SHOT 1 - 0-3s: text`, `Scene 2 (5-10 s)`, `1. text`, `clip_1:`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from ..cleaning import AROUND
from ..model import Storyboard, StoryboardError
from ..times import RANGE, SPAN, Clock, is_code
from .reading import Entry, Part, Reading, one_section_each, shots_of

_WORDS = (
    "shot|scene|clip|cut|segment|part|sequence|section|beat|panel|take|video|prompt"
    "|act|step|stage|chunk|keyframe|escena|plano|toma|cena|sc[eè]ne|scena|plan|szene|einstellung|сцена|кадр|план"
    "|分镜头|分镜|镜头|鏡頭|场景|場景|场|幕|片段|画面"
    "|カット|ショット|シーン|장면|컷|샷"
)
_COUNT = "\\d{1,4}|one|two|three|four|five|six|seven|eight|nine|ten|[一二三四五六七八九十]{1,3}"
_MARKS = (
    r"(?:[-*+\u2022\u25cf>]{1,3}[ \t]{1,4}|\#{1,6}[ \t]{1,4}"
    r"|[(（]?(?P<number>\d{1,4})(?:[.)）、](?!\d)|．)[ \t]{0,4})"
)
_LABEL = rf"(?:(?:{_WORDS})[ \t_#.-]{{0,3}}(?:{_COUNT})(?![\w%])|第(?:{_COUNT})(?:个|個)?(?:{_WORDS}|镜))"
_OPEN, _CLOSE = r"[\[(（【]?", r"[\])）】]?"
_SPACE = r"[ \t]{0,3}"
_JOINT = "[ \t\u3000]{0,9}[-:：=>\u2010-\u2015\u2192.,，、|｜]{0,2}[ \t\u3000]{0,9}"
_BOLD = r"(?:\*{2,3}|__)?"
_PREFIX = r"(?:(?:from|at|time|t[ \t]?=)[ \t:]{0,3}|第)?"
_HEAD = re.compile(
    rf"[ \t\u3000]{{0,40}}(?:{_MARKS})?{_BOLD}{_SPACE}"
    rf"(?:{_OPEN}(?P<label>{_LABEL})(?P<closed>{_CLOSE}){_BOLD}(?P<joint>{_JOINT}){_BOLD})?"
    rf"(?:(?P<open>{_OPEN}){_SPACE}{_PREFIX}{RANGE}{_SPACE}(?P<close>{_CLOSE}))?"
    rf"{_BOLD}(?P<end>{_JOINT}){_BOLD}{_SPACE}",
    re.IGNORECASE,
)
_INSIDE = re.compile(  # where the next shot begins in the middle of a line
    rf"(?<=\D[.;!?,。；！？，、]){_SPACE}(?=(?:{_OPEN}{_LABEL}{_CLOSE}{_SPACE})?"
    rf"(?:[(（]{SPAN}[)）]|{SPAN}){_SPACE}[:：]|{_LABEL}{_SPACE}[:：]|[\[【]{_LABEL}[\]】])",
    re.IGNORECASE,
)
_TITLE = re.compile(
    rf"(?P<title>[^\n]{{0,200}}?)[ \t]{{0,3}}[\[(（【]{RANGE}[\])）】]{_BOLD}[ \t]{{0,3}}[:：]?{_BOLD}",
    re.IGNORECASE,
)
_PROMPT = re.compile(
    rf"^[ \t]{{0,20}}(?:[-*\u2022][ \t]{{1,3}})?{_BOLD}(?:prompt|提示词|プロンプト){_BOLD}[:：]{_BOLD}",
    re.IGNORECASE,
)
_RULE = re.compile(r"[ \t]{0,9}(?:-{3,80}|\*{3,80}|_{3,80}|={3,80})[ \t]{0,9}")
_FORM = "write a line such as Shot 1 (0-5s): a kitchen for each shot"


@dataclass
class _Item:
    """A line that begins a shot, and the lines below it."""

    line: int
    label: str
    first: str | None
    last: str | None
    text: list[str]
    sure: bool  # nothing but a shot begins like that
    title: str = ""  # "Scene 1: a kitchen (0-5s)"


def looks_like(text: str) -> bool:
    """Whether lines begin with times or with the numbers of shots."""
    items, _ = _items(text)
    timed = [item for item in items if item.first is not None]
    if len(timed) == 1 and timed[0].last is None and is_code(timed[0].first):
        return int(re.sub(r"\D", "", timed[0].first or "")) == 0  # another may be the time of the day, or 9:16
    return (
        timed[0].sure or len(timed) > 1 if timed else len(items) > 1 or [item.label[:4] for item in items] == ["clip"]
    )


def parse(text: str, clock: Clock) -> Reading:
    """Reads the shots: with times, or one section each when no shot has one."""
    items, lead = _items(text)
    _check_lead(lead)
    timed = [item for item in items if item.first is not None]
    remarks = ("left_out",) if lead else ()
    if not timed:
        _check_numbers(items)
        parts = [Part(_text(item)) for item in items]
        return Reading(one_section_each(parts, clock.section_seconds), "labels", remarks, open_ended=True)
    bare = next((item for item in items if item.first is None), None)
    if bare is not None:
        raise StoryboardError(
            f"line {bare.line}: {bare.label or 'this shot'!r} has no time, but others have one; {_FORM}"
        )
    entries = [
        Entry(item.first or "", item.last, _text(item), f"shot {number} (line {item.line})")
        for number, item in enumerate(timed, 1)
    ]
    codes = ("codes",) if any(is_code(entry.first) for entry in entries) else ()
    return Reading(Storyboard(shots_of(entries, clock)), "list", codes + remarks, open_ended=True)


def _check_numbers(items: list[_Item]) -> None:
    """Shots without times are told from other lists by their numbers, which go up one by one."""
    numbers = [int(found[0]) if (found := re.search(r"\d+", item.label)) else None for item in items]
    for item, number, before in zip(items[1:], numbers[1:], numbers, strict=False):
        if number is not None and before is not None and number != before + 1:
            raise StoryboardError(
                f"line {item.line}: {item.label!r} does not follow {before}; number the shots 1, 2, 3, or {_FORM}"
            )


def _items(text: str) -> tuple[list[_Item], list[tuple[int, str]]]:
    """The shots of a list, and the lines before the first one."""
    lines = [(number, part) for number, line in enumerate(text.split("\n"), 1) for part in _INSIDE.split(line)]
    heads = [_head(line, number) for number, line in lines]
    timed = any(head is not None and head.first is not None for head in heads)
    labelled = any(head is not None and not head.label.isdigit() for head in heads)
    items: list[_Item] = []
    lead: list[tuple[int, str]] = []
    for (number, line), head in zip(lines, heads, strict=True):
        counted = head is not None and head.label.isdigit() and head.first is None
        if head is not None and counted and (labelled or timed or int(head.label) != len(items) + 1):
            head = None
        above = items[-1] if items and _has_label_only(items[-1]) else None
        if above is not None and head is not None and head.first is not None and not head.label:
            above.first, above.last, above.text = head.first, head.last, head.text  # "Shot 1", below it "Time: 0-5s"
        elif head is not None:
            items.append(head)
        elif items:
            items[-1].text.append(line)
        elif line.strip(AROUND):
            lead.append((number, line.strip(AROUND)))
    return items, lead


def _has_label_only(item: _Item) -> bool:
    return item.first is None and not any(part.strip(AROUND) for part in item.text)


def _head(line: str, number: int) -> _Item | None:
    match = _HEAD.match(line)
    if match is None or not (match["label"] or match["first"] or match["point"] or match["number"]):
        return None
    rest = line[match.end() :]
    first, last = match["first"] or match["point"], match["last"]
    label = match["label"] or match["number"] or ""
    if first is not None:
        return _timed(match, first, last, label, rest, number)
    if match["label"] is None:
        return _Item(number, label, None, None, [rest], False) if rest.strip(AROUND) else None
    titled = _TITLE.fullmatch(rest.rstrip(AROUND))
    if titled is not None:
        return _Item(number, label, titled["first"] or titled["point"], titled["last"], [""], True, titled["title"])
    ended = (
        bool(match["closed"])
        or not rest.strip(AROUND)
        or any(sign in (match["joint"] or "") + match["end"] for sign in ":：-\u2013\u2014|.")
    )
    return _Item(number, label, None, None, [rest], False) if ended else None


def _timed(match: re.Match[str], first: str, last: str | None, label: str, rest: str, number: int) -> _Item | None:
    """A head with a time, unless it is the beginning of a sentence: "3 seconds later she leaves"."""
    enclosed = bool(match["open"]) and bool(match["close"])
    if bool(match["open"]) != bool(match["close"]) and match["open"]:
        return None
    joint = match["end"].strip(AROUND)
    sure = bool(match["label"] or last or joint or enclosed or not rest.strip(AROUND))
    if not sure and not is_code(first) and not re.fullmatch(r"[\d.]+\s?(?:s|sec|秒)", first, re.IGNORECASE):
        return None
    if match["open"] and match["open"] in "[【" and not (label or match["number"] or _has_bullet(match)):
        return None  # brackets have an importer of their own
    return _Item(number, label if not label.isdigit() else "", first, last, [rest], sure)


def _has_bullet(match: re.Match[str]) -> bool:
    """Whether a bullet stands before what was found."""
    return match[0].lstrip()[:1] in "-*+\u2022\u25cf>#"


def _text(item: _Item) -> str:
    """The shot's own words: one paragraph, so that a closing remark of a model is no part of the last shot."""
    lines = [_PROMPT.sub("", line).strip(AROUND + ",;，；、") for line in item.text]
    lines = ["" if _RULE.fullmatch(line) else line for line in lines]
    written = [at for at, line in enumerate(lines) if line]
    for before, at in pairwise(written):
        if at > before + 1:
            raise StoryboardError(
                f"line {item.line + at}: {lines[at][:40]!r} stands apart from the shot's text; write each shot's text "
                "without an empty line, and delete what is no shot"
            )
    return "\n".join(line for line in [item.title.strip(AROUND), *lines] if line)


def _check_lead(lead: list[tuple[int, str]]) -> None:
    """Headings and a line that announces the list are left out; other words may be meant for the film."""
    for at, (number, line) in enumerate(lead):
        last = at == len(lead) - 1
        announced = line.endswith((":", "：", ":**")) and last
        heading = line.startswith("#") or (line.startswith("**") and line.endswith("**")) or _RULE.fullmatch(line)
        if not announced and not heading:
            raise StoryboardError(
                f"line {number}: {line[:40]!r} stands before the first shot; delete it, or write its words into each "
                "shot, such as Shot 1 (0-5s): a kitchen"
            )
