"""The plan of a run against whole steps on the card, and the cards that people have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training_bytes import (
    CARDS,
    COSTS,
    HOSTS,
    RESULTS,
    ROOM,
    WINDOW,
    Found,
    cards_table,
    cases,
    costs,
    costs_table,
    five_seconds,
    report,
)
from memory_encoder.training.card_plan import RESERVED
from memory_encoder.training.presets import PRESETS
from tools.environment import ROOT

from .full_step import Case, deep, measure, needed, whole
from .meter import GIB
from .steps_table import Plans
from .test_card_training import training  # noqa: F401 - a fixture

CELLS = [
    Case("wan_5b", section=3, layers=2, options={"window_share": 0.25}),
    Case("wan_5b", section=2, history=31, fp8=True, layers=2, options={"gradient_checkpointing": False}),
    Case("wan_1.3b", "retrieval", section=4, fp8=True, layers=2, options={"optimizer": "muon"}),
    Case("wan_14b", section=8, clips=2, layers=2, options={"resident_blocks": 1, "optimizer": "adamw8bit"}),
    Case("hunyuan", section=3, layers=2, options={"window_share": 0.25}),
    Case("hunyuan", section=30, history=31, layers=2, options={"offload_inputs": True}),
    Case("wan_14b", clips=4, layers=2, options={"offload_inputs": True, "resident_blocks": 0}),
    Case("wan_14b", "reconstruction", clips=2, layers=2, options={"resident_blocks": 0}),
    Case("wan_5b", "reconstruction", fp8=True, layers=2, options={"teacher": "2x2x1"}),
]


@pytest.mark.parametrize("case", CELLS, ids=lambda case: f"{case.host}-{case.stage}-{case.section}-{case.clips}")
def test_the_plan_is_within_a_tenth_of_a_whole_step(training: Any, case: Case, tmp_path: Path) -> None:  # noqa: F811
    measured = measure(training, case, tmp_path)
    plan = needed(measured.plan, case)
    print(f"{case}: {measured.peak / GIB:.3f} GiB, planned {plan / GIB:.3f}")
    assert plan == pytest.approx(measured.peak, rel=0.1)


def test_a_step_of_all_blocks_is_told_from_two_of_a_few_to_the_byte(training: Any, tmp_path: Path) -> None:  # noqa: F811
    """The record holds steps that ran all of them; both are the same step, whose weights are a part of all it takes."""
    found = Found()
    pairs = [(entry, found.of(entry["case"])) for entry in found.entries if entry["whole"]]
    assert len(pairs) >= 9
    for all_, few in pairs:
        several = all_["case"]["clips"] > 2 and all_["case"]["options"] == {}  # told from one and two clips too
        assert few is not None and abs(few["peak"] - all_["peak"]) <= (4 if several else 0)  # a loss in float32
    case = Case("wan_1.3b", "retrieval", section=2, history=31)
    two, three, four = (whole(training, replace(case, layers=layers), tmp_path) for layers in (2, 3, 4))
    assert len(two) == 8 and all(four[place] - three[place] == three[place] - two[place] for place in two)


def test_the_record_is_of_the_step_and_the_plan_of_today(training: Any, tmp_path: Path) -> None:  # noqa: F811
    """Wan 2.2 5B in fp8 at rank 128 and 20 s of history, on a card of 12 GB."""
    recorded = Found().of({"host": "wan_5b", "fp8": True})
    assert recorded is not None
    case = Case(**recorded["case"])
    peak = max(deep(training, case, tmp_path).values())
    assert peak == pytest.approx(recorded["peak"], rel=0.01)  # other builds of PyTorch
    assert Plans(training).both(case) == pytest.approx({name: recorded[name] for name in ("plan", "ram")}, rel=1e-3)
    assert peak <= 10.8 * GIB


SECTION = ", sections of 5 seconds"


@pytest.mark.parametrize("name", ["12gb-5b", "24gb-14b", "paper", f"12gb-5b{SECTION}", f"24gb-14b{SECTION}"])
def test_each_preset_fits_its_card_as_recorded(name: str) -> None:
    """5B on 12 GB, 14B on 24 GB, 8 clips of HunyuanVideo on 80 GB: 20 s of history, rank 128, sections of 3 latents.

    And the longest sections that the presets for one card train, in windows of 25 s.
    """
    title = f"preset `{name.removesuffix(SECTION)}`{SECTION if name.endswith(SECTION) else ''}"
    [(card, case)] = [(card, case) for one, card, case in CARDS if one == title]
    entry = Found().of(case)
    assert entry is not None and entry["peak"] + RESERVED <= ROOM[card] * GIB
    assert entry["plan"] + RESERVED <= ROOM[card] * GIB


@pytest.mark.parametrize(("name", "latents"), [("12gb-5b", (150, 30)), ("24gb-14b", (100, 20))])
def test_the_costs_are_of_the_windows_and_sections_that_a_preset_trains(name: str, latents: tuple[int, int]) -> None:
    """25 and 5 seconds at the model's own frames a second, with the sliding window."""
    host = {preset: host for host, preset in COSTS.items()}[name]
    window = PRESETS[name].options("continuation")["window_share"]
    rows = [row for row in costs() if row[0]["host"] == host]
    assert len(rows) == 3 and (PRESETS[name].window, PRESETS[name].section) == latents
    for first, *_, last in rows:
        assert (first["history"], last["section"]) == latents
        assert latents[0] - 2 < last["history"] + last["section"] <= latents[0]
        assert last["options"]["window_share"] == window > 0
    for clips in (1, 4):  # in steps of so many the update is the preset's
        shown = five_seconds(name, clips)
        assert shown["section"] == latents[1] and shown["options"]["window_share"] == window
        assert shown["clips"] * shown["options"].get("accumulate", 1) == PRESETS[name].both["batch_size"]


@pytest.mark.parametrize("host", HOSTS)
def test_the_plan_is_checked_with_the_sliding_window_too(host: str) -> None:
    found = Found()
    plain, window = found.of({"host": host}), found.of({"host": host, "options": WINDOW})
    assert plain is not None and window is not None and window["peak"] > plain["peak"]


def test_the_plan_is_within_a_tenth_of_every_recorded_step() -> None:
    found = Found()
    assert not [entry for entry in found.entries if not 0.9 < entry["plan"] / entry["peak"] < 1.1]
    assert not [case for case in cases() if found.of(case["case"], case["whole"]) is None]


def test_the_tables_in_the_docs_are_those_of_the_record() -> None:
    text, found = (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), Found()
    assert cards_table(found) in text and costs_table(found) in text
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == report()
