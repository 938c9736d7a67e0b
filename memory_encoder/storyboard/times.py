"""Times as people write them: seconds, minutes, time codes, frames, percentages, and ranges of these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .model import StoryboardError, checked_seconds

KeyframeUnit = Literal["seconds", "frames"]


@dataclass(frozen=True)
class Clock:
    """What is needed to tell seconds: `fps` for frames, `total_seconds` for percentages, a unit for numbers without."""

    section_seconds: float
    fps: float | None = None
    total_seconds: float | None = None
    keyframe_unit: KeyframeUnit = "seconds"


# All patterns are bounded: at one place of a text each does a bounded number of steps, however long the text is.
NUMBER = r"[-+]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20}|nan|inf(?:inity)?)"
CODE = r"\d{1,3}(?:[:：]\d{2}){1,2}(?:[.,]\d{1,9}|[:;]\d{2,3})?(?![\d:：]\d)"  # M:SS, H:MM:SS.mmm, H:MM:SS:FF
_SECONDS = "seconds?|secs?|s|sekunden?|sek|segundos?|seg|secondes?|секунды?|сек|с|秒钟|秒鐘|秒間|秒|초"
_MINUTES = "minutes?|mins?|m|minuten?|minutos?|минуты?|мин|分钟|分鐘|分間|分|분"
_FRAMES = "frames?|f|帧|幀|フレーム|コマ"
_PERCENT = "%|％"
UNIT = f"(?:{_SECONDS}|{_MINUTES}|{_FRAMES}|{_PERCENT})"
_LONG = rf"\d{{1,4}}\s?(?:{_MINUTES})\s?\d{{1,2}}(?:\.\d{{1,9}})?\s?(?:{_SECONDS})"  # 1m30s
_CJK = "秒分帧幀钟鐘間フレームコマ초분а-я"
ANY_TIME = rf"(?:{CODE}|{_LONG}|{NUMBER}\s?(?:[%％]|[a-z]{{1,7}}|[{_CJK}]{{1,4}})?)"  # whatever may be meant as one
TIME = rf"(?:{CODE}|{_LONG}|\d{{1,7}}(?:\.\d{{1,9}})?\s?{UNIT})(?![a-z\d])"  # nothing but a time
BETWEEN = r"(?:-{1,2}>|\.\.|[-\u2010-\u2015\u2212~～\u301c\u2192至到]|to(?![a-z])|から)"
ANY_RANGE = rf"\s{{0,9}}({ANY_TIME})\s{{0,9}}(?:{BETWEEN}\s{{0,9}}({ANY_TIME})\s{{0,9}})?"
RANGE = (  # in the text of a line: 0-5s, 0:00 - 0:05, 5s
    rf"(?:(?P<first>{CODE}|\d{{1,7}}(?:\.\d{{1,9}})?\s?{UNIT}?)\s{{0,3}}{BETWEEN}\s{{0,3}}(?P<last>{TIME})"
    rf"|(?P<point>{TIME}))"
)
SPAN = re.sub(r"\?P<\w+>", "?:", RANGE)  # the same, to be found without being taken apart

_PARTS = re.compile(
    rf"(?:(?P<code>{CODE})|(?P<minutes>\d{{1,4}})\s?(?:{_MINUTES})\s?(?P<rest>\d{{1,2}}(?:\.\d{{1,9}})?)\s?(?:{_SECONDS})"
    rf"|(?P<number>{NUMBER})\s?(?:(?P<s>{_SECONDS})|(?P<m>{_MINUTES})|(?P<f>{_FRAMES})|(?P<p>{_PERCENT}))?)",
    re.IGNORECASE,
)
# Formats of pictures; [9:16] in a prompt is one of these, although a time code may look the same.
_SIDES = "1:1 2:1 3:2 4:3 5:3 5:4 7:5 9:7 16:9 16:10 18:9 19:9 20:9 21:9 32:9"
RATIOS = frozenset(
    f"{width}:{height}"
    for one, other in (sides.split(":") for sides in _SIDES.split())
    for width, height in ((one, other), (other, one))
) | {"1:33", "1:37", "1:43", "1:50", "1:85", "2:35", "2:39", "2:40", "3:20"}


def seconds_of(text: str, where: str, clock: Clock, unit: str = "") -> float:
    """A time in seconds; a number without a unit is in `unit` ("s", "m", "f", "p" or ""). StoryboardError for none."""
    match = _PARTS.fullmatch(text.strip()) if len(text) <= 100 else None
    if match is None:
        raise StoryboardError(
            f'{where} is {text[:30]!r}; write seconds such as "5" or "2.5s", or a frame such as "24f"'
        )
    if match["code"]:
        return checked_seconds(_of_code(match["code"], where, clock), where)
    if match["minutes"]:
        return checked_seconds(60 * float(match["minutes"]) + float(match["rest"]), where)
    value = float(match["number"])
    unit = next((name for name in "smfp" if match[name]), unit)
    if unit == "m":
        value *= 60
    elif unit == "f":
        value /= _frames_a_second(text, where, clock)
    elif unit == "p":
        if not clock.total_seconds:
            raise StoryboardError(
                f"{where} is a percentage ({text.strip()[:30]}) of a film whose length is not known; "
                "set total_seconds, or write seconds: [0s-5s: text]"
            )
        value *= clock.total_seconds / 100
    return checked_seconds(value, where)


def range_of(first: str, last: str | None, where: str, clock: Clock, unit: str = "") -> tuple[float, float | None]:
    """Start and end in seconds. In "0-5s", "1-2 min", "0-24f" the first number has the unit of the second."""
    if last is None:
        return seconds_of(first, f"{where}: the start", clock, unit), None
    own = _PARTS.fullmatch(last.strip()) if len(last) <= 100 else None
    shared = next((name for name in "smfp" if own and own[name]), unit)
    if own and (own["code"] or own["minutes"]) and first.strip().isdigit() and float(first) != 0:
        raise StoryboardError(
            f"{where}: {first.strip()} to {last.strip()} mixes a number and a time code; write both as 0:05 or as 5s"
        )
    start = seconds_of(first, f"{where}: the start", clock, shared)
    return start, seconds_of(last, f"{where}: the end", clock, unit)


def is_code(text: str | None) -> bool:
    """Whether a time is written as a time code, in minutes and seconds or more."""
    match = _PARTS.fullmatch(text.strip()) if text and len(text) <= 100 else None
    return bool(match and match["code"])


def is_time(text: str) -> bool:
    """Whether a text is a time or a number."""
    return len(text) <= 100 and _PARTS.fullmatch(text.strip()) is not None


def _of_code(code: str, where: str, clock: Clock) -> float:
    plain = code.replace("：", ":").replace(";", ":").replace(",", ".")
    fields = plain.split(":")
    frames = fields.pop() if len(fields) == 4 or ";" in code else None
    seconds = float(fields[-1])
    minutes = int(fields[-2])
    if seconds >= 60 or (len(fields) == 3 and minutes >= 60):
        raise StoryboardError(
            f"{where} is {code!r}; a time code is minutes:seconds with seconds below 60, such as 1:05"
        )
    value = 60 * minutes + seconds + (3600 * int(fields[0]) if len(fields) == 3 else 0)
    return value if frames is None else value + int(frames) / _frames_a_second(code, where, clock)


def _frames_a_second(text: str, where: str, clock: Clock) -> float:
    if clock.fps is None:
        raise StoryboardError(f"{where} is given as a frame ({text.strip()[:30]}); give fps, or write seconds")
    return clock.fps
