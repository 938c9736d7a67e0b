"""From a text in any of the forms that people write to a `Storyboard`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

from .cleaning import AROUND, clean
from .importers import brackets, json_forms, keyframes, lists, plain, shot_captions, subtitles, tables
from .importers.guard import refuse_structure, refuse_structure_inside
from .importers.reading import Reading, with_negatives
from .model import Storyboard, StoryboardError, checked_size
from .times import Clock, KeyframeUnit

# The first that recognises a text reads it; forms that open with their own sign stand before those found inside of one.
_IMPORTERS: tuple[tuple[Callable[[str], bool], Callable[[str, Clock], Reading]], ...] = (
    (keyframes.begins, keyframes.parse),
    (brackets.begins, brackets.parse),
    (json_forms.looks_like, json_forms.parse),
    (subtitles.looks_like, subtitles.parse),
    (tables.looks_like, tables.parse),
    (shot_captions.looks_like, shot_captions.parse),
    (lists.looks_like, lists.parse),
    (brackets.looks_like, brackets.parse),
    (keyframes.looks_like, keyframes.parse),
)


def parse_storyboard(
    text: str,
    *,
    section_seconds: float,
    fps: float | None = None,
    total_seconds: float | None = None,
    keyframe_unit: KeyframeUnit = "seconds",
) -> Storyboard:
    """The storyboard of `read_storyboard`, for those who need not know how it was read."""
    return read_storyboard(
        text, section_seconds=section_seconds, fps=fps, total_seconds=total_seconds, keyframe_unit=keyframe_unit
    ).storyboard


def read_storyboard(
    text: str,
    *,
    section_seconds: float,
    fps: float | None = None,
    total_seconds: float | None = None,
    keyframe_unit: KeyframeUnit = "seconds",
) -> Reading:
    """Reads a storyboard, whichever of these it is written in, and says how; "24f" is frame 24 and needs `fps`:

    - JSON: ours, `{"version": 1, "shots": [{"start": 0, "end": 5, "prompt": "..."}]}`; StoryMem's,
      `scenes[].video_prompts` with `cut`, one section each; lists of shots with a start or a duration
    - times in brackets: `[0s: text] [5s-10s: text]`, or `[0s] text`; words before the first belong to every shot
    - keyframes: `"0": "text", "5": "text"`; keys without a unit are in `keyframe_unit`
    - lists, a line a shot: `0-5s: text`, `0:05 text`, `Shot 1 (0-5s): text`; without times one section each
    - tables (Markdown, tabs, CSV), subtitles (SRT, WebVTT), `[global caption]` with `[shot cut]`
    - `first | second | third`: each shot lasts one section
    - anything else: one shot with this text, unless it looks like a form that was not understood

    Times are seconds, `5`, `2.5s`, `0:05` (minutes and seconds), `50%` of `total_seconds`. A language model's
    thinking, code fence and words around JSON are left out.

    Raises StoryboardError, see there; a text over 256 KiB is refused at once.
    """
    _check_positive("section_seconds", section_seconds, "a length in seconds")
    if fps is not None:
        _check_positive("fps", fps, "frames per second")
    if keyframe_unit not in get_args(KeyframeUnit):
        raise StoryboardError(f'keyframe_unit is {keyframe_unit!r}; give "seconds" or "frames"')
    checked_size(text)
    text, left_out = clean(text)
    reading = _read(text, Clock(section_seconds, fps, total_seconds, keyframe_unit))
    reading = reading.with_remark("left_out") if left_out and "left_out" not in reading.remarks else reading
    return reading if reading.form in ("json", "storymem") else with_negatives(reading)


def _read(text: str, clock: Clock) -> Reading:
    for looks_like, parse in _IMPORTERS:
        if looks_like(text):
            reading = parse(text, clock)
            if reading.open_ended:
                refuse_structure_inside(reading.storyboard.shots)
            return reading
    refuse_structure(text)
    return plain.parse(text.strip(AROUND), clock)


def _check_positive(name: str, value: object, what: str) -> None:
    number = not isinstance(value, bool) and isinstance(value, (int, float))
    if not number or not value > 0 or not math.isfinite(value):  # type: ignore[operator, arg-type]
        raise StoryboardError(f"{name} is {value!r}; give {what} above 0")
