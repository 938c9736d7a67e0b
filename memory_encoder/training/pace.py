"""How fast a run goes, what is left of it, and what else a step has to tell beside its loss."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

RECENT = 20  # steps


@dataclass(frozen=True)
class Pace:
    """Facts of a step. seconds: of the recent steps, each. clips: a second, over all processes. left: seconds to the
    end, with what held-out losses, pictures and checkpoints take. norm: of the gradient, before it is cut. gib: the
    most that the card has held so far, None without one.
    """

    seconds: float
    clips: float
    left: float
    learning_rate: float
    norm: float
    gib: float | None = None

    def values(self) -> dict[str, float]:
        """By name and unit, for logs."""
        named = {
            "seconds_a_step": self.seconds,
            "clips_a_second": self.clips,
            "seconds_left": self.left,
            "learning_rate": self.learning_rate,
            "gradient_norm": self.norm,
            "card_gib": self.gib,
        }
        return {name: value for name, value in named.items() if value is not None}

    def describe(self) -> str:
        """In a line, after the loss."""
        card = "" if self.gib is None else f", {self.gib:.1f} GiB"
        return (
            f"{self.seconds:.2f} s/step, {self.clips:.2f} clips/s, {duration(self.left)} left, "
            f"lr {self.learning_rate:.2g}, norm {self.norm:.3g}{card}"
        )


class Clock:
    """Times the steps of a run. batch: clips of an update. now: a clock in seconds."""

    def __init__(self, steps: int, batch: int, now: Callable[[], float] = time.monotonic) -> None:
        self.steps, self.batch, self.now = steps, batch, now
        self.began = self.step_began = now()
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.counted = 0
        self.inside = 0.0  # seconds in steps

    def begin(self) -> None:
        """A step begins."""
        self.step_began = self.now()

    def end(self, step: int, learning_rate: float, norm: float) -> Pace:
        """Step number `step`, counted from 0, has ended. The first step of a run, which also warms up, is not counted
        as soon as there are others."""
        taken = self.now() - self.step_began
        self.counted += 1
        if self.counted == 2:
            self.recent.clear()
        self.recent.append(taken)
        self.inside += taken
        seconds = max(sum(self.recent) / len(self.recent), 1e-9)
        beside = max((self.now() - self.began) / max(self.inside, 1e-9), 1.0)
        left = (self.steps - step - 1) * seconds * beside
        return Pace(seconds, self.batch / seconds, left, learning_rate, norm, _card_gib())


def duration(seconds: float) -> str:
    """4 d 3 h, 2 h 5 min, 3 min 20 s, 12 s."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _card_gib() -> float | None:
    return torch.cuda.max_memory_reserved() / 1024**3 if torch.cuda.is_available() else None
