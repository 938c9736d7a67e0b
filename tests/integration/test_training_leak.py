"""Nothing of a training step outlives it, whatever way the memory is read, with a backward pass or without."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.injection.hosts.encoder_file import with_paths
from memory_encoder.training.draws import draw_rows

from .sharded import HunyuanClips, hunyuan_module
from .training import OneClip, tiny_module, tiny_options


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


class Live(TorchDispatchMode):
    """Bytes of all storages that were made within it and are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.known:
                    self.known[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.known.pop, storage._cdata, None)
        return out

    @property
    def bytes(self) -> int:
        return sum(self.known.values())


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize(
    ("host", "paths"),
    [
        ("wan", {"memory_attention": "cached"}),
        ("wan", {"cross_attention": True}),
        ("hunyuan", {"memory_attention": "cached"}),
        ("hunyuan", {}),
    ],
)
def test_live_bytes_are_the_same_after_every_step(host: str, paths: dict[str, Any], backward: bool) -> None:
    """With gradient checkpointing and without the garbage collector, which would not find such a cycle anyway."""
    options = tiny_options(stage="continuation", history_dropout=0.0, rank=4)
    module = (tiny_module if host == "wan" else hunyuan_module)(options, True)
    settings: dict[str, Any] = {"cross_attention": False, "memory_attention": "joint"} | paths
    module.encoder = with_paths(module.encoder, find_host(module.diffusion_model), seed=1, **settings)
    batch = (OneClip if host == "wan" else HunyuanClips)(2).rows(0, 0, 1, "train", None)
    live, after = Live(), []
    gc.collect()
    gc.disable()
    try:
        for step in range(4):
            drawn = draw_rows(batch, options, 2, step, 0)
            with live:
                loss = module(batch, drawn)
                if backward:
                    loss.backward()
                del loss
                for parameter in module.parameters():
                    parameter.grad = None
            after.append(live.bytes)
            del drawn
    finally:
        gc.enable()
    assert after[1] == after[2] == after[3], after
