"""A film of ten minutes: RAM, file descriptors and time of every section, and what a second run of it costs.

    python tools/environment.py run -m benchmarks.long_film loop     # the library's loop at the width of Wan 14B
    python tools/environment.py run -m benchmarks.long_film report   # text and plot of what is there

`loop` renders through `render_film`, with sections on disk and kept states, in a process of its own for each run. What
it does not do: sampling (latents are noise) and the VAE (averages and repeated pixels stand for it). The picture is
half of 832x480 a side, so that tokens and latents are a quarter of the real ones. Each section reads the whole
memory once, as a host does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memory_encoder.film.loop import render_film
from memory_encoder.film.sections import SectionStore
from memory_encoder.film.states import KeptStates, StateStore, appended_section
from memory_encoder.memory.compressor import append_history
from memory_encoder.memory.delta import ingredients
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.pictures.codec import Codec
from memory_encoder.storyboard import Section, Storyboard, plan_sections, read_storyboard
from tools.machine import describe

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "long_film"
SEED, FPS, SECONDS, SECTION = 0, 16.0, 600.0, 2.5
CHANNELS, WIDTH, SPATIAL = 16, 5120, 8
HEIGHT, WIDE = 30, 52  # latents
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("loop", "report", "run"))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--folder", type=Path, help="of one run of the loop; for the command itself")
    parser.add_argument("--name", default="", help="added to the name under which the result is kept")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    if args.part == "run":
        print(json.dumps(looped(args.folder, args.seconds)))
    elif args.part == "loop":
        with tempfile.TemporaryDirectory() as folder:
            runs = {kind: _in_its_own_process(Path(folder), args.seconds) for kind in ("first", "second")}
        keep(f"loop{args.name}", args.seconds, runs)
    if args.part != "run":
        report()


@dataclass
class Watched:
    """The renderer of the loop, with what each section took of this process."""

    encoder: MemoryEncoder
    states: KeptStates
    rows: dict[str, list[float]] = field(default_factory=dict)

    def sample(self, section: Section, seed: int, memory: VideoMemory) -> Tensor:
        before = time.process_time()
        memory.all_tokens()
        self._add("read_s", time.process_time() - before)
        g = torch.Generator().manual_seed(seed % 2**31)
        return torch.randn(1, CHANNELS, section.latents, HEIGHT, WIDE, generator=g)

    def append(self, memory: VideoMemory, latents: Tensor, section: Section, seed: int) -> Any:
        before = time.process_time()
        facts = appended_section(latents, section.prompt, seed, section.repeated)
        after = self.states.extended(
            memory, facts, lambda: append_history(self.encoder, CODEC, memory, latents, section.prompt, seed)
        )
        self._add("append_s", time.process_time() - before)
        return after

    def section_done(self, section: Section, latents: Tensor, reused: bool) -> None:
        for name, value in process_facts(os.getpid()).items():
            self._add(name, value)

    def _add(self, name: str, value: float) -> None:
        self.rows.setdefault(name, []).append(value)


def looped(folder: Path, seconds: float) -> dict[str, Any]:
    """One run of the film in this process."""
    config = EncoderConfig("wan", WIDTH, CHANNELS, rate="4x4x2")
    encoder = MemoryEncoder(config).requires_grad_(False)
    encoder.reset_parameters(torch.Generator().manual_seed(SEED))
    torch.nn.init.normal_(encoder.out.weight, std=0.02, generator=torch.Generator().manual_seed(SEED))
    store, memory = SectionStore(folder, "film"), VideoMemory.empty(config)
    states = KeptStates.of(StateStore(store.folder), ingredients(memory))
    world, plan = Watched(encoder, states), plan_sections(board(seconds), fps=FPS, section_seconds=SECTION)
    with torch.inference_mode():
        before, wall = time.process_time(), time.monotonic()
        film = render_film(plan, store, memory, {"seed": SEED}, SEED, world)
        cpu, wall = time.process_time() - before, time.monotonic() - wall
    disk = {name: sum(path.stat().st_size for path in store.folder.glob(name)) for name in ("*.safetensors", "*/*")}
    return {
        "cpu_s": cpu,
        "wall_s": wall,
        "sections": len(plan),
        "reused": sum(entry.reused for entry in film.sections),
        "tokens": film.memory.token_count,
        "bytes": {"sections": disk["*.safetensors"], "states": disk["*/*"]},
        **world.rows,
    }


def board(seconds: float) -> Storyboard:
    """A shot every ten seconds."""
    shots = [
        {"start": start, "end": min(start + 10, seconds), "prompt": f"shot {start:g}"}
        for start in range(0, round(seconds), 10)
    ]
    return read_storyboard(json.dumps({"version": 1, "shots": shots}), section_seconds=SECTION, fps=FPS).storyboard


def process_facts(pid: int) -> dict[str, float]:
    """RAM of a process in MiB (`anonymous`: what cannot be read again from a file), and its open files."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "rss_mib": int(lines["VmRSS"].split()[0]) / 1024,
        "anonymous_mib": int(lines["RssAnon"].split()[0]) / 1024,
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def _in_its_own_process(folder: Path, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.long_film", "run", "--folder", str(folder), "--seconds", str(seconds)]
    # Memory that was freed goes back at once, so that RAM is what is in use.
    found = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, env=os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    )
    return json.loads(found.stdout)


