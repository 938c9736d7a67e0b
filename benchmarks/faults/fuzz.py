"""Every reader of a file or a text, each with many damaged ones: `python -m benchmarks.faults fuzz`."""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from random import Random

from .loaders import LOADERS, outcome
from .record import add_result
from .text_readers import TEXT_READERS


def add_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("fuzz", help=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="damaged files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose names hold this")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    logging.getLogger("video_memory").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for loader in (*LOADERS, *TEXT_READERS):
        if args.only not in loader.name:
            continue
        random, counts, raw = Random(f"{args.seed} {loader.name}"), Counter[str](), Counter[str]()
        for _ in range(args.count):
            with tempfile.TemporaryDirectory() as folder:
                path = loader.make(Path(folder))
                kind, text = outcome(loader, path, path.read_bytes(), random)
            counts[kind] += 1
            if kind == "raw":
                raw[text[:160]] += 1
        result = {"tried": args.count, "seed": args.seed, **counts, "examples": raw.most_common(5)}
        add_result("fuzz", loader.name, result)
