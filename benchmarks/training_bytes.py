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
from memory_encoder.training.options import Stage, TrainOptions
from memory_encoder.training.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "training_bytes"
HOSTS = {"wan_1.3b": "Wan 2.1 1.3B", "wan_5b": "Wan 2.2 5B", "wan_14b": "Wan 14B", "hunyuan": "HunyuanVideo"}
DEPTH = {"wan_1.3b": 30, "wan_5b": 30, "wan_14b": 40, "hunyuan": 60}
STAGES = [("retrieval", 4), *(("continuation", section) for section in (2, 3, 8, 30))]
COSTS = {"wan_5b": "12gb-5b", "wan_14b": "24gb-14b"}  # hosts, and their presets
USUAL: dict[str, Any] = {"stage": "continuation", "section": 3, "history": 121, "clips": 1, "fp8": False}
ROOM = {12: 12.0, 24: 24.0, 80: 79.3}  # GiB of a card of so many GB
EIGHT = {"optimizer": "adamw8bit"}
PLAIN = {  # what a case has where its options say nothing else
    "rank": 128, "gradient_checkpointing": True, "offload_inputs": False, "resident_blocks": -1, "window_share": 0.0,
}  # fmt: skip
WINDOW = {"window_share": TrainOptions.window_share}


def preset(name: str, stage: Stage = "continuation", **more: Any) -> dict[str, Any]:
    """What a preset does to the memory of a step, where that is not what a case does anyway."""
    options = PRESETS[name].options(stage)
    return {key: options[key] for key, plain in PLAIN.items() if options.get(key, plain) != plain} | more


def history_before(section: int, whole: int) -> int:
    """Latents of the longest history in whole cells of 4x4x2 before a section of a window of `whole` latents."""
    return 1 + (whole - section - 1) // 2 * 2