def _encode(pictures: Tensor) -> Tensor:
    """A causal VAE in miniature: latent k is the mean of its frames, averaged in space; its channels repeat."""
    x = pictures.permute(0, 4, 1, 2, 3)
    small = torch.nn.functional.avg_pool3d(x, (1, SPATIAL, SPATIAL))
    rest = torch.nn.functional.avg_pool3d(small[:, :, 1:], (4, 1, 1)) if small.shape[2] > 1 else small[:, :, 1:]
    return torch.cat([small[:, :, :1], rest], dim=2).repeat(1, 6, 1, 1, 1)[:, :CHANNELS]


def _decode(latents: Tensor) -> Tensor:
    frames = torch.cat([latents[:, :3, :1], latents[:, :3, 1:].repeat_interleave(4, dim=2)], dim=2)
    large = frames.repeat_interleave(SPATIAL, dim=3).repeat_interleave(SPATIAL, dim=4)
    return large.permute(0, 2, 3, 4, 1)


def _embed(latents: Tensor) -> Tensor:
    pooled = torch.nn.functional.avg_pool3d(latents, (1, 2, 2))
    return pooled.repeat(1, WIDTH // CHANNELS, 1, 1, 1)


CODEC = Codec(encode=_encode, decode=_decode, embed=_embed, temporal=4, spatial=SPATIAL)


def keep(name: str, seconds: float, runs: dict[str, Any]) -> None:
    """Writes what was measured beside what was measured before."""
    path = RESULTS.with_suffix(".json")
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine = describe(torch.device("cpu"), memory, "none")
    found[name] = {"machine": machine, "seed": SEED, "seconds": seconds, "runs": _rounded(runs)}
    text = json.dumps(found, indent=1)
    path.write_text(re.sub(r"\[[^][{}]*\]", lambda row: " ".join(row[0].split()), text) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def report() -> None:
    """Prints the ratios that count, and draws the curves."""
    found = json.loads(RESULTS.with_suffix(".json").read_text(encoding="utf-8"))
    for name, result in found.items():
        first, second = result["runs"]["first"], result["runs"]["second"]
        print(f"{name}: second run {100 * second['cpu_s'] / first['cpu_s']:.2f} % of the CPU of the first")
        for kind, run in result["runs"].items():
            print(f"  {kind}: {run['cpu_s']:.1f} s CPU; {'; '.join(growth(run))}")
    plot(found)


def growth(run: dict[str, Any]) -> list[str]:
    """How RAM, files and the time of an append grow from the first tenth of a film to its last."""
    said = []
    for name in ("rss_mib", "anonymous_mib", "files", "append_s", "read_s"):
        if values := run.get(name):
            early, late = tenths(values)
            said.append(f"{name} {early:.4g} -> {late:.4g} (x{late / max(early, 1e-9):.2f})")
    return said


def tenths(values: list[float]) -> tuple[float, float]:
    """Medians of the second and of the last tenth of a film."""
    tenth = max(1, len(values) // 10)
    early, late = (sorted(part)[len(part) // 2] for part in (values[tenth : 2 * tenth], values[-tenth:]))
    return early, late


def plot(found: dict[str, Any]) -> None:
    """RAM after each section, and the processor time of adding it."""
    from matplotlib.figure import Figure  # an extra of benchmarks

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for (name, result), kind in itertools.product(found.items(), ("first", "second")):
        for axis, of_what in zip(axes, ("anonymous_mib", "append_s"), strict=True):
            values = result["runs"][kind][of_what]
            minutes = [result["seconds"] * number / 60 / len(values) for number in range(1, len(values) + 1)]
            axis.plot(minutes, values, label=f"{name.replace('_', ', ')}, {kind} run", linewidth=1)
            axis.set(xlabel="minutes of film", ylabel=of_what, ylim=(0, None))
    axes[0].legend(fontsize=7)
    figure.savefig(RESULTS.with_suffix(".png"), dpi=90)


if __name__ == "__main__":
    main()
