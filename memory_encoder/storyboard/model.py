"""The storyboard itself, its rules, and its one canonical JSON form."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import reprlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from .cast import MAX_LINES, MAX_NAME, MAX_PICTURE, CastLine, with_cast

Transition = Literal["cut", "continue"]

VERSION = 1
MAX_TEXT_BYTES = 256 * 1024
MAX_SHOTS = 10_000
MAX_CHARACTERS = 10_000  # of one prompt; text encoders read far fewer
MAX_SECONDS = 24 * 3600.0
MAX_SEED = 2**64 - 1
TIME_TOLERANCE = 1e-6  # seconds; sums of decimal fractions in an editor do not meet exactly

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # half surrogates as well
_SHOT_FIELDS = ("start", "end", "prompt", "seed", "transition", "name", "locked", "picture")
_STORYBOARD_FIELDS = ("version", "shots", "negative", "cast")
_CAST_FIELDS = ("name", "look", "picture")


class StoryboardError(ValueError):
    """A storyboard that cannot be used; the message names the place, what is wrong and what to change."""


@dataclass(frozen=True)
class Shot:
    """One shot, times in seconds from the storyboard's beginning. Without `end` it lasts until the next shot starts.

    `transition` says how the shot begins: with a cut, or going on from the last picture. `locked` keeps a finished
    shot as it is; whoever renders decides what that means. `stated`: the text itself says the transition; a first shot
    of which it says nothing goes on from a clip that opens the film. picture: name of an image file that the shot
    begins with, as ComfyUI's image loader names files; "" for none.
    """

    prompt: str
    start: float
    end: float | None = None
    seed: int | None = None
    transition: Transition = "cut"
    name: str = ""
    locked: bool = False
    stated: bool = dataclasses.field(default=False, compare=False)
    picture: str = ""


@dataclass(frozen=True)
class Storyboard:
    """Shots in the order of time, none overlapping; gaps are allowed and belong to the nearest shot.

    Raises StoryboardError, naming the shot (counted from 1), for empty or overlong text, control characters, times
    that are negative, not finite or out of order, and fields of a wrong type. White space around texts is dropped.
    cast: how people, places and the whole film look; the prompts of the shots stay as they are, see `expanded`.
    """

    shots: tuple[Shot, ...]
    negative: str = ""
    version: int = VERSION
    cast: tuple[CastLine, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise StoryboardError(f"'version' is {show(self.version)}; write {VERSION}")
        if self.version > VERSION:
            raise StoryboardError(
                f"the storyboard has version {self.version}, this pack reads up to version {VERSION}; update the pack"
            )
        if not self.shots:
            raise StoryboardError("the storyboard has no shot; add at least one")
        check_count(len(self.shots))
        checked = tuple(_checked_shot(shot, f"shot {number}") for number, shot in enumerate(self.shots, 1))
        for number, (shot, following) in enumerate(pairwise(checked), 1):
            _check_order(number, shot, following)
        object.__setattr__(self, "shots", checked)
        object.__setattr__(self, "negative", checked_text(self.negative, "'negative'", may_be_empty=True))
        object.__setattr__(self, "cast", _checked_cast(self.cast))

    def expanded(self) -> Storyboard:
        """The storyboard that is made: every prompt says how what it names looks, and there is no cast."""
        if not self.cast:
            return self
        shots = tuple(dataclasses.replace(shot, prompt=with_cast(shot.prompt, self.cast)) for shot in self.shots)
        return dataclasses.replace(self, shots=shots, cast=())

    def to_json(self) -> str:
        """The canonical JSON; fields at their default are left out, `transition` is written but for a first shot of
        which nothing was said."""
        shots = [_shot_to_dict(shot) for shot in self.shots]
        if self.shots[0].transition == "cut" and not self.shots[0].stated:
            del shots[0]["transition"]
        data = {"version": self.version, "shots": shots, "negative": self.negative}
        if self.cast:
            data["cast"] = [_cast_line_to_dict(line) for line in self.cast]
        return json.dumps(data, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Storyboard:
        """Reads the canonical JSON. Raises StoryboardError with line and column, or with the shot and the field."""
        return cls.from_dict(load_json_object(checked_size(text)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Storyboard:
        """From the decoded canonical JSON. Unknown fields are refused, since they may be typing errors."""
        version = data.get("version", VERSION)
        if isinstance(version, bool) or not isinstance(version, int) or version > VERSION:
            cls((), version=version)  # raises; a later version may have fields that are unknown here
        _refuse_unknown(data, _STORYBOARD_FIELDS, "the storyboard")
        shots = data.get("shots")
        if not isinstance(shots, list):
            raise StoryboardError(f"'shots' is {show(shots)}; write a list such as {_EXAMPLE_SHOTS}")
        check_count(len(shots))
        return cls(
            shots=tuple(_shot_from_dict(shot, f"shot {number}") for number, shot in enumerate(shots, 1)),
            negative=data.get("negative", ""),
            version=version,
            cast=cast_from(data.get("cast", [])),
        )


_EXAMPLE_CAST = '[{"name": "Mira", "look": "a girl with red hair"}]'
_EXAMPLE_SHOTS = '[{"start": 0, "end": 5, "prompt": "a street at night"}]'


def check_count(shots: int) -> None:
    """Raises StoryboardError for more shots than a storyboard can have."""
    if shots > MAX_SHOTS:
        raise StoryboardError(f"the storyboard has {shots} shots, at most {MAX_SHOTS} are possible; split the film")


def checked_size(text: str) -> str:
    """The text without white space around it. Raises StoryboardError when it is no text, empty or over 256 KiB."""
    if not isinstance(text, str):
        raise StoryboardError(f"the storyboard is {show(text)}; give text")
    if len(text) > MAX_TEXT_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise StoryboardError(
            f"the storyboard is longer than {MAX_TEXT_BYTES // 1024} KiB ({len(text)} characters); "
            "check that it is a storyboard, or split the film"
        )
    text = text.removeprefix("\ufeff").strip(" \t\r\n")
    if not text:
        raise StoryboardError("the storyboard is empty; describe at least one shot")
    refuse_control_characters(text, "the storyboard")
    return text


def checked_text(text: object, where: str, *, may_be_empty: bool = False) -> str:
    """A prompt without white space around it; StoryboardError when it is no text, empty, too long or not printable."""
    if not isinstance(text, str):
        raise StoryboardError(f"{where}: the text is {show(text)}; write it in quotes")
    text = text.strip(" \t\r\n")
    if not may_be_empty and not text.strip():
        raise StoryboardError(f"{where}: the prompt is empty; say what is seen, or delete the shot")
    if len(text) > MAX_CHARACTERS:
        raise StoryboardError(
            f"{where}: the text has {len(text)} characters, at most {MAX_CHARACTERS} are possible; shorten it"
        )
    refuse_control_characters(text, where)
    return text


def refuse_control_characters(text: str, where: str) -> None:
    """Raises StoryboardError with the position of the first character that no text encoder can read."""
    found = _UNPRINTABLE.search(text)
    if found is not None:
        position = found.start()
        line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
        code = f"U+{ord(found[0]):04X}"
        raise StoryboardError(f"{where}: line {line}, column {column} has the control character {code}; delete it")


def decode_json(text: str, position: int = 0) -> tuple[Any, int]:
    """The JSON value at a position, and where it ends. StoryboardError, with line and column, for what is broken."""
    decoder = json.JSONDecoder(strict=False, parse_constant=_refuse_constant, object_pairs_hook=_object_without_repeats)
    try:
        return decoder.raw_decode(text, position)
    except json.JSONDecodeError as error:
        ended = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        cut = "; the text may have been cut off" if ended else ""
        raise StoryboardError(
            f"the JSON is broken at line {error.lineno}, column {error.colno}: {error.msg}{cut}; correct it"
        ) from error
    except RecursionError as error:
        raise StoryboardError("the JSON is nested too deeply to be a storyboard; check what was pasted") from error
    except StoryboardError:
        raise
    except ValueError as error:
        raise StoryboardError("the JSON has a number of thousands of digits; correct it") from error


def load_json_object(text: str) -> dict[str, Any]:
    """Decodes a JSON object. StoryboardError, with line and column, for anything else, NaN and repeated fields."""
    data, end = decode_json(text)
    if rest := text[end:].strip():
        raise StoryboardError(f"there is more text behind the JSON: {show(rest)}; delete it")
    return checked_object(data)


def checked_object(data: object) -> dict[str, Any]:
    """The decoded JSON when it is an object. StoryboardError with an example for anything else."""
    if not isinstance(data, dict):
        raise StoryboardError(f'the JSON is {show(data)}; write an object: {{"version": 1, "shots": {_EXAMPLE_SHOTS}}}')
    return data


def checked_seconds(value: object, where: str) -> float:
    """A time in seconds as a float, or StoryboardError when it is no number, not finite, negative or over a day."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise StoryboardError(f"{where} is {show(value)}; write a number of seconds")
    if isinstance(value, float) and not math.isfinite(value):
        raise StoryboardError(f"{where} is {value}; write a finite number of seconds")
    if value < 0:
        raise StoryboardError(f"{where} is negative ({show(value)} s); the film begins at 0 s")
    if value > MAX_SECONDS:
        raise StoryboardError(
            f"{where} is {show(value)} s, later than {MAX_SECONDS:.0f} s (one day); times are in seconds"
        )
    return float(value)


