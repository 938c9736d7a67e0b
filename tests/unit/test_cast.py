"""Cast and look: what a prompt names is described in it, once, and the storyboard keeps what was written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_encoder.storyboard import CastLine, Shot, Storyboard, StoryboardError, parse_storyboard, plan_sections
from memory_encoder.storyboard.cast import is_in, with_cast

MIRA = CastLine("a girl with red hair", "Mira")
KITCHEN = CastLine("green tiles and a copper kettle", "the kitchen")
LIGHT = CastLine("watercolour")
WORDS = st.text("abcDEF ,.'-\u5c0f\u7f8e", min_size=1, max_size=30).filter(lambda text: text.strip())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Mira waves", "Mira, a girl with red hair, waves"),
        ("a street; Mira, running", "a street; Mira, a girl with red hair, running"),
        ("here is Mira", "here is Mira, a girl with red hair"),
        ("Mira meets Mira", "Mira, a girl with red hair, meets Mira"),
        ("The kitchen at night", "The kitchen, green tiles and a copper kettle, at night"),
        ("Mira's hat", "Mira's hat. Mira: a girl with red hair"),
        ("Miranda and the miracle", "Miranda and the miracle"),
        ("Mira, a girl with red hair, sits", "Mira, a girl with red hair, sits"),
        ("Mira\u5728\u53a8\u623f", "Mira, a girl with red hair,\u5728\u53a8\u623f"),
    ],
)
def test_what_a_prompt_names_is_described_behind_its_name(prompt: str, expected: str) -> None:
    assert with_cast(prompt, (MIRA, KITCHEN)) == expected


def test_an_article_is_no_part_of_a_name_in_capitals() -> None:
    kitchen = CastLine("green tiles", "The Kitchen")
    assert with_cast("Mira in the Kitchen", [kitchen]) == "Mira in the Kitchen, green tiles"
    assert with_cast("Mira in the kitchen", [kitchen]) == "Mira in the kitchen"


def test_a_name_without_spaces_around_it_is_found_in_scripts_that_have_none() -> None:
    line = CastLine("\u7a7f\u9ec4\u8272\u96e8\u8863", "\u5c0f\u7f8e")
    assert (
        with_cast("\u5c0f\u7f8e\u6325\u624b", [line])
        == "\u5c0f\u7f8e\uff0c\u7a7f\u9ec4\u8272\u96e8\u8863\uff0c\u6325\u624b"
    )


def test_a_look_inside_of_another_look_or_word_is_not_said() -> None:
    anna, man, woman = CastLine("a girl", "Anna"), CastLine("man in a coat", "Bo"), CastLine("woman in a coat", "Eva")
    cast = (MIRA, anna, man, woman)
    both = with_cast("Mira and Anna wave", cast)
    assert both == "Mira, a girl with red hair, and Anna, a girl, wave"
    assert [is_in(line, both, cast) for line in cast] == [True, True, False, False]
    alone = with_cast("Mira waves at Eva", cast)
    assert [is_in(line, alone, cast) for line in cast] == [True, False, False, True]
    assert with_cast(both, cast) == both


def test_the_look_of_the_film_stands_behind_every_prompt() -> None:
    assert [with_cast(prompt, [LIGHT]) for prompt in ("a street", "a street.", "a street, ")] == [
        "a street. watercolour", "a street. watercolour", "a street. watercolour",
    ]  # fmt: skip


@given(prompt=WORDS, names=st.lists(WORDS.map(str.strip), max_size=4, unique=True), looks=st.lists(WORDS, min_size=4))
def test_a_prompt_keeps_its_words_in_order_and_is_described_once(
    prompt: str, names: list[str], looks: list[str]
) -> None:
    cast = [CastLine(look.strip(), name) for name, look in zip(names, looks, strict=False)]
    once = with_cast(prompt, cast)
    rest = iter(once)
    assert all(letter in rest for letter in prompt.rstrip(" ,"))
    assert with_cast(once, cast[:1]) == with_cast(with_cast(once, cast[:1]), cast[:1])


def test_sections_are_made_from_the_described_prompts_and_the_text_keeps_what_was_written() -> None:
    shots = (Shot("Mira waves", 0, 5), Shot("a street", 5, 10))
    board = Storyboard(shots, cast=(MIRA, LIGHT))
    assert Storyboard.from_json(board.to_json()) == board == parse_storyboard(board.to_json(), section_seconds=5)
    assert [shot.prompt for shot in board.shots] == ["Mira waves", "a street"]
    made = [section.prompt for section in plan_sections(board, fps=16, section_seconds=5)]
    assert made == ["Mira, a girl with red hair, waves. watercolour", "a street. watercolour"]
    assert board.expanded().expanded() == board.expanded() and not board.expanded().cast
    assert '"cast"' not in Storyboard(shots).to_json(), "films of before keep their text"


@pytest.mark.parametrize(
    ("cast", "words"),
    [
        ("Mira", "'cast' is 'Mira'; write a list"),
        (["Mira"], "line 1 of 'cast' is 'Mira'; write an object"),
        ([{"name": "Mira"}], "line 1 of 'cast': 'look' is empty; say how Mira looks"),
        ([{"nam": "Mira", "look": "x"}], "did you mean 'name'"),
        ([{"name": "M", "look": "x"}, {"name": "M", "look": "y"}], "line 2 of 'cast': M is there already"),
        ([{"name": "M" * 101, "look": "x"}], "no name of at most 100"),
        ([{"name": "M", "look": 3}], "line 1 of 'cast': 'look'"),
        ([{"look": str(n)} for n in range(101)], "at most 100"),
    ],
)
def test_a_cast_that_cannot_be_used_is_refused_with_its_line(cast: object, words: str) -> None:
    text = json.dumps({"version": 1, "shots": [{"start": 0, "prompt": "a"}], "cast": cast})
    with pytest.raises(StoryboardError, match=words.replace("(", "\\(")):
        Storyboard.from_json(text)


def test_pictures_of_shots_and_cast_come_back_and_a_shot_that_goes_on_has_none() -> None:
    shots = [{"start": 0, "end": 5, "prompt": "a", "picture": "faces/mira 1.png"}, {"start": 5, "prompt": "b"}]
    cast = [{"name": "Mira", "look": "a girl", "picture": "m.png [output]"}, {"look": "ink"}]
    board = parse_storyboard(json.dumps({"version": 1, "shots": shots, "cast": cast}), section_seconds=5)
    assert (board.shots[0].picture, board.shots[1].picture) == ("faces/mira 1.png", "")
    assert (
        parse_storyboard(board.to_json(), section_seconds=5) == board
        and '"picture": "m.png [output]"' in board.to_json()
    )
    (first, *_) = plan_sections(board, fps=16, section_seconds=5, history_latents=3, after_clip=True)
    assert first.transition == "cut", "it begins with its picture and not with the clip before it"
    for picture, transition, message in (
        ("a.png", "continue", "shot 1 goes on .* make it a cut, or remove the picture"),
        (3, "cut", "'picture': the text is 3"),
        ("a\nb.png", "cut", "'picture' is no file name"),
        ("a" * 501, "cut", "'picture' is no file name of at most 500"),
    ):
        with pytest.raises(StoryboardError, match=message):
            Storyboard((Shot("a", 0, picture=picture, transition=transition),))  # type: ignore[arg-type]
