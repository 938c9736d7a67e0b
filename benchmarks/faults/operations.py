"""A crash, half a write or an error of the disk at every file operation: `python -m benchmarks.faults operations`."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from .cases import CASES, LONGER
from .record import add_result
from .watching import failed_at, points, worked


def add_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("operations", help=__doc__)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    for case in (*CASES, *LONGER):
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            wanted, wrong = case.after(worked(case, root / "whole")), []
            tried = points(case, root)
            for fault, at in tried:
                try:
                    assert failed_at(case, root, fault, at) == wanted, "another result"
                except AssertionError as error:
                    wrong.append(f"{fault} {at}: {error}")
        counts = Counter(fault for fault, _ in tried)
        add_result("operations", case.name, {"tried": len(tried), **counts, "wrong": len(wrong), "examples": wrong[:5]})