def _checked_shot(shot: Shot, where: str) -> Shot:
    start = checked_seconds(shot.start, f"{where}: 'start'")
    end = None if shot.end is None else checked_seconds(shot.end, f"{where}: 'end'")
    if end is not None and end <= start:
        raise StoryboardError(
            f"{where}: 'end' ({end:g} s) is not after 'start' ({start:g} s); give a later end or none"
        )
    seed = shot.seed
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED):
        raise StoryboardError(
            f"{where}: 'seed' is {show(seed)}; write a whole number from 0 to {MAX_SEED}, or leave it out"
        )
    if shot.transition not in ("cut", "continue"):
        raise StoryboardError(f'{where}: \'transition\' is {show(shot.transition)}; write "cut" or "continue"')
    if not isinstance(shot.locked, bool):
        raise StoryboardError(f"{where}: 'locked' is {show(shot.locked)}; write true or false")
    prompt, name = checked_text(shot.prompt, where), checked_text(shot.name, f"{where}: 'name'", may_be_empty=True)
    picture = _checked_picture(shot.picture, where)
    if picture and shot.transition == "continue":
        raise StoryboardError(
            f"{where} goes on from what is before it and has a picture to begin with; make it a cut, or remove the "
            "picture"
        )
    return Shot(prompt, start, end, seed, shot.transition, name, shot.locked, shot.stated, picture)


