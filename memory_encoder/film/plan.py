"""What a storyboard will become, for an editor that asks while a person types: sections, frames, tokens and VRAM."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast, get_args

from ..budget import (
    GIB,
    HostShape,
    Plan,
    advice,
    changed_inputs,
    describe,
    estimate,
    host_of_encoder,
    memory_fields,
    named_host,
)
from ..phi.config import (
    DEFAULT_WINDOW,
    MOST_PICTURES,
    RECENT_LATENTS,
    REPEATED_FRAMES,
    CompressionRate,
    EncoderConfig,
    HostAttention,
    Padding,
)
from ..storyboard import (
    MAX_TEXT_BYTES,
    KeyframeUnit,
    Lattice,
    Reading,
    Section,
    Storyboard,
    describe_schedule,
    plan_sections,
    read_storyboard,
)

SHOWN_SECTIONS = 2000  # more than an editor can show; a day of film has 100,000
SHOWN_CHARACTERS = 300  # of a section's prompt
MAX_HISTORY_LATENTS = 1_000_000

# Lowest and highest value of each number, as in the nodes' own inputs.
_NUMBERS: dict[str, tuple[float, float]] = {
    "fps": (1, 240),
    "section_seconds": (0.25, 600),
    "total_seconds": (0, 86400),
    "width": (16, 16384),
    "height": (16, 16384),
    "card_gib": (1, 1024),
    "bytes_per_weight": (0.1, 4),
    "history_latents": (0, MAX_HISTORY_LATENTS),
    "max_pictures": (0, MOST_PICTURES),
    "repeated_frames": (0, max(REPEATED_FRAMES)),
    "horizon": (0, 10_000_000),
    "sliding_window": (0, RECENT_LATENTS),
}
_WHOLE = ("width", "height", "history_latents", "max_pictures", "repeated_frames", "horizon", "sliding_window")
_TEXTS = {"storyboard": MAX_TEXT_BYTES, "host": 100, "padding": 10, "keyframe_unit": 10, "attention_mode": 10}
_CHOICES = {
    "padding": get_args(Padding),
    "keyframe_unit": get_args(KeyframeUnit),
    "attention_mode": ("auto", *get_args(HostAttention)),
}
MAX_ENCODERS = 4


class PlanError(ValueError):
    """A request that cannot be answered; `field` names the input at fault."""

    def __init__(self, message: str, field: str = "storyboard") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class PlanRequest:
    """The film as the nodes know it: storyboard, Storyboard node's numbers, picture size, memory and card.

    `encoders` names files of encoders: host and padding are theirs then, and `rates` adds encoders that have no file.
    `cached` is the memory attention of the latter. `max_pictures` above 0: a memory of pictures that has no file.
    `text_model`: the model makes video from text alone, and cannot begin a shot with a picture. `sliding_window`: the
    sampler's, which is there only where a section goes on. `attention_mode`: the sampler's, which may read a memory of
    cached encoders jointly.
    """

    storyboard: str
    fps: float = 16.0
    section_seconds: float = 5.0
    total_seconds: float = 0.0
    width: int = 832
    height: int = 480
    host: str = "wan-14b"
    rates: tuple[str, ...] = ()  # without encoders 4x4x2
    padding: str = "ceil"
    cached: bool = False
    encoders: tuple[str, ...] = ()
    card_gib: float = 12.0
    bytes_per_weight: float = 1.0
    history_latents: int = 0
    keyframe_unit: str = "seconds"
    max_pictures: int = 0
    repeated_frames: int = 1
    text_model: bool = False
    horizon: int = 0
    sliding_window: int = DEFAULT_WINDOW
    attention_mode: str = "auto"

    @classmethod
    def from_dict(cls, data: object) -> PlanRequest:
        """From decoded JSON, strictly. Raises PlanError that names the field, what is wrong and what to send."""
        if not isinstance(data, Mapping):
            raise PlanError('the request is no object; send {"storyboard": "..."}', "request")
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in data if name not in known]:
            raise PlanError(f"unknown field {str(unknown[0])[:40]!r}; known are {', '.join(known)}", "request")
        if "storyboard" not in data:
            raise PlanError("storyboard is missing; send its text")
        return cls(**{name: _checked(name, value) for name, value in data.items()})


def film_plan(
    request: PlanRequest, configs: Sequence[EncoderConfig] = (), is_there: Callable[[str], bool] = lambda name: True
) -> dict[str, Any]:
    """Sections and budget of a film as JSON values; `configs` are those of `request.encoders`.

    is_there: whether a picture that the storyboard names exists; `unused_pictures` are those that a run would refuse.
    A budget that cannot be made does not hide the sections: `budget` is null then and `budget_error` says why. The
    memory is that of the whole film, the section the longest one, as in the node Memory Budget.

    Raises PlanError or StoryboardError for a storyboard that cannot be used.
    """
    try:
        host, name = host_of_encoder(configs[0]) if configs else (named_host(request.host), request.host)
    except ValueError as error:
        raise PlanError(str(error), "host") from error
    if request.max_pictures and not configs:
        configs = [_keyframes(request, host)]
    reading = read_storyboard(
        request.storyboard,
        section_seconds=request.section_seconds,
        fps=request.fps,
        total_seconds=request.total_seconds or None,
        keyframe_unit=cast(KeyframeUnit, request.keyframe_unit),
    )
    sections = plan_sections(
        reading.storyboard,
        fps=request.fps,
        section_seconds=request.section_seconds,
        lattice=Lattice.of(configs, host.temporal),
        total_seconds=request.total_seconds or None,
        history_latents=request.history_latents,
        after_clip=request.history_latents > 0,
    )
    budget, problem = None, None
    try:
        budget = _budget(request, host, name, configs, sections)
    except ValueError as error:
        problem = str(error)
    unused = _unused_pictures(request, reading.storyboard, configs, is_there)
    answer = _answer(request, reading, sections, host) | {"unused_pictures": unused}
    return answer | {"budget": budget, "budget_error": problem}


def _unused_pictures(
    request: PlanRequest, storyboard: Storyboard, configs: Sequence[EncoderConfig], is_there: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Each picture that cannot be used: whose it is (a shot's index, or a name of the cast), and why."""
    found: list[dict[str, Any]] = []
    keeps = any(config.variant == "keyframes" for config in configs)
    for index, shot in enumerate(storyboard.shots):
        opens = index == 0 and not request.history_latents
        if shot.picture and not is_there(shot.picture):
            found.append({"shot": index, "why": "missing"})
        elif shot.picture and request.text_model and not opens:
            found.append({"shot": index, "why": "text_model"})
    for line in storyboard.cast:
        if line.picture and not is_there(line.picture):
            found.append({"cast": line.name, "why": "missing"})
        elif line.picture and not keeps:
            found.append({"cast": line.name, "why": "token_memory"})
    return found


