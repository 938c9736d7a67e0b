"""Films in a row, whole and interrupted ones, and what the process then holds: `python -m benchmarks.faults long`."""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import psutil
from torch import Tensor

from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.storyboard import Section

from .cases import World, film
from .record import add_result

SECTIONS = 3
SAMPLES = 60  # how often a row tells what the process holds
WARM = 0.2  # share of them that count for nothing: caches of Python, PyTorch and the allocator fill
GROWTH = 4.0  # MiB that RSS may grow over a whole row, as its straight line says
Place = Literal["sample", "append", "section_done"]
PLACES: tuple[Place, ...] = ("sample", "append", "section_done")


@dataclass(frozen=True)
class Held:
    """What a process holds after so many films."""

    films: int
    rss_mib: float
    descriptors: int
    threads: int

    @classmethod
    def now(cls, films: int) -> Held:
        gc.collect()
        process: Any = psutil.Process()
        descriptors = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
        return cls(films, process.memory_info().rss / 2**20, descriptors, process.num_threads())


class Interrupted(World):
    """Is cancelled in one of the places where a film may be."""

    def __init__(self, place: Place, section: int) -> None:
        super().__init__()
        self.place, self.at = place, section

    def _here(self, place: Place, section: Section) -> None:
        if (place, section.index) == (self.place, self.at):
            raise KeyboardInterrupt

    def sample(self, section: Section, seed: int, memory: VideoMemory) -> Tensor:
        self._here("sample", section)
        return super().sample(section, seed, memory)

    def append(self, memory: VideoMemory, latents: Tensor, section: Section, seed: int) -> VideoMemory:
        self._here("append", section)
        return super().append(memory, latents, section, seed)

    def section_done(self, section: Section, latents: Tensor, reused: bool) -> None:
        self._here("section_done", section)


def whole(root: Path, number: int, random: Random) -> None:
    """One film from beginning to end."""
    film(root, World(), SECTIONS)


def interrupted(root: Path, number: int, random: Random) -> None:
    """One film that is cancelled. Raises AssertionError where it leaves what it should not, or loses a section."""
    world = Interrupted(random.choice(PLACES), random.randrange(SECTIONS))
    try:
        film(root, world, SECTIONS)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("it was not interrupted")
    there = sorted(path.name for path in (root / "film").iterdir()) if world.sampled else []
    stored = [name for name in there if name.startswith("section_")]
    assert len(stored) == len(world.sampled), f"of {world.sampled} there are {stored}"
    assert not [name for name in there if name[0] == "."], f"left: {there}"


def in_a_row(count: int, make: Callable[[Path, int, Random], None], seed: int, samples: int = SAMPLES) -> list[Held]:
    """Makes so many films, each in a new folder, and tells now and then what the process holds."""
    random, found = Random(seed), [Held.now(0)]
    every = max(1, count // samples)
    with tempfile.TemporaryDirectory() as place:
        for number in range(1, count + 1):
            root = Path(place) / str(number)
            make(root, number, random)
            shutil.rmtree(root)
            if number % every == 0:
                found.append(Held.now(number))
    return found


def judged(held: Sequence[Held]) -> dict[str, Any]:
    """How what is held changes over a row; `grows` names what does not stay flat."""
    counted = held[int(len(held) * WARM) :]
    films = [float(each.films) for each in counted]
    slope = statistics.linear_regression(films, [each.rss_mib for each in counted]).slope
    growth = slope * (films[-1] - films[0])
    found: dict[str, Any] = {
        "films": held[-1].films, "rss_mib": [round(counted[0].rss_mib, 1), round(counted[-1].rss_mib, 1)],
        "rss_kib_a_film": round(slope * 1024, 3), "rss_growth_mib": round(growth, 2), "tolerance_mib": GROWTH,
    }  # fmt: skip
    grows = ["rss"] if growth > GROWTH else []
    for name in ("descriptors", "threads"):
        values = [asdict(each)[name] for each in counted]
        found[name] = [min(values), max(values)]
        grows += [name] if max(values) > values[0] else []
    return found | {"grows": grows}


def add_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("long", help=__doc__)
    parser.add_argument("--films", type=int, default=500)
    parser.add_argument("--interrupted", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    for name, count, make in (("whole", args.films, whole), ("interrupted", args.interrupted, interrupted)):
        add_result("long", name, judged(in_a_row(count, make, args.seed)) | {"sections": SECTIONS, "seed": args.seed})
