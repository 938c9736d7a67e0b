"""The steps of benchmarks/training_bytes.py, which runs this file by its name: no test of the suite."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .full_step import Case, deep, module_of, needed, plan_of, whole
from .test_card_training import training  # noqa: F401 - a fixture


def test_fill(training: Any, tmp_path: Path) -> None:  # noqa: F811
    """Measures each case of VIDEO_MEMORY_STEP_CASES that VIDEO_MEMORY_STEP_RESULTS lacks, and plans all anew.

    A line of either is JSON: a case, and whether all blocks ran at once (`whole`) or a few that tell of all.
    """
    cases, results = (Path(os.environ[f"VIDEO_MEMORY_STEP_{name}"]) for name in ("CASES", "RESULTS"))
    plan, entries = Plans(training), {key(one): one for one in lines(results)}
    for asked in lines(cases):
        case = Case(**asked["case"])
        asked["case"] = asdict(case)
        if key(asked) in entries:
            continue
        places = (whole if asked["whole"] else deep)(training, case, tmp_path)
        phases: dict[str, int] = {}
        for name, size in places.items():
            phases[name.split(" ")[0]] = max(size, phases.get(name.split(" ")[0], 0))
        entry = asked | {"peak": max(phases.values()), "phases": phases, **plan.both(case)}
        entries[key(asked)] = entry
        with results.open("a") as file:
            file.write(json.dumps(entry) + "\n")
    done = [entry | plan.both(Case(**entry["case"])) for entry in entries.values()]
    results.write_text("".join(json.dumps(entry) + "\n" for entry in done))


class Plans:
    """What runs are told beside the reserve, in bytes, by hosts with all of their blocks."""

    def __init__(self, card: Any) -> None:
        self.card = card
        self.made: dict[Any, Any] = {}

    def __call__(self, case: Case) -> int:
        return self.both(case)["plan"]

    def both(self, case: Case) -> dict[str, int]:
        """Of the card, and of system RAM."""
        kind = (case.host, case.fp8, case.train_options().rank)
        self.made[kind] = self.made.get(kind) or module_of(self.card, case)
        model, module = self.made[kind]
        plan = plan_of(model, module, case)
        return {"plan": needed(plan, case), "ram": round(plan.ram(case.clips).all)}


def key(entry: Any) -> str:
    return json.dumps([entry["case"], entry["whole"]], sort_keys=True)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
