"""The tables of what was tried, from what is in faults.json: `python -m benchmarks.faults table`."""

from __future__ import annotations

import argparse
from typing import Any

from memory_encoder.files import write_bytes

from .record import RESULTS, results
from .text_readers import TEXT_READERS


def add_command(commands: argparse._SubParsersAction) -> None:
    commands.add_parser("table", help=__doc__).set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    write_bytes(RESULTS.with_suffix(".md"), table(results()).encode())


def table(found: dict[str, dict[str, Any]]) -> str:
    """One row a case; the last column is what did not hold."""
    rows = []
    for name, case in found.get("kills", {}).items():
        done = f"{case['finished']} finished, equal to the bit to what was never killed but for what is on the right"
        if "of them reused" in case:
            done += (
                f"; {case.get('of them reused', 0)} of {case.get('sections on disk after a kill', 0)} sections reused"
            )
        bad = {kind: case[kind] for kind in ("different", "with files left", "sections lost") if case[kind]}
        kind = "interruptions" if name.startswith("interrupted") else "kills"
        tried = f"{case['kills']} {kind}, {case['kills while a file was written']} while a file was written"
        rows.append((name if kind == "interruptions" else f"SIGKILL: {name}", tried, done, bad))
    for name, case in found.get("operations", {}).items():
        tried = f"{case['tried']}: {case['crash']} crashes, {case['error']} errors, {case['half']} half writes"
        good = f"{case['tried'] - case['wrong']} whole afterwards"
        rows.append((f"every file operation: {name}", tried, good, {"wrong": case["wrong"]} if case["wrong"] else {}))
    for name, case in found.get("fuzz", {}).items():
        good = f"{case.get('refused', 0)} refused by name, {case.get('loaded', 0)} read or counted as missing"
        bad = {"raw": case["raw"]} if case.get("raw") else {}
        what = "text" if name in {reader.name for reader in TEXT_READERS} else "file"
        rows.append((f"damaged {what}: {name}", str(case["tried"]), good, bad))
    for name, case in found.get("strangers", {}).items():
        answers = case.get("answers") or {kind: case[kind] for kind in ("refused", "used")}
        good = ", ".join(f"{kind}: {number}" for kind, number in answers.items())
        tried = f"{case['tried']}" + (f" in {case['inputs']} inputs" if "inputs" in case else "")
        rows.append((f"hostile {name}", tried, good, {"wrong": case["wrong"]} if case["wrong"] else {}))
    for name, case in found.get("long", {}).items():
        held = {"RSS in MiB": case["rss_mib"], "descriptors": case["descriptors"], "threads": case["threads"]}
        good = ", ".join(f"{kind} {first} to {last}" for kind, (first, last) in held.items())
        good += f" ({case['rss_kib_a_film']} KiB a film)"
        bad = {"grows": ", ".join(case["grows"])} if case["grows"] else {}
        rows.append((f"films in a row: {name}", f"{case['films']} of {case['sections']} sections", good, bad))
    lines = ["| what | tried | came out | did not hold |", "|---|---|---|---|"]
    lines += [f"| {a} | {b} | {c} | {', '.join(f'{k}: {v}' for k, v in bad.items())} |" for a, b, c, bad in rows]
    return "\n".join(["# Faults on purpose: what was tried and what held", "", *lines, ""])
