"""The real ComfyUI, a training or a caching killed (SIGKILL) at random moments: `python -m benchmarks.faults kills`.

What is killed is started again and goes on until it is done. What then lies on disk is compared, file by file and to
the bit, with what a run makes that nobody killed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from .record import add_result, results

AGAIN = 0.5  # share of the kills after which what goes on is killed once more
WRITING = 0.3  # share of the kills that wait for a temporary file
PATIENCE = 5.0  # seconds that such a kill waits
NUMBER = re.compile(r"_\d{5}(?=_?\.)")  # of saved files: a second run saves a second one
NOT_COUNTED = ("seed", "wrong")
TRAINING = ("-m", "tests.integration.training", "{}", "30", "retrieval")
CACHING = ("-m", "benchmarks.faults.kills", "{}")


@dataclass
class Tally:
    """What came out so far. whole: what an undisturbed run leaves."""

    whole: dict[str, set[str]]
    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)  # temporary files that the last kill left

    def wrong(self, what: str, text: str) -> None:
        """Counts it and keeps a few of the texts."""
        self.counts[what] += 1
        self.examples = [*self.examples, f"{what}: {text[:300]}"][:5]

    def killed(self, folder: Path) -> None:
        """Counts a kill, and whether a file was being written."""
        self.counts["kills"] += 1
        self.counts["kills while a file was written"] += bool(being_written(folder) - self.written)
        self.written = being_written(folder)

    def compare(self, folder: Path) -> None:
        """Counts what is done after it was killed, and what is different or left."""
        self.counts["finished"] += 1
        found = content(folder)
        different = sorted(name for name in found.keys() | self.whole.keys() if found.get(name) != self.whole.get(name))
        if different:
            self.wrong("different", ", ".join(different))
        left = temporary(folder) + [path for path in folder.rglob("*.damaged*")]
        if left:
            self.wrong("with files left", ", ".join(path.name for path in left))

    @classmethod
    def begun(cls, whole: dict[str, set[str]], earlier: dict[str, Any]) -> Tally:
        """Counts on from an earlier result, of which {} is none."""
        counts = {name: value for name, value in earlier.items() if isinstance(value, int) and name not in NOT_COUNTED}
        return cls(whole, Counter(counts), examples=list(earlier.get("examples", ())))

    def told(self) -> dict[str, Any]:
        """For the results."""
        names = ("kills", "kills while a file was written", "finished", "different", "with files left", "sections lost")
        counts = {name: self.counts[name] for name in names} | dict(self.counts)
        seconds = {"seconds to go on and finish": round(median(self.seconds), 2)} if self.seconds else {}
        return counts | seconds | {"wrong": len(self.examples), "examples": self.examples}


def content(folder: Path) -> dict[str, set[str]]:
    """Digests by relative name, without hidden files and the numbers of saved ones.

    How a section came to be there does not count.
    """
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.name[0] == "." or not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            data = re.sub(rb'"(status|kept)": [\w"]+', b"", data)
        elif path.suffix == ".safetensors":
            data = in_order(data)
        elif path.suffix == ".mp4":
            data = frames(path)
        name = NUMBER.sub("", str(path.relative_to(folder)))
        found.setdefault(name, set()).add(hashlib.sha256(data).hexdigest())
    return found


def in_order(content: bytes) -> bytes:
    """A safetensors file with its header sorted, whose metadata lie there in any order."""
    size = 8 + int.from_bytes(content[:8], "little")
    return json.dumps(json.loads(content[8:size]), sort_keys=True).encode() + content[size:]


def frames(path: Path) -> bytes:
    """How many pictures a movie has, and their size, when all can be decoded.

    Not their values: x264's threads make other files of the same pictures from one time to the next on a busy machine.
    """
    import av

    with av.open(str(path)) as container:
        return repr([(frame.width, frame.height) for frame in container.decode(video=0)]).encode()


def temporary(folder: Path) -> list[Path]:
    """Hidden files: temporary ones and locks."""
    return [path for path in folder.rglob(".*") if path.is_file()]


def moment(random: Random, seconds: float, folder: Path, ended: Callable[[], bool]) -> bool:
    """Waits for a random moment of so many seconds, or, now and then, for the next file that is being written; then
    says whether what is to be killed still runs."""
    time.sleep(random.uniform(0, seconds))
    if random.random() < WRITING:
        end, known = time.monotonic() + PATIENCE, being_written(folder)
        while time.monotonic() < end:
            if being_written(folder) - known:
                return True
            time.sleep(0.001)
    return not ended()


def being_written(folder: Path) -> set[Path]:
    """Temporary files: not whole yet, or not in their place."""
    return {path for path in temporary(folder) if path.suffix == ".tmp"}


# A film through the real ComfyUI


def kill_server(count: int, random: Random, work: Path, done: Callable[[Tally], None], earlier: dict[str, Any]) -> None:
    """Each start of the server finishes the film that was killed before, or is killed at that, and begins the next."""
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
        tally = Tally.begun(content(server.output_dir), earlier)
        stored: set[str] | None = None  # sections on disk after a kill
        while tally.counts["kills"] < count:
            if stored is None:
                shutil.rmtree(server.output_dir)
                server.output_dir.mkdir()
            begun, id_ = time.monotonic(), server.queue(prompt)
            ended = lambda id_=id_: server._history(id_) is not None  # noqa: E731
            if (stored is None or random.random() < AGAIN) and moment(random, duration, server.output_dir, ended):
                server.kill()
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


def kill_program(
    arguments: Sequence[str],
    count: int,
    random: Random,
    work: Path,
    done: Callable[[Tally], None],
    earlier: dict[str, Any],
) -> None:
    """A program of this Python. arguments: with {} for the folder that it works in."""
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
    tally = Tally.begun(content(whole), earlier)
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


KINDS: dict[str, Callable[[int, Random, Path, Callable[[Tally], None], dict[str, Any]], None]] = {
    "film": kill_server,
    "training": lambda *rest: kill_program(TRAINING, *rest),
    "dataset": lambda *rest: kill_program(CACHING, *rest),
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
        KINDS[args.what](args.count, Random(f"{args.seed} {args.what}"), Path(work), done, earlier)


if __name__ == "__main__":
    cache_clips(Path(sys.argv[1]))
