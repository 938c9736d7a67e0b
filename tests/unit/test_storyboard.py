"""Storyboards: five formats, clear refusals, and sections that tile the film on the latent lattice."""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from memory_encoder.storyboard import (
    MAX_SHOTS,
    Lattice,
    Shot,
    Storyboard,
    StoryboardError,
    describe_schedule,
    nearest_shot,
    parse_storyboard,
    plan_sections,
)
from memory_encoder.storyboard.model import Transition

PROMPTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40).filter(str.strip)


@st.composite
def storyboards(draw: st.DrawFn, shortest: float = 0.01) -> Storyboard:
    shots, now = [], draw(st.sampled_from([0.0, 0.0, 1.3]))
    for _ in range(draw(st.integers(1, 8))):
        length = draw(st.floats(shortest, 20))
        gap = draw(st.sampled_from([0.0, 0.0, 0.4, 3.0]))
        end = draw(st.sampled_from([None, now + length]))
        seed = draw(st.none() | st.integers(0, 2**64 - 1))
        transition = draw(st.sampled_from(get_args(Transition)))
        shots.append(Shot(draw(PROMPTS), now, end, seed, transition, draw(st.just("") | PROMPTS), draw(st.booleans())))
        now += length + gap
    return Storyboard(tuple(shots), draw(st.just("") | PROMPTS))


def parse(text: str, section_seconds: float = 5.0, fps: float | None = None) -> Storyboard:
    return parse_storyboard(text, section_seconds=section_seconds, fps=fps)


def outline(storyboard: Storyboard) -> list[tuple[str, float, float | None]]:
    return [(shot.prompt, shot.start, shot.end) for shot in storyboard.shots]


# Formats


def test_the_canonical_json_is_read_with_every_field() -> None:
    text = (
        '{"version":1,"shots":[{"start":0,"end":5,"prompt":"a","seed":7,"transition":"cut","name":"one","locked":true},'
        '{"start":5.5,"prompt":"b","transition":"continue"}],"negative":"blurred"}'
    )
    first, second = Shot("a", 0.0, 5.0, 7, "cut", "one", True), Shot("b", 5.5, None, None, "continue")
    assert parse(text) == Storyboard.from_json(text) == Storyboard((first, second), "blurred")


@given(storyboards())
def test_a_storyboard_survives_its_json_unchanged(storyboard: Storyboard) -> None:
    assert Storyboard.from_json(storyboard.to_json()) == storyboard
    assert parse(storyboard.to_json()) == storyboard


def test_brackets_with_times_are_read_as_shots() -> None:
    text = "[0s: a street, at night] [5s-10s: the [red] door: open]\n[12.5 s \u2013 14: rain]"
    expected = [("a street, at night", 0.0, None), ("the [red] door: open", 5.0, 10.0), ("rain", 12.5, 14.0)]
    assert outline(parse(text)) == expected


def test_prompts_between_bars_last_one_section_each() -> None:
    assert outline(parse("a | b|c", 4.2)) == [("a", 0.0, 4.2), ("b", 4.2, 8.4), ("c", 8.4, 3 * 4.2)]


@pytest.mark.parametrize(
    "text", ['"0": "a", "2.5": "b \\"x\\""', '{"0": "a", "2.5": "b \\"x\\""}', '"0s" : "a",\n"2.5s": "b \\"x\\"",\n']
)
def test_keyframes_are_read_with_and_without_braces(text: str) -> None:
    assert outline(parse(text)) == [("a", 0.0, None), ('b "x"', 2.5, None)]


def test_a_time_written_as_a_frame_is_converted_with_fps_and_refused_without() -> None:
    assert outline(parse('"0": "a", "24f": "b"', fps=16.0)) == [("a", 0.0, None), ("b", 1.5, None)]
    assert outline(parse("[0f-24f: a]", fps=24.0)) == [("a", 0.0, 1.0)]
    with pytest.raises(StoryboardError, match=r"shot 2.*24f.*give fps"):
        parse('"0": "a", "24f": "b"')


@pytest.mark.parametrize("cut", [[True, False], ["True", "False"]])
def test_a_storymem_script_is_read_with_its_cuts(cut: list) -> None:
    scenes = [
        {"scene_num": 1, "video_prompts": ["a", "b"], "cut": cut},
        {"scene_num": 2, "video_prompts": ["c"], "cut": ["True"]},
    ]
    storyboard = parse(json.dumps({"story_overview": "a tale", "scenes": scenes}), 4.0)
    assert outline(storyboard) == [("a", 0.0, 4.0), ("b", 4.0, 8.0), ("c", 8.0, 12.0)]
    assert [shot.transition for shot in storyboard.shots] == ["cut", "continue", "cut"]


