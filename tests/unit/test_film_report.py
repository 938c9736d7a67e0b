"""The form of a film's report: what is read elsewhere, in JSON."""

from __future__ import annotations

import json
from pathlib import Path

from memory_encoder.evaluation.judge.report import (
    REPORT_JSON,
    SEAMS,
    FallsOut,
    FilmReport,
    Measure,
    Missing,
    PairReport,
    SeamReport,
    ShotReport,
)
from memory_encoder.evaluation.judge.report_text import markdown


def a_report() -> FilmReport:
    faces = Measure("identity", "cosine", True, "YuNet, SFace", "how alike the faces are")
    jumps = Measure(SEAMS, "steps of motion", False, "mean squared difference", "jump at a join")
    said = FallsOut("identity", "shot 3: the face differs from shots 1 and 2 (0.31 against 0.74)", 0.31, 0.74)
    shots = [
        ShotReport(1, 0, 5, "Mira waves", sections=(1,), values={"identity": 0.74}),
        ShotReport(2, 5, 5, "Mira walks", sections=(2, 3), values={"identity": 0.74}),
        ShotReport(3, 10, 5, "Mira sits", "the end", (4,), {"identity": float("nan")}, [said]),
    ]
    return FilmReport(
        "a_film", 16, 15, (64, 48), {"identity": faces, SEAMS: jumps}, shots,
        [PairReport((1, 3), {"identity": 0.31})], [SeamReport(3, 2, 7.5, 1.25)],
        [Missing("aesthetic", "the linear head is not there", "models/aesthetic/head.pth")],
    )  # fmt: skip


def test_the_json_says_of_each_value_with_what_it_was_measured_and_holds_no_nan(tmp_path: Path) -> None:
    found = json.loads(a_report().write(tmp_path).read_text())
    assert (tmp_path / REPORT_JSON).is_file()
    assert found["shots"][1]["measures"] == {"identity": {"value": 0.74, "with": "YuNet, SFace"}}
    assert found["shots"][2]["measures"] == {}
    assert found["shots"][2]["falls_out"][0]["said"].startswith("shot 3: the face differs")
    assert found["pairs"] == [{"shots": [1, 3], "measures": {"identity": {"value": 0.31, "with": "YuNet, SFace"}}}]
    assert found["seams"][0] | {"falls_out": 0} == {
        "section": 3, "shot": 2, "at": 7.5, "jump": 1.25, "with": "mean squared difference", "falls_out": 0,
    }  # fmt: skip
    assert found["means"] == {"identity": 0.74, "seams": 1.25}
    assert found["measures"]["seams"]["higher_is_better"] is False
    assert found["missing"][0]["where"] == "models/aesthetic/head.pth"


def test_remarks_stand_in_the_order_of_time() -> None:
    report = a_report()
    late = FallsOut(SEAMS, "section 3 begins with a jump", 9.0, 1.0)
    report.seams = [SeamReport(3, 2, 7.5, 9.0, (late,))]
    assert [said.split(":")[0] for said in report.remarks()] == ["section 3 begins with a jump", "shot 3"]


def test_where_nothing_falls_out_it_is_said_what_could_not_be_seen() -> None:
    report = a_report()
    report.shots = report.shots[:2]
    lesser = Missing("identity", "measured by YuNet alone", "")  # a lesser tool has measured it
    report.missing = [*report.missing, lesser, Missing("clothes", "no faces", ""), Missing(SEAMS, "all is cut", "")]
    said = "othing falls out of what was measured; not measured: aesthetic, clothes"
    assert f"N{said}." in markdown(report) and f"n{said}" == report.nothing()
    report.missing = [lesser]
    assert report.nothing() == "nothing falls out"
