"""The budget against the phases of a film on the card: those that are recorded, and a few that are run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.real_size import TABLE, budget, cells, entries, readme_table
from tests.card.film_step import Cell, measured  # the same module as the benchmark's

from .meter import GIB

ROOT = Path(__file__).resolve().parents[2]
CELLS = os.environ.get("VIDEO_MEMORY_FILM_CELLS")  # a file of cells, one a line, for benchmarks/real_size.py
LIVE = [
    Cell("wan_5b", "joint", 1280, 704),
    Cell("wan_14b", "two rates", history=600.0),
    Cell("hunyuan", "cached", history=60.0),
    Cell("hunyuan15", "window"),
]


def test_the_budget_is_within_a_tenth_of_every_cell_that_was_measured() -> None:
    off = {cell: budget(cell) / peak for cell, peak in entries().items() if cell.phase != "phi"}
    assert not {cell: ratio for cell, ratio in off.items() if abs(ratio - 1) > 0.1}


def test_a_section_joins_the_memory_in_less_than_a_tenth_of_a_step() -> None:
    found = entries()
    assert all(found[cell] < found[replace(cell, phase="joint")] / 10 for cell in found if cell.phase == "phi")


def test_every_cell_is_measured() -> None:
    assert not set(cells()) - set(entries())


@pytest.mark.parametrize("cell", LIVE, ids=lambda cell: f"{cell.host}-{cell.phase}")
def test_what_is_recorded_is_what_the_card_shows(card: Any, cell: Cell) -> None:
    with card.on():
        found = measured(card, cell)
    assert found.peak / GIB == pytest.approx(entries()[replace(cell, layers=1)], rel=0.03)


@pytest.mark.parametrize("cell", [Cell("wan_5b", "cached", kept="card"), Cell("hunyuan", "joint")], ids=str)
def test_few_blocks_show_the_peak_of_more(card: Any, cell: Cell) -> None:
    with card.on():
        few, more = measured(card, cell), measured(card, replace(cell, layers=3))
    assert more.peak == pytest.approx(few.peak, rel=0.005)


@pytest.mark.parametrize("name", ["README.md", "docs/settings.md"])
def test_the_table_of_cards_is_that_of_the_measurements(name: str) -> None:
    match = TABLE.search((ROOT / name).read_text(encoding="utf-8"))
    assert match is not None and match[0] == match[1] + readme_table(entries())


@pytest.mark.skipif(CELLS is None, reason="benchmarks/real_size.py gives the cells")
def test_table(card: Any) -> None:
    """Adds a line of JSON to the results for each cell that has none yet."""
    assert CELLS is not None
    results = Path(CELLS).with_suffix(".jsonl")
    known = results.read_text().splitlines() if results.exists() else ()
    done = {Cell(**json.loads(line)["cell"]) for line in known}
    for line in Path(CELLS).read_text().splitlines():
        cell = Cell(**json.loads(line))
        if cell in done:
            continue
        with card.on():
            found = measured(card, cell)
        with results.open("a") as file:
            file.write(json.dumps({"cell": asdict(cell), **asdict(found)}) + "\n")
