"""The budget against the phases of a film on the card: those that are recorded, and a few that are run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.real_size import PHASES, RESULTS, TABLE, WEIGHTS, budget, cells, entries, readme_table, recorded, report
from memory_encoder import cli
from memory_encoder.budget import RESERVED, Plan, estimate
from memory_encoder.film import plan as film_plan_module
from memory_encoder.film.plan import PlanRequest, film_plan
from tests.card.film_step import NAMES, Cell, measured  # the same module as the benchmark's

from .films import pack
from .meter import GIB

ROOT = Path(__file__).resolve().parents[2]
CELLS = os.environ.get("VIDEO_MEMORY_FILM_CELLS")  # a file of cells, one a line, for benchmarks/real_size.py
LIVE = [
    Cell("wan_5b", "joint", 1280, 704),
    Cell("wan_14b", "two rates", history=600.0),
    Cell("hunyuan", "cached", history=60.0),
    Cell("hunyuan15", "window"),
    Cell("wan_5b", "joint", history=600.0, horizon=20_000),
    Cell("hunyuan", "append"),
]
GOAL = 11.5e9 / GIB  # of a card of 12 GB


def the_editor(cell: Cell) -> None:
    """A film as long as the history."""
    plan = cell.plan()
    film_plan(
        PlanRequest.from_dict(
            {
                "storyboard": json.dumps({"shots": [{"start": 0, "end": plan.history_seconds, "prompt": "a"}]}),
                "host": NAMES[cell.host],
                "section_seconds": _section_seconds(plan),
                "rates": list(plan.rates),
            }
            | {name: getattr(plan, name) for name in ("fps", "width", "height", "cached", "sliding_window", "horizon")}
        )
    )


def the_node(cell: Cell) -> None:
    plan, config = cell.plan(), pack("memory_encoder.phi.config").EncoderConfig
    family, attention = NAMES[cell.host].split("-")[0], "cached" if plan.cached else "joint"
    configs = [
        config(family, plan.host.width, plan.host.channels, rate=rate, memory_attention=attention)
        for rate in plan.rates
    ]
    encoder = SimpleNamespace(parts=[SimpleNamespace(config=config, trained_on=None) for config in configs])
    pack("nodes.encoder_nodes").VideoMemoryBudget.execute(
        encoder, plan.width, plan.height, plan.fps, plan.history_seconds, _section_seconds(plan),
        sliding_window=plan.sliding_window, horizon=plan.horizon,
    )  # fmt: skip


def the_command_line(cell: Cell) -> None:
    plan = cell.plan()
    words = f"--host {NAMES[cell.host]} --width {plan.width} --height {plan.height} --seconds {plan.history_seconds}"
    words += f" --fps {plan.fps} --section-seconds {_section_seconds(plan)} --sliding-window {plan.sliding_window}"
    words += f" --horizon {plan.horizon}"
    words += "".join(f" --rate {rate}" for rate in plan.rates) + " --cached" * plan.cached
    assert cli.main(["budget", *words.split()]) == 0


def _section_seconds(plan: Plan) -> float:
    return plan.section_latents * plan.host.temporal / plan.fps or plan.section_seconds


FRONT_ENDS = (the_editor, the_node, the_command_line)


def test_the_budget_is_within_a_tenth_of_every_cell_that_was_measured() -> None:
    off = {cell: budget(cell) / peak for cell, peak in entries().items() if cell.phase != "phi"}
    assert not {cell: ratio for cell, ratio in off.items() if abs(ratio - 1) > 0.1}


@pytest.mark.parametrize("asked", FRONT_ENDS, ids=["editor", "node", "command line"])
def test_every_way_to_ask_for_a_budget_is_within_a_tenth_of_the_card(
    card: Any, asked: Callable[[Cell], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(cli, "_parser", cache(cli._parser))  # as it is, built once
    for module in (cli, film_plan_module, pack("nodes.encoder_nodes")):
        monkeypatch.setattr(module, "describe", lambda plan, name: plans.append(plan) or name)
    found = {cell: peak for cell, peak in entries().items() if cell.phase != "phi"}
    if asked is the_editor:  # whose film has a history
        found = {cell: peak for cell, peak in found.items() if cell.phase != "without"}
    for cell in found:
        asked(cell)
    off = {cell: budget(cell, plan) / found[cell] for cell, plan in zip(found, plans, strict=True)}
    assert not {cell: ratio for cell, ratio in off.items() if abs(ratio - 1) > 0.1}


def test_what_is_beside_the_decoding_of_a_section_takes_less_than_a_seventh_of_a_step() -> None:
    found = entries()
    assert all(found[cell] < found[replace(cell, phase="joint")] / 7 for cell in found if cell.phase == "phi")


def test_every_cell_is_measured_and_the_report_is_that_of_the_measurements() -> None:
    assert set(cells()) == set(entries())
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == report(entries())


@pytest.mark.parametrize(
    ("cell", "bytes_per_weight", "streamed"),
    [(Cell("wan_5b", "", 1280, 704), 1.0, False), (Cell("wan_14b", ""), WEIGHTS["Q4"], True)],
    ids=["5B in fp8 at 1280x704, all weights on the card", "14B in Q4 at 832x480, weights streamed"],
)
def test_films_of_20_s_in_sections_of_5_s_fit_a_card_of_12_gb(
    cell: Cell, bytes_per_weight: float, streamed: bool
) -> None:
    """As measured, under 11.5 GB with what a real card takes besides: each step, and joining the memory by the VAE."""
    found = entries()
    for phase in PHASES[:-1]:  # all but the whole history
        said = estimate(replace(replace(cell, phase=phase).plan(), bytes_per_weight=bytes_per_weight))
        weights = said.buffer_bytes if streamed else said.weight_bytes
        assert found[replace(cell, phase=phase)] + (weights + RESERVED) / GIB < GOAL, phase
    [weights] = [one["weights"] for one in recorded() if Cell(**one["cell"]) == replace(cell, phase="append")]
    assert found[replace(cell, phase="append")] + (weights + RESERVED) / GIB < GOAL


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
