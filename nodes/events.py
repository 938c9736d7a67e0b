"""Messages from running nodes to the page; silent where there is no server, as in tests and scripts."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from ..memory_encoder.training.heldout import baselines_in

LOSSES_EVERY = 0.4  # seconds between messages of a training run


def running_node() -> str | None:
    """Id of the node that runs in this thread, None outside of an execution."""
    return getattr(_context(), "node_id", None)


def running_prompt() -> str | None:
    """Id of the prompt that runs in this thread, None outside of an execution."""
    return getattr(_context(), "prompt_id", None)


def _context() -> Any:
    utils = sys.modules.get("comfy_execution.utils")
    return utils.get_executing_context() if hasattr(utils, "get_executing_context") else None  # type: ignore[union-attr]


def prompt_server() -> Any:
    """ComfyUI's running server, None where there is none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def send(event: str, data: dict[str, Any]) -> None:
    """Sends `data` to the page that queued the running prompt, as core does with progress; to none when none did."""
    server = prompt_server()
    if server is not None and (client := getattr(server, "client_id", None)) is not None:
        server.send_sync(event, data, client)


def show_text(text: str) -> None:
    """Shows a text on the node that runs; where core cannot yet, or there is no page, nowhere."""
    show, node = getattr(prompt_server(), "send_progress_text", None), running_node()
    if show is not None and node is not None:
        show(text, node)


class TrainingEvents:
    """Tells the page of a training run of `steps` steps: losses in bundles, and when its folder has new pictures."""

    def __init__(self, run: str, steps: int) -> None:
        self.run, self.steps = run, steps
        self.losses: list[tuple[int, float]] = []
        self.message_time = 0.0
        self.pace: dict[str, float] = {}  # of the last step

    def started(self, first_step: int) -> None:
        """The run begins, or goes on, at a step; the page drops points after it, which are made again."""
        self._send("started", first_step=first_step)

    def step(self, step: int, loss: float) -> None:
        """One step is done."""
        if math.isfinite(loss):
            self.losses.append((step, loss))
        if time.monotonic() - self.message_time >= LOSSES_EVERY or step + 1 >= self.steps:
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
        losses, self.losses, self.message_time = self.losses, [], time.monotonic()
        if losses:
            self._send("losses", losses=losses, pace=self.pace)

    def phase(self, phase: str) -> None:
        """Something begins that takes time between two steps: heldout, saving or pictures."""
        self._flush()
        self._send("phase", phase=phase)

    def parts(self, step: int, parts: Mapping[str, float]) -> None:
        """What the held-out loss is made of, and what it is compared with."""
        finite = {name: value for name, value in parts.items() if math.isfinite(value)}
        self._send("parts", parts=finite, **baselines_in([{"step": step, "parts": finite}]))

    def _send(self, state: str, **values: Any) -> None:
        data = {"node": running_node(), "run": self.run, "steps": self.steps, "state": state}
        send("video_memory.training", data | values)
