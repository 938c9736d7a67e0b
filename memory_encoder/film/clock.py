"""How long a film still takes, told from the sections and steps that are done."""

from __future__ import annotations

import time
from collections.abc import Callable


class FilmClock:
    """Counts the sections made in this run; reused and locked ones are not expected to take time.

    steps: sampling steps of one section.
    """

    def __init__(self, steps: int, now: Callable[[], float] = time.monotonic) -> None:
        self.steps, self.now = steps, now
        self.durations: list[float] = []
        self.began: float | None = None
        self.step = 0

    def begin(self) -> None:
        """A section starts to be sampled."""
        self.began, self.step = self.now(), 0

    def finish(self) -> float | None:
        """The section is done; returns the seconds it took, None when it was not sampled."""
        if self.began is None:
            return None
        self.durations.append(self.now() - self.began)
        self.began = None
        return self.durations[-1]

    def left(self, sections_to_make: int) -> float | None:
        """Seconds for the rest of the running section and `sections_to_make` after it; None when nothing is known."""
        per_section = sum(self.durations) / len(self.durations) if self.durations else None
        running = 0.0
        if self.began is not None:
            elapsed = self.now() - self.began
            if self.step:
                running = elapsed * (self.steps - self.step) / self.step
            if per_section is None:
                per_section = elapsed + running if self.step else None
            else:  # finished sections also tell how long the memory takes after the last step
                running = max(running, per_section - elapsed)
        return None if per_section is None else running + per_section * sections_to_make
