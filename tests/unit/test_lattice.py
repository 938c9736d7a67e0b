"""Sections as pieces of one clip or as clips of their own, of free or of one length: what is shown follows times."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.frames import frames_in
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.storyboard import (
    Lattice,
    Section,
    Storyboard,
    StoryboardError,
    describe_schedule,
    plan_sections,
    read_storyboard,
)

from .test_storyboard import PLANS, parse, storyboards

LATTICES = st.sampled_from(
    [
        Lattice(),
        Lattice(section_latents=9),
        Lattice(clips="section"),
        Lattice(clips="section", section_latents=9),
        Lattice(clips="section", repeated_frames=1),
        Lattice(clips="section", repeated_frames=5),
        Lattice(clips="section", section_latents=21, repeated_frames=5),
        Lattice(clips="section", section_latents=2, repeated_frames=1),
    ]
)
FREE = {name: PLANS[name] for name in ("fps", "section_seconds", "history_latents")}
BEGINNINGS = {"after_clip": st.booleans(), "after_picture": st.booleans()}


def beginning(plan: dict[str, Any]) -> dict[str, Any]:
    """Without a history there is nothing to go on from."""
    if not plan["history_latents"]:
        plan |= {"after_clip": False, "after_picture": False}
    return plan


@settings(max_examples=300)
@given(storyboards(), LATTICES, st.fixed_dictionaries(FREE | BEGINNINGS))
def test_frames_shown_add_up_and_every_shot_has_a_section(
    storyboard: Storyboard, lattice: Lattice, plan: dict[str, Any]
) -> None:
    sections = plan_sections(storyboard, lattice=lattice, **beginning(plan))
    assert [section.index for section in sections] == list(range(len(sections)))
    assert sections[0].start_frame == frames_in(plan["history_latents"])
    for section, following in pairwise(sections):
        assert following.start_frame == section.start_frame + section.frames
        assert following.start_latent == section.start_latent + section.latents
    for section in sections:
        made = section.frames + (section.repeated or 0)
        if lattice.clips == "section":
            assert section.repeated is not None
            assert made == frames_in(section.latents) and section.frames >= 4
            wanted = lattice.repeated_frames if section.transition == "continue" else 0
            if section.index == 0:
                wanted = min(frames_in(plan["history_latents"]), lattice.repeated_frames if gives(plan, section) else 0)
            assert section.repeated == wanted
        else:
            opens = section.start_latent == 0
            assert section.repeated is None and section.frames == 4 * section.latents - 3 * opens
        if lattice.section_latents:
            assert section.latents == lattice.section_latents
        else:
            assert section.frames - 1 <= plan["section_seconds"] * plan["fps"] + 4
    order = [section.shot_index for section in sections]
    assert order == sorted(order) and set(order) == set(range(len(storyboard.shots)))


def gives(plan: dict[str, Any], first: Section) -> bool:
    return plan["after_picture"] or first.transition == "continue"


@settings(max_examples=300)
@given(storyboards(), LATTICES, st.fixed_dictionaries(FREE | BEGINNINGS))
def test_each_shot_ends_as_near_to_its_time_as_the_lattice_allows(
    storyboard: Storyboard, lattice: Lattice, plan: dict[str, Any]
) -> None:
    sections = plan_sections(storyboard, lattice=lattice, **beginning(plan))
    opening = 1 if lattice.clips == "film" and not plan["history_latents"] else 0  # a frame more than times say
    shots = [list(of_shot) for _, of_shot in groupby(sections, key=lambda section: section.shot_index)]
    for shot, following in zip(shots, storyboard.shots[1:], strict=False):
        before = storyboard.shots[shot[0].shot_index].end
        wanted = (following.start if before is None else (before + following.start) / 2) * plan["fps"]
        end = shot[-1].start_frame + shot[-1].frames - sections[0].start_frame - opening
        least = len(shot) == 1 if lattice.section_latents else all(section.frames <= 5 for section in shot)
        step = max(section.frames for section in sections) if lattice.section_latents else 4
        assert end > wanted if least and abs(end - wanted) > step / 2 + 1e-3 else abs(end - wanted) <= step / 2 + 1e-3


def as_before(storyboard: Storyboard, fps: float, section_seconds: float, history_latents: int) -> list[int]:
    """Latents of the sections by the rule of the first version: shots snapped to steps, then divided evenly."""
    shots = storyboard.shots
    meet = [b.start if a.end is None else (a.end + b.start) / 2 for a, b in pairwise(shots)]
    end = shots[-1].start + section_seconds if shots[-1].end is None else shots[-1].end
    steps = [0]
    for seconds in [*meet, end]:
        steps.append(max(math.floor(seconds * fps / 4 + 0.5 + 1e-6), steps[-1] + 1))
    longest = max(1, math.ceil(section_seconds * fps / 4 - 1e-6))
    latents = []
    for first, last in pairwise(steps):
        length, count = last - first, -(-(last - first) // longest)
        latents += [length * (part + 1) // count - length * part // count for part in range(count)]
    latents[0] += not history_latents
    return latents


@settings(max_examples=300)
@given(storyboards(), st.fixed_dictionaries(FREE))
def test_a_film_of_one_clip_is_cut_as_it_always_was(storyboard: Storyboard, plan: dict[str, Any]) -> None:
    sections = plan_sections(storyboard, **plan)
    assert [section.latents for section in sections] == as_before(storyboard, **plan)
    assert all("repeated" not in section.facts() for section in sections)


def planned(text: str, lattice: Lattice, **plan: Any) -> list[tuple[int, int, int | None]]:
    values: dict[str, Any] = {"fps": 16, "section_seconds": 5} | plan
    sections = plan_sections(parse(text), lattice=lattice, **values)
    return [(section.latents, section.frames, section.repeated) for section in sections]


def shots_of(*transitions: str, seconds: float = 5) -> str:
    shots = [
        f'{{"start": {number * seconds}, "end": {(number + 1) * seconds}, "prompt": "a", "transition": "{transition}"}}'
        for number, transition in enumerate(transitions)
    ]
    return f'{{"shots": [{", ".join(shots)}]}}'


def test_clips_of_five_seconds_are_81_frames_and_show_those_that_are_new() -> None:
    text = shots_of("cut", "continue", "cut")
    assert planned(text, Lattice(clips="section", repeated_frames=1)) == [(21, 81, 0), (21, 80, 1), (21, 81, 0)]
    assert planned(text, Lattice(clips="section", repeated_frames=5)) == [(21, 81, 0), (22, 80, 5), (21, 81, 0)]
    assert planned(text, Lattice(clips="section")) == [(21, 81, 0), (21, 81, 0), (20, 77, 0)]


def test_cuts_do_not_make_the_film_later_and_later() -> None:
    sections = planned(shots_of(*["cut"] * 30), Lattice(clips="section"))
    assert abs(sum(frames for _, frames, _ in sections) - 30 * 80) <= 2
    assert {frames for _, frames, _ in sections} == {81, 77}


def test_sections_of_one_length_bring_shots_to_the_nearest_whole_section() -> None:
    nine = Lattice(section_latents=9)
    assert planned("[0s-7s: a] [7s-8s: b] [8s-12s: c]", nine, fps=30, history_latents=1) == [(9, 36, None)] * 10
    order = [section.shot_index for section in plan_sections(
        parse("[0s-7s: a] [7s-8s: b] [8s-12s: c]"), fps=30, section_seconds=5, lattice=nine, history_latents=1
    )]  # fmt: skip
    assert order == [0] * 6 + [1] + [2] * 3
    assert planned("[0s-1s: a]", nine, fps=30) == [(9, 33, None)]
    helios = Lattice(clips="section", section_latents=9)
    assert planned("[0s-5s: a]", helios, fps=24) == [(9, 33, 0)] * 4


def test_a_start_image_opens_the_first_clip_and_is_not_shown_twice() -> None:
    lattice = Lattice(clips="section", repeated_frames=5)
    text = shots_of("cut", "continue")
    assert planned(text, lattice, history_latents=1, after_picture=True) == [(21, 80, 1), (22, 80, 5)]
    assert planned(text, Lattice(clips="section"), history_latents=1, after_picture=True)[0] == (21, 81, 0)


def test_a_clip_before_a_film_of_clips_is_gone_on_from_where_the_storyboard_does_not_cut() -> None:
    lattice = Lattice(clips="section", repeated_frames=5)
    assert planned("a | b", lattice, history_latents=6, after_clip=True)[0] == (22, 80, 5)
    assert planned(shots_of("cut"), lattice, history_latents=6, after_clip=True)[0] == (21, 81, 0)


def test_frames_of_the_history_are_those_that_it_shows() -> None:
    lattice = Lattice(clips="section", repeated_frames=1)
    first = plan_sections(
        parse("a"), fps=16, section_seconds=5, lattice=lattice, history_latents=42, history_frames=161
    )[0]
    assert (first.start_frame, first.start_latent, first.start_seconds) == (161, 42, 0)


def test_the_repeated_frames_are_part_of_a_clips_facts() -> None:
    first, second = plan_sections(
        parse(shots_of("cut", "continue")), fps=16, section_seconds=5, lattice=Lattice(clips="section")
    )
    assert first.facts()["repeated"] == second.facts()["repeated"] == 0
    assert dataclasses.asdict(first) == first.facts()


def test_the_schedule_counts_what_is_shown() -> None:
    sections = plan_sections(
        parse(shots_of("cut", "continue")),
        fps=16, section_seconds=5, lattice=Lattice(clips="section", repeated_frames=5),
    )  # fmt: skip
    lines = describe_schedule(sections, 16).splitlines()
    assert lines[2].split()[:8] == ["2", "2", "5.06", "-", "10.06", "81", "-", "160"]
    assert lines[-2:] == [
        "2 sections, 2 shots, 10.06 s, 161 frames at 16 fps",
        "Each section is a clip of its own; 5 frames made once more at joins are left out",
    ]


PLACES = ("a lighthouse in a storm", "a kitchen at dawn", "a market street", "an empty theatre", "a snowy pass")
HEROES = ("Ada, a keeper with a grey plait", "Jonas, a boy in a yellow coat", "an old brown dog")
ACTIONS = ("opens the door", "looks out of the window", "runs away", "comes back", "falls asleep", "waves")


def stories(count: int = 30) -> list[dict[str, Any]]:
    """Stories in the form of StoryMem's benchmark: scenes of prompts, each with whether it begins with a cut."""
    draw = random.Random(7)
    found = []
    for number in range(count):
        hero = draw.choice(HEROES)
        scenes = []
        for scene in range(draw.choice((1, 2, 3, 3, 4))):
            place, shots = draw.choice(PLACES), draw.randint(2, 4)
            cut = [True, *(draw.random() < 0.5 for _ in range(shots - 1))]
            scenes.append(
                {
                    "scene_num": scene + 1,
                    "video_prompts": [f"{hero} {draw.choice(ACTIONS)} in {place}, “slowly”." for _ in range(shots)],
                    "first_frame_prompt": f"{hero} in {place}",
                    "cut": [str(one) for one in cut] if number % 3 == 1 else cut,
                }
            )
        found.append({"story_name": f"Story {number}", "story_overview": f"{hero}’s day.", "scenes": scenes})
    return found


