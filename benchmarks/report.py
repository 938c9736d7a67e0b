"""Runs the step-time benchmark, prints its table and writes its JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks.flops import WanShape, step_flops
from benchmarks.settings import CASES, ENHANCEMENTS, SECOND_RATE, WINDOW, Settings, parser, settings_from
from benchmarks.timing import Times, difference, measure
from benchmarks.wan_host import Bench, Comfy, SetupError, start_comfy
from memory_encoder.budget import Plan, full_tokens, token_count
from memory_encoder.files import write_atomically
from tools import machine

LABELS = {
    "without": "without memory",
    "strength 0": "memory, strength 0",
    "memory": "memory",
    "history": "whole history (core context latents)",
    "cached": "memory, cached",
    "window": "memory and sliding window",
    "cross": "memory and cross-attention",
    "two": "memory at two rates",
    "guided": "memory and history guidance",
}
CANNOT_RUN = 2


@dataclass(frozen=True)
class Row:
    """One line of the table; ratios are to the case without memory, None where not run.

    Times are medians, processor times the least of all rounds, which other programs disturb least.
    """

    case: str
    tokens: int
    flops: int
    flops_ratio: float
    seconds: float | None = None
    ratio: float | None = None
    cpu_seconds: float | None = None
    cpu_ratio: float | None = None
    peak_gib: float | None = None
    all_seconds: tuple[float, ...] = ()
    all_cpu_seconds: tuple[float, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 0 when the table was printed and the JSON written, 2 when something to run it is missing."""
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    gpu = torch.cuda.is_available() and not args.cpu
    try:
        settings = settings_from(args, gpu)
        plan = settings.plan()
        result = run(settings, plan, start_comfy(cpu=not gpu))
    except (SetupError, ValueError) as error:
        print(f"step_time: {error}", file=sys.stderr)
        return CANNOT_RUN
    print(text(result))
    path = save(result, args.out)
    print(f"\nwritten to {path}")
    return 0


def run(settings: Settings, plan: Plan, comfy: Comfy) -> dict[str, Any]:
    """Measures, and returns all there is to say as plain values for JSON."""
    device = comfy.management.get_torch_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    started, load = datetime.now(timezone.utc), machine.load_average()
    shape = settings.shape()
    bench = Bench(comfy, shape, plan, device, dtype, settings.seed)
    with torch.inference_mode():
        bench.warm_up()
        times = measure(bench.cases(settings.cross_width()), settings.cases, settings.warmup, settings.repeats, device)
    total_ram = comfy.management.get_total_memory(torch.device("cpu"))
    about = machine.describe(device, total_ram, comfy.version)
    return {
        "benchmark": "step_time",
        "date": started.isoformat(timespec="seconds"),
        "machine": {**about, "load_average_before": load, "load_average_after": machine.load_average()},
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "attention": comfy.wan.optimized_attention.__name__,
        "settings": asdict(settings),
        "host": asdict(shape),
        "tokens": counts(plan),
        "rows": [asdict(row) for row in rows(shape, counts(plan), times, settings)],
        "strength_0_difference": (difference(times["without"], times["strength 0"]) if "strength 0" in times else None),
    }


def counts(plan: Plan) -> dict[str, int]:
    """Tokens of the section, of the memory and of the uncompressed history."""
    return {
        "section": full_tokens(plan, plan.section_seconds),
        "memory": token_count(plan, plan.rates[0]),
        "history": full_tokens(plan, plan.history_seconds),
        "window": WINDOW * plan.grid[0] * plan.grid[1],
        "second": token_count(plan, SECOND_RATE),
    }


