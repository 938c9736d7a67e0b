"""What an encoder was trained on, as its file says it, and what a film asks of it beyond that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

KEY = "trained_on"  # of the metadata of an encoder's file
TOLERANCE = 1.05


@dataclass(frozen=True)
class Asked:
    """What a film asks of a memory. window: latents of the sliding window. shift: None where it is not known."""

    history_seconds: float
    section_seconds: float
    fps: float
    window: int = 0
    shift: float | None = None


@dataclass(frozen=True)
class TrainedOn:
    """The last training of an encoder.

    history_seconds: longest history. section_seconds: longest section, 0 in stage retrieval, which makes none.
    window: latents of the sliding window, 0 without one. shift, min_t, max_t: distribution of the timesteps. steps:
    updates. width, height: in pixels. clips: how many it was trained on.
    """

    stage: str
    history_seconds: float
    section_seconds: float
    fps: float
    window: int
    shift: float
    min_t: float = 0.0
    max_t: float = 1.0
    steps: int = 0
    width: int = 0
    height: int = 0
    clips: int = 0

    def to_metadata(self) -> dict[str, str]:
        """Metadata for `safetensors.torch.save_file`."""
        return {KEY: json.dumps(asdict(self))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None) -> TrainedOn | None:
        """Inverse of `to_metadata`; None where a file does not say it, or not in this form; it may say more."""
        try:
            values: Any = json.loads((metadata or {})[KEY])
            known = {field.name: type(field.default) for field in fields(cls)}
            made = cls(**{name: value for name, value in values.items() if name in known})
            numbers = [value for name, value in asdict(made).items() if name != "stage"]
            return made if all(type(number) in (int, float) for number in numbers) else None
        except (KeyError, ValueError, TypeError, AttributeError):
            return None

    def describe_plan(self) -> str:
        """What a film may ask of the memory, in one line."""
        made = f"sections up to {self.section_seconds:.1f} s" if self.section_seconds else "retrieval alone"
        window = f", sliding window {self.window}" if self.window else ""
        return f"history up to {self.history_seconds:.1f} s; {made}{window}; shift {self.shift:g}"

    def describe(self) -> str:
        """All of it, in one line."""
        half = f", timesteps {self.min_t:g} to {self.max_t:g}" if (self.min_t, self.max_t) != (0, 1) else ""
        size = f"{self.fps:g} fps, {self.width}x{self.height}"
        return f"trained on {self.describe_plan()}{half}; {size}; {self.steps} steps, {self.clips} clips"

    def beyond(self, asked: Asked) -> list[str]:
        """What is asked beyond the training, a phrase for each."""
        found = []
        if asked.history_seconds > self.history_seconds * TOLERANCE:
            found.append(f"history of {asked.history_seconds:.1f} s, trained up to {self.history_seconds:.1f} s")
        if abs(asked.fps - self.fps) > 0.01 * self.fps:
            found.append(f"{asked.fps:g} fps, trained at {self.fps:g}")
        if not self.section_seconds:
            found.append("sections, trained for retrieval alone (stage continuation comes after it)")
        elif asked.section_seconds > self.section_seconds * TOLERANCE:
            found.append(f"sections of {asked.section_seconds:.1f} s, trained up to {self.section_seconds:.1f} s")
        if self.section_seconds and asked.window > self.window:
            found.append(f"sliding window of {asked.window}, trained with {self.window or 'none'}")
        if asked.shift is not None and abs(asked.shift - self.shift) > 0.01 * self.shift:
            found.append(f"shift {asked.shift:g}, trained at {self.shift:g}")
        return found


def remarks(trained: Iterable[TrainedOn | None], asked: Asked) -> list[str]:
    """What a film asks beyond the training of its encoders, each said once; the one place that compares."""
    phrases = [phrase for one in trained if one is not None for phrase in one.beyond(asked)]
    return [f"the memory encoder is asked beyond its training: {phrase}" for phrase in dict.fromkeys(phrases)]