@pytest.mark.parametrize("text", ["a cat walks", "  [close-up] a cat: grey\n", "a {red} cat", "[5 men, running] home"])
def test_text_without_a_marker_is_one_shot(text: str) -> None:
    assert outline(parse(text)) == [(text.strip(), 0.0, None)]


@given(st.lists(PROMPTS.filter(lambda text: not set(text) & set('[]|{"')), min_size=1, max_size=6))
def test_the_same_shots_are_read_from_brackets_and_keyframes(prompts: list[str]) -> None:
    brackets = " ".join(f"[{2 * n}s: {prompt}]" for n, prompt in enumerate(prompts))
    keyframes = ", ".join(f'"{2 * n}": {json.dumps(prompt)}' for n, prompt in enumerate(prompts))
    assert parse(brackets) == parse(keyframes)
    assert [shot.prompt for shot in parse(brackets).shots] == [prompt.strip(" ") for prompt in prompts]


# Refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty.*describe"),
        (" \n\t", "empty.*describe"),
        ("a | | c", "shot 2: the prompt is empty"),
        ("a |", "shot 2: the prompt is empty"),
        ("[0s: ]", "shot 1: the prompt is empty"),
        ("a\x00b", r"line 1, column 2.*U\+0000"),
        ("a\x9bb", r"line 1, column 2.*U\+009B"),
        ("a\nb\x1b[31m", r"line 2, column 2.*U\+001B"),
        ('{"shots": [{"start": 0, "prompt": "a\\u0000"}]}', r"shot 1.*U\+0000"),
        ('{"shots": [{"start": 0, "prompt": "\\ud800"}]}', r"shot 1.*U\+D800"),
        ("[-5s: a]", "shot 1.*negative"),
        ("[nan: a]", "shot 1.*nan.*finite"),
        ('"inf": "a"', "shot 1.*inf.*finite"),
        ("[5s-2s: a]", r"shot 1: 'end' \(2 s\) is not after 'start' \(5 s\)"),
        ("[5s: a] [5s: b]", "shot 2 starts at 5 s, not after shot 1"),
        ("[5s: a] [1s: b]", "shot 2 starts at 1 s.*order of time"),
        ("[0s-6s: a] [5s: b]", "shot 1 ends at 6 s, after shot 2.*overlap"),
        ("[0s: a] stray [5s: b]", r"shot 2 \(character 9\).*outside the brackets.*stray"),
        ("[0s: a] [5s: b", r"shot 2 \(character 9\).*not closed"),
        ("[0s: a] [x: b]", "shot 2.*'x' is not a time"),
        ('"0": 5', "shot 1.*text in quotes"),
        ('"0": "a', "shot 1.*quoted text is broken"),
        ('"0": "a", 5: "b"', "shot 2.*time in quotes"),
        ('{"0": "a"', "end with }"),
        ('{"0": "a", "0": "b"}', "shot 2 starts at 0 s, not after shot 1"),
        ('"999999": "a"', "one day"),
        ('{"shots": [{"start": 0, "prompt": "a"}', "broken at line 1, column 39"),
        ('{"shots": [{"start": 0}]}', "shot 1: 'prompt' is missing"),
        ('{"shots": [{"prompt": "a"}]}', "shot 1: 'start' is missing"),
        ('{"shots": [{"start": "0", "prompt": "a"}]}', "shot 1: 'start' is '0'.*number of seconds"),
        ('{"shots": [{"start": true, "prompt": "a"}]}', "shot 1: 'start' is True"),
        ('{"shots": [{"start": NaN, "prompt": "a"}]}', "NaN.*finite"),
        ('{"shots": [{"start": 1e999, "prompt": "a"}]}', "shot 1: 'start' is inf"),
        (f'{{"shots": [{{"start": {"9" * 5000}, "prompt": "a"}}]}}', "digits|one day"),
        ('{"shots": [{"start": 0, "prompt": 5}]}', "shot 1: the text is 5"),
        ('{"shots": [{"start": 0, "prompt": "a", "seed": -1}]}', "shot 1: 'seed' is -1"),
        ('{"shots": [{"start": 0, "prompt": "a", "seed": 1.5}]}', "shot 1: 'seed' is 1.5"),
        (
            '{"shots": [{"start": 0, "prompt": "a", "transition": "fade"}]}',
            'shot 1: \'transition\'.*"cut" or "continue"',
        ),
        ('{"shots": [{"start": 0, "prompt": "a", "locked": 1}]}', "shot 1: 'locked' is 1"),
        ('{"shots": [{"start": 0, "promt": "a"}]}', "shot 1: unknown field 'promt'; did you mean 'prompt'"),
        ('{"shots": [{"start": 0, "prompt": "a", "prompt": "b"}]}', "names 'prompt' twice"),
        ('{"shots": [], "version": 1}', "no shot"),
        ('{"shots": ["a"]}', "shot 1 is 'a'"),
        ('{"shots": {}}', "'shots' is {}"),
        ('{"version": 2, "shots": [{"start": 0, "prompt": "a", "new": 1}]}', "version 2.*update the pack"),
        ('{"version": "1", "shots": []}', "'version' is '1'"),
        ('{"shots": [{"start": 0, "prompt": "a"}], "negative": 3}', "'negative'.*is 3"),
        ('[{"prompt": "a"}]', "write an object"),
        ('{"scenes": []}', "'scenes' is not a list of scenes"),
        ('{"scenes": [{"video_prompts": "a"}]}', "scene 1: 'video_prompts'"),
        ('{"scenes": [{"video_prompts": ["a", ""]}]}', "scene 1, prompt 2: the prompt is empty"),
        ('{"scenes": [{"video_prompts": ["a", "b"], "cut": [true]}]}', "scene 1: 'cut'.*2 values"),
        ('{"scenes": [{"video_prompts": ["a"], "cut": ["maybe"]}]}', "scene 1, prompt 1: 'cut' is 'maybe'"),
        ("a" * 10_001, "10001 characters.*shorten"),
        ("|".join("a" * (MAX_SHOTS + 1)), "10001 shots.*10000"),
    ],
)
def test_an_unusable_storyboard_is_refused_by_place_and_cure(text: str, message: str) -> None:
    with pytest.raises(StoryboardError, match=message):
        parse(text)


