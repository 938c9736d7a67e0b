"""What a training run tells the page: losses in small bundles, and when new recalled frames lie in its folder."""

from __future__ import annotations

import math
import time
from typing import Any

from .events import running_node, send

EVERY = 0.4  # seconds between messages


class TrainingEvents:
    """Tells the page about one run of `steps` steps."""

    def __init__(self, run: str, steps: int) -> None:
        self.run, self.steps = run, steps
        self.losses: list[tuple[int, float]] = []
        self.told = 0.0

    def started(self, first_step: int) -> None:
        """The run begins, or goes on, at a step; the page drops points after it, which are made again."""
        self._send("started", first_step=first_step)

    def step(self, step: int, loss: float) -> None:
        """One step is done."""
        if math.isfinite(loss):
            self.losses.append((step, loss))
        if time.monotonic() - self.told >= EVERY or step + 1 >= self.steps:
            self._flush()

    def heldout(self, step: int, loss: float) -> None:
        """The held-out loss was measured."""
        if math.isfinite(loss):
            self._send("heldout", heldout=[(step, loss)])

    def picture(self, step: int, recalled: bool) -> None:
        """Pictures were drawn; with a VAE there are recalled frames among them."""
        self._flush()
        if recalled:
            self._send("recalled", step=step)

    def _flush(self) -> None:
        losses, self.losses, self.told = self.losses, [], time.monotonic()
        if losses:
            self._send("losses", losses=losses)

    def _send(self, state: str, **values: Any) -> None:
        data = {"node": running_node(), "run": self.run, "steps": self.steps, "state": state}
        send("video_memory.training", data | values)