def _keyframes(request: PlanRequest, host: HostShape) -> EncoderConfig:
    """The memory of pictures that New Memory Encoder would make; raises PlanError for what it would refuse."""
    frames = request.repeated_frames
    try:
        return EncoderConfig(
            "wan", host.width, 16, variant="keyframes", clips="section", repeated_frames=frames,
            max_pictures=request.max_pictures, first_kept=min(3, request.max_pictures),
        )  # fmt: skip
    except ValueError as error:
        raise PlanError(str(error), "repeated_frames") from error


def _answer(request: PlanRequest, reading: Reading, sections: tuple[Section, ...], host: HostShape) -> dict[str, Any]:
    frames = sum(section.frames for section in sections)
    shown = sections[:SHOWN_SECTIONS]
    schedule = describe_schedule(shown, request.fps)
    if len(shown) < len(sections):
        schedule += f"\n({len(sections) - len(shown)} more sections are not listed)"
    return {
        "storyboard": reading.storyboard.to_json(),
        "read_as": reading.to_dict(),
        "sections": [_shown(section) for section in shown],
        "section_count": len(sections),
        "frames": frames,
        "seconds": frames / request.fps,
        "step_seconds": host.temporal / request.fps,
        "schedule": schedule,
    }


def _shown(section: Section) -> dict[str, Any]:
    prompt = section.prompt
    return {
        "index": section.index,
        "shot": section.shot_index,
        "start_seconds": section.start_seconds,
        "seconds": section.seconds,
        "start_frame": section.start_frame,
        "frames": section.frames,
        "prompt": prompt if len(prompt) <= SHOWN_CHARACTERS else f"{prompt[: SHOWN_CHARACTERS - 1]}…",
        "transition": section.transition,
    }