def five_seconds(name: str, clips: int) -> dict[str, Any]:
    """A case: the longest section of a preset, its update in steps of so many clips."""
    chosen = PRESETS[name]
    steps = {"accumulate": chosen.both["batch_size"] // clips}
    options = preset(name, **{key: value for key, value in steps.items() if value > 1})
    history = history_before(chosen.section, chosen.window)
    return {"section": chosen.section, "history": history, "clips": clips, "options": options}


# Name, GB of the card, and a case: 20 s of history, sections of 3 latents, rank 128.
CARDS: list[tuple[str, int, dict[str, Any]]] = [
    ("as it is", 12, {"host": "wan_5b", "fp8": True}),
    ("several steps an update", 12, {"host": "wan_5b", "fp8": True, "options": {"accumulate": 2}}),
    ("preset `12gb-5b`", 12, {"host": "wan_5b", "fp8": True, "clips": 4, "options": preset("12gb-5b")}),
    ("bf16 file, preset `12gb-5b`", 12, {"host": "wan_5b", "clips": 4, "options": preset("12gb-5b")}),
    ("preset `12gb-5b`, sections of 5 seconds", 12, {"host": "wan_5b", "fp8": True, **five_seconds("12gb-5b", 4)}),
    ("as it is", 24, {"host": "wan_14b", "fp8": True}),
    ("`--optimizer adamw8bit`", 24, {"host": "wan_14b", "fp8": True, "options": EIGHT}),
    ("`--offload-inputs`, `--optimizer adamw8bit`", 24, {
        "host": "wan_14b", "fp8": True, "options": {**EIGHT, "offload_inputs": True},
    }),
    ("`--resident-blocks 20`", 24, {"host": "wan_14b", "fp8": True, "options": {"resident_blocks": 20}}),
    ("preset `24gb-14b`", 24, {"host": "wan_14b", "fp8": True, "clips": 4, "options": preset("24gb-14b")}),
    ("preset `24gb-14b`, sections of 5 seconds", 24, {"host": "wan_14b", "fp8": True, **five_seconds("24gb-14b", 1)}),
    ("preset `paper`", 80, {"host": "hunyuan", "clips": 8, "options": preset("paper")}),
    ("preset `paper`, `--no-per-clip`", 80, {"host": "hunyuan", "clips": 8, "options": {"per_clip": False}}),
    ("preset `paper`, `--no-per-clip --offload-inputs`", 80, {
        "host": "hunyuan", "clips": 8, "options": {"offload_inputs": True, "per_clip": False},
    }),
    ("preset `paper`, fp8 file, `--no-per-clip`", 80, {
        "host": "hunyuan", "clips": 8, "fp8": True, "options": {"per_clip": False},
    }),
]  # fmt: skip


# Measured with all blocks too.
PROOFS: list[dict[str, Any]] = [
    {"host": "wan_5b"},
    {"host": "wan_5b", "fp8": True},
    {"host": "wan_5b", "options": {"resident_blocks": 10}},
    {"host": "wan_5b", "fp8": True, "clips": 2, "options": preset("12gb-5b")},
    {"host": "wan_14b", "fp8": True},
    {"host": "wan_14b", "fp8": True, "options": EIGHT},
    {"host": "wan_14b", "fp8": True, "options": {"resident_blocks": 20}},
    {"host": "hunyuan", "clips": 3},
    *(case for _, card, case in CARDS if card == 80 and "per_clip" in case["options"]),
]


OTHERS: dict[str, dict[str, Any]] = {
    "fp8": {"fp8": True},
    "2 clips": {"clips": 2},
    "2 clips, --no-per-clip": {"clips": 2, "options": {"per_clip": False}},
    "sliding window of 3 latents": {"options": WINDOW},
}


def remedies(host: str) -> list[dict[str, Any]]:
    """What can be done to the memory of a step, one by one, and several clips."""
    return [
        {"gradient_checkpointing": False}, EIGHT, {"offload_inputs": True}, {"resident_blocks": 0},
        {"resident_blocks": DEPTH[host] // 2}, {"offload_inputs": True, "resident_blocks": 0}, {"rank": 64},
        {"accumulate": 2},
    ]  # fmt: skip


# What comes before the first step of a new run, at once for all clips of a step.
BEGINNING: dict[str, Any] = {"stage": "reconstruction", "fp8": True}
BEGINNINGS: dict[str, dict[str, Any]] = {
    "1 clip": {},
    "4 clips": {"clips": 4},
    "4 clips, nothing of the host on the card": {"clips": 4, "options": {"resident_blocks": 0}},
    "4 clips, --teacher of 2x2x1": {"clips": 4, "options": {"teacher": "2x2x1"}},
}


def made(case: dict[str, Any], whole: bool = False) -> dict[str, Any]:
    """A line of cases: this one with what is as usual. whole: all blocks run."""
    return {"case": {**USUAL, "layers": None, "options": {}, **case}, "whole": whole}


def cases() -> list[dict[str, Any]]:
    """What people's cards are for, what proves that few blocks tell of all, remedies, then the wide table."""
    found = [made(case) for _, _, case in CARDS]
    found += [made(case, whole) for whole in (False, True) for case in PROOFS]
    found += [
        made({"host": host, "stage": stage, "section": section, "history": history})
        for history, (stage, section), host in itertools.product((121, 31), STAGES, HOSTS)
    ]
    found += [made({"host": host, "options": options}) for host in HOSTS for options in remedies(host)]
    for more in OTHERS.values():
        found += [made({"host": host} | more) for host in HOSTS]
    found += [made({"host": host} | BEGINNING | more) for more in BEGINNINGS.values() for host in HOSTS]
    found += [made(case) for row in costs() for case in row]
    return list({_key(entry): {"case": entry["case"], "whole": entry["whole"]} for entry in found}.values())


def costs() -> list[list[dict[str, Any]]]:
    """Rows of the table of what a run costs in docs/training.md: windows of 25 seconds, one clip a step of several,
    sections with the sliding window."""
    rows = []
    for host, name in COSTS.items():
        whole = PRESETS[name].window
        sections = (3, 8, PRESETS[name].section)
        targets: list[tuple[Stage, int]] = [("retrieval", 4), *(("continuation", section) for section in sections)]
        for saving, more in ((False, {}), (True, {}), (True, EIGHT)):
            row = []
            for stage, section in targets:
                own = preset(name, stage) if saving else {} if stage == "retrieval" else WINDOW
                history = whole if stage == "retrieval" else history_before(section, whole)
                case = {"host": host, "fp8": True, "stage": stage, "section": section, "history": history}
                row.append(case | {"options": {"accumulate": 2, **own, **more}})
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
    asked_for = {_key(entry) for entry in cases()}
    kept = [entry for entry in measured() if _key(entry) in asked_for]
    RESULTS.with_suffix(".jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")


def measured() -> list[dict[str, Any]]:
    path = RESULTS.with_suffix(".jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _key(entry: dict[str, Any]) -> str:
    return json.dumps([entry["case"], entry["whole"]], sort_keys=True)


class Found:
    """What has been measured, by case."""

    def __init__(self) -> None:
        self.entries = measured()
        self.by_key = {_key(entry): entry for entry in self.entries}

    def of(self, case: dict[str, Any], whole: bool = False) -> dict[str, Any] | None:
        return self.by_key.get(_key(made(case, whole)))

    def percent(self) -> list[float]:
        return [_percent(entry) for entry in self.entries]


def cards_table(found: Found) -> str:
    """For docs/training.md too."""
    lines = ["| card | model | options | clips a step | GiB of a step | plan | | of system RAM |", "|---" * 8 + "|"]
    for name, card, case in CARDS:
        entry, room = found.of(case), (ROOM[card] * GIB - RESERVED) / GIB
        if entry is not None:
            kind = f"{HOSTS[case['host']]}, {'fp8' if case.get('fp8') else 'bf16'}"
            fits = "fits" if entry["peak"] / GIB <= room else f"more than {room:.1f}"
            figures = f"{case.get('clips', 1)} | {entry['peak'] / GIB:.1f} | {entry['plan'] / GIB:.1f}"
            lines.append(f"| {card} GB | {kind} | {name} | {figures} | {fits} | {entry['ram'] / GIB:.1f} |")
    return "\n".join(lines)


def costs_table(found: Found) -> str:
    """For docs/training.md: GiB that a step takes of a card, with what the card needs beside."""
    names = ["all on the card", "preset", "preset and `--optimizer adamw8bit`"]
    lines = [
        "| | host | stage I | stage II, sections of 3 latents | 8 latents | 5 seconds |",
        "|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(costs()):
        key = row[0]["host"]
        host = f"{HOSTS[key]}, fp8, {PRESETS[COSTS[key]].fps:g} fps"
        cells = [found.of(case) for case in row]
        shown = ["" if one is None else f"{(one['peak'] + RESERVED) / GIB:.1f}" for one in cells]
        lines.append(
            f"| {host if number % len(names) == 0 else ''} | {names[number % len(names)]} | {' | '.join(shown)} |"
        )
    return "\n".join(lines)


def report() -> str:
    """The tables, in Markdown."""
    found = Found()
    off = found.percent()
    far = sum(abs(value) > 10 for value in off)
    lines = [
        "# Memory of a training step",
        "",
        f"{len(off)} cases, PyTorch {torch.__version__}. GiB of live tensors on the fake card: the pack's own step on "
        "tensors without data. Not in them: context of the driver, work space of kernels, fragments; the plan reserves "
        "1.2 GiB for these, left out here. 832x480, encoder 4x4x2, LoRA rank 128, bf16, gradient checkpointing, all "
        "blocks. No number was measured on a real card.",
        "",
        f"Plan against step: between {min(off):+.1f} and {max(off):+.1f} %; {far} of {len(off)} cases are off by more "
        "than 10 %.",
        "",
        "## Cards that people have",
        "",
        "20 s of history, sections of 3 latents. A card has room for its size less 1.2 GiB.",
        "",
        cards_table(found),
        "",
        "## Few blocks tell of all",
        "",
        "The most that lives in a given block, in a given phase, is linear in the number of blocks: two steps of 2 and "
        "3 (HunyuanVideo 2+4 and 3+6) give the step of all. Against steps in which all ran, in bytes:",
        "",
        "| host | options | all blocks | told from few | difference |",
        "|---|---|---|---|---|",
    ]
    for entry in found.entries:
        few = found.of(entry["case"])
        if entry["whole"] and few is not None:
            case = entry["case"]
            figures = f"{entry['peak']:,} | {few['peak']:,} | {few['peak'] - entry['peak']:,}"
            lines.append(f"| {_host(case)}, {_clips(case)} | {_options(case)} | {figures} |")
    lines += ["", "## What saves memory", "", "20 s of history, one clip, sections of 3 latents: step / plan.", ""]
    lines += ["| options | " + " | ".join(HOSTS.values()) + " |", "|---" * (len(HOSTS) + 1) + "|"]
    for options in [{}, *remedies("wan_5b")]:
        cells = []
        for host in HOSTS:
            resident = options.get("resident_blocks")
            own = options | ({"resident_blocks": DEPTH[host] // 2} if resident else {})
            cells.append(_cell(found.of({"host": host, "options": own})))
        lines.append(f"| {_options({'options': options}).replace(' 15', ' of a half')} | {' | '.join(cells)} |")
    lines += ["", "## Stages, sections and histories", "", "bf16 host, one clip: step / plan (difference in %).", ""]
    lines += ["| history | stage | target | " + " | ".join(HOSTS.values()) + " |", "|---" * (len(HOSTS) + 3) + "|"]
    for history, (stage, section) in itertools.product((121, 31), STAGES):
        case = {"stage": stage, "section": section, "history": history}
        cells = [_cell(found.of(case | {"host": host})) for host in HOSTS]
        lines.append(f"| {history} | {stage} | {section} | {' | '.join(cells)} |")
    lines += ["", "Sections of 3 latents, 20 s of history:", ""]
    lines += ["| | " + " | ".join(HOSTS.values()) + " |", "|---" * (len(HOSTS) + 1) + "|"]
    for name, more in OTHERS.items():
        lines.append(f"| {name} | {' | '.join(_cell(found.of({'host': host} | more)) for host in HOSTS)} |")
    lines += ["", "## Before the first step", "", "`--reconstruction`, fp8 host, 20 s of history: step / plan.", ""]
    lines += ["| | " + " | ".join(HOSTS.values()) + " |", "|---" * (len(HOSTS) + 1) + "|"]
    for name, more in BEGINNINGS.items():
        cells = [_cell(found.of({"host": host} | BEGINNING | more)) for host in HOSTS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _percent(entry: dict[str, Any]) -> float:
    return 100 * (entry["plan"] / entry["peak"] - 1)


def _cell(entry: dict[str, Any] | None) -> str:
    return "" if entry is None else f"{entry['peak'] / GIB:.2f} / {entry['plan'] / GIB:.2f} ({_percent(entry):+.1f})"


def _host(case: dict[str, Any]) -> str:
    return f"{HOSTS[case['host']]} {'fp8' if case['fp8'] else 'bf16'}"


def _clips(case: dict[str, Any]) -> str:
    return "1 clip" if case["clips"] == 1 else f"{case['clips']} clips"


def _options(case: dict[str, Any]) -> str:
    named = (f"--{name.replace('_', '-')} {value}" for name, value in case["options"].items())
    found = " ".join(named).replace(" True", "")
    return found.replace("--gradient-checkpointing False", "--no-gradient-checkpointing").replace(
        "--per-clip False", "--no-per-clip"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose line of JSON contains this")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if not args.report:
        measure(args.only)
    RESULTS.with_suffix(".md").write_text(report(), encoding="utf-8")


if __name__ == "__main__":
    main()
