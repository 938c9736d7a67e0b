"""What is computed beside the sampling of a section, in FLOPs at full size: memory, previews and the film's file.

    python tools/environment.py run -m benchmarks.overhead [--report]

Counted on tensors without data (tests/card): all blocks of core's own models, core's own VAEs, the pack's own code.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.real_size import HOSTS, ROOT, SIZES

RESULTS = ROOT / "benchmarks" / "results" / "overhead"
STEPS, PROMPTS = 20, 2  # of a section: steps, and looks of the model at each


def cells() -> list[tuple[str, int, int]]:
    return [(host, *size) for host, size in itertools.product(HOSTS, SIZES)]


def entries() -> dict[tuple[str, int, int], dict[str, int]]:
    """FLOPs of each cell that was counted."""
    path = RESULTS.with_suffix(".json")
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {(one["host"], one["width"], one["height"]): one["flops"] for one in found}


def shares(flops: dict[str, int]) -> dict[str, float]:
    """Percent of a section's sampling. memory: what joining it takes; with_small: the same with a small VAE."""
    sampling = STEPS * PROMPTS * flops["step"]
    beside = flops["shrink"] + flops["phi"]
    found = {"memory": flops["decode"] + beside, "with_small": flops["small"] + beside, "film": flops["film"]}
    return {name: 100 * value / sampling for name, value in found.items()}


def report(found: dict[tuple[str, int, int], dict[str, int]]) -> str:
    """The table, in Markdown."""
    lines = [
        "# Beside the sampling of a section",
        "",
        f"FLOPs at full size, counted on the fake card (tests/card); no time was measured. A section of 5 s, {STEPS} "
        "steps with a positive and a negative prompt, beside a memory of 20 s at 4x4x2; percent of that. Without a "
        "negative prompt all shares are twice as large. The memory's small copy and the strip's preview share one "
        "decoding; `lr_vae` of the encoder's node does it with core's TAEHV. Save Film decodes each section once more, "
        "behind six latents of what is before it.",
        "",
        "| host | size | sampling | joins the memory, preview included | with `lr_vae` | Save Film |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (host, width, height), flops in found.items():
        share = shares(flops)
        sampling = STEPS * PROMPTS * flops["step"] / 1e15
        lines.append(
            f"| {HOSTS[host]} | {width}x{height} | {sampling:,.1f} PFLOP | {share['memory']:.2f} % "
            f"| {share['with_small']:.2f} % | {share['film']:.2f} % |"
        )
    return "\n".join(lines) + "\n"


def measure() -> None:
    environment = os.environ | {"VIDEO_MEMORY_OVERHEAD": str(RESULTS.with_suffix(".json"))}
    command: list[Any] = [sys.executable, "-m", "pytest", "-q", "--timeout=0"]
    subprocess.run([*command, "tests/card/test_card_overhead.py::test_table"], cwd=ROOT, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="count nothing")
    if not parser.parse_args().report:
        measure()
    RESULTS.with_suffix(".md").write_text(report(entries()), encoding="utf-8")


if __name__ == "__main__":
    main()
