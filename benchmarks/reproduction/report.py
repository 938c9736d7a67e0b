"""Tables, plots and JSON of a reproduction, from the measurements of its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memory_encoder.files import write_bytes

from .claims import Measure, Outcome, check, larger_error, person, source_of
from .origin import MODELS, machines_of
from .returns import CHOICES, PARTS
from .runs import Workshop
from .settings import BASELINE_ROWS, PROPOSED, RECIPE, ROWS, SECONDS, TABLE_1, UNTRAINED, USE, Protocol

PAPER = {  # Table 1: PSNR, SSIM, LPIPS
    "Large Patchifier 4x4x2": (12.93, 0.412, 0.365),
    "Only LR 4x4x2": (15.21, 0.472, 0.212),
    "Without LR 4x4x2": (15.73, 0.423, 0.198),
    "Proposed 4x4x2": (17.41, 0.596, 0.171),
    "Proposed 2x2x4": (18.63, 0.637, 0.153),
    "Proposed 2x2x2": (19.12, 0.683, 0.152),
    "Proposed 2x2x1": (20.19, 0.705, 0.121),
}
Found = dict[str, list[dict[str, Any]]]
REPORTED = (*ROWS, *BASELINE_ROWS, "VAE alone")  # what a seed is whole with
ONE_SEED = (
    "One seed shows nothing and speaks against nothing: how far two trainings of a row lie apart is not known from it."
)
RETRIEVAL, RETURN = ("psnr", "ssim", "edges", "identified", "lpips"), ("psnr", "ssim")
NEAR = (1, 2, 3, 4)  # seconds of history that windows of training hold


def seeds_done(protocol: Protocol, workshop: Workshop) -> list[int]:
    """Seeds with which every row is measured."""
    return seeds_of(workshop, protocol.seeds, *REPORTED)


def collected(workshop: Workshop, seeds: Sequence[int], rows: Sequence[str]) -> Found:
    """Measurements of each row, one for each seed."""
    return {row: [json.loads(workshop.result(row, seed).read_text()) for seed in seeds] for row in rows}


def measured(protocol: Protocol, workshop: Workshop) -> Found:
    """What is measured so far of each row, one for each seed with which it is."""
    return {row: collected(workshop, seeds_of(workshop, protocol.seeds, row), [row])[row] for row in REPORTED}


def seeds_of(workshop: Workshop, seeds: Sequence[int], *rows: str) -> list[int]:
    """The seeds with which all of these rows are measured."""
    return [seed for seed in seeds if all(workshop.result(row, seed).exists() for row in rows)]


def measures(found: Found) -> dict[str, Measure]:
    """For each measure the values of each row."""
    result: dict[str, dict[str, np.ndarray]] = {}
    for name, seeds in found.items():
        rate = ROWS[name].rate if name in ROWS else ""
        shown = (("retrieval", name), ("without", "No memory"), ("untrained", UNTRAINED.get(rate, "")))
        for metric in RETRIEVAL:
            for kind, row in shown:
                if all(metric in seed.get(kind, {}) for seed in seeds):
                    result.setdefault(metric, {})[row] = np.array([seed[kind][metric] for seed in seeds])
        if all("use" in seed for seed in seeds):
            for label, seconds in (("person", NEAR), ("person at 4 s", (4,))):
                result.setdefault(label, {})[name] = np.array([person(seed["use"], seconds) for seed in seeds])
            for part in PARTS:
                for s in SECONDS:
                    values = np.array([seed["use"][str(s)][part] for seed in seeds], dtype=float)
                    result.setdefault(f"{part} at {s} s", {})[name] = values
            for metric in RETURN:
                values = np.array([seed["reels"][metric] for seed in seeds])
                result.setdefault(f"return {metric}", {})[name] = values
    return {measure: Measure(rows, sources_of(found, measure)) for measure, rows in result.items()}


def sources_of(found: Found, measure: str) -> list[str]:
    """What each clip of a measure is cut from."""
    if measure in RETRIEVAL:
        clips = found[PROPOSED][0]["names"]
    else:
        clips = found["Memory 4x4x2"][0]["reel_names" if measure.startswith("return ") else "films"]
    return [source_of(clip) for clip in clips]


def cell(measure: Measure, row: str, digits: int = 2, scale: float = 1.0) -> str:
    """Mean and standard error, the larger of that over clips and that over seeds."""
    values = measure.rows.get(row)
    if values is None:
        return "-"
    return f"{scale * values.mean():.{digits}f} ± {scale * larger_error(values, measure.sources):.{digits}f}"


def table_1(found: dict[str, Measure]) -> list[str]:
    lines = [
        "| memory | PSNR (dB) | SSIM | edges | identified, % | LPIPS | paper: PSNR | SSIM | LPIPS |",
        "|---" * 9 + "|",
    ]
    for name in ("No memory", *BASELINE_ROWS, *UNTRAINED.values(), *(row.name for row in TABLE_1), "VAE alone"):
        paper = PAPER.get(name)
        shown = (("psnr", 2, 1), ("ssim", 3, 1), ("edges", 3, 1), ("identified", 0, 100), ("lpips", 3, 1))
        cells = [cell(found[metric], name, digits, scale) if metric in found else "not measured"
                 for metric, digits, scale in shown]  # fmt: skip
        cells += [f"{value:g}" for value in paper] if paper else ["-"] * 3
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def unit_of(measure: str) -> tuple[int, str]:
    """What a measure is multiplied by where it is shown, and its unit."""
    return {"psnr": (1, "dB"), "identified": (100, "% identified")}.get(measure, (100, "% recalled"))


def use_table(found: dict[str, Measure]) -> list[str]:
    heads = [f"{part}, {s} s" for part in PARTS for s in SECONDS]
    lines = ["| method | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for row in USE:
        cells = [cell(found[f"{part} at {s} s"], row.name, 0, 100) for part in PARTS for s in SECONDS]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return lines


def return_table(found: dict[str, Measure]) -> list[str]:
    lines = ["| method | PSNR (dB) | SSIM |", "|---|---|---|"]
    for row in USE:
        psnr, ssim = (found[f"return {metric}"] for metric in RETURN)
        lines.append(f"| {row.name} | {cell(psnr, row.name)} | {cell(ssim, row.name, 3)} |")
    return lines


def claim_table(outcomes: list[Outcome]) -> list[str]:
    lines = ["| claim | | difference | 2 standard errors | |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        claim = outcome.claim
        sign = ">=" if claim.or_equal else ">"
        scale, unit = unit_of(claim.measure)
        lines.append(
            f"| {claim.number} | {claim.higher} {sign} {claim.lower}, {claim.measure} | "
            f"{scale * outcome.difference:+.2f} {unit} | {scale * 2 * outcome.error:.2f} | **{outcome.verdict}** |"
        )
    return lines


def write_report(protocol: Protocol, workshop: Workshop, out: Path) -> str:
    """Writes JSON and markdown to `out`; returns the markdown. Raises ValueError before a seed is whole, and for rows
    that were measured with other models or by a protocol of other sizes."""
    seeds = seeds_done(protocol, workshop)
    if not seeds:
        raise ValueError("no seed is measured with all rows yet; run the command without --report again")
    found = collected(workshop, seeds, REPORTED)
    machines = machines_of(protocol, found)
    values = measures(found)
    outcomes = check(values)
    against = [o for o in outcomes if o.claim.firm and o.verdict != "shown"]
    trial = protocol.name == "quick"
    lines = [
        f"# Reproduction, protocol {protocol.name}",
        "",
        *(["**A trial run of two steps: it shows that everything runs, and nothing else.**", ""]
          if trial else []),
        *([f"**Unfinished: {len(seeds)} of {len(protocol.seeds)} seeds.**", ""]
          if len(seeds) < len(protocol.seeds) else []),
        f"Seeds {', '.join(map(str, seeds))}; the tiny family's host and recipe; Stage I {protocol.first_steps} steps, "
        f"Stage II {protocol.second_steps}, {RECIPE.both['batch_size']} clips each. Mean ± standard error (the larger "
        "of that over clips, windows of one clip taken together, and that over seeds). `benchmarks/protocol.md` says "
        "how each number is made.",
        "",
        f"Measured on: {'; '.join(machines)}.",
        "", "## Retrieval (Table 1)", "", *table_1(values),
        *([] if "lpips" in values else ["", "LPIPS is not measured: its network's weights are not installed."]),
        "", "## Use in films: recalled, % (chance " + f"{100 / CHOICES:g})", "", *use_table(values),
        "", "## Return on real clips", "", *return_table(values),
        "", "## Claims", "", *([ONE_SEED, ""] if len(seeds) == 1 and not trial else []),
        *(["A trial run claims nothing."] if trial else claim_table(outcomes)), "",
        *([] if trial else
          [f"Firm claims not shown: {', '.join(sorted({o.claim.number for o in against})) or 'none'}."]),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    record = {
        "protocol": vars(protocol),
        "seeds": seeds,
        "machines": machines,
        MODELS: found["Proposed 4x4x2"][0][MODELS],  # those of all rows
        "clips": {"retrieval": found["Proposed 4x4x2"][0]["names"], "films": found["Memory 4x4x2"][0]["films"],
                  "reels": found["Memory 4x4x2"][0]["reel_names"]},
        "measures": {measure: {row: v.tolist() for row, v in one.rows.items()} for measure, one in values.items()},
        "claims": [{**vars(o.claim), "difference": o.difference, "error": o.error, "verdict": o.verdict}
                   for o in outcomes],
    }  # fmt: skip
    write_bytes(out / f"reproduction_{protocol.name}.json", json.dumps(record).encode())
    write_bytes(out / f"reproduction_{protocol.name}.md", text.encode())
    return text
