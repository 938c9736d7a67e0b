"""The most VRAM that each phase of a film takes, on a card that is not there, beside the budget.

    python tools/environment.py run -m benchmarks.real_size [--only WORD] [--report]

Cells are phases of films at full width and length on tensors without data (tests/card). Each takes a second or so; a
run that was stopped goes on. `--only` takes cells whose line of JSON contains WORD; `--report` writes tables and plot
of what is there, and README's table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memory_encoder.budget import GIB, RESERVED, Plan, estimate
from tests.card.film_step import Cell

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "real_size"
HOSTS = {
    "wan_5b": "Wan 2.2 5B", "wan_14b": "Wan 14B", "wan_1.3b": "Wan 1.3B", "hunyuan": "HunyuanVideo",
    "hunyuan15": "HunyuanVideo 1.5",
}  # fmt: skip
SIZES = ((832, 480), (1280, 704))
HISTORIES = (20.0, 60.0, 600.0)
PHASES = ("joint", "cached", "two rates", "window", "guided", "whole")
LONGER = ("joint", "cached", "whole")
BETWEEN = ("decode", "append", "phi", "retrieval")
OUTGROWN, HORIZON = 600.0, 20_000  # seconds of history, and the tokens of it that are seen
WEIGHTS = {"Q4": 0.6, "fp8": 1.0, "bf16": 2.0}  # bytes of each
# Where README's table is in the texts that show it.
TABLE = re.compile(r"(\| card \| model \|[^\n]*\n\|[-|]*\n)(?:\|[^\n]*\n)+")


@dataclass(frozen=True)
class Row:
    """A line of README's table: a card in GB, a cell, and how the weights are kept."""

    card: int
    cell: Cell
    weights: str
    words: str = ""


ROWS = (
    Row(8, Cell("wan_5b", "joint"), "fp8"),
    Row(8, Cell("wan_14b", "joint", 640, 352), "Q4"),
    Row(12, Cell("wan_5b", "joint", 1280, 704), "fp8"),
    Row(12, Cell("wan_14b", "joint"), "Q4"),
    Row(12, Cell("hunyuan", "joint", section=3.0), "fp8", ", 3 s sections"),
    Row(16, Cell("wan_14b", "joint"), "Q4"),
    Row(24, Cell("wan_14b", "joint"), "fp8"),
    Row(24, Cell("hunyuan", "joint"), "fp8"),
)


def cells() -> list[Cell]:
    """All that are measured, those of README first. What a phase shares with another is measured once."""
    made = [row.cell for row in ROWS]
    for host, (width, height) in itertools.product(HOSTS, SIZES):
        made += [Cell(host, phase, width, height) for phase in ("without", *PHASES, "phi", "retrieval")]
        vae = "wan_14b" if host == "wan_1.3b" else host  # they have one
        made += [Cell(vae, phase, width, height) for phase in ("decode", "append")]
        made += [Cell(host, phase, width, height, 60.0) for phase in LONGER]
        made += [Cell(host, phase, width, height, 600.0) for phase in PHASES]
    for host in HOSTS:
        ways: tuple[dict[str, Any], ...] = (
            {"rows": 2},
            {"fp8": True},
            {"streamed": True},
            {"streamed": True, "fp8": True},
        )
        made += [Cell(host, "joint", **way) for way in ways]
        made.append(Cell(host, "cached", kept="card"))
    made += [Cell(host, "joint", layers=None) for host in ("wan_14b", "hunyuan")]
    made.append(Cell("wan_5b", "cached", kept="card", layers=None))
    made += [Cell("wan_14b", phase, history=60.0) for phase in ("two rates", "window", "guided")]
    made += [Cell(host, "joint", history=OUTGROWN, horizon=HORIZON) for host in ("wan_14b", "wan_5b")]
    return list(dict.fromkeys(made))