@pytest.mark.parametrize("repeated", [1, 5])
@pytest.mark.parametrize("story", stories(), ids=lambda story: story["story_name"])
def test_story_of_storymems_form_is_one_clip_for_each_prompt(story: dict[str, Any], repeated: int) -> None:
    prompts = [prompt for scene in story["scenes"] for prompt in scene["video_prompts"]]
    cuts = [str(cut) == "True" for scene in story["scenes"] for cut in scene["cut"]]
    reading = read_storyboard(json.dumps(story, ensure_ascii=False), section_seconds=5, fps=16)
    sections = plan_sections(
        reading.storyboard, fps=16, section_seconds=5, lattice=Lattice(clips="section", repeated_frames=repeated)
    )
    assert reading.form == "storymem" and [section.prompt for section in sections] == prompts
    assert [section.transition == "cut" for section in sections] == cuts
    assert [section.repeated for section in sections] == [0 if cut else repeated for cut in cuts]
    assert all(section.frames in (77, 80, 81) for section in sections)
    assert abs(sum(section.frames for section in sections) - 80 * len(prompts)) <= 2


def config(**values: Any) -> EncoderConfig:
    return EncoderConfig("wan", 5120, 16, rate="1@1x1x1+2@2x2x2+16@4x4x4", variant="recent", **values)


