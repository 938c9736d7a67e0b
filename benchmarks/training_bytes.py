"""Memory of whole training steps on a card that is not there, beside the plan: the tables of results/training_bytes.md.

    python tools/environment.py run -m benchmarks.training_bytes [--only WORD] [--report]

A case takes seconds; a run that was stopped goes on. `--only` takes cases whose line of JSON contains WORD; `--report`
writes the tables of what is there. Most cases are told from steps of few blocks (tests/card/full_step.py), which some
that run all of them prove; these take minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from memory_encoder.training.card_plan import GIB, RESERVED
from memory_encoder.training.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "training_bytes"
HOSTS = {"wan_1.3b": "Wan 2.1 1.3B", "wan_5b": "Wan 2.2 5B", "wan_14b": "Wan 14B", "hunyuan": "HunyuanVideo"}
DEPTH = {"wan_1.3b": 30, "wan_5b": 30, "wan_14b": 40, "hunyuan": 60}
STAGES = [("retrieval", 4), *(("continuation", section) for section in (2, 3, 8, 30))]
EIGHT = {"optimizer": "adamw8bit"}
SAVING = ("rank", "gradient_checkpointing", "offload_inputs", "resident_blocks")  # of a preset
SECONDS_25 = {"wan_5b": 151, "wan_14b": 101}  # latents of a window, at 24 and 16 frames a second


def preset(name: str, **more: Any) -> dict[str, Any]:
    """What a preset does to the memory of a step."""
    options = PRESETS[name].options("continuation")
    found = {key: options[key] for key in SAVING if key in options and options[key] != 128}
    return {key: value for key, value in found.items() if (key, value) != ("gradient_checkpointing", True)} | more


# Name, GB of the card, and a case: 20 s of history, sections of 3 latents, rank 128.
CARDS: list[tuple[str, int, dict[str, Any]]] = [
    ("as it is", 12, {"host": "wan_5b", "fp8": True}),
    ("several steps an update", 12, {"host": "wan_5b", "fp8": True, "options": {"accumulate": 2}}),
    ("preset `12gb-5b`", 12, {"host": "wan_5b", "fp8": True, "clips": 4, "options": preset("12gb-5b")}),
    ("bf16 file, preset `12gb-5b`", 12, {"host": "wan_5b", "clips": 4, "options": preset("12gb-5b")}),
    ("as it is", 24, {"host": "wan_14b", "fp8": True}),
    ("`--optimizer adamw8bit`", 24, {"host": "wan_14b", "fp8": True, "options": EIGHT}),
    ("`--offload-inputs`, `--optimizer adamw8bit`", 24, {
        "host": "wan_14b", "fp8": True, "options": {**EIGHT, "offload_inputs": True},
    }),
    ("`--resident-blocks 20`", 24, {"host": "wan_14b", "fp8": True, "options": {"resident_blocks": 20}}),
    ("preset `24gb-14b`", 24, {"host": "wan_14b", "fp8": True, "clips": 4, "options": preset("24gb-14b")}),
    ("preset `paper`", 80, {"host": "hunyuan", "clips": 8, "options": preset("paper")}),
    ("preset `paper`, `--no-per-clip`", 80, {"host": "hunyuan", "clips": 8, "options": {"per_clip": False}}),
    ("preset `paper`, `--no-per-clip --offload-inputs`", 80, {
        "host": "hunyuan", "clips": 8, "options": {"offload_inputs": True, "per_clip": False},
    }),
    ("preset `paper`, fp8 file, `--no-per-clip`", 80, {
        "host": "hunyuan", "clips": 8, "fp8": True, "options": {"per_clip": False},
    }),
]  # fmt: skip


def remedies(host: str) -> list[dict[str, Any]]:
    """What can be done to the memory of a step, one by one, and several clips."""
    ways: list[dict[str, Any]] = [
        {"gradient_checkpointing": False}, EIGHT, {"offload_inputs": True}, {"resident_blocks": 0},
        {"resident_blocks": DEPTH[host] // 2}, {"offload_inputs": True, "resident_blocks": 0}, {"rank": 64},
        {"accumulate": 2}, {"accumulate": 2, "offload_inputs": True, "resident_blocks": 0},
    ]  # fmt: skip
    return ways


def cases() -> list[dict[str, Any]]:
    """What people's cards are for, what proves that few blocks tell of all, remedies, then the wide table."""
    plain: dict[str, Any] = {"stage": "continuation", "section": 3, "history": 121, "clips": 1, "fp8": False}

    def made(case: dict[str, Any], whole: bool = False) -> dict[str, Any]:
        return {"case": {**plain, "layers": None, "options": {}, **case}, "whole": whole}

    found = [made(case) for _, _, case in CARDS]
    found += [entry | {"whole": whole} for whole in (True, False) for entry in measured() if entry["whole"]]
    found += [
        made({"host": host, "stage": stage, "section": section, "history": history})
        for history, (stage, section), host in itertools.product((121, 31), STAGES, HOSTS)
    ]
    found += [made({"host": host, "options": options}) for host in HOSTS for options in remedies(host)]
    for more in ({"fp8": True}, {"clips": 2}, {"clips": 2, "options": {"per_clip": False}}):
        found += [made({"host": host} | more) for host in HOSTS]
    found += [made(case) for row in costs() for case in row]
    found.append(made({"host": "wan_5b", "fp8": True, "clips": 2, "options": preset("12gb-5b")}, True))
    return list({_key(entry): {"case": entry["case"], "whole": entry["whole"]} for entry in found}.values())


def costs() -> list[list[dict[str, Any]]]:
    """Rows of the table of what a run costs in docs/training.md: windows of 25 seconds, one clip a step of several."""
    rows = []
    for host, name in (("wan_5b", "12gb-5b"), ("wan_14b", "24gb-14b")):
        for options in ({}, preset(name), preset(name, **EIGHT)):
            row = []
            for stage, section in (STAGES[0], *STAGES[2:]):
                history = SECONDS_25[host] - (section if stage == "continuation" else 0)
                case = {"host": host, "fp8": True, "stage": stage, "section": section, "history": history}
                row.append(case | {"options": {"accumulate": 2, **options}})
            rows.append(row)
    return rows


def measure(only: str) -> None:
    lines = [line for line in map(json.dumps, cases()) if only in line]
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "cases.jsonl"
        asked.write_text("\n".join(lines) + "\n", encoding="utf-8")
        named = {"VIDEO_MEMORY_STEP_CASES": str(asked), "VIDEO_MEMORY_STEP_RESULTS": str(RESULTS.with_suffix(".jsonl"))}
        command = [sys.executable, "-m", "pytest", "-q", "--timeout=0", "tests/card/steps_table.py"]
        subprocess.run(command, cwd=ROOT, env=os.environ | named, check=True)


def measured() -> list[dict[str, Any]]:
    path = RESULTS.with_suffix(".jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _key(entry: dict[str, Any]) -> str:
    return json.dumps([entry["case"], entry["whole"]], sort_keys=True)
