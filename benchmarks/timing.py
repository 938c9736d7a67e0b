"""Times cases in turns, so that a machine that slows down or speeds up does so for all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

GIB = 1024**3


@dataclass
class Times:
    """One case: wall and processor seconds of each round, and the most GPU memory it took, in GiB."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_gib: float | None = None
    output: Tensor | None = field(default=None, repr=False)

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def cpu_least(self) -> float:
        """The round that other programs disturbed least."""
        return min(self.cpu_seconds)


def measure(
    cases: Mapping[str, Callable[[], Callable[[], Tensor]]],
    names: Sequence[str],
    warmup: int,
    repeats: int,
    device: torch.device,
) -> dict[str, Times]:
    """Runs the named cases round by round, each round starting with another one; the first output of each is kept.

    `cases` prepare a case, untimed, and return what is timed.
    """
    prepared = {name: cases[name]() for name in names}
    result = {name: Times() for name in names}
    for number in range(-warmup, repeats):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            seconds, cpu_seconds, output = _timed(prepared[name], device)
            times = result[name]
            times.output = output.float().cpu() if times.output is None else times.output
            if number >= 0:
                times.seconds.append(seconds)
                times.cpu_seconds.append(cpu_seconds)
            if device.type == "cuda":
                times.peak_gib = max(times.peak_gib or 0.0, torch.cuda.max_memory_allocated(device) / GIB)
            label = f"round {number + 1} of {repeats}" if number >= 0 else "warm-up"
            print(f"[step time] {label}: {name} {seconds:.3f} s", file=sys.stderr, flush=True)
    return result


def difference(first: Times, second: Times) -> float:
    """Largest absolute difference between the outputs of two cases."""
    assert first.output is not None and second.output is not None, "both cases have to be measured first"
    return (first.output - second.output).abs().max().item()


def _timed(case: Callable[[], Tensor], device: torch.device) -> tuple[float, float, Tensor]:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    start, cpu_start = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        output = case()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, time.process_time() - cpu_start, output