def _checked_picture(name: object, where: str) -> str:
    picture = checked_text(name, f"{where}: 'picture'", may_be_empty=True)
    if len(picture) > MAX_PICTURE or "\n" in picture:
        raise StoryboardError(
            f"{where}: 'picture' is no file name of at most {MAX_PICTURE} characters; name an image in ComfyUI's input"
        )
    return picture


def cast_from(data: object) -> tuple[CastLine, ...]:
    """The lines of a decoded 'cast'. Raises StoryboardError that names the line."""
    if not isinstance(data, list):
        raise StoryboardError(f"'cast' is {show(data)}; write a list such as {_EXAMPLE_CAST}")
    lines = []
    for number, line in enumerate(data, 1):
        if not isinstance(line, dict):
            raise StoryboardError(f"line {number} of 'cast' is {show(line)}; write an object with 'name' and 'look'")
        _refuse_unknown(line, _CAST_FIELDS, f"line {number} of 'cast'")
        lines.append(CastLine(line.get("look", ""), line.get("name", ""), line.get("picture", "")))
    return _checked_cast(tuple(lines))


def _checked_cast(cast: tuple[CastLine, ...]) -> tuple[CastLine, ...]:
    if len(cast) > MAX_LINES:
        raise StoryboardError(f"'cast' has {len(cast)} lines, at most {MAX_LINES} are possible; leave some out")
    checked: list[CastLine] = []
    for number, line in enumerate(cast, 1):
        where = f"line {number} of 'cast'"
        name = checked_text(line.name, f"{where}: 'name'", may_be_empty=True)
        look = checked_text(line.look, f"{where}: 'look'", may_be_empty=True)
        if not look:
            raise StoryboardError(f"{where}: 'look' is empty; say how {name or 'the film'} looks, or delete the line")
        if len(name) > MAX_NAME or "\n" in name:
            raise StoryboardError(f"{where}: the name is no name of at most {MAX_NAME} characters; write only the name")
        if name and any(other.name == name for other in checked):
            raise StoryboardError(f"{where}: {name} is there already; put both looks into one line")
        checked.append(CastLine(look, name, _checked_picture(line.picture, where)))
    return tuple(checked)