def measure(only: str) -> None:
    """Adds what is missing to the file of results."""
    lines = [line for cell in cells() if only in (line := json.dumps(vars(cell)))]
    wanted = RESULTS.with_suffix(".txt")
    wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = os.environ | {"VIDEO_MEMORY_FILM_CELLS": str(wanted)}
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=0", "tests/card/test_card_budget.py::test_table"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    wanted.unlink()


def recorded() -> list[dict[str, Any]]:
    """What was measured, as it was written down."""
    path = RESULTS.with_suffix(".jsonl")
    return [json.loads(line) for line in (path.read_text(encoding="utf-8").splitlines() if path.exists() else ())]


def entries() -> dict[Cell, float]:
    """GiB of each cell that was measured."""
    return {Cell(**line["cell"]): line["peak"] / GIB for line in recorded()}


def budget(cell: Cell, plan: Plan | None = None) -> float:
    """GiB that the budget gives a cell: of the step, and of what is kept on the card beside it. phi is not in it.

    plan: that of the cell, as someone asked for it.
    """
    found = estimate(plan or cell.plan())
    if cell.phase in ("decode", "append"):
        return found.decode_bytes / GIB
    kept = found.cache_bytes if cell.phase == "cached" and cell.kept == "card" else 0.0
    return (cell.rows * found.activation_bytes + kept) / GIB


def readme_table(found: dict[Cell, float]) -> str:
    """The lines of README's table, from what was measured."""
    lines = []
    for row in ROWS:
        plan = row.cell.plan()
        said = estimate(replace(plan, bytes_per_weight=WEIGHTS[row.weights]))
        step = found[row.cell] + RESERVED / GIB
        streamed, whole = step + said.buffer_bytes / GIB, step + said.weight_bytes / GIB
        card = row.card * 1e9 / GIB if row.card < 16 else row.card
        verdict = "" if whole <= card else ", does not fit"
        lines.append(
            f"| {row.card} GB | {HOSTS[row.cell.host]}{row.words} | {plan.width}x{plan.height}, {plan.fps:g} "
            f"| {row.weights} | {streamed:.1f} GiB | {whole:.1f} GiB{verdict} |"
        )
    return "\n".join(lines) + "\n"


def report(found: dict[Cell, float]) -> str:
    """The tables, in Markdown."""
    off = {cell: 100 * (budget(cell) / peak - 1) for cell, peak in found.items() if cell.phase != "phi"}
    lines = [
        "# What a film takes of a card",
        "",
        f"{len(found)} cells, GiB of live tensors above the weights on the fake card (tests/card): core's own models, "
        "VAEs and sampling and the pack's own code, at full width and length, on tensors without data; in brackets "
        "what the budget says. Sections of 5 s (Wan 14B and 1.3B at 16 fps, the others at 24), bf16, one prompt at a "
        "time unless it says otherwise. Not in them: the card's context, work space of kernels, what an allocator "
        "loses to fragments; README's table adds 1.2 GiB for these. No number was measured on a real card.",
        "",
        f"Budget against card: between {min(off.values()):+.1f} and {max(off.values()):+.1f} %.",
        "",
        "## A sampling step",
        "",
        "| host | size | history | without | " + " | ".join(PHASES) + " |",
        "|---|---|---:|" + "---:|" * (1 + len(PHASES)),
    ]
    for host, (width, height), history in itertools.product(HOSTS, SIZES, HISTORIES):
        row = [Cell(host, "without", width, height), *(Cell(host, p, width, height, history) for p in PHASES)]
        lines.append(f"| {HOSTS[host]} | {width}x{height} | {history:g} s | {_cells(row, found)} |")
    lines += ["", "`whole` is the history itself, 1x1x1. Keys and values of `cached` wait in RAM.", ""]
    lines += [*_between(found), "", *_other(found)]
    return "\n".join(lines) + "\n"


def _cells(row: Iterable[Cell], found: dict[Cell, float]) -> str:
    return " | ".join(_value(cell, found) for cell in row)


def _value(cell: Cell, found: dict[Cell, float]) -> str:
    said = "" if cell.phase == "phi" else f" ({budget(cell):.2f})"
    return f"{found[cell]:.2f}{said}" if cell in found else ""