def test_the_encoders_file_says_what_the_sections_are() -> None:
    helios, framepack = config(clips="section", section_latents=9), config(section_latents=9)
    assert Lattice.of([helios], 4) == Lattice(4, "section", 9, 0)
    assert Lattice.of([framepack, framepack], 4) == Lattice(4, "film", 9, 0)
    assert Lattice.of([], 4) == Lattice.of([EncoderConfig("wan", 5120, 16)], 4) == Lattice()
    with pytest.raises(StoryboardError, match="combine encoders of one kind"):
        Lattice.of([helios, framepack], 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clips": "shot"}, "clips 'shot' is unknown"),
        ({"repeated_frames": 1}, "clips of their own"),
        ({"clips": "section", "repeated_frames": 4}, "repeated_frames is 4; give 0, 1 or 5"),
        ({"clips": "section", "repeated_frames": 9}, "repeated_frames is 9; give 0, 1 or 5"),
        ({"clips": "section", "repeated_frames": True}, "repeated_frames is True"),
        ({"section_latents": -1}, "section_latents is -1"),
        ({"section_latents": 1}, "section_latents is 1; give 2 or more"),
        ({"section_latents": 2, "clips": "section", "repeated_frames": 5}, "section_latents is 2; give 3 or more"),
        ({"section_latents": 9.0}, "section_latents is 9.0"),
    ],
)
def test_a_lattice_that_makes_no_film_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**values)


def test_an_encoder_that_decodes_the_film_as_one_clip_has_no_clips_of_its_own() -> None:
    with pytest.raises(ValueError, match="variant proposed decodes the film as one clip"):
        EncoderConfig("wan", 5120, 16, clips="section")


def test_what_is_not_chosen_leaves_an_encoder_as_it_was() -> None:
    assert set(EncoderConfig("wan", 5120, 16).chosen()) == {"host", "width", "latent_channels"}
    saved = config(clips="section", section_latents=9)
    assert EncoderConfig.from_metadata(saved.to_metadata()) == saved
