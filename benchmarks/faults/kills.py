"""The real ComfyUI, a training or a caching killed at random moments: `python -m benchmarks.faults kills`.

What is killed (SIGKILL) or interrupted is started again and goes on until it is done. What then lies on disk is
compared, file by file and to the bit, with what a run makes that nobody killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from .record import add_result, results
from .tally import Tally, content, moment

if TYPE_CHECKING:
    from tools.comfy_server import ComfyServer

AGAIN = 0.5  # share of the kills after which what goes on is killed once more
TRAINING = ("-m", "tests.integration.training", "{}", "30", "retrieval")
CACHING = ("-m", "benchmarks.faults.kills", "{}")


@dataclass(frozen=True)
class Task:
    """So many kills, with those of an earlier result, at random moments in a folder. done: told the tally so far."""

    count: int
    random: Random
    work: Path
    done: Callable[[Tally], None]
    earlier: dict[str, Any]


# A film through the real ComfyUI


def kill(server: ComfyServer, id_: str) -> None:
    """Ends the process as a crash does."""
    server.kill()


def interrupt(server: ComfyServer, id_: str) -> None:
    """Cancels as a person does, and waits for the end."""
    from tools.comfy_server import ComfyInterrupted

    server.interrupt(id_)
    with contextlib.suppress(ComfyInterrupted):
        server.wait(id_)


def kill_server(end: Callable[[ComfyServer, str], None], task: Task) -> None:
    """Each start of the server finishes the film that was killed before, or is killed at that, and begins the next."""
    count, random, work, done = task.count, task.random, task.work, task.done
    from demo.tiny_family.install import HOST_NAME, VAE_NAME, install_models
    from tests.integration.films import changed, film, report
    from tools.comfy_server import ComfyServer
    from tools.environment import ROOT

    install_models(work / "models")
    prompt = changed(film("film"), "host", unet_name=HOST_NAME)
    prompt = changed(prompt, "vae", vae_name=VAE_NAME) | {
        "movie": {
            "class_type": "VideoMemorySaveFilm",
            "inputs": {
                "latent": ["sampler", 0], "vae": ["vae", 0], "filename_prefix": "video/film", "fps": 0.0, "crf": 18.0,
                "match_colours": False,
            },
        },
        "memory": {
            "class_type": "VideoMemorySave", "inputs": {"memory": ["sampler", 1], "filename_prefix": "memory"},
        },
    }  # fmt: skip
    del prompt["latent"]  # a node of core, which writes under the name itself
    server = ComfyServer(work, custom_nodes=[ROOT / "demo" / "nodes"], extra_args=["--cache-none"])
    try:
        server.start()
        server.run(prompt)  # the first one is slower
        shutil.rmtree(server.output_dir)
        begun = time.monotonic()
        server.run(prompt)
        duration = time.monotonic() - begun
        tally = Tally.begun(content(server.output_dir), task.earlier)
        stored: set[str] | None = None  # sections on disk after a kill
        while tally.counts["kills"] < count:
            if stored is None:
                shutil.rmtree(server.output_dir)
                server.output_dir.mkdir()
            begun, id_ = time.monotonic(), server.queue(prompt)
            ended = lambda id_=id_: server._history(id_) is not None  # noqa: E731
            if (stored is None or random.random() < AGAIN) and moment(random, duration, server.output_dir, ended):
                end(server, id_)
                tally.killed(server.output_dir)
                now = sections(server.output_dir)
                if lost := (stored or set()) - now:
                    tally.wrong("sections lost", f"{lost} are gone")
                stored = now
                done(tally)
                server.start()
                continue
            entry = server.wait(id_, timeout=1200)
            if stored is not None:
                tally.seconds.append(time.monotonic() - begun)
                tally.counts["sections on disk after a kill"] += len(stored)
                tally.counts["of them reused"] += sum(report(entry))
                if len(stored) != sum(report(entry)):
                    tally.wrong("sections lost", f"{len(stored)} were there, and {sum(report(entry))} reused")
            else:
                tally.counts["done before they were killed"] += 1
            tally.compare(server.output_dir)
            stored = None
            done(tally)
    finally:
        server.stop()


def sections(output: Path) -> set[str]:
    """Names of the sections on disk."""
    return {path.name for path in output.glob("video_memory/film/section_*.safetensors")}


# Programs that go on when they are started again


def kill_program(arguments: Sequence[str], task: Task) -> None:
    """A program of this Python. arguments: with {} for the folder that it works in."""
    count, random, work, done = task.count, task.random, task.work, task.done
    from tools.environment import ROOT, prepare

    variables = prepare().variables()

    def started(folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, *(text.format(folder) for text in arguments)]
        with (work / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True)

    def finish(folder: Path) -> None:
        if started(folder).wait(1200):
            raise RuntimeError(f"it failed: {(work / 'log').read_text(errors='replace')[-2000:]}")

    def begins(folder: Path, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None and not any(folder.iterdir()):
            time.sleep(0.001)

    whole = work / "whole"
    begins(whole, first := started(whole))
    begun = time.monotonic()
    if first.wait(1200):
        finish(whole)
    duration = time.monotonic() - begun
    tally = Tally.begun(content(whole), task.earlier)
    for number in range(10 * count):
        if tally.counts["kills"] >= count:
            break
        folder = work / str(number)
        while True:
            process = started(folder)
            begins(folder, process)
            if not moment(random, duration, folder, lambda process=process: process.poll() is not None):
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            tally.killed(folder)
            if random.random() >= AGAIN:
                break
        begun = time.monotonic()
        finish(folder)
        tally.seconds.append(time.monotonic() - begun)
        tally.compare(folder)
        shutil.rmtree(folder)
        done(tally)


def cache_clips(folder: Path) -> None:
    """Caches 40 clips, which are made where they are not there; for a process that is killed."""
    from tests.unit.dataset_clips import cache, counting

    clips = folder.parent / "clips"
    if not clips.is_dir():
        for number in range(40):
            counting(clips.with_name("clips.new") / f"{number:02}.mp4", 17 + 16 * (number % 3))
        clips.with_name("clips.new").rename(clips)
    cache(clips, folder)


KINDS: dict[str, Callable[[Task], None]] = {
    "film": partial(kill_server, kill),
    "interrupted film": partial(kill_server, interrupt),
    "training": partial(kill_program, TRAINING),
    "dataset": partial(kill_program, CACHING),
}


def add_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("kills", help=__doc__)
    parser.add_argument("--count", type=int, default=200, help="kills, with those of before where it goes on")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; another one to go on with")
    parser.add_argument("--go-on", action="store_true", help="count on from what the results hold")
    parser.add_argument("--what", choices=tuple(KINDS), default="film")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """What is there so far is written after every kill."""
    earlier = results().get("kills", {}).get(args.what, {}) if args.go_on else {}
    seeds = [*earlier.get("seeds", [earlier["seed"]] if "seed" in earlier else []), args.seed]
    with tempfile.TemporaryDirectory() as work:
        done = lambda tally: add_result("kills", args.what, tally.told() | {"seeds": seeds})  # noqa: E731
        KINDS[args.what](Task(args.count, Random(f"{args.seed} {args.what}"), Path(work), done, earlier))


if __name__ == "__main__":
    cache_clips(Path(sys.argv[1]))
