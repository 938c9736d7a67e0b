"""Latents of a section at other times than their own, as the model's rotary embedding sees them (Memento).

For models whose rotary embedding is an argument of their blocks and holds the video alone, as Wan's.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .compiled import compile_by_blocks
from .hosts import MemoryTokens, find_host
from .hosts.base import Block, BlockArgs, Constants, Once
from .inject import DIFFUSION_MODEL, ON_CLEANUP, moved_section, with_patches

KEY = "video_memory_times"


def with_times(model: Any, times: Sequence[float]) -> Any:
    """A clone of a ModelPatcher for which the first latents stand at `times`, and those after them at 0, 1, ..."""
    patched = model.clone()
    host = find_host(patched.get_model_object("diffusion_model"))
    compile_by_blocks(patched, host.slots())
    wrapper = _TimesWrapper(tuple(times))
    patched.add_wrapper_with_key(DIFFUSION_MODEL, KEY, wrapper)
    patched.add_callback_with_key(ON_CLEANUP, KEY, wrapper.constants.forget)
    return patched


@dataclass(frozen=True)
class _TimesWrapper:
    """Wraps one forward pass of the diffusion model (WrappersMP.DIFFUSION_MODEL)."""

    times: tuple[float, ...]
    constants: Constants = field(default_factory=Constants)

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        call = inspect.signature(executor.class_obj._forward).bind(*args, **kwargs)
        call.apply_defaults()
        host, x = find_host(executor.class_obj), call.arguments["x"]
        options = call.arguments["transformer_options"]
        rotary = moved_section(host, x, -float(len(self.times)), options, self.constants, self.times)
        places: Once[Tensor] = Once()

        def make(pe: Tensor) -> Tensor:
            return torch.cat([rotary.to(pe), pe[:, rotary.shape[1] :]], dim=1)

        def moved(args: BlockArgs, block: Block) -> BlockArgs:
            return block({**args, "pe": places.of(args["pe"], make)})

        nothing = MemoryTokens(x.new_zeros(0), rotary, "same")
        patches = dict.fromkeys(host.slots(), moved)
        call.arguments["transformer_options"] = with_patches(options, patches, nothing)
        return executor(*call.args, **call.kwargs)