def test_more_than_the_largest_number_of_shots_is_refused_however_it_is_made() -> None:
    with pytest.raises(StoryboardError, match="10001 shots"):
        Storyboard(tuple(Shot("a", float(n)) for n in range(MAX_SHOTS + 1)))


NOISE = random.Random(0)
HOSTILE = {
    "noise": bytes(NOISE.randrange(256) for _ in range(1_000_000)).decode("latin-1"),
    "letters": "x" * 1_000_000,
    "brackets": "[0s:" * 65_000,
    "open brackets": "[" * 260_000,
    "spaced brackets": "[ " * 130_000,
    "half times": "[1.5s -" * 37_000,
    "digits": "[" + "9" * 260_000,
    "objects": '{"a":' * 52_000,
    "keys": '{"0"' * 65_000,
    "spaces": '"0"' + " " * 250_000 + "x",
    "bars": "|" * 260_000,
    "quotes": '"0": ' + '"' * 250_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_large_hostile_text_is_refused_within_a_second(name: str) -> None:
    started = time.process_time()  # of this process: others on the machine do not count
    with pytest.raises(StoryboardError):
        parse(HOSTILE[name])
    assert time.process_time() - started < 1.0


@settings(max_examples=300)
@given(st.text(max_size=80) | st.text('[]{}":|,-s0159. af\n', max_size=80))
def test_any_text_is_either_read_or_refused_by_name(text: str) -> None:
    try:
        storyboard = parse(text)
    except StoryboardError:
        return
    assert Storyboard.from_json(storyboard.to_json()) == storyboard


# Nearest timestamp


def test_the_shot_that_is_on_wins_and_a_gap_goes_to_the_nearest() -> None:
    storyboard = parse("[1s-4s: a] [6s: b] [9s-10s: c]")
    answers = {-1.0: 0, 0.0: 0, 1.0: 0, 3.99: 0, 4.9: 0, 5.0: 1, 5.1: 1, 6.0: 1, 8.99: 1, 9.0: 2, 10.0: 2, 99.0: 2}
    assert {seconds: nearest_shot(storyboard, seconds) for seconds in answers} == answers
    with pytest.raises(StoryboardError, match="finite"):
        nearest_shot(storyboard, float("nan"))


@given(storyboards(), st.floats(-10, 200))
def test_no_other_shot_is_nearer_than_the_nearest(storyboard: Storyboard, seconds: float) -> None:
    starts = [shot.start for shot in storyboard.shots] + [float("inf")]

    def distance(index: int) -> float:
        shot = storyboard.shots[index]
        end = starts[index + 1] if shot.end is None else shot.end
        return max(shot.start - seconds, seconds - end, 0.0)

    chosen = nearest_shot(storyboard, seconds)
    assert distance(chosen) <= min(distance(index) for index in range(len(storyboard.shots))) + 1e-9


# Schedule

PLANS = {
    "fps": st.sampled_from([8.0, 12.0, 16.0, 23.976, 24.0, 30.0]),
    "section_seconds": st.floats(0.1, 12),
    "temporal_stride": st.sampled_from([1, 4, 8]),
    "history_latents": st.sampled_from([0, 1, 2, 21]),
}


@settings(max_examples=200)
@given(storyboards(), st.fixed_dictionaries(PLANS))
def test_sections_tile_the_film_and_every_shot_gets_its_own(storyboard: Storyboard, plan: dict) -> None:
    stride, history, fps = plan.pop("temporal_stride"), plan["history_latents"], plan["fps"]
    sections = plan_sections(storyboard, lattice=Lattice(stride), **plan)
    assert [section.index for section in sections] == list(range(len(sections)))
    assert sections[0].start_latent == history
    assert sections[0].start_frame == (1 + stride * (history - 1) if history else 0)
    assert sections[0].start_seconds == 0
    for section, following in pairwise(sections):
        assert following.start_frame == section.start_frame + section.frames
        assert following.start_latent == section.start_latent + section.latents
        assert following.start_seconds == pytest.approx(section.start_seconds + section.seconds)
    for section in sections:
        extra = 1 if section.start_latent == 0 else 0
        assert section.frames == stride * (section.latents - extra) + extra and section.latents > extra
        assert section.seconds == pytest.approx(section.frames / fps)
        assert section.frames - extra <= plan["section_seconds"] * fps + stride
        shot = storyboard.shots[section.shot_index]
        assert (section.prompt, section.seed) == (shot.prompt, shot.seed)
        first = section.index == 0 or sections[section.index - 1].shot_index != section.shot_index
        assert section.transition == (shot.transition if first else "continue")
    order = [section.shot_index for section in sections]
    assert order == sorted(order) and set(order) == set(range(len(storyboard.shots)))


@settings(max_examples=200)
@given(storyboards(shortest=2.0), st.floats(0.5, 12))
def test_each_section_has_the_prompt_nearest_to_its_middle(storyboard: Storyboard, section_seconds: float) -> None:
    # Shots of eight steps at least: shorter ones may be pushed later, so that each is seen.
    for section in plan_sections(storyboard, fps=16, section_seconds=section_seconds, history_latents=1):
        assert nearest_shot(storyboard, section.start_seconds + section.seconds / 2) == section.shot_index


@settings(max_examples=200)
@example([(0.0, 5.1)] * 12, 5.1)
@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(0.25, 6)), min_size=1, max_size=8), st.floats(0.5, 6))
def test_a_shot_no_longer_than_a_section_is_one_section(
    parts: list[tuple[float, float]], section_seconds: float
) -> None:
    shots, now = [], 0.0
    for _, length in parts:
        shots.append(Shot("a", now, now + length))
        now += length
    assume(all(shot.start < following.start for shot, following in pairwise(shots)))
    sections = plan_sections(Storyboard(tuple(shots)), fps=16, section_seconds=section_seconds)
    for index, (_, length) in enumerate(parts):
        if length <= section_seconds:
            assert sum(section.shot_index == index for section in sections) == 1


