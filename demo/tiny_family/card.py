"""The tables of README.md beside this file and of the project's, from the measurements in benchmarks/results.

    python -m demo.tiny_family.card [--write]

Without --write it prints them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memory_encoder.files import write_bytes

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
RATES = ("2x2x1", "2x2x2", "4x4x2")
GROUPS = {"real": "3 real clips", "procedural": "4 films"}
SHOWN = {  # how a row is called, by what was measured; what needs no memory stands below it
    "memory": "**its memory**",
    "unguided": "its memory, without history guidance",
    "untrained": "an untrained encoder's, which passes the LR latents on",
    "flat": "one flat colour a frame",
    "thumbnail": "thumbnail, a pixel for each token of a cell",
    "thumbnail_numbers": "thumbnail of as many numbers as the memory",
    "lr_latents": "the LR latents, an input of the encoder, decoded and blown up",
    "low_resolution": "the LR picture that these are made of, blown up",
    "frame_before": "the frame before",
    "none": "nothing",
    "full": "the whole history, by the host alone",
    "vae": "VAE alone",
}
FILM_MEASURES = {"picture": 2, "character": 2, "clothes": 1, "lingering": 0}  # digits
SEEN = {
    "memory": "**its memory**",
    "other": "another film's memory",
    "none": "no memory",
    "host": "no memory, the host alone",
    "full": "the whole history, by the host alone",
}


def measured(kind: str, rate: str) -> dict[str, Any]:
    """What `evaluate_family` ("retrieval") or `evaluate_film` ("film") has written for a rate."""
    return json.loads((RESULTS / f"{kind}_{rate}.json").read_text(encoding="utf-8"))


def retrieval_table() -> str:
    """PSNR in dB, SSIM and identification of recalled frames, beside what needs no memory."""
    lines = ["| clips | shown | " + " | ".join(RATES) + " |", "|---|---|" + "---|" * len(RATES)]
    by_rate = [measured("retrieval", rate) for rate in RATES]
    for group, called in GROUPS.items():
        for kind, shown in SHOWN.items():
            cells = [_cell(found[group], kind) for found in by_rate]
            lines.append(f"| {called} | {shown} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def recall_table() -> str:
    """The same of real clips alone, with the numbers that each row keeps for a pixel."""
    by_rate = [measured("retrieval", rate)["real"] for rate in RATES]
    lines = ["| shown | " + " | ".join(RATES) + " | numbers a pixel |", "|---|" + "---|" * (len(RATES) + 1)]
    for kind, shown in SHOWN.items():
        kept = [f"{found['numbers'][kind]:.3f}" for found in by_rate]
        cells = [*(_cell(found, kind) for found in by_rate), " / ".join(dict.fromkeys(kept))]
        lines.append(f"| {shown} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def above_table() -> str:
    """By how many dB, and by how many of 100 identified frames, a memory lies above what stands beside it: paired, with
    the larger of the standard errors over clips and seeds."""
    lines = ["| clips | above | " + " | ".join(RATES) + " |", "|---|---|" + "---|" * len(RATES)]
    by_rate = [measured("retrieval", rate) for rate in RATES]
    for group, called in GROUPS.items():
        for kind in (kind for kind in SHOWN if kind in by_rate[0][group]["above"]["psnr"]):
            cells = []
            for found in by_rate:
                decibels, told = (found[group]["above"][metric][kind] for metric in ("psnr", "identified"))
                cells.append(f"{_signed(decibels, 1, 1)} dB, {_signed(told, 100, 0)}")
            lines.append(f"| {called} | {SHOWN[kind]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _signed(found: Mapping[str, float], scale: int, digits: int) -> str:
    return f"{scale * found['mean']:+.{digits}f} ± {scale * found['standard_error']:.{digits}f}"


def _cell(found: Mapping[str, Any], kind: str) -> str:
    decibels, ssim, edges, told = (found[metric][kind]["mean"] for metric in ("psnr", "ssim", "edges", "identified"))
    return f"{decibels:.1f} ({ssim:.2f}, {edges:.2f}), {told:.0%}".replace("-0.00", "0.00")


def film_table() -> str:
    """PSNR in dB of the last shot and of the character in it, how far off the clothes are, of 255, and how many of 100
    frames after the cut are still nearer to the shot before."""
    lines = [
        "| rate | films | seen beside the prompt | picture | character | clothes | lingering |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in RATES:
        found = measured("film", rate)
        for group in ("one character", "two characters"):
            for kind, shown in SEEN.items():
                values = [found[group][kind][name] for name in FILM_MEASURES]
                cells = [
                    f"{v['mean']:.{n}f} ± {v['standard_error']:.{n}f}"
                    for v, n in zip(values, FILM_MEASURES.values(), strict=True)
                ]
                lines.append(f"| {rate} | {group} | {shown} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def film_above_table() -> str:
    """How much nearer the returning character's clothes are with the memory than with what else is seen, paired by
    film: of 255, below 0 is nearer."""
    others = {kind: called for kind, called in SEEN.items() if kind != "memory"}
    lines = ["| rate | films | " + " | ".join(f"beside {called}" for called in others.values()) + " |"]
    lines.append("|---" * (2 + len(others)) + "|")
    for rate in RATES:
        found = measured("film", rate)
        for group in ("one character", "two characters"):
            cells = [_signed(found[group]["above"][kind]["clothes"], 1, 1) for kind in others]
            lines.append(f"| {rate} | {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


TABLES: dict[Path, dict[str, Callable[[], str]]] = {
    Path(__file__).with_name("README.md"): {
        "retrieval": retrieval_table,
        "above": above_table,
        "film": film_table,
        "film_above": film_above_table,
    },
    ROOT / "README.md": {"recall": recall_table},
}


def filled(path: Path) -> str:
    """The text of a page with its tables as they are measured. Raises ValueError where one has no place."""
    page = path.read_text(encoding="utf-8")
    for name, table in TABLES[path].items():
        begin, end = f"<!-- {name}: made by python -m demo.tiny_family.card --write -->", f"<!-- /{name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{path} has no place for the table {name}: {begin} ... {end}")
        page = f"{before}{begin}\n{table()}\n{end}{after}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into both pages")
    write = parser.parse_args().write
    for path, tables in TABLES.items():
        if write:
            write_bytes(path, filled(path).encode())
        else:
            print(*(table() for table in tables.values()), sep="\n\n")


if __name__ == "__main__":
    main()
