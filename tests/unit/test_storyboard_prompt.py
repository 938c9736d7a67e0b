"""The instruction for language models stays true to the format, and what they answer lands in the storyboard."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from memory_encoder.storyboard import (
    CastLine,
    StoryboardError,
    merged,
    parse_storyboard,
    plan_sections,
    read_characters,
    read_storyboard,
    storyboard_prompt,
)
from memory_encoder.storyboard.instruction import INSTRUCTION
from memory_encoder.storyboard.model import _CAST_FIELDS, _SHOT_FIELDS, _STORYBOARD_FIELDS

PAGE = (Path(__file__).resolve().parents[2] / "workflows" / "storyboard_prompt.md").read_text(encoding="utf-8")
MIRA = CastLine("a girl with red hair", "Mira")
SHOTS = '"shots": [{"start": 0, "end": 5, "prompt": "Mira waves"}, {"start": 5, "end": 10, "prompt": "a street"}]'


def test_the_page_holds_the_text_of_the_node() -> None:
    assert PAGE.split("```\n")[1] == INSTRUCTION


def test_the_example_of_the_instruction_is_a_storyboard_of_two_shots_and_one_character() -> None:
    example = re.search(r'^\{"version".*?"negative": ""\}$', INSTRUCTION, re.MULTILINE | re.DOTALL)
    assert example is not None
    parsed = parse_storyboard(example[0], section_seconds=5.0, fps=16.0)
    assert [(shot.start, shot.end, shot.transition) for shot in parsed.shots] == [(0, 5, "cut"), (5, 10, "cut")]
    assert [line.name for line in parsed.cast] == ["Mira"]


def test_the_instruction_explains_only_fields_that_exist() -> None:
    explained = {name for line in re.findall(r"^- ([a-z, ]+):", INSTRUCTION, re.MULTILINE) for name in line.split(", ")}
    assert {"start", "end", "prompt", "negative", "cast"} <= explained
    assert explained <= {*_SHOT_FIELDS, *_STORYBOARD_FIELDS, *_CAST_FIELDS}


def test_the_prompt_ends_with_the_idea_and_says_who_appears_and_how_long_it_is() -> None:
    prompt = storyboard_prompt(" tea in the rain ", [MIRA, CastLine("ink")], 6, 30)
    assert prompt.startswith(INSTRUCTION.rstrip()) and prompt.endswith("The idea:\ntea in the rain\n")
    assert "- Mira: a girl with red hair" in prompt and "do not write it: ink" in prompt
    assert "exactly 6 shots, 30 seconds in all, about 5 seconds a shot" in prompt
    assert "Length" not in storyboard_prompt("tea") and "one shot" in storyboard_prompt("tea", shots=1)
    for words, wrong in (("idea is empty", ("\n", 0, 0)), ("shots is -1", ("a", -1, 0)), ("seconds is", ("a", 0, 1e9))):
        with pytest.raises(StoryboardError, match=words):
            storyboard_prompt(wrong[0], (), *wrong[1:])


@pytest.mark.parametrize(
    "cast",
    [
        '"cast": [{"name": "Mira", "look": "a girl with red hair"}]',
        '"characters": {"Mira": "a girl with red hair"}',
        '"characters": [{"name": "Mira", "description": "a girl with red hair"}]',
        '"character_sheets": {"Mira": {"appearance": "a girl", "hair": "with red hair"}}',
        '"characters": ["Mira: a girl with red hair"]',
        '"cast": {"name": "Mira", "look": "a girl with red hair"}',
    ],
)
@pytest.mark.parametrize("form", ["json", "json_list", "storymem"])
def test_characters_land_in_the_cast_however_a_model_writes_them(cast: str, form: str) -> None:
    shots = {
        "json": SHOTS,
        "json_list": '"scenes": [{"duration": 5, "prompt": "Mira waves"}, {"duration": 5, "prompt": "a street"}]',
        "storymem": '"scenes": [{"video_prompts": ["Mira waves", "a street"], "cut": [true, true]}]',
    }[form]
    answer = f"<think>Who is in it?</think>\nHere is the storyboard:\n```json\n{{{shots}, {cast}}}\n```\nEnjoy!"
    reading = read_storyboard(answer, section_seconds=5)
    assert reading.form == form and [line.name for line in reading.storyboard.cast] == ["Mira"]
    made = [section.prompt for section in plan_sections(reading.storyboard, fps=16, section_seconds=5)]
    look = reading.storyboard.cast[0].look
    assert look.replace(",", "") == "a girl with red hair"
    assert made == [f"Mira, {look}, waves", "a street"]


def test_what_says_nothing_of_a_look_is_refused_with_its_line_and_no_word_is_lost() -> None:
    for cast, words in (
        ('"characters": [{"name": "Mira", "secret": "x"}]', "line 1 of 'cast': unknown field 'secret'"),
        ('"characters": [{"name": "Mira", "hair": "red", "secret": "x"}]', "line 1 of 'cast': unknown field 'secret'"),
        ('"characters": {"Mira": 3}', "line 1 of 'cast': 'look'"),
        ('"characters": {}, "cast": []', "'cast' and 'characters' both"),
        ('"characters": "Mira"', "'cast' is 'Mira'"),
    ):
        with pytest.raises(StoryboardError, match=words):
            parse_storyboard(f"{{{SHOTS}, {cast}}}", section_seconds=5)


@pytest.mark.parametrize(
    "text",
    [
        "Mira: a girl with red hair\nTom: an old man, 70\nStyle: ink",
        "Characters:\n- **Mira**: a girl with red hair\n- **Tom:** an old man, 70\n\nink",
        "1. Mira: a girl with red hair\n2. Tom : an old man, 70\n画風：ink",
        json.dumps({"Mira": "a girl with red hair", "Tom": {"look": "an old man, 70"}, "style": "ink"}),
        '```json\n{"characters": ["Mira: a girl with red hair", "Tom: an old man, 70", "ink"]}\n```',
    ],
)
def test_character_sheets_are_read_as_lines_and_as_json(text: str) -> None:
    assert [(line.name, line.look) for line in read_characters(text)] == [
        ("Mira", "a girl with red hair"), ("Tom", "an old man, 70"), ("", "ink"),
    ]  # fmt: skip


def test_an_age_alone_says_what_it_is_and_nothing_is_no_character() -> None:
    (line,) = read_characters('[{"name": "Tom", "description": "a keeper", "age": 70}]')
    assert line.look == "a keeper, 70 years old"
    assert read_characters(" \n") == ()
    assert [line.name for line in read_characters("小美：穿黄色雨衣")] == ["小美"]
    with pytest.raises(StoryboardError, match="Mira is there already"):
        read_characters("Mira: a\nMira: b")


def test_a_persons_own_sheets_have_the_last_word_and_keep_the_pictures() -> None:
    cast = (CastLine("a boy", "mira", "m.png"), CastLine("tiles", "the kitchen"), CastLine("ink"))
    assert merged(cast, (MIRA, CastLine("ink"))) == (
        CastLine("tiles", "the kitchen"), CastLine("a girl with red hair", "Mira", "m.png"), CastLine("ink"),
    )  # fmt: skip
    assert merged(cast, ()) == cast
