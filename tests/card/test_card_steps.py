"""What a memory makes anew in each step: nothing that is the same in all steps, and no second copy of the video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .hosts import Steps
from .test_card_sampling import CLASSES, made

STEPS = 3


class Work(TorchDispatchMode):
    """Counts by step: copies from RAM to the card, joins of the sequence, and runs of the modules that are hooked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.steps, self.now = width, [], Counter[str]()

    def step(self) -> None:
        self.steps.append(dict(self.now))
        self.now.clear()

    def watch(self, module: torch.nn.Module, name: str) -> Callable[[], None]:
        """Counts runs of a module under a name until what it returns is called."""
        return module.register_forward_hook(lambda *_: self.now.update([name])).remove

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        source = args[1] if name == "copy_" else args[0] if args else None
        if (
            source is not None
            and name in ("_to_copy", "copy_")
            and source.device.type == "cpu"
            and result.device.type == "cuda"
        ):
            self.now["from RAM"] += 1
        if name == "cat" and result.ndim == 3 and result.shape[2] == self.width and result.shape[1] > 1000:
            self.now["joins"] += 1
        return result


def counts(card: Any, name: str, way: str | None) -> list[dict[str, int]]:
    """The work of each step for one prompt."""
    with card.on():
        full = card.model(name, torch.bfloat16, 2)
        patched = made(card, name, way)[1] if way else full.patcher
        work = Work(full.host.width)
        with work, ExitStack() as watching:
            for watched in ("time_projection", "time_in", "rope_embedder", "pe_embedder"):
                if hasattr(full.diffusion_model, watched):
                    kind = "time" if watched.startswith("time") else "rotary"
                    watching.callback(work.watch(getattr(full.diffusion_model, watched), kind))
            full.sample(patched, cfg=1.0, steps=Steps(STEPS, work.step))
    return work.steps


@pytest.mark.parametrize(
    ("name", "way"), [*((name, way) for name in CLASSES for way in ("joint", "cached")), ("wan_5b", "cross")]
)
def test_from_the_second_step_on_only_the_video_is_worked_on(card: Any, name: str, way: str) -> None:
    plain, memory = counts(card, name, None)[1], counts(card, name, way)
    assert memory[1] == memory[2]
    # A cache fills with one modulation of the memory.
    assert memory[0]["time"] <= memory[1]["time"] + (1 if name.startswith("wan") else 2)
    assert memory[0]["rotary"] <= plain["rotary"] + (2 if way == "cross" else 1)
    of_step, wan = memory[1], name.startswith("wan")
    assert of_step.get("from RAM", 0) == plain.get("from RAM", 0), "a memory lies on the card after the first step"
    assert of_step["rotary"] == plain["rotary"]
    # Hunyuan's modulation holds the timestep in a sum: the memory's is what is added to it, from time_in once more.
    assert of_step["time"] == plain["time"] + (not wan and way != "cached")
    if way != "cached":  # tokens go behind the video in front of the first block of each kind, and stay there
        assert of_step["joins"] - plain.get("joins", 0) == (2 if name == "hunyuan" else 1)
