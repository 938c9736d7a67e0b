"""Marks of a report beside a film: only sections that are still the ones which it judged have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory_encoder.evaluation.judge.judge_command import write_report
from memory_encoder.evaluation.judge.marks import read_marks
from memory_encoder.evaluation.judge.report import REPORT_JSON, FallsOut, FilmReport, SeamReport, ShotReport

FACE = FallsOut("identity", "shot 2: the face differs from shots 1 and 3 (0.31 against 0.74)", 0.31, 0.74)
PROMPT = FallsOut("semantic", "shot 1: the picture fits its prompt less", 0.1, 0.3)
JUMP = FallsOut("seams", "section 4 jumps", 5.0, 1.0)
KEYS = {1: "a", 2: "b", 3: "c", 4: "d"}


def report() -> FilmReport:
    shots = [
        ShotReport(1, 0, 5, sections=(1,), falls_out=[PROMPT]),
        ShotReport(2, 5, 10, sections=(2, 3), falls_out=[FACE]),
        ShotReport(3, 15, 5, sections=(4,)),
    ]
    stills = {shot.number: np.zeros((24, 32, 3), np.uint8) for shot in shots}
    seams = [SeamReport(4, 3, 15, 5.0, (JUMP,))]
    return FilmReport("film", 16, 20, (64, 48), shots=shots, seams=seams, stills=stills)


def test_sections_of_a_shot_that_falls_out_are_marked_and_a_prompt_is_no_fault_of_a_section(tmp_path: Path) -> None:
    write_report(report(), tmp_path, keys=KEYS)
    marks = read_marks(tmp_path, KEYS)
    assert sorted(marks) == [2, 3, 4]
    assert marks[2] == marks[3] == [{"measure": "identity", "said": FACE.said, "value": 0.31, "usual": 0.74}]
    assert marks[4][0]["said"] == JUMP.said


def test_a_section_that_was_made_anew_loses_its_mark_and_gets_it_back_with_the_take_before(tmp_path: Path) -> None:
    write_report(report(), tmp_path, keys=KEYS)
    assert sorted(read_marks(tmp_path, KEYS | {2: "other"})) == [3, 4]
    assert sorted(read_marks(tmp_path, {1: "a", 2: "b"})) == [2]
    assert sorted(read_marks(tmp_path, KEYS)) == [2, 3, 4]


@pytest.mark.parametrize(
    "damage",
    [
        None, "", "{", "[]", "3", "[" * 100_000,
        {"version": 2}, {"keys": None}, {"keys": []}, {"shots": None, "seams": 3}, {"shots": [None, {"sections": 4}]},
        {"shots": [{"sections": [[], {}, "2"], "falls_out": [FACE.to_dict()]}], "seams": [{"falls_out": "x"}]},
        {"shots": [{"sections": [1], "falls_out": [{"measure": [], "said": 3}, {"measure": "identity"}]}], "seams": []},
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_read_marks_nothing(damage: Any, tmp_path: Path) -> None:
    path = write_report(report(), tmp_path, keys=KEYS)[0]
    assert path.name == REPORT_JSON
    if isinstance(damage, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    elif damage is not None:
        path.write_text(damage)
    else:
        path.unlink()
    marks = read_marks(tmp_path, KEYS)
    assert not marks or (isinstance(damage, dict) and set(marks) <= {4})
