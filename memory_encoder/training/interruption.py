"""Ctrl-C, SIGTERM and SIGHUP while a run trains: it ends after its step and is saved; a second time it ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # SIGHUP: its terminal or connection is gone


class Stopped(KeyboardInterrupt):
    """A run that was asked to end and has been saved after `step` steps; what comes before the first step is not.

    code: what its process exits with.
    """

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        begun = f"stopped at step {step}; run the same command again to go on"
        super().__init__(begun if step else "stopped before the first step; run the same command again to begin anew")
        self.step, self.code = step, 128 + number


@contextlib.contextmanager
def signals_noted(note: Callable[[int], None]) -> Iterator[None]:
    """Within it the first such signal is handed to `note`, and the next one ends the process as the system does.

    Only the main thread hears signals: in any other, such as the one in which nodes run, nothing changes. Signals that
    are ignored, as after nohup, stay so.
    """
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before: dict[int, Any] = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread():
        before = {}

    def heard(number: int, _frame: Any) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # no log or stream: their locks may be held by what was interrupted
            os.write(2, b"stopping after this step, and saving; once more ends it at once\n")
        note(number)

    try:
        for number in before:
            signal.signal(number, heard)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
