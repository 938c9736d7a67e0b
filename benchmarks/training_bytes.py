"""Memory of whole training steps on a card that is not there, beside the plan: the table of results/training_bytes.md.

    python tools/environment.py run benchmarks/training_bytes.py [--only WORD]

Each case takes seconds (four blocks) to minutes (all of them); a run that was stopped goes on. `--only` takes cases
whose line of JSON contains WORD; `--report` writes the table of what is there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "training_bytes"
BLOCKS = 4  # of a host in the wide table; all in the others
HOSTS = ("wan_1.3b", "wan_5b", "wan_14b", "hunyuan")
STAGES = [("retrieval", 4), *(("continuation", section) for section in (2, 3, 8, 30))]
REMEDIES: list[dict[str, Any]] = [
    {"gradient_checkpointing": False},
    {"optimizer": "adamw8bit"},
    {"offload_inputs": True},
    {"resident_blocks": 2},
    {"rank": 64},
]
CARDS = [  # all blocks, 20 s of history, sections of 3 latents, rank 128
    ("12 GB", 10.8, {"host": "wan_5b", "fp8": True}),
    ("12 GB", 10.8, {"host": "wan_5b", "options": {"resident_blocks": 10}}),
    ("24 GB", 22.8, {"host": "wan_14b", "fp8": True}),
    ("24 GB", 22.8, {"host": "wan_14b", "fp8": True, "options": {"optimizer": "adamw8bit"}}),
    ("24 GB", 22.8, {"host": "wan_14b", "fp8": True, "options": {"resident_blocks": 20}}),
    (
        "24 GB",
        22.8,
        {"host": "wan_14b", "fp8": True, "options": {"optimizer": "adamw8bit", "offload_inputs": True}},
    ),
    ("80 GB", 78.1, {"host": "hunyuan", "clips": 8}),
    ("80 GB", 78.1, {"host": "hunyuan", "clips": 8, "fp8": True}),
    ("80 GB", 78.1, {"host": "hunyuan", "clips": 8, "options": {"offload_inputs": True}}),
]


def cases() -> list[dict[str, Any]]:
    """What people's cards are for, then remedies, then the wide table."""
    made = [case for _, _, case in CARDS]
    made += [{"host": host, "layers": BLOCKS, "options": one} for one in REMEDIES for host in ("wan_5b", "hunyuan")]
    for clips, fp8, history, (stage, section), host in itertools.product(
        (1, 2), (False, True), (121, 31), STAGES, HOSTS
    ):
        case = {"host": host, "stage": stage, "section": section, "history": history, "clips": clips, "fp8": fp8}
        made.append(case | {"layers": BLOCKS})
    return made


def measure(only: str) -> None:
    lines = [line for line in map(json.dumps, cases()) if only in line]
    RESULTS.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = os.environ | {"VIDEO_MEMORY_STEP_CASES": str(RESULTS.with_suffix(".txt"))}
    test = "tests/card/test_card_plan.py::test_table"
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--timeout=0", test], cwd=ROOT, env=environment, check=True)


def entries() -> list[dict[str, Any]]:
    text = RESULTS.with_suffix(".jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def report() -> str:
    """The tables, in Markdown."""
    found = entries()
    off = [100 * (one["plan"] / one["peak"] - 1) for one in found]
    full = [one for one in found if one["case"]["layers"] is None]
    others = [one for one in found if one["case"]["layers"] is not None]
    limits = {json.dumps(case.get("options", {})) + case["host"] + str(case.get("fp8", False)): (card, limit)
              for card, limit, case in CARDS}  # fmt: skip
    lines = [
        "# Memory of a training step",
        "",
        f"{len(found)} cases, PyTorch {torch.__version__}. GiB of live tensors on the fake card: the pack's "
        "own step on tensors without data. Not in them: context of the driver, work space of kernels, "
        "fragments; the plan reserves 1.2 GiB for these, left out here. 832x480, encoder 4x4x2, LoRA rank 128, bf16, "
        "gradient checkpointing. No number was measured on a real card.",
        "",
        f"Plan against step: between {min(off):+.1f} and {max(off):+.1f} %.",
        "",
        "## Cards that people have",
        "",
        "All blocks, 20 s of history, sections of 3 latents. A card has room for its size less 1.2 GiB.",
        "",
        "| card | host | clips | options | step | plan | |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in full:
        case = one["case"]
        card, limit = limits.get(json.dumps(case["options"]) + case["host"] + str(case["fp8"]), ("", 0.0))
        verdict = f"fits ({limit})" if one["peak"] <= limit else f"does not fit ({limit})" if limit else ""
        lines.append(
            f"| {card} | {_host(case)} | {case['clips']} | {_options(case)} | {one['peak']:.2f} | {one['plan']:.2f} "
            f"| {verdict} |"
        )
    lines += [
        "",
        f"## {BLOCKS} blocks of each host",
        "",
        "Whole width and length; few blocks, so that weights hide nothing.",
        "",
        "| host | stage | target | history | clips | options | step | plan | % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in others:
        case = one["case"]
        percent = 100 * (one["plan"] / one["peak"] - 1)
        lines.append(
            f"| {_host(case)} | {case['stage']} | {case['section']} | {case['history']} | {case['clips']} "
            f"| {_options(case)} | {one['peak']:.2f} | {one['plan']:.2f} | {percent:+.1f} |"
        )
    return "\n".join(lines) + "\n"


def _host(case: dict[str, Any]) -> str:
    return f"{case['host']} {'fp8' if case['fp8'] else 'bf16'}"


def _options(case: dict[str, Any]) -> str:
    named = (f"--{name.replace('_', '-')} {value}" for name, value in case["options"].items())
    return " ".join(named).replace("--gradient-checkpointing False", "--no-gradient-checkpointing").replace(" True", "")


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
