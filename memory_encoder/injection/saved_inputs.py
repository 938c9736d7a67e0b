"""Blocks of core that add to their tensors in place, which spoils gradients: what was there is saved for the backward
pass. Autograd refuses it in a plain pass; where a checkpointed block is run again it goes by unseen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .hosts.base import Block, BlockArgs

STREAMS = ("img", "txt")  # arguments of a block that it adds to


class NormsCopy(TorchFunctionMode):
    """Within it a layer norm saves a copy of its input, to which the block adds afterwards."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (functional.layer_norm, torch.layer_norm):
            args = (args[0].clone(), *args[1:])
        return func(*args, **(kwargs or {}))


def on_copies(block: Block) -> Block:
    """A block that leaves its inputs, and what it saves for gradients, as they were."""

    def run(args: BlockArgs) -> BlockArgs:
        with NormsCopy():
            return block({**args, **{name: args[name].clone() for name in STREAMS if name in args}})

    return run
