"""Drawn films with one known fault: the shot that has it is named, and no other is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pytest

from memory_encoder.evaluation.judge.faces import Face, people_of
from memory_encoder.evaluation.judge.footage import Join
from memory_encoder.evaluation.judge.instruments import Instruments
from memory_encoder.evaluation.judge.judging import judge_film
from memory_encoder.evaluation.judge.likeness import NO_QUESTIONS
from memory_encoder.evaluation.judge.outliers import companies, like_own, odd_ones, strangers
from memory_encoder.evaluation.judge.report import SEAMS, FilmReport, Measure

from .judged_films import (
    FPS,
    ODD,
    DrawnFaces,
    drawn_film,
    embed,
    falls_out,
    footage,
    judged,
    other_shirt,
    pictures_of,
    someone_else,
    texts_of,
    with_look,
)

SEED = 19
Spoil = Callable[[list[np.ndarray]], None]
FILM = lru_cache(maxsize=1)(lambda: drawn_film(SEED))


def swapped_person(shots: list[np.ndarray]) -> None:
    shots[ODD] = with_look(FILM().shots[ODD], someone_else)


def changed_shirt(shots: list[np.ndarray]) -> None:
    shots[ODD] = with_look(FILM().shots[ODD], other_shirt)


def frozen(shots: list[np.ndarray]) -> None:
    shots[ODD][:] = shots[ODD][0]


def blurred(shots: list[np.ndarray]) -> None:
    shots[ODD][:] = [cv2.GaussianBlur(picture, (0, 0), 3) for picture in shots[ODD]]


def wrong_prompt(shots: list[np.ndarray]) -> None:
    shots[ODD] = shots[0][: len(shots[ODD])].copy()


def sliding_colours(shots: list[np.ndarray]) -> None:
    away = np.linspace(0, 1, len(shots[ODD]))[:, None, None, None] * np.array([50, 10, -40])
    shots[ODD][:] = np.clip(shots[ODD] + away, 0, 255)


FAULTS: dict[str, Spoil] = {
    "identity": swapped_person,
    "clothes": changed_shirt,
    "dynamics": frozen,
    "clarity": blurred,
    "semantic": wrong_prompt,
    "colour_drift": sliding_colours,
}


def judged_with(spoil: Spoil) -> FilmReport:
    shots = pictures_of(FILM())
    spoil(shots)
    return judged(FILM(), shots)


def test_nothing_falls_out_of_a_film_as_it_should_be_and_every_measure_is_taken() -> None:
    film = FILM()
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


@pytest.mark.parametrize("measure", FAULTS)
def test_the_shot_with_a_fault_is_named_and_no_other(measure: str) -> None:
    report = judged_with(FAULTS[measure])
    found = falls_out(report)
    assert found[measure] == [ODD + 1]
    assert {number for numbers in found.values() for number in numbers} == {ODD + 1}, report.remarks()


def test_who_swapped_is_said_with_the_shots_that_are_right() -> None:
    (said,) = [one.said for one in judged_with(swapped_person).shots[ODD].falls_out if one.measure == "identity"]
    assert said.startswith("shot 3: the face differs from shots 1, 2, 4 and 5 (0.") and " against 0.9" in said


def test_a_jump_at_a_join_is_found_and_motion_is_none() -> None:
    film, joins = FILM(), [Join(2, 1, 0.5), Join(5, 3, 2.625)]
    shots = pictures_of(film)
    shots[ODD][4:] = np.clip(shots[ODD][4:].astype(int) + 40, 0, 255)
    report = judge_film(footage(film, shots, joins=joins), Instruments())
    assert [(seam.section, bool(seam.falls_out)) for seam in report.seams] == [(2, False), (5, True)]
    assert report.seams[0].jump < 2 < 3 < report.seams[1].jump
    assert report.means()[SEAMS] == pytest.approx(np.mean([seam.jump for seam in report.seams]))
    assert any("section 5 (shot 3) begins with a jump" in said for said in report.remarks())


def test_who_can_be_asked_is_asked_about_clothes_and_objects_and_nothing_else_is_said_of_them() -> None:
    film = FILM()
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
    film = FILM()
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
    film = FILM()
    shots = pictures_of(film)
    swapped_person(shots)
    assert falls_out(judged(film, shots, cast=False))["identity"] == [ODD + 1]


def test_a_film_without_faces_and_clip_is_measured_all_the_same() -> None:
    film = FILM()
    report = judge_film(footage(film, pictures_of(film)), Instruments(embed=embed, embed_text=texts_of(film)))
    assert set(report.means()) == {
        "objects", "semantic", "clarity", "dynamics", "colour_drift", "sharpness_drift",
    }  # fmt: skip
    assert replace(report.measures["clarity"], tool="") != report.measures["clarity"]
