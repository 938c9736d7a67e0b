"""What benchmarks/README.md shows of step times, trainings, films and small VAEs: made from JSON, between marks.

python tools/environment.py run -m benchmarks.readme
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import lr_vae, training_step
from benchmarks.long_film import tenths
from benchmarks.report import text

PAGE = Path(__file__).resolve().parent / "README.md"
RESULTS = PAGE.parent / "results"
BLOCK = re.compile(r"(<!-- made of results/([\w.-]+)\.json -->\n).*?(<!-- /made -->)", re.DOTALL)
# Rows of the table of a long film: words, run, what is measured, how it is written.
LONG = (
    ("RAM after a section, first run", "first", "rss_mib", "{:,.0f} to {:,.0f} MiB"),
    ("RAM after a section, second run", "second", "rss_mib", "{:,.0f} to {:,.0f} MiB"),
    ("open files, first run", "first", "files", "{:.0f} to {:.0f}"),
    ("CPU of an append, first run", "first", "append_s", "{:.3f} to {:.3f} s"),
    ("CPU of an append, second run", "second", "append_s", "{:.3f} to {:.3f} s"),
    ("CPU of the whole memory read for a section", "first", "read_s", "{:.3f} to {:.3f} s"),
)


def made(name: str) -> str:
    """What the page shows of a file of results."""
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    if name.startswith("step_time"):
        return text(result)
    if name.startswith("training_step"):
        return training_step.table(result["ways"])
    others: dict[str, Callable[[dict[str, Any]], str]] = {
        "long_film": long_film,
        "lr_vae": lr_vae.table,
        "resume": resumed,
    }
    return others[name](result)


def long_film(result: dict[str, Any]) -> str:
    columns = [result["loop_before"], result["loop"]]
    lines = ["| | before | now |", "|---|---|---|"]
    for words, run, name, form in LONG:
        cells = [form.format(*tenths(column["runs"][run][name])) for column in columns]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    seconds = [[column["runs"][run]["cpu_s"] for run in ("second", "first")] for column in columns]
    shares = [f"{100 * second / first:.1f} %" for second, first in seconds]
    lines.append(f"| CPU of a second run, of the first's without sampling and VAE | {' | '.join(shares)} |")
    return "\n".join(lines)


def resumed(result: dict[str, Any]) -> str:
    first, second = result["first"], result["second"]
    return (
        f"A film of {result['sections']} sections: {first['all'] / 1e9:.3f} GFLOP in the first run, of them "
        f"{first['sampling'] / 1e9:.3f} in sampling; {second['all'] / 1e9:.3f} in a second one that reuses all: "
        f"{result['ratio']:.4f} of the sampling that it replaces."
    )


def page(shown: str) -> str:
    """The page with what its marks name."""
    return BLOCK.sub(lambda match: f"{match[1]}{made(match[2])}\n{match[3]}", shown)


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
