"""Trains and measures the variants of the paper on the tiny family's host, and prints its tables beside the paper's.

    make reproduce                                  # the protocol for a CPU: some hours of two cores
    python -m benchmarks.reproduce --full           # with a GPU
    python -m benchmarks.reproduce --quick          # two steps each, to see that it works

What is done is kept: the same command goes on where it was stopped, and with `--record` on another machine too.
`benchmarks/protocol.md` says what is trained, what is measured, and what has to come out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.reproduction.jobs import Job, carry_out, prepare, ready, waiting
from benchmarks.reproduction.material import make_material
from benchmarks.reproduction.origin import machines_of
from benchmarks.reproduction.plots import write_plots
from benchmarks.reproduction.report import measured, write_report
from benchmarks.reproduction.runs import Workshop
from benchmarks.reproduction.settings import PROTOCOLS, Protocol
from demo.tiny_family.clips import add_clips
from tools.environment import cache_folder
from tools.machine import cores

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_const", const="quick", dest="protocol", help="see that it works")
    kind.add_argument("--full", action="store_const", const="full", dest="protocol", help="for a GPU")
    parser.set_defaults(protocol="cpu")
    add_clips(parser)
    parser.add_argument("--work", type=Path, help="folder for data and runs; by default in the cache")
    elsewhere = "folder for the measurements, all that another machine needs to go on; by default in the work folder"
    parser.add_argument("--record", type=Path, help=elsewhere)
    parser.add_argument("--out", type=Path, help="folder for tables and plots; by default benchmarks/results")
    parser.add_argument("--report", action="store_true", help="only tables and plots of the seeds that are done")
    parser.add_argument("--jobs", type=int, default=max(1, min(cores(), 8)), help="processes, one thread each")
    args = parser.parse_args()
    protocol = PROTOCOLS[args.protocol]
    work = args.work or cache_folder() / "reproduction" / protocol.name
    workshop = Workshop(work, args.record or work / "measured")
    out = args.out or (RESULTS if protocol.name != "quick" else workshop.folder / "results")
    if not args.clips.is_dir():
        parser.error(f"--clips {args.clips} is no folder; give one with clips and a manifest.json beside it")
    try:
        machines_of(protocol, measured(protocol, workshop))  # before hours are spent beside rows of another kind
    except ValueError as error:
        parser.error(str(error))
    try:
        if args.report:
            make_material(protocol, args.clips, workshop.material)  # of which the report shows clips
        else:
            prepare(protocol, workshop, args.clips, args.jobs, tell)
            run_all(protocol, workshop, args.jobs)
    except KeyboardInterrupt:
        tell("stopped; the same command goes on")
        return 130
    try:
        print(write_report(protocol, workshop, out))
    except ValueError as error:
        parser.error(str(error))
    write_plots(protocol, workshop, out)
    tell(f"tables and plots are in {out}")
    return 0


def run_all(protocol: Protocol, workshop: Workshop, processes: int) -> None:
    """Trains and measures every row with every seed; Stage II waits for its Stage I."""
    left = waiting(protocol, workshop)
    total, done = len(left), 0
    os.environ["OMP_NUM_THREADS"] = "1" if processes > 1 else os.environ.get("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running: dict[Any, Job] = {}
        while left or running:
            for job in [job for job in left if ready(workshop, job)][: processes - len(running)]:
                left.remove(job)
                running[pool.submit(carry_out, protocol, workshop, job)] = job
            if not running:
                raise RuntimeError(f"nothing can go on: {left[0].row} waits for a run that failed")
            finished = next(as_completed(running))
            job = running.pop(finished)
            finished.result()
            done += 1
            tell(f"{done} of {total}: {job.row}, seed {job.seed}")


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