def frames(text: str, **plan: float) -> list[tuple[int, int]]:
    planned = plan_sections(parse(text), **({"fps": 16, "section_seconds": 5} | plan))  # type: ignore[arg-type]
    return [(section.shot_index, section.frames) for section in planned]


def test_the_first_section_of_a_film_has_one_frame_more_and_later_ones_fill_the_lattice() -> None:
    assert frames("a | b") == [(0, 81), (1, 80)]
    assert frames("a | b", history_latents=21) == [(0, 80), (1, 80)]


def test_a_shot_longer_than_a_section_is_divided_evenly() -> None:
    assert frames("[0s-7s: a] [7s-12s: b]") == [(0, 57), (0, 56), (1, 80)]
    assert frames("[0s-11s: a]") == [(0, 57), (0, 60), (0, 60)]


def test_a_very_short_shot_is_still_generated() -> None:
    assert frames("[0s-5s: a] [5s-5.3s: b] [5.3s-10s: c]") == [(0, 81), (1, 4), (2, 76)]
    assert frames("[0s: a] [5s: b] [5.01s: c] [5.02s-8s: d]") == [(0, 81), (1, 4), (2, 4), (3, 40)]


def test_the_rounding_errors_of_an_editor_move_no_boundary() -> None:
    late = 0.6 - 1e-12  # 0.6 s lies in the middle between two lattice points at 10 fps
    assert frames(f"[0s-{late}s: a] [0.6s: b]", fps=10) == frames("[0s-0.6s: a] [0.6s: b]", fps=10)


