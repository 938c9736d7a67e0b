"""The plan that the storyboard editor asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memory_encoder.budget import Plan, describe, estimate, named_host
from memory_encoder.film.plan import SHOWN_CHARACTERS, SHOWN_SECTIONS, PlanError, PlanRequest, film_plan
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.storyboard import StoryboardError, parse_storyboard, plan_sections

TEXT = "[0s: a kitchen] [5s: a street] [10s-15s: the kitchen again]"


def plan(**values: Any) -> dict[str, Any]:
    return film_plan(PlanRequest.from_dict({"storyboard": TEXT} | values))


def test_the_plan_has_the_sections_of_the_storyboard_node() -> None:
    answer = plan(section_seconds=2.5)
    wanted = plan_sections(parse_storyboard(TEXT, section_seconds=2.5), fps=16, section_seconds=2.5)
    found = [(s["shot"], s["start_frame"], s["frames"], s["prompt"], s["transition"]) for s in answer["sections"]]
    assert found == [(s.shot_index, s.start_frame, s.frames, s.prompt, s.transition) for s in wanted]
    assert answer["frames"] == 241 and answer["section_count"] == 6


def test_the_budget_is_that_of_the_budget_node() -> None:
    answer = plan(width=640, height=352, host="wan-1.3b", card_gib=8, bytes_per_weight=2)["budget"]
    same = Plan(named_host("wan-1.3b"), 640, 352, 16, 15, 5, card_gib=8, bytes_per_weight=2)
    assert answer["memory_tokens"] == estimate(same).memory_tokens
    assert answer["section_tokens"] == estimate(same).section_tokens
    assert answer["report"] == describe(same, "wan-1.3b")


@pytest.mark.parametrize(("mode", "cached"), [("auto", True), ("cached", True), ("joint", False)])
def test_a_sampler_that_reads_a_cached_memory_jointly_is_planned_so(mode: str, cached: bool) -> None:
    said = plan(rates=["4x4x2"], cached=True, attention_mode=mode)["budget"]["report"]
    assert said == describe(Plan(named_host("wan-14b"), 832, 480, 16, 15, 5, cached=cached), "wan-14b")
    trained = EncoderConfig("wan", 5120, 16, padding="ceil", memory_attention="cached")
    assert film_plan(PlanRequest(TEXT, attention_mode=mode), [trained])["budget"]["report"] == said


@pytest.mark.parametrize(("changes", "window"), [({}, 3), ({"sliding_window": 8}, 8), ({"sliding_window": 0}, 0)])
def test_a_film_whose_sections_go_on_sees_the_samplers_sliding_window(changes: dict[str, int], window: int) -> None:
    same = Plan(named_host("wan-14b"), 832, 480, 16, 15, 2.5, sliding_window=window)
    assert plan(section_seconds=2.5, **changes)["budget"]["report"] == describe(same, "wan-14b")
    assert "sliding_window" not in plan(**changes)["budget"]["report"], "after a cut it is left out"
    after_clip = plan(storyboard="a", history_latents=21, **changes)["budget"]["report"]
    assert ("sliding_window" in after_clip) == (window > 0)


@pytest.mark.parametrize(
    "config",
    [
        EncoderConfig("wan", 5120, 16, variant="keyframes", clips="section", repeated_frames=1),
        EncoderConfig("wan", 5120, 16, rate="2@1x1x1", variant="recent", history_timestep="zero"),
    ],
    ids=["pictures", "trained in one way"],
)
def test_where_the_sampler_has_no_sliding_window_none_is_planned(config: EncoderConfig) -> None:
    asked = [PlanRequest(TEXT, section_seconds=2.5, sliding_window=count) for count in (0, 3)]
    assert film_plan(asked[0], [config]) == film_plan(asked[1], [config])
    plain = EncoderConfig("wan", 5120, 16, rate="2@1x1x1", variant="recent")
    assert film_plan(asked[0], [plain]) != film_plan(asked[1], [plain])


def test_every_text_format_comes_back_as_the_canonical_json() -> None:
    for text in (TEXT, "a | b", '"0": "a", "5": "b"', '{"scenes": [{"video_prompts": ["a"], "cut": [true]}]}', "one"):
        canonical = plan(storyboard=text)["storyboard"]
        assert json.loads(canonical)["version"] == 1
        assert plan(storyboard=canonical)["storyboard"] == canonical


def test_the_plan_says_how_the_text_was_read() -> None:
    said = plan(storyboard='"0": "a", "16": "b"', keyframe_unit="frames")
    assert [section["start_seconds"] for section in said["sections"]] == pytest.approx([0, 17 / 16 - 1 / 16], abs=0.1)
    assert said["read_as"]["form"] == "keyframes" and said["read_as"]["remarks"] == ["keys_frames"]
    assert said["read_as"]["note"] == "Read as 2 shots from keyframes; keys without a unit are frames"
    assert plan(storyboard="a\nb")["read_as"]["remarks"] == ["lines"]
    assert plan(storyboard="[0%: a] [50%: b]", total_seconds=10)["sections"][1]["start_seconds"] == pytest.approx(
        5.06, abs=0.1
    )
    with pytest.raises(PlanError, match="keyframe_unit is 'minutes'; send seconds or frames"):
        plan(keyframe_unit="minutes")


def test_a_history_adds_its_tokens_and_no_opening_frame() -> None:
    alone, after = plan(), plan(history_latents=21)
    assert after["frames"] == alone["frames"] - 1
    assert after["budget"]["memory_tokens"] > alone["budget"]["memory_tokens"]


def test_a_budget_that_cannot_be_made_leaves_the_sections() -> None:
    answer = plan(width=840)
    assert answer["budget"] is None and "width 840 is not a multiple of 16" in answer["budget_error"]
    assert len(answer["sections"]) == 3


def test_an_encoders_file_gives_rate_padding_and_host() -> None:
    config = EncoderConfig("wan", 3072, 48, rate="2x2x2", padding="floor")
    answer = film_plan(PlanRequest.from_dict({"storyboard": TEXT, "host": "hunyuan"}), [config])
    assert answer["budget"]["host"] == "wan-5b" and answer["budget"]["rates"] == ["2x2x2"]


def test_combined_encoders_add_their_tokens_and_are_cached_only_together() -> None:
    detail, wide = (EncoderConfig("wan", 5120, 16, rate=rate, memory_attention="cached") for rate in ("4x4x2", "2x2x8"))
    both = film_plan(PlanRequest.from_dict({"storyboard": TEXT}), [detail, wide])["budget"]
    added = film_plan(PlanRequest.from_dict({"storyboard": TEXT, "rates": ["2x2x8"]}), [detail])["budget"]
    alone = film_plan(PlanRequest.from_dict({"storyboard": TEXT}), [detail])["budget"]
    assert both["memory_tokens"] == added["memory_tokens"] > alone["memory_tokens"]
    assert "Cached keys" in both["report"] and "Cached keys" not in added["report"]


def test_a_long_film_is_answered_in_part_and_says_so() -> None:
    text = json.dumps({"shots": [{"start": 0, "end": 3000, "prompt": "x" * 9000}]})
    answer = plan(storyboard=text, section_seconds=0.5)
    assert len(answer["sections"]) == SHOWN_SECTIONS < answer["section_count"] == 6000
    assert "4000 more sections" in answer["schedule"]
    assert all(len(section["prompt"]) == SHOWN_CHARACTERS for section in answer["sections"])


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"fps": "16"}, "fps", "give a number from 1 to 240"),
        ({"fps": float("nan")}, "fps", "give a number"),
        ({"fps": True}, "fps", "give a number"),
        ({"fps": 10**400}, "fps", "a very large number"),
        ({"width": 832.5}, "width", "whole number"),
        ({"history_latents": -1}, "history_latents", "from 0"),
        ({"sliding_window": 9}, "sliding_window", "from 0 to 8"),
        ({"rates": []}, "rates", "one to four"),
        ({"rates": "4x3x2"}, "rates", "power of two"),
        ({"encoders": "one.safetensors"}, "encoders", "send names"),
        ({"encoders": ["a"] * 5}, "encoders", "at most 4"),
        ({"encoders": [""]}, "encoders", "send names"),
        ({"cached": 1}, "cached", "true or false"),
        ({"padding": "round"}, "padding", "ceil or floor"),
        ({"host": "sora"}, "host", "choose one of"),
        ({"host": 3}, "host", "send text"),
        ({"storyboard": None}, "storyboard", "send text"),
        ({"storyboard": "x" * 300_000}, "storyboard", "at most"),
        ({"colour": 1}, "request", "unknown field 'colour'"),
    ],
)
def test_a_wrong_field_is_named_with_its_cure(values: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(PlanError, match=words) as error:
        plan(**values)
    assert error.value.field == field


def test_a_request_that_is_no_object_or_lacks_the_storyboard_is_refused() -> None:
    for data in ([], None, {}):
        with pytest.raises(PlanError, match="storyboard"):
            PlanRequest.from_dict(data)


def test_a_storyboard_past_the_films_end_is_refused_with_the_shot() -> None:
    with pytest.raises(StoryboardError, match="shot 3"):
        plan(total_seconds=8)


def test_the_encoders_file_says_what_the_sections_are() -> None:
    config = EncoderConfig("wan", 5120, 16, rate="2@1x1x1", variant="recent", clips="section", section_latents=9)
    answer = film_plan(PlanRequest.from_dict({"storyboard": TEXT}), [config])
    assert {section["frames"] for section in answer["sections"]} == {33} and answer["section_count"] == 7
    assert answer["frames"] == 7 * 33 and "clip of its own" in answer["schedule"]


def test_the_budget_counts_whole_pictures_and_the_clips_that_are_planned() -> None:
    config = EncoderConfig("wan", 5120, 16, variant="keyframes", clips="section", repeated_frames=5, max_pictures=6)
    shots = [
        {"start": 5 * i, "end": 5 * i + 5, "prompt": "a", "transition": t} for i, t in enumerate(("cut", "continue"))
    ]
    answer = film_plan(PlanRequest.from_dict({"storyboard": json.dumps({"shots": shots})}), [config])["budget"]
    assert answer["memory_tokens"] == 6 * 1560 and answer["section_tokens"] == 22 * 1560 and answer["rates"] == []


def test_a_memory_of_pictures_that_has_no_file_is_planned_and_counted_as_one_that_has() -> None:
    config = EncoderConfig("wan", 5120, 16, variant="keyframes", clips="section", repeated_frames=5, max_pictures=6)
    shots = [{"start": 5 * i, "end": 5 * i + 5, "prompt": "a", "transition": "continue"} for i in range(3)]
    text = json.dumps({"shots": shots})
    made = plan(storyboard=text, max_pictures=6, repeated_frames=5)
    assert made == film_plan(PlanRequest.from_dict({"storyboard": text}), [config])
    with pytest.raises(PlanError, match="give 0, 1 or 5") as error:
        plan(max_pictures=6, repeated_frames=3)
    assert error.value.field == "repeated_frames"


def test_pictures_that_a_run_would_refuse_are_in_the_plan() -> None:
    shots = [{"start": n, "end": n + 1, "prompt": "a", "picture": f"{n}.png"} for n in range(3)]
    cast = [{"name": "Mira", "look": "a girl", "picture": "0.png"}, {"look": "watercolour", "picture": "gone.png"}]
    text = json.dumps({"version": 1, "shots": shots, "cast": cast})

    def unused(configs: tuple[EncoderConfig, ...] = (), **values: Any) -> list[tuple[Any, str]]:
        request = PlanRequest.from_dict({"storyboard": text} | values)
        answer = film_plan(request, configs, lambda name: name not in ("gone.png", "2.png"))["unused_pictures"]
        return [(entry.get("shot", entry.get("cast")), entry["why"]) for entry in answer]

    missing = [(2, "missing"), ("", "missing")]
    keyframes = EncoderConfig("wan", 5120, 16, variant="keyframes", clips="section", repeated_frames=1)
    assert unused((keyframes,)) == missing
    assert unused(max_pictures=10) == missing
    assert unused() == [missing[0], ("Mira", "token_memory"), missing[1]]
    assert unused((keyframes,), text_model=True) == [(1, "text_model"), *missing], "the film begins with the first one"
    assert unused((keyframes,), text_model=True, history_latents=5)[:2] == [(0, "text_model"), (1, "text_model")]