def _budget(
    request: PlanRequest, host: HostShape, name: str, configs: Sequence[EncoderConfig], sections: tuple[Section, ...]
) -> dict[str, Any]:
    def seconds(latents: int) -> float:
        return latents * host.temporal / request.fps

    # The single-frame latent that opens a film is left out, as the node and the paper's table do.
    steps = [section.frames // host.temporal for section in sections]
    history = max(request.history_latents - 1, 0) + sum(steps)
    length = seconds(max(steps))
    window = request.sliding_window if any(section.transition == "continue" for section in sections) else 0
    memory: dict[str, Any] = {"rates": (), "padding": request.padding, "cached": True, "sliding_window": window}
    if configs:
        memory = memory_fields(configs, request.fps, length, window)
        if memory["section_latents"]:
            memory["section_latents"] = max(section.latents for section in sections)
    if rates := request.rates or (() if configs else ("4x4x2",)):
        memory |= {"rates": (*memory["rates"], *rates), "cached": memory["cached"] and request.cached}
    memory["cached"] = memory["cached"] and request.attention_mode != "joint"
    plan = Plan(
        host=host,
        width=request.width,
        height=request.height,
        fps=request.fps,
        history_seconds=seconds(history),
        section_seconds=length,
        card_gib=request.card_gib,
        bytes_per_weight=request.bytes_per_weight,
        horizon=request.horizon,
        **memory,
    )
    result = estimate(plan)
    return {
        "host": name,
        "rates": list(plan.rates),
        "memory_tokens": result.memory_tokens,
        "section_tokens": result.section_tokens,
        "history_tokens": result.history_tokens,
        "least_gib": result.least_bytes / GIB,
        "whole_gib": result.whole_bytes / GIB,
        "card_gib": plan.card_gib,
        "report": describe(plan, name),
        "advice": advice(plan, result),
        "changes": changed_inputs(plan, result),
    }


def _checked(name: str, value: object) -> Any:
    """A field of the request in its own type, or PlanError."""
    if name in _NUMBERS:
        return _checked_number(name, value)
    if name == "rates":
        return _checked_rates(value)
    if name == "encoders":
        return _checked_names(value)
    if name in ("cached", "text_model"):
        if not isinstance(value, bool):
            raise PlanError(f"{name} is {_short(value)}; send true or false", name)
        return value
    if not isinstance(value, str) or len(value) > _TEXTS[name]:
        raise PlanError(f"{name} is no text of at most {_TEXTS[name]} characters; send text", name)
    if value not in _CHOICES.get(name, (value,)):
        raise PlanError(f"{name} is {value!r}; send {' or '.join(_CHOICES[name])}", name)
    return value


def _checked_number(name: str, value: object) -> float | int:
    low, high = _NUMBERS[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or not math.isfinite(value):  # type: ignore[operator, arg-type]
        raise PlanError(f"{name} is {_short(value)}; give a number from {low:g} to {high:g}", name)
    if name in _WHOLE:
        if value != int(value):  # type: ignore[arg-type]
            raise PlanError(f"{name} is {_short(value)}; give a whole number", name)
        return int(value)  # type: ignore[arg-type]
    return float(value)  # type: ignore[arg-type]


def _checked_rates(value: object) -> tuple[str, ...]:
    rates = re.split(r"[\s,+]+", value.strip()) if isinstance(value, str) and len(value) <= 200 else value
    if not isinstance(rates, list) or not 1 <= len(rates) <= 4 or not all(isinstance(rate, str) for rate in rates):
        raise PlanError("rates is no list of one to four rates; send for example 4x4x2", "rates")
    try:
        return tuple(str(CompressionRate.parse(rate)) for rate in rates)
    except ValueError as error:
        raise PlanError(str(error), "rates") from error


def _checked_names(value: object) -> tuple[str, ...]:
    texts = isinstance(value, list) and all(isinstance(name, str) and 0 < len(name) <= 1000 for name in value)
    if not texts or len(value) > MAX_ENCODERS:  # type: ignore[arg-type]
        raise PlanError(f"encoders is no list of at most {MAX_ENCODERS} names of files; send names", "encoders")
    return tuple(value)  # type: ignore[arg-type]


def _short(value: object) -> str:
    if isinstance(value, (int, float, str)) or value is None:
        text = repr(value) if not isinstance(value, int) or value.bit_length() < 200 else "a very large number"
        return text if len(text) <= 40 else f"{text[:37]}..."
    return f"of type {type(value).__name__}"
