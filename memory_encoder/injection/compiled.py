"""A memory in a model that core's helper compiles (comfy_api.torch_helpers, core's TorchCompileModel and others').

The memory lives in `transformer_options`. TorchCompileModel compiles the model as a whole and drops all guards on
that dictionary, so that a graph traced without a memory, or with another, would be used again. Compiled block by
block the memory's tokens are arguments of what is compiled, and shapes and types guard themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from .hosts import HostError
from .hosts.base import Block, BlockArgs, Slot
from .hosts.comfy_models import compile_parts

APPLY_MODEL, COMPILE_KEY, COMPILE_KWARGS = "apply_model", "torch.compile", "torch_compile_kwargs"  # core's names
WHOLE, FILTER = "diffusion_model", "guard_filter_fn"


def compiles_whole(model: Any) -> bool:
    """Whether a ModelPatcher compiles its diffusion model as a whole; core's wrapper holds its parts by name."""
    wrappers = [one for one in model.get_wrappers(APPLY_MODEL, COMPILE_KEY) if inspect.isfunction(one)]
    parts = (inspect.getclosurevars(wrapper).nonlocals.get("compiled_module_dict", (WHOLE,)) for wrapper in wrappers)
    return any(WHOLE in names for names in parts)


def is_compiled(model: Any) -> bool:
    """Whether core's helper compiles anything of a ModelPatcher."""
    return bool(model.get_wrappers(APPLY_MODEL, COMPILE_KEY))


def drops_guards(model: Any) -> bool:
    """Whether what is compiled may be used again although transformer_options have changed."""
    if not is_compiled(model):
        return False
    options = model.model_options.get(COMPILE_KWARGS, {}).get("options")
    # torch takes the filter out of the dictionary that it is given.
    return compiles_whole(model) or (options is not None and (not options or FILTER in options))


def compile_by_blocks(model: Any, slots: Sequence[Slot]) -> None:
    """Turns a model that is compiled as a whole into one whose blocks are, in place and with the same settings."""
    if not compiles_whole(model):
        return
    kwargs = dict(model.model_options.get(COMPILE_KWARGS, {"backend": "inductor"}))
    kept = {name: value for name, value in (kwargs.get("options") or {}).items() if name != FILTER}
    plain = not hasattr(model.get_model_object(WHOLE), "double_blocks")  # Wan calls them blocks
    keys = [f"{WHOLE}.{'blocks' if plain else kind + 's'}.{index}" for kind, index in slots]
    compile_parts(model, keys, **{**kwargs, "options": kept or None})


def refuse_late(model: Any, needs_guards: bool, needs_hooks: bool = False) -> None:
    """Raises HostError for a model that was compiled after the memory was put into it."""
    if compiles_whole(model) or (needs_guards and drops_guards(model)) or (needs_hooks and is_compiled(model)):
        raise HostError(
            "model was compiled after the memory was applied, and would not see it; "
            "put the node that compiles the model before Apply Video Memory"
        )


def uncompiled(block: Block) -> Block:
    """A block that runs as it is: hooks on its attention are looked up in transformer_options, which nothing guards."""

    def run(args: BlockArgs) -> BlockArgs:
        with torch.compiler.set_stance("force_eager"):
            return block(args)

    return run