def test_a_gap_is_shared_at_its_middle() -> None:
    assert frames("[0s-2s: a] [4s-5s: b]") == [(0, 49), (1, 32)]
    assert frames("[1s-2s: a]") == [(0, 33)]


def test_the_film_ends_where_it_is_told_to_or_after_a_last_section() -> None:
    assert frames("[0s: a] [3s: b]") == [(0, 49), (1, 80)]
    assert frames("[0s: a] [3s: b]", total_seconds=4) == [(0, 49), (1, 16)]
    assert frames("[0s-1s: a]", total_seconds=7) == [(0, 57), (0, 56)]


@pytest.mark.parametrize(
    ("text", "plan", "message"),
    [
        ("[0s: a] [9s: b]", {"total_seconds": 8}, r"shot 2: the time 9 s is past the film's end \(8 s\)"),
        ("[0s-9s: a]", {"total_seconds": 8}, "shot 1: the time 9 s is past"),
        ("a", {"total_seconds": float("nan")}, "total_seconds is nan"),
        ("a", {"fps": 0}, "fps is 0"),
        ("a", {"fps": float("inf")}, "fps is inf"),
        ("a", {"section_seconds": -1}, "section_seconds is -1"),
        ("a", {"section_seconds": float("nan")}, "section_seconds is nan"),
        ("a", {"history_latents": -1}, "history_latents is -1"),
        ("[0s-80000s: a]", {"section_seconds": 0.1}, "sections, at most 100000"),
    ],
)
def test_a_plan_out_of_range_is_refused_by_name(text: str, plan: dict, message: str) -> None:
    with pytest.raises(StoryboardError, match=message):
        frames(text, **plan)


def test_a_stride_that_is_none_is_refused() -> None:
    for stride in (0, 1.5):
        with pytest.raises(StoryboardError, match=f"temporal_stride is {stride}"):
            Lattice(stride)  # type: ignore[arg-type]


def test_section_seconds_and_fps_of_the_parser_are_checked() -> None:
    with pytest.raises(StoryboardError, match="section_seconds is 0"):
        parse("a", 0)
    with pytest.raises(StoryboardError, match="fps is nan"):
        parse("a", fps=float("nan"))


def test_the_schedule_tells_people_seconds_and_frames() -> None:
    storyboard = parse(f"[0s-7s: a\nstreet] [7s-12s: {'long ' * 40}]")
    lines = describe_schedule(plan_sections(storyboard, fps=16, section_seconds=5), 16).splitlines()
    assert lines[0].split() == ["section", "shot", "seconds", "frames", "prompt"]
    assert lines[1].split() == ["1", "1", "0.00", "-", "3.56", "0", "-", "56", "a", "street"]
    assert lines[2].split() == ["2", "1", "3.56", "-", "7.06", "57", "-", "112", "(goes", "on)", "a", "street"]
    assert lines[3].endswith("...") and len(lines[3]) < 120
    assert lines[4] == "3 sections, 2 shots, 12.06 s, 193 frames at 16 fps"
    assert len(lines) == 5
    assert "no sections" in describe_schedule((), 16)


@pytest.mark.parametrize(
    ("text", "goes_on"),
    [
        ("a | b", True),
        ("[0s: a] [5s: b]", True),
        ("a", True),
        ('{"shots": [{"start": 0, "prompt": "a"}]}', True),
        ('[{"prompt": "a", "duration": 5}]', True),
        ('{"scenes": [{"video_prompts": ["a"]}]}', True),
        ('{"shots": [{"start": 0, "prompt": "a", "transition": "cut"}]}', False),
        ('[{"prompt": "a", "duration": 5, "transition": "cut"}]', False),
        ('{"scenes": [{"video_prompts": ["a"], "cut": [true]}]}', False),
    ],
)
def test_first_shot_goes_on_from_a_clip_unless_the_text_says_cut(text: str, goes_on: bool) -> None:
    storyboard = parse(text)
    for known in (storyboard, parse(storyboard.to_json())):
        after, alone = (
            plan_sections(known, fps=16.0, section_seconds=5.0, history_latents=latents, after_clip=bool(latents))
            for latents in (3, 0)
        )
        assert (after[0].transition == "continue") == goes_on
        assert alone[0].transition == "cut" and [s.transition for s in after[1:]] == [s.transition for s in alone[1:]]
