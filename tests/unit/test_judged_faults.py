"""Drawn films with one known fault: the shot that has it is named, and no other is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import judged_demo
from benchmarks.judged_faults import RESULTS, measured, report, said
from demo.tiny_family.procedural import Film
from memory_encoder.evaluation.judge.drift import colour_drift, mean_colour
from memory_encoder.evaluation.judge.faces import REACHES, Face, clothes_of, people_of
from memory_encoder.evaluation.judge.footage import Join
from memory_encoder.evaluation.judge.instruments import Instruments
from memory_encoder.evaluation.judge.judging import judge_film
from memory_encoder.evaluation.judge.likeness import NO_QUESTIONS, clothes_alike
from memory_encoder.evaluation.judge.outliers import companies, like_own, odd_ones, strangers
from memory_encoder.evaluation.judge.report import SEAMS, FilmReport, Measure

from .judged_films import (
    FAULTS,
    FPS,
    ODD,
    DrawnFaces,
    a_clip,
    colours,
    drawn_film,
    embed,
    falls_out,
    footage,
    judged,
    pictures_of,
    swapped_person,
    texts_of,
)

SEED = 19


def usual_film() -> Film:
    return drawn_film(SEED)


def judged_with(spoil: Callable[[Film, list[np.ndarray]], None]) -> FilmReport:
    shots = pictures_of(usual_film())
    spoil(usual_film(), shots)
    return judged(usual_film(), shots)


def test_nothing_falls_out_of_a_film_as_it_should_be_and_every_measure_is_taken() -> None:
    film = usual_film()
    shots = pictures_of(film)
    report = judged(film, shots)
    assert report.remarks() == []
    assert {name for shot in report.shots for name in shot.values} == {
        "identity", "clothes", "objects", "semantic", "clarity", "dynamics", "colour_drift", "sharpness_drift",
    }  # fmt: skip
    assert len(report.pairs) == 10 and all(pair.values["identity"] > 0.7 for pair in report.pairs)
    assert NO_QUESTIONS in report.measures["clothes"].tool
    assert all(report.measures[name].unit and report.measures[name].tool for name in report.means())
    assert json.loads(report.to_json())["shots"][ODD]["seconds"] == len(shots[ODD]) / FPS


def test_the_shot_with_a_fault_is_named_by_its_own_measure_and_no_other_is() -> None:
    """The figures of more films stand in benchmarks/results."""
    found = measured((SEED,))
    assert {name: one["named"] for name, one in found["faults"].items()} == dict.fromkeys(FAULTS, 1)
    others = {name: one["others"] for name, one in found["faults"].items() if name != "wrong prompt"}
    assert set(others.values()) == {0} and found["alarms"] == {}, found  # another prompt's picture may also move others


def test_a_frozen_shot_is_named_where_somebody_sits_still() -> None:
    found = measured((0,), ("frozen",))
    assert found["faults"]["frozen"] == {"measure": "dynamics", "named": 1, "by_any": 1, "others": 0}
    assert found["alarms"] == {}


def test_the_documents_figures_are_those_of_the_benchmark() -> None:
    result = json.loads(RESULTS.with_suffix(".json").read_text(encoding="utf-8"))
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == report(result)
    demo = json.loads(judged_demo.RESULTS.with_suffix(".json").read_text(encoding="utf-8"))
    assert judged_demo.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == judged_demo.report(demo)
    docs = (Path(__file__).parents[2] / "docs" / "judging.md").read_text(encoding="utf-8")
    assert said(result) in " ".join(docs.split())


def test_what_pans_into_sight_is_no_drift_and_a_light_that_fades_is_one() -> None:
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (120, 400, 3)).astype(np.uint8), (0, 0), 3)
    wide = np.clip(wide * np.linspace(0.4, 1.6, 400)[None, :, None], 0, 255).astype(np.uint8)  # brighter on the right
    pan = np.stack([wide[:, 5 * i : 5 * i + 160] for i in range(24)])
    fading = np.stack([(picture * (1 - 0.01 * i)).astype(np.uint8) for i, picture in enumerate(pan)])
    drifts = [colour_drift().take(a_clip(frames)) or 0.0 for frames in (pan, fading)]
    before = [np.subtract(mean_colour(frames[-1]), mean_colour(frames[0]))[0] for frames in (pan, fading)]
    assert drifts[0] < 1 < 6 < before[0] and drifts[1] > 6, (drifts, before)


def test_a_close_up_of_a_shirt_is_no_other_shirt() -> None:
    box = (40.0, 20.0, 20.0, 20.0)
    far, near = (np.zeros((height, 100, 3), np.uint8) for height in (110, 70))
    for picture in (far, near):
        picture[40:70] = (200, 30, 30)
    far[70:] = (30, 30, 200)  # trousers, which the other does not show
    crops = [{reach: clothes_of(p, box, reach) for reach in REACHES} for p in (far, near)]
    worn = [{r: colours(c)[None] for r, c in found.items() if c is not None} for found in crops]
    assert [max(found) for found in worn] == [3.0, 1.25] and clothes_alike(*worn) == pytest.approx(1, abs=1e-3)
    assert clothes_alike(worn[0], {}) is None


def test_who_swapped_is_said_with_the_shots_that_are_right() -> None:
    (said,) = [one.said for one in judged_with(swapped_person).shots[ODD].falls_out if one.measure == "identity"]
    assert said.startswith("shot 3: the face differs from shots 1, 2, 4 and 5 (0.") and " against 0.9" in said


def test_a_jump_at_a_join_is_found_and_motion_is_none() -> None:
    film, joins = usual_film(), [Join(2, 1, 0.5), Join(5, 3, 2.625)]
    shots = pictures_of(film)
    shots[ODD][4:] = np.clip(shots[ODD][4:].astype(int) + 40, 0, 255)
    report = judge_film(footage(film, shots, joins=joins), Instruments())
    assert [(seam.section, bool(seam.falls_out)) for seam in report.seams] == [(2, False), (5, True)]
    assert report.seams[0].jump < 2 < 3 < report.seams[1].jump
    assert report.means()[SEAMS] == pytest.approx(np.mean([seam.jump for seam in report.seams]))
    assert any("section 5 (shot 3) begins with a jump" in said for said in report.remarks())


def test_who_can_be_asked_is_asked_about_clothes_and_objects_and_nothing_else_is_said_of_them() -> None:
    film = usual_film()
    shots, asked = pictures_of(film), []

    def ask(pictures: object, question: str) -> str:
        asked.append(question)
        return "Let me look. No, I mean yes." if "clothes" in question else "No."

    report = judge_film(footage(film, shots), Instruments(DrawnFaces(film, shots), ask=ask, asker_name="a guesser"))
    means = report.means()
    assert means["clothes"] == 1 and means["objects"] == 0 and report.measures["clothes"].tool == "a guesser"
    assert sum("clothes" in question for question in asked) == 10 and len(asked) == 20
    assert film.shots[0].prompt[:10] in asked[-1]


def test_an_answer_that_is_neither_counts_for_nothing() -> None:
    film = usual_film()
    shots = pictures_of(film)
    seen = Instruments(DrawnFaces(film, shots), ask=lambda pictures, question: "I cannot see.")
    assert not {"clothes", "objects"} & set(judge_film(footage(film, shots), seen).means())


def strange(titles: list[str], names: list[frozenset[str]], alike: dict[tuple[int, int], float], same: float) -> Any:
    return strangers(titles, companies(names, alike, same), alike, same)


def test_a_shot_is_as_good_as_its_faces_are_like_those_of_whom_it_names_whatever_else_falls_out() -> None:
    """Tom, Lena who speaks of Tom, Tom, Lena, another one for Tom, Tom, Tom out of focus; and films without a cast."""
    tom, lena = frozenset({"tom"}), frozenset({"lena"})
    names = [tom, tom | lena, tom, lena, tom, tom, tom]
    alike = {(i, j): 0.2 for i in range(7) for j in range(i + 1, 7)}
    alike |= {(0, 2): 0.88, (0, 5): 0.9, (2, 5): 0.89, (1, 3): 0.85, (0, 4): 0.58, (0, 6): 0.45}
    found = companies(names, alike, 0.7)
    values = [like_own(index, found, alike) for index in range(7)]
    assert values == [0.9, 0.85, 0.89, 0.85, 0.2, 0.9, 0.2]
    alone = companies([frozenset()] * 7, alike, 0.7)
    assert [like_own(index, alone, alike) for index in (0, 1, 4)] == [0.9, 0.85, 0.2]
    once = companies([tom, lena, tom], {(0, 2): 0.9, (0, 1): 0.1}, 0.7)
    assert like_own(1, once, {(0, 2): 0.9, (0, 1): 0.1}) is None


def test_people_who_should_differ_are_no_strangers_where_the_cast_says_so() -> None:
    alike = {(0, 1): 0.1, (0, 2): 0.9, (1, 2): 0.1, (0, 3): 0.1, (1, 3): 0.85, (2, 3): 0.1}
    titles = [f"shot {n}" for n in range(1, 5)]
    mira, tom = frozenset(["Mira"]), frozenset(["Tom"])
    assert strange(titles, [mira, tom, mira, tom], alike, 0.5) == {}
    assert strange(titles, [frozenset()] * 4, alike, 0.5) == {}  # two people, each seen twice
    found = strange(titles, [mira, mira, mira, mira | tom], alike, 0.5)
    assert list(found) == [1, 3]
    assert list(strange(titles[:3], [frozenset()] * 3, {p: v for p, v in alike.items() if 3 not in p}, 0.5)) == [1]


def test_of_two_faces_the_first_is_the_films_own() -> None:
    mira = frozenset(["Mira"])
    found = strange(["shot 1", "shot 2"], [mira, mira], {(0, 1): 0.2}, 0.36)
    assert {index: one.said for index, one in found.items()} == {
        1: "shot 2: the face differs from shot 1 (0.20 one person's are alike from 0.36 on)"
    }


def test_a_film_of_two_shots_has_no_odd_one_and_a_value_is_worse_in_its_own_direction() -> None:
    more, less = (Measure("clarity", "points", up, "a rule", "", threshold=1.0) for up in (True, False))
    titles = [f"shot {n}" for n in range(1, 5)]
    assert odd_ones(titles[:2], [1.0, 9.0], less) == {}
    assert list(odd_ones(titles, [5.0, 5.1, 9.0, 5.0], less)) == [2]
    assert odd_ones(titles, [5.0, 5.1, 9.0, 5.0], more) == {}
    assert odd_ones(titles, [5.0, 5.1, 5.9, None], less) == {}  # below the threshold
    assert odd_ones(titles, [1.0, 4.0, 7.0, 11.0], less) == {}  # a film of such spread has no odd one
    assert odd_ones(titles, [float("nan")] * 4, less) == {}
    sure = replace(less, surely=10.0)
    assert odd_ones(titles, [1.0, 4.0, 7.0, 11.0], sure).keys() == {3}  # beyond what any film should have
    assert odd_ones(titles, [11.0, 11.2, 11.5, 11.9], sure) == {}  # but all shots are so


def test_a_face_in_one_frame_of_many_is_no_person() -> None:
    vectors = np.eye(3, dtype=np.float32)

    class Finder:
        tool, same = "a list", 0.5

        def find(self, picture: np.ndarray) -> list[Face]:
            number = int(picture[0, 0, 0])
            return [Face((0, 0, 20, 20), vectors[n]) for n in ([0, 1], [1, 0], [0, 1, 2])[number]]

    people = people_of([np.full((8, 8, 3), n, np.uint8) for n in range(3)], Finder())
    assert [len(person.places) for person in people] == [3, 3]


def test_a_shot_without_a_name_is_compared_by_its_faces_alone() -> None:
    film = usual_film()
    shots = pictures_of(film)
    swapped_person(film, shots)
    assert falls_out(judged(film, shots, cast=False))["identity"] == [ODD + 1]


def test_shots_that_a_film_does_not_have_are_named() -> None:
    film = usual_film()
    short, told = footage(film, pictures_of(film)[:3]), footage(film, pictures_of(film)).storyboard
    report = judge_film(replace(short, storyboard=told), Instruments())
    said = [one.said for one in report.missing if one.measure == "shots 4 to 5"]
    assert len(report.shots) == 3 and said == [
        "shots 4 to 5: the film ends at 3.1 s, before they begin; is it this film's storyboard?"
    ]
    assert "shot 4" in [one.measure for one in judge_film(short, Instruments()).missing]


def test_a_film_without_faces_and_clip_is_measured_all_the_same() -> None:
    film = usual_film()
    report = judge_film(footage(film, pictures_of(film)), Instruments(embed=embed, embed_text=texts_of(film)))
    assert set(report.means()) == {
        "objects", "semantic", "clarity", "dynamics", "colour_drift", "sharpness_drift",
    }  # fmt: skip
    assert replace(report.measures["clarity"], tool="") != report.measures["clarity"]