def _check_order(number: int, shot: Shot, following: Shot) -> None:
    if following.start <= shot.start:
        raise StoryboardError(
            f"shot {number + 1} starts at {following.start:g} s, not after shot {number} ({shot.start:g} s); "
            "put the shots in the order of time, each with its own start"
        )
    if shot.end is not None and shot.end > following.start + TIME_TOLERANCE:
        raise StoryboardError(
            f"shot {number} ends at {shot.end:g} s, after shot {number + 1} has started ({following.start:g} s); "
            "shots must not overlap: move the end or the start"
        )


def _shot_to_dict(shot: Shot) -> dict[str, Any]:
    data: dict[str, Any] = {"start": _number(shot.start)}
    if shot.end is not None:
        data["end"] = _number(shot.end)
    data["prompt"] = shot.prompt
    if shot.seed is not None:
        data["seed"] = shot.seed
    data["transition"] = shot.transition
    if shot.name:
        data["name"] = shot.name
    if shot.locked:
        data["locked"] = True
    if shot.picture:
        data["picture"] = shot.picture
    return data


def _cast_line_to_dict(line: CastLine) -> dict[str, str]:
    fields = {"name": line.name, "look": line.look, "picture": line.picture}
    return {field: text for field, text in fields.items() if text}


def _shot_from_dict(data: object, where: str) -> Shot:
    if not isinstance(data, dict):
        raise StoryboardError(f"{where} is {show(data)}; write an object with 'start' and 'prompt'")
    _refuse_unknown(data, _SHOT_FIELDS, where)
    for field in ("start", "prompt"):
        if field not in data:
            raise StoryboardError(f"{where}: '{field}' is missing; add it")
    return Shot(
        **data, stated="transition" in data
    )  # the types are checked by Storyboard, which knows the shot's number


def _refuse_unknown(data: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for field in data:
        if field not in known:
            close = difflib.get_close_matches(field[:40], known, n=1)
            cure = f"did you mean '{close[0]}'?" if close else f"known fields are {', '.join(known)}"
            if not close and "shots" in known and "shots" not in data:
                cure += f'; write {{"shots": {_EXAMPLE_SHOTS}}}'
            raise StoryboardError(f"{where}: unknown field {show(field)}; {cure}")


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise StoryboardError(f"the JSON names {show(repeated)} twice; keep one")
    return data


def _refuse_constant(name: str) -> float:
    raise StoryboardError(f"the JSON has the value {name}; write a finite number")


def _number(seconds: float) -> float | int:
    return int(seconds) if seconds.is_integer() else seconds


def show(value: object) -> str:
    """A value for a message: short, whatever it is."""
    if value is None:
        return "missing or null"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of very many digits"
    return reprlib.repr(value)