def _between(found: dict[Cell, float]) -> list[str]:
    """What is done beside the steps of a section."""
    lines = [
        "## Beside the steps",
        "",
        "`decode` is a piece of the film in the VAE, as Save Film has it. `append`: a section joins the memory, "
        "decoded whole behind the latents before it, down-sampled, encoded small and compressed; ComfyUI takes the "
        "host's weights from the card for both. `phi`: what comes after that decoding. Wan 1.3B has the VAE of Wan "
        "14B. `retrieval`: a step of four latents beside 20 s of history.",
        "",
        "| host | size | " + " | ".join(BETWEEN) + " |",
        "|---|---|" + "---:|" * len(BETWEEN),
    ]
    for host, (width, height) in itertools.product(HOSTS, SIZES):
        row = [Cell(host, phase, width, height) for phase in BETWEEN]
        lines.append(f"| {HOSTS[host]} | {width}x{height} | {_cells(row, found)} |")
    return lines


def _other(found: dict[Cell, float]) -> list[str]:
    """What else may differ: prompts in a batch, how weights are kept, all blocks instead of one."""
    plain = Cell("", "joint")
    lines = ["## Other ways, 20 s of history unless it says otherwise", ""]
    lines += ["| host | size | phase | what | GiB (budget) |", "|---|---|---|---|---:|"]
    for cell in found:
        words = [
            "both prompts in one batch" if cell.rows == 2 else "",
            "fp8" if cell.fp8 else "",
            "weights streamed (no second layer waiting)" if cell.streamed else "",
            "keys and values of all blocks on the card" if cell.kept == "card" else "",
            "all blocks" if cell.layers is None else "",
            f"sections of {cell.section:g} s" if cell.section != plain.section else "",
            f"{cell.history:g} s of history, horizon {cell.horizon:,} tokens" if cell.horizon else "",
        ]
        if any(words):
            size = f"{cell.width}x{cell.height}"
            what = ", ".join(filter(None, words))
            lines.append(f"| {HOSTS[cell.host]} | {size} | {cell.phase} | {what} | {_cells([cell], found)} |")
    return lines


def plot(found: dict[Cell, float]) -> None:
    """Peaks over the length of the history: points are measured, lines are the budget's."""
    from matplotlib.figure import Figure  # an extra of benchmarks

    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(len(SIZES), len(HOSTS), sharex=True)
    for (row, (width, height)), (column, host) in itertools.product(enumerate(SIZES), enumerate(HOSTS)):
        for phase in PHASES[:-1]:
            line = [Cell(host, phase, width, height, history) for history in HISTORIES]
            measured = [(cell.history, found[cell]) for cell in line if cell in found]
            drawn = axes[row][column].plot(HISTORIES, [budget(cell) for cell in line], label=phase)
            axes[row][column].plot(*zip(*measured, strict=True), "o", color=drawn[0].get_color()) if measured else None
        axes[row][column].set_title(f"{HOSTS[host]}, {width}x{height}", fontsize=8)
        axes[row][column].set(xscale="log", ylabel="GiB" if not column else "")
        axes[row][column].set_xticks(HISTORIES, [f"{seconds:g}" for seconds in HISTORIES])
        axes[row][column].minorticks_off()
    figure.supxlabel("seconds of history", fontsize=9)
    axes[0][0].legend(fontsize=7)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=90)


def write_table(path: Path, table: str) -> None:
    """Puts the table's lines where the text has it."""
    text = path.read_text(encoding="utf-8")
    path.write_text(TABLE.sub(lambda match: match[1] + table, text, count=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cells whose line of JSON contains this")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if not args.report:
        measure(args.only)
    found = entries()
    RESULTS.with_suffix(".md").write_text(report(found), encoding="utf-8")
    plot(found)
    for name in ("README.md", "docs/settings.md"):
        write_table(ROOT / name, readme_table(found))


if __name__ == "__main__":
    main()
