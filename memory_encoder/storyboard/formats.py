"""Importers: text formats in which people already write storyboards, each turned into a `Storyboard`."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .model import (
    MAX_SHOTS,
    Shot,
    Storyboard,
    StoryboardError,
    Transition,
    checked_seconds,
    checked_size,
    checked_text,
    load_json_object,
)

# All patterns are anchored or bounded: their cost grows with the length of the text and no faster.
_NUMBER = r"[-+]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20}|nan|inf(?:inity)?)"
_TIME = re.compile(rf"({_NUMBER})\s?(s|sec|second|seconds|f|frame|frames)?", re.IGNORECASE)
_STAMP = rf"\s{{0,9}}({_NUMBER}\s?[a-z]{{0,7}})\s{{0,9}}"
_RANGE = re.compile(rf"{_STAMP}(?:[-\u2013]{_STAMP})?", re.IGNORECASE)
_BRACKET = re.compile(rf"\[{_RANGE.pattern}:", re.IGNORECASE)
_KEYFRAMES = re.compile(rf"\{{?\s{{0,20}}\"\s{{0,20}}{_NUMBER}\s?[a-z]{{0,7}}\s{{0,20}}\"\s{{0,20}}:", re.IGNORECASE)
_JSON = re.compile(r"\{\s*[\"}]|\[\s*[\[{\"]")


def parse_storyboard(text: str, *, section_seconds: float, fps: float | None = None) -> Storyboard:
    """Reads a storyboard, whichever of these it is written in; times are seconds, "24f" is frame 24 and needs `fps`:

    - our JSON: `{"version": 1, "shots": [{"start": 0, "end": 5, "prompt": "..."}]}`
    - StoryMem's JSON: `scenes[].video_prompts` with `cut`; each prompt lasts one section
    - times in brackets: `[0s: text] [5s-10s: text]`
    - keyframes: `"0": "text", "5": "text"`, in braces or not
    - `first | second | third`: each shot lasts one section
    - anything else: one shot with this text

    Raises StoryboardError, see there; a text over 256 KiB is refused at once.
    """
    if not _positive(section_seconds):
        raise StoryboardError(f"section_seconds is {section_seconds!r}; give a length in seconds above 0")
    if fps is not None and not _positive(fps):
        raise StoryboardError(f"fps is {fps!r}; give frames per second above 0")
    text = checked_size(text)
    if _KEYFRAMES.match(text):
        return _from_keyframes(text, fps)
    if _JSON.match(text):
        data = load_json_object(text)
        return _from_storymem(data, section_seconds) if "scenes" in data else Storyboard.from_dict(data)
    if _BRACKET.search(text):
        return _from_brackets(text, fps)
    if "|" in text:
        return _one_section_each([(prompt, "cut", "") for prompt in text.split("|")], section_seconds)
    return Storyboard((Shot(text, 0.0),))


def _positive(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and value > 0 and math.isfinite(value)


def _one_section_each(parts: list[tuple[str, Transition, str]], section_seconds: float) -> Storyboard:
    if len(parts) > MAX_SHOTS:
        raise StoryboardError(
            f"the storyboard has {len(parts)} shots, at most {MAX_SHOTS} are possible; split the film"
        )
    return Storyboard(
        tuple(
            Shot(prompt, index * section_seconds, (index + 1) * section_seconds, transition=transition, name=name)
            for index, (prompt, transition, name) in enumerate(parts)
        )
    )


def _from_brackets(text: str, fps: float | None) -> Storyboard:
    """`[start: text]` and `[start-end: text]`; brackets inside a text must be balanced."""
    shots: list[Shot] = []
    position = 0
    while position < len(text):
        if text[position] in " \t\r\n,;":
            position += 1
            continue
        where = f"shot {len(shots) + 1} (character {position + 1})"
        if text[position] != "[":
            raise StoryboardError(
                f"{where}: there is text outside the brackets: {text[position : position + 30]!r}; "
                "write every shot as [start: text] or [start-end: text]"
            )
        close = _closing_bracket(text, position, where)
        times, colon, prompt = text[position + 1 : close].partition(":")
        match = _RANGE.fullmatch(times)
        if match is None or not colon:
            raise StoryboardError(f"{where}: {times[:30]!r} is not a time; write [5s: text] or [5s-10s: text]")
        start = _seconds(match[1], f"{where}: the start", fps)
        end = None if match[2] is None else _seconds(match[2], f"{where}: the end", fps)
        shots.append(Shot(prompt, start, end))
        position = close + 1
    return Storyboard(tuple(shots))


def _closing_bracket(text: str, start: int, where: str) -> int:
    depth = 0
    for position in range(start, len(text)):
        depth += {"[": 1, "]": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise StoryboardError(f"{where}: the bracket is not closed; write a ] at the end of the shot's text")


def _from_keyframes(text: str, fps: float | None) -> Storyboard:
    """`"0": "text"` pairs; commas may be missing or stand at the end, as people write them."""
    braces = text.startswith("{")
    if braces and not text.endswith("}"):
        raise StoryboardError("the keyframes begin with { but do not end with }; write the } or leave both out")
    end = len(text) - 1 if braces else len(text)
    shots: list[Shot] = []
    position = _skip(text, 1 if braces else 0, end, " \t\r\n,")
    while position < end:
        where = f"shot {len(shots) + 1} (character {position + 1})"
        key, position = _quoted(text, position, end, where, 'a time in quotes, such as "5"')
        position = _skip(text, position, end, " \t\r\n")
        if position >= end or text[position] != ":":
            raise StoryboardError(f'{where}: a colon is missing after "{key[:20]}"; write "5": "text"')
        position = _skip(text, position + 1, end, " \t\r\n")
        prompt, position = _quoted(text, position, end, where, "the shot's text in quotes")
        shots.append(Shot(prompt, _seconds(key, f"{where}: the time", fps)))
        position = _skip(text, position, end, " \t\r\n,")
    return Storyboard(tuple(shots))


def _skip(text: str, position: int, end: int, characters: str) -> int:
    while position < end and text[position] in characters:
        position += 1
    return position


def _quoted(text: str, position: int, end: int, where: str, wanted: str) -> tuple[str, int]:
    """The string that begins at `position`, and where it ends."""
    if position >= end or text[position] != '"':
        found = f"{text[position : position + 20]!r}" if position < end else "the end"
        raise StoryboardError(f"{where}: {wanted} should follow, but there is {found}")
    try:
        value, position = json.JSONDecoder(strict=False).raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise StoryboardError(
            f'{where}: a quoted text is broken ({error.msg}); close it with " and write \\" inside it'
        ) from error
    return value, position


def _from_storymem(data: dict[str, Any], section_seconds: float) -> Storyboard:
    """The story script of StoryMem: each prompt is one clip; `cut` holds booleans or "True"/"False", one per prompt."""
    scenes = data["scenes"]
    if not isinstance(scenes, list) or not scenes:
        raise StoryboardError('\'scenes\' is not a list of scenes; write [{"video_prompts": ["..."], "cut": [true]}]')
    parts: list[tuple[str, Transition, str]] = []
    for number, scene in enumerate(scenes, 1):
        prompts = scene.get("video_prompts") if isinstance(scene, dict) else None
        if not isinstance(prompts, list) or not prompts:
            raise StoryboardError(f"scene {number}: 'video_prompts' is not a list of texts; give one text per shot")
        cuts = scene.get("cut", [True] * len(prompts))
        if not isinstance(cuts, list) or len(cuts) != len(prompts):
            raise StoryboardError(
                f"scene {number}: 'cut' has to be a list of {len(prompts)} values, one per video prompt"
            )
        for shot, (prompt, cut) in enumerate(zip(prompts, cuts, strict=True), 1):
            where = f"scene {number}, prompt {shot}"
            transition: Transition = "cut" if _is_cut(cut, where) else "continue"
            parts.append((checked_text(prompt, where), transition, f"scene {number} shot {shot}"))
    return _one_section_each(parts, section_seconds)


def _is_cut(value: object, where: str) -> bool:
    known = {"true": True, "false": False}
    if not isinstance(value, (bool, str)) or str(value).lower() not in known:
        raise StoryboardError(f"{where}: 'cut' is {str(value)[:20]!r}; write true or false")
    return known[str(value).lower()]


def _seconds(text: str, where: str, fps: float | None) -> float:
    match = _TIME.fullmatch(text.strip()) if len(text) <= 100 else None
    if match is None:
        raise StoryboardError(
            f'{where} is {text[:30]!r}; write seconds such as "5" or "2.5s", or a frame such as "24f"'
        )
    value = float(match[1])
    if (match[2] or "s").lower().startswith("f"):
        if fps is None:
            raise StoryboardError(f"{where} is given as a frame ({text.strip()[:30]}); give fps, or write seconds")
        value /= fps
    return checked_seconds(value, where)
