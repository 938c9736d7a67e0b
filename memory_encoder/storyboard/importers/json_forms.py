"""Storyboards in JSON: our own, StoryMem's, and lists of shots with starts, ends or durations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..model import (
    Shot,
    Storyboard,
    StoryboardError,
    Transition,
    cast_from,
    check_count,
    checked_object,
    checked_seconds,
    checked_text,
    show,
)
from ..times import Clock, range_of, seconds_of
from . import keyframes
from .characters import with_cast_lines
from .json_text import decode, find_json
from .reading import Part, Reading, one_section_each

_LISTS = ("shots", "scenes", "prompts")
_ALIASES = {
    "start": ("start", "startTime", "start_time", "start_seconds", "startSeconds", "from", "begin"),
    "end": ("end", "endTime", "end_time", "end_seconds", "endSeconds", "to"),
    "duration": ("duration", "duration_seconds", "durationSeconds", "duration_s", "duration_sec", "seconds"),
    "time": ("time", "timestamp", "time_range", "timeRange", "timecode", "timing"),
    "prompt": ("prompt", "prompts", "text", "caption", "description", "visual", "video_prompt", "visual_prompt"),
    "negative": ("negative", "negative_prompt", "negativePrompt"),
    "name": ("name", "title"),
    "number": (
        "id",
        "index",
        "number",
        "shot",
        "scene",
        "shot_number",
        "scene_number",
        "scene_num",
        "shot_id",
        "scene_id",
    ),
}
_KNOWN = {alias: field for field, aliases in _ALIASES.items() for alias in aliases}
_KEPT = ("seed", "transition", "locked", "picture")  # of a shot, as in our own JSON
_HARMLESS = (
    "version",
    "title",
    "name",
    "id",
    "settings",
    "fps",
    "story_name",
    "story_overview",
    "duration",
    "total_duration",
    "total_seconds",
    "aspect_ratio",
)
_FORM = '{"shots": [{"start": 0, "end": 5, "prompt": "a street at night"}]}'


def looks_like(text: str) -> bool:
    """Whether the text is JSON or has JSON in it."""
    return not keyframes.begins(text) and find_json(text) >= 0


def parse(text: str, clock: Clock) -> Reading:
    """Reads the JSON; words around it are left out."""
    data, words = decode(text, find_json(text))
    reading = _read(data, clock)
    return reading.with_remark("left_out") if words else reading


def _read(data: Any, clock: Clock) -> Reading:
    if isinstance(data, list) and any(_timed(item) for item in data):
        data = {"shots": data}
    elif isinstance(data, list) and any(isinstance(item, dict) and "video_prompts" in item for item in data):
        data = {"scenes": data}
    data = with_cast_lines(checked_object(data))
    cast = cast_from(data.get("cast", []))
    found = next((name for name in _LISTS if name in data), None)
    items = data.get(found) if found else None
    if found == "scenes" and (not isinstance(items, list) or not items or any(_storymem(item) for item in items)):
        storymem = _from_storymem(items, clock.section_seconds)
        return Reading(replace(storymem, cast=cast), "storymem")
    if not isinstance(items, list) or not items or _own(found, data, items):
        return Reading(Storyboard.from_dict(data), "json")
    return Reading(replace(_from_list(found or "shots", data, items, clock), cast=cast), "json_list")


def _own(found: str | None, data: Mapping[str, Any], items: list[Any]) -> bool:
    """Whether it is our own JSON, which is read strictly, since an unknown field may be a typing error."""
    others = {"end": "end", "start": "start", "prompt": "prompt", "name": "name"}
    foreign = any(
        isinstance(item, dict)
        and any(_KNOWN.get(key, key) in ("start", "end", "duration", "time") and key not in others for key in item)
        for item in items
    )
    return found == "shots" and not foreign


def _timed(item: Any) -> bool:
    return isinstance(item, dict) and any(_KNOWN.get(key) in ("start", "end", "duration", "time") for key in item)


def _storymem(item: Any) -> bool:
    return not isinstance(item, dict) or "video_prompts" in item or not any(_KNOWN.get(key) == "prompt" for key in item)


def _from_list(name: str, data: dict[str, Any], items: list[Any], clock: Clock) -> Storyboard:
    """Shots one after the other; each has a start, a duration, or a time such as "0-5s"."""
    for field in data:
        if field not in (name, "cast", *_HARMLESS) and _KNOWN.get(field) != "negative":
            raise StoryboardError(
                f"the field {show(field)} beside '{name}' is not read; put its words into each prompt, "
                f"delete it, or write {_FORM}"
            )
    check_count(len(items))
    shots: list[Shot] = []
    negatives = {
        checked_text(value, f"'{field}'", may_be_empty=True)
        for field, value in data.items()
        if _KNOWN.get(field) == "negative"
    }
    now: float | None = 0.0
    for number, item in enumerate(items, 1):
        where = f"shot {number}"
        fields = _fields(item, where)
        start, end = _span(fields, where, now, clock)
        now = end
        if "negative" in fields:
            negatives.add(checked_text(fields["negative"], f"{where}: the negative prompt", may_be_empty=True))
        kept = {key: item[key] for key in _KEPT if key in item}
        stated = "transition" in item
        shots.append(Shot(_prompt(fields, where), start, end, name=_name(fields, where), stated=stated, **kept))
    if len(negatives - {""}) > 1:
        raise StoryboardError(
            "the shots have different negative prompts, but a film has one; write one 'negative' beside them"
        )
    return Storyboard(tuple(shots), negative=next(iter(negatives - {""}), ""))


def _fields(item: Any, where: str) -> dict[str, Any]:
    """The values of a shot by our own names."""
    if not isinstance(item, dict):
        raise StoryboardError(f"{where} is {show(item)}; write an object with a time and a 'prompt', as in {_FORM}")
    fields: dict[str, Any] = {}
    for key, value in item.items():
        name = _KNOWN.get(key)
        if key in _KEPT:
            continue
        counts = isinstance(value, int) or (isinstance(value, str) and len(value) <= 20 and re.search(r"\d", value))
        if name is None or (name == "number" and not counts):
            raise StoryboardError(
                f"{where}: the field {show(key)} is not read; put its words into 'prompt' or delete it, as in {_FORM}"
            )
        if name in fields and name != "number":
            raise StoryboardError(f"{where}: {show(key)} says a second time what '{name}' is; keep one")
        fields[name] = value
    return fields


def _span(fields: Mapping[str, Any], where: str, now: float | None, clock: Clock) -> tuple[float, float | None]:
    """Start and end of a shot that may say only one of them; `now` is where the shot before it ends, if it says so."""
    if "time" in fields:
        if "start" in fields or "end" in fields:
            raise StoryboardError(f"{where} has both 'time' and a start or end; keep one")
        return _written_range(fields["time"], where, clock)
    start, end, length = (
        _seconds(fields.get(name), f"{where}: '{name}'", clock) for name in ("start", "end", "duration")
    )
    if start is None:
        if now is None or (length is None and end is None):
            raise StoryboardError(
                f"{where}: its time is missing; give 'start', or a 'duration' in every shot, as in {_FORM}"
            )
        start = now
    if length is not None:
        if end is not None and abs(start + length - end) > 0.011:
            raise StoryboardError(f"{where}: start, end and duration do not agree; keep two of them")
        end = start + length
    return start, end


def _written_range(value: Any, where: str, clock: Clock) -> tuple[float, float | None]:
    match = keyframes.RANGE.fullmatch(value) if isinstance(value, str) and len(value) <= 100 else None
    if match is None:
        raise StoryboardError(f"{where}: the time is {show(value)}; write it as \"0-5s\", or give 'start' and 'end'")
    return range_of(match[1], match[2], where, clock)


def _seconds(value: Any, where: str, clock: Clock) -> float | None:
    """A number of seconds, or a text such as "5s" or "0:05"."""
    if value is None:
        return None
    return seconds_of(value, where, clock) if isinstance(value, str) else checked_seconds(value, where)


def _prompt(fields: Mapping[str, Any], where: str) -> Any:
    """A text, or a list with one text as timelines of weighted prompts have it."""
    value = fields.get("prompt")
    if isinstance(value, list):
        if len(value) != 1:
            raise StoryboardError(f"{where} has {len(value)} prompts at once; a shot has one, so join or split them")
        value = value[0]["text"] if isinstance(value[0], dict) and "text" in value[0] else value[0]
    if value is None:
        raise StoryboardError(f"{where}: 'prompt' is missing; add it")
    return value


def _name(fields: Mapping[str, Any], where: str) -> str:
    return checked_text(fields.get("name", ""), f"{where}: 'name'", may_be_empty=True)


def _from_storymem(scenes: Any, section_seconds: float) -> Storyboard:
    """The story script of StoryMem: each prompt is one clip; `cut` holds booleans or "True"/"False", one per prompt."""
    form = '[{"video_prompts": ["..."], "cut": [true]}]'
    if not isinstance(scenes, list) or not scenes:
        raise StoryboardError(f"'scenes' is not a list of scenes; write {form}")
    parts: list[Part] = []
    for number, scene in enumerate(scenes, 1):
        prompts = scene.get("video_prompts") if isinstance(scene, dict) else None
        if not isinstance(prompts, list) or not prompts:
            raise StoryboardError(
                f"scene {number}: 'video_prompts' is not a list of texts but {show(prompts)}; "
                f"write one text per shot in square brackets: {form}"
            )
        timed = next((key for key in scene if _KNOWN.get(key) in ("start", "end", "duration", "time")), None)
        if timed:
            raise StoryboardError(
                f"scene {number}: {show(timed)} is not read beside 'video_prompts', of which each lasts one section; "
                f"delete it, or write {_FORM}"
            )
        cuts = scene.get("cut", [True] * len(prompts))
        if not isinstance(cuts, list) or len(cuts) != len(prompts):
            raise StoryboardError(
                f"scene {number}: 'cut' has to be a list of {len(prompts)} values, one per video prompt"
            )
        for shot, (prompt, cut) in enumerate(zip(prompts, cuts, strict=True), 1):
            where = f"scene {number}, prompt {shot}"
            transition: Transition = "cut" if _is_cut(cut, where) else "continue"
            parts.append(Part(checked_text(prompt, where), transition, f"scene {number} shot {shot}", "cut" in scene))
    return one_section_each(parts, section_seconds)


def _is_cut(value: object, where: str) -> bool:
    known = {"true": True, "false": False}
    if not isinstance(value, (bool, str)) or str(value).lower() not in known:
        raise StoryboardError(f"{where}: 'cut' is {str(value)[:20]!r}; write true or false")
    return known[str(value).lower()]
