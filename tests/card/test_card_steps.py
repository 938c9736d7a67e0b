"""What a memory makes anew in each step: nothing that is the same in all steps, and no second copy of the video."""

from __future__ import annotations

from collections import Counter
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

    def watch(self, module: torch.nn.Module, name: str) -> None:
        module.register_forward_hook(lambda *_: self.now.update([name]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        source = args[1] if name == "copy_" else args[0] if args else None
        if name in ("_to_copy", "copy_") and source.device.type == "cpu" and result.device.type == "cuda":
            self.now["from RAM"] += 1
        if name == "cat" and result.ndim == 3 and result.shape[2] == self.width and result.shape[1] > 1000:
            self.now["joins"] += 1
        return result


def counts(card: Any, name: str, way: str | None) -> list[dict[str, int]]:
    """The work of each step for one prompt, at `layers` blocks of each kind."""
    with card.on():
        filmed, patched = made(card, name, way or "joint", layers=3)
        model = filmed.model.diffusion_model
        work = Work(filmed.model.host.width)
        for watched in ("time_projection", "time_in", "rope_embedder", "pe_embedder"):
            if hasattr(model, watched):
                work.watch(getattr(model, watched), "time" if watched.startswith("time") else "rotary")
        with work:
            filmed.model.sample(patched if way else filmed.patcher, cfg=1.0, steps=Steps(STEPS, work.step))
    return work.steps


@pytest.mark.parametrize("way", ["joint", "cached", "cross", "window"])
@pytest.mark.parametrize("name", CLASSES)
def test_from_the_second_step_on_only_the_video_is_worked_on(card: Any, name: str, way: str) -> None:
    plain, memory = counts(card, name, None)[1], counts(card, name, way)
    assert memory[1] == memory[2]
    of_step, wan = memory[1], name.startswith("wan")
    assert of_step.get("from RAM", 0) == plain.get("from RAM", 0), "a memory lies on the card after the first step"
    assert of_step["rotary"] == plain["rotary"]
    # Hunyuan's modulation holds the timestep in a sum: the memory's is what is added to it, from time_in once more.
    assert of_step["time"] == plain["time"] + (not wan and way != "cached")
    # Tokens go behind the video in front of the first block of each kind, and stay there.
    kinds = 2 if name == "hunyuan" else 1
    assert of_step.get("joins", 0) - plain.get("joins", 0) == (0 if way == "cached" else kinds)


@pytest.mark.parametrize("name", CLASSES)
def test_a_cache_fills_with_one_modulation_of_the_memory(card: Any, name: str) -> None:
    plain, first = counts(card, name, None)[0], counts(card, name, "cached")[0]
    assert first["time"] <= plain["time"] + (1 if name.startswith("wan") else 2)
    assert first["rotary"] == plain["rotary"] + 1
