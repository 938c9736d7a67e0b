"""The instruction for language models stays true to the format that the Storyboard node reads."""

from __future__ import annotations

import re
from pathlib import Path

from memory_encoder.storyboard import parse_storyboard
from memory_encoder.storyboard.model import _SHOT_FIELDS, _STORYBOARD_FIELDS

TEXT = (Path(__file__).resolve().parents[2] / "workflows" / "storyboard_prompt.md").read_text(encoding="utf-8")


def test_the_example_of_the_instruction_is_a_storyboard_of_two_shots() -> None:
    example = next(line for line in TEXT.splitlines() if line.startswith('{"version"'))
    parsed = parse_storyboard(example, section_seconds=5.0, fps=16.0)
    assert [(shot.start, shot.end, shot.transition) for shot in parsed.shots] == [(0, 5, "cut"), (5, 10, "cut")]


def test_the_instruction_explains_only_fields_that_exist() -> None:
    explained = {name for line in re.findall(r"^- ([a-z, ]+):", TEXT, re.MULTILINE) for name in line.split(", ")}
    assert {"start", "end", "prompt", "negative"} <= explained <= {*_SHOT_FIELDS, *_STORYBOARD_FIELDS}