def rows(shape: WanShape, tokens: Mapping[str, int], times: Mapping[str, Times], settings: Settings) -> list[Row]:
    """The cases of the run, measured or not, in the order of the table."""
    section, memory, base = tokens["section"], tokens["memory"], times["without"]
    plain: dict[str, int] = {}
    beside = {"memory": memory}
    passes = {  # what enters the blocks beside the section, for each forward pass of a step
        "without": [plain],
        "strength 0": [plain],
        "memory": [beside],
        "history": [{"context": tokens["history"]}],
        "cached": [{"cached": memory}],
        "window": [{"memory": memory + tokens["window"]}],
        "cross": [{"memory": memory, "cross": settings.cross_width()}],
        "two": [{"memory": memory + tokens["second"]}],
        "guided": [beside, plain],
    }
    result = []
    for case in ENHANCEMENTS if "cached" in settings.cases else CASES:
        flops = sum(step_flops(shape, section, **added) for added in passes[case])
        values: dict[str, Any] = {}
        if case in times:
            of = times[case]
            values = {
                "seconds": of.median,
                "ratio": of.median / base.median,
                "cpu_seconds": of.cpu_least,
                "cpu_ratio": of.cpu_least / base.cpu_least,
                "peak_gib": of.peak_gib,
                "all_seconds": tuple(of.seconds),
                "all_cpu_seconds": tuple(of.cpu_seconds),
            }
        seen = sum(section + sum(count for name, count in added.items() if name != "cross") for added in passes[case])
        result.append(Row(case, seen, flops, flops / step_flops(shape, section), **values))
    return result


def text(result: Mapping[str, Any]) -> str:
    """The result as text with a Markdown table."""
    s, host, about = result["settings"], result["host"], result["machine"]
    where = about["gpu"]["name"] if about["gpu"] else f"{about['cores']} x {about['cpu']}, {about['threads']} thread(s)"
    size = "real size" if s["scale"] == 1 else f"lengths, width and text divided by {s['scale']}"
    last, unit = ("peak GPU memory", "GiB") if result["device"] == "cuda" else ("CPU time ratio", "")
    lines = [
        f"{where}, {about['ram_gib']:g} GiB RAM, torch {about['torch']}, ComfyUI {about['comfyui']}, {result['dtype']}",
        f"Wan of width {s['width']}, {s['picture'][0]}x{s['picture'][1]}, {s['fps']:g} fps, history "
        f"{s['history_seconds']:g} s, section {s['section_seconds']:g} s, memory {s['rate']} ({s['padding']}); {size}: "
        f"width {host['width']}, {host['layers']} layer(s)",
        f"median of {s['repeats']} round(s) in turns, {s['warmup']} for warm-up, {result['date'][:10]}",
        "",
        f"| case | tokens in the blocks | TFLOP | step time (s) | time ratio | FLOPs ratio | {last} |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        seconds = "not run" if row["seconds"] is None else f"{row['seconds']:.3f}"
        detail = _number(row["peak_gib"], 2) if unit else _number(row["cpu_ratio"], 3)
        lines.append(
            f"| {LABELS[row['case']]} | {row['tokens']:,} | {row['flops'] / 1e12:.3f} | {seconds} | "
            f"{_number(row['ratio'], 3)} | {row['flops_ratio']:.3f} | {detail} {unit}".rstrip()
            + " |"
        )
    by_case = {row["case"]: row for row in result["rows"]}
    cached, without = by_case.get("cached", {}), by_case["without"]
    if ratio := cached.get("ratio"):
        attention = cached["tokens"] / without["tokens"]
        said = f"{ratio / cached['flops_ratio']:.3f} times what its FLOPs say, and {ratio / attention:.3f} times"
        lines += ["", f"cached takes {said} what its attention alone does ({attention:.3f})"]
    if result["strength_0_difference"] is not None:
        lines += ["", f"largest difference at strength 0: {result['strength_0_difference']}"]
    return "\n".join(lines)


def save(result: Mapping[str, Any], folder: Path) -> Path:
    """Writes the JSON atomically; runs of both presets on one machine lie side by side."""
    suffix = "-real" if result["settings"]["preset"] == "real" else ""
    cases = tuple(result["settings"]["cases"])
    if "cached" in cases:
        suffix += "-enhancements" if cases == ENHANCEMENTS else "-" + "-".join(cases[1:])
    path = folder / f"step_time-{machine.short_name(result['machine'])}{suffix}.json"

    def write(temporary: Path) -> None:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    write_atomically(path, write)
    return path


def _number(value: float | None, digits: int) -> str:
    return "not run" if value is None else f"{value:.{digits}f}"
