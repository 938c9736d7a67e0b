"""What is measured: the command line, the sizes of the host and the lengths of history and section."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flops import WanShape
from memory_encoder.budget import HOSTS, Plan, nearest_host
from memory_encoder.phi.config import Padding

HEAD_WIDTH = 128  # of every published Wan
TEXT_TOKENS = 512
# Width of a published Wan (1.3B, 5B, 14B): its feed-forward width and the channels of its VAE.
PUBLISHED = {1536: (8960, 16), 3072: (14336, 48), 5120: (13824, 16)}
CASES = ("without", "strength 0", "memory", "history")
ENHANCEMENTS = ("without", "memory", "cached", "window", "cross", "two", "guided")
WINDOW = 3  # uncompressed latents
SECOND_RATE = "2x2x8"
GUIDANCE = 1.5  # any weight but 1 costs the same
CROSS_WIDTH = 512  # of phi's hidden states
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Settings:
    """One run. `scale` divides lengths, widths, heads and text, so that every share of the FLOPs stays the same."""

    preset: str
    width: int
    scale: int
    layers: int
    repeats: int
    warmup: int
    cases: tuple[str, ...]
    picture: tuple[int, int]
    fps: float
    history_seconds: float
    section_seconds: float
    rate: str
    padding: Padding
    seed: int

    def plan(self) -> Plan:
        """The sizes that are run. Raises ValueError when `scale` would change their proportions."""
        real = self._plan(1)
        counts = [real.latents(real.section_seconds), real.latents(real.history_seconds), self.width // HEAD_WIDTH]
        if min(counts) < 1 or any(count % self.scale for count in counts):
            common = math.gcd(*counts)
            raise ValueError(
                f"scale {self.scale} does not divide the section's {counts[0]} latents, the history's {counts[1]} and "
                f"the {counts[2]} heads; choose one of {[n for n in range(1, common + 1) if common % n == 0]}"
            )
        return self._plan(self.scale)

    def shape(self) -> WanShape:
        """The host that is run."""
        ffn, channels = PUBLISHED[self.width]
        heads = self.width // HEAD_WIDTH // self.scale
        return WanShape(
            width=heads * HEAD_WIDTH,
            ffn=round(ffn / self.scale),
            heads=heads,
            layers=self.layers,
            channels=channels,
            spatial=self._plan(1).host.spatial,
            text_tokens=round(TEXT_TOKENS / self.scale),
        )

    def cross_width(self) -> int:
        """Width of the cross-attention branch: whole heads."""
        return max(HEAD_WIDTH, CROSS_WIDTH // self.scale // HEAD_WIDTH * HEAD_WIDTH)

    def _plan(self, scale: int) -> Plan:
        host = nearest_host("wan", self.width)
        assert host is not None, f"the command line allows published widths alone, not {self.width}"
        return Plan(
            host=HOSTS[host],
            width=self.picture[0],
            height=self.picture[1],
            fps=self.fps,
            history_seconds=self.history_seconds / scale,
            section_seconds=self.section_seconds / scale,
            rates=(self.rate,),
            padding=self.padding,
        )


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="step_time",
        description="Step time of a Wan-shaped host without memory, with memory and with the whole history.",
        epilog="Needs COMFYUI_PATH, the folder of a ComfyUI checkout. Results go to benchmarks/results.",
    )
    p.add_argument("--real", action="store_true", help="real token counts (default on a GPU) instead of a tenth")
    p.add_argument("--full", action="store_true", help="real token counts with the whole history (hours on a CPU)")
    p.add_argument("--enhancements", action="store_true", help="the enhancements instead of the whole history")
    p.add_argument("--cases", help="which of them, by name and with commas; `without` is always among them")
    p.add_argument("--scale", type=int, help="divide lengths, widths, heads and text by this (default 10; 1 is real)")
    p.add_argument("--width", type=int, choices=sorted(PUBLISHED), help="published Wan to take the sizes from")
    p.add_argument("--layers", type=int, help="blocks of the host (default 2, on a CPU at real size 1)")
    p.add_argument("--repeats", type=int, help="timed rounds (default 5; on a CPU 3, at real size 1)")
    p.add_argument("--warmup", type=int, help="untimed rounds (default 1, on a CPU at real size 0)")
    p.add_argument("--picture", type=_picture, default=(832, 480), help="WIDTHxHEIGHT in pixels (default 832x480)")
    p.add_argument("--fps", type=float, default=24.0, help="frames per second (default 24)")
    p.add_argument("--history-seconds", type=float, default=20.0, help="length of the history (default 20)")
    p.add_argument("--section-seconds", type=float, default=5.0, help="length of the section (default 5)")
    p.add_argument("--rate", default="4x4x2", help="HEIGHTxWIDTHxTIME (default 4x4x2)")
    p.add_argument("--padding", choices=("ceil", "floor"), default="ceil", help="ceil 6240 or floor 5460 memory tokens")
    p.add_argument("--threads", type=int, help="threads on the CPU (default: PyTorch's)")
    p.add_argument("--cpu", action="store_true", help="stay on the CPU")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    return p


def settings_from(args: argparse.Namespace, gpu: bool) -> Settings:
    """Fills in what was not asked for: a tenth of the size on a CPU, the whole on a GPU."""
    real = args.real or args.full or args.scale == 1 or (gpu and args.scale is None)
    slow = real and not gpu
    cases: Sequence[str] = CASES
    if slow and not args.full:
        cases = ("without", "memory")
    if args.enhancements:
        cases = ENHANCEMENTS
    if args.cases:
        named = ["without", *(name.strip() for name in args.cases.split(","))]
        if unknown := set(named) - {*CASES, *ENHANCEMENTS}:
            raise ValueError(f"case {min(unknown)!r} is unknown; choose from {', '.join((*CASES, *ENHANCEMENTS))}")
        cases = tuple(dict.fromkeys(named))
    chosen = {"layers": 1 if slow else 2, "repeats": 1 if slow else 5 if gpu else 3, "warmup": 0 if slow else 1}
    chosen |= {name: getattr(args, name) for name in chosen if getattr(args, name) is not None}
    settings = Settings(
        preset="real" if real else "scaled",
        width=args.width or (1536 if slow else 5120),
        scale=1 if real else args.scale or 10,
        cases=tuple(cases),
        picture=args.picture,
        fps=args.fps,
        history_seconds=args.history_seconds,
        section_seconds=args.section_seconds,
        rate=args.rate,
        padding=args.padding,
        seed=args.seed,
        **chosen,
    )
    if min(settings.layers, settings.repeats, settings.scale) < 1 or settings.warmup < 0:
        raise ValueError("layers, repeats and scale must be 1 or more, warmup 0 or more")
    if real and args.scale not in (None, 1):
        raise ValueError(f"scale {args.scale} contradicts --real and --full; leave one of them out")
    return settings


def _picture(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT; write for example 832x480")
    return int(match[1]), int(match[2])
