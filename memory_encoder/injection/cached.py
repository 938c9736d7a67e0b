"""Cached memory (sixth version of the paper): memory attends to itself and the text alone, so that its keys and values
are the same in all steps of a section. They are computed once per section and block, and the video attends to them.

The host's own blocks do all the work: one pass runs the memory through a block while a hook on core's attention
(`optimized_attention_override`) takes its keys and values; in the pass of the video the hook adds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .hosts.base import HOOK, Block, BlockArgs, BlockPatch, MemoryPass, non_blocking

OVERRIDE = "optimized_attention_override"
NO_ATTENTION = (
    "the model's blocks did not call core's attention for their self-attention, which another node may have replaced; "
    "set attention_mode to joint"
)
KeysValues = tuple[Tensor, Tensor]
Attention = Callable[..., Tensor]


@dataclass
class KeyValueCache:
    """Keys and values of the memory by block, for each combination of prompts that core puts into one batch.

    keep_on: where they wait between steps; None leaves them where they were made. Lives as long as a section.
    """

    keep_on: torch.device | None = None
    _kept: dict[tuple[Any, ...], dict[int, KeysValues]] = field(default_factory=dict, repr=False)

    def of(self, call: Mapping[str, Any], blocks: int) -> dict[int, KeysValues]:
        """The entries for one forward pass; a fresh, unkept set where core does not say which prompts it runs.

        All `blocks` or none: after a pass that left out blocks the others' would continue from the wrong tokens.
        """
        uuids = call["transformer_options"].get("uuids")
        if not uuids or torch.is_grad_enabled():
            return {}
        x = call["x"]
        entries = self._kept.setdefault((tuple(map(str, uuids)), x.device, x.dtype, x.shape[0]), {})
        if len(entries) != blocks:
            entries.clear()
        return entries

    def forget(self) -> None:
        self._kept.clear()

    @property
    def bytes(self) -> int:
        return sum(
            t.numel() * t.element_size() for entries in self._kept.values() for pair in entries.values() for t in pair
        )


class CachedPatch:
    """The patch of one block."""

    def __init__(
        self, index: int, memory: MemoryPass | None, entries: dict[int, KeysValues], keep_on: torch.device | None
    ) -> None:
        self.index, self.memory, self.entries, self.keep_on = index, memory, entries, keep_on

    def __call__(self, args: BlockArgs, block: Block) -> BlockArgs:
        keys_values = self.entries.get(self.index)
        if keys_values is None and self.memory is not None:
            recorder = _Recorder(self.memory)
            self.memory.receive(block({**self.memory.arguments(args), HOOK: recorder}))
            keys_values = alone(recorder.result)
            recorder.keys_values = ()  # a checkpointed block holds the hook until its backward pass
            if self.keep_on is None:
                self.entries[self.index] = keys_values
            else:
                self.entries[self.index] = (keys_values[0].to(self.keep_on), keys_values[1].to(self.keep_on))
        assert keys_values is not None, "a block without keys and values has a memory pass"
        return block({**args, HOOK: _Reader(keys_values)})


def alone(keys_values: KeysValues) -> KeysValues:
    """The same without what lies in one storage with them: Hunyuan's single blocks compute all of a block in one."""
    if torch.is_grad_enabled():
        return keys_values
    keys, values = (
        t if t.untyped_storage().nbytes() == t.numel() * t.element_size() else t.clone() for t in keys_values
    )
    return keys, values


def beside_output(transformer_options: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Keys and values that have left the block which just ran with these options, beside its output."""
    override = transformer_options.get(OVERRIDE)
    recorder = override.first if isinstance(override, _First) else None
    return recorder.keys_values or () if isinstance(recorder, _Recorder) else ()


def hooked(block: Block) -> Block:
    """A block whose first attention runs through the hook in its arguments, if there is one."""

    def run(args: BlockArgs) -> BlockArgs:
        if HOOK not in args:
            return block(args)
        plain = {name: value for name, value in args.items() if name != HOOK}
        options = args["transformer_options"]
        first = _First(args[HOOK], options.get(OVERRIDE))
        return block({**plain, "transformer_options": {**options, OVERRIDE: first}})

    return run


class _First:
    """Core's attention override for one run of a block: self-attention is the first that it calls."""

    def __init__(self, hook: Callable[..., Tensor], earlier: Callable[..., Tensor] | None) -> None:
        self.first, self.earlier = hook, earlier
        self.hook: Callable[..., Tensor] | None = hook

    def __call__(self, attention: Attention, *args: Any, **kwargs: Any) -> Tensor:
        def plain(*inner: Any, **named: Any) -> Tensor:
            return attention(*inner, **named) if self.earlier is None else self.earlier(attention, *inner, **named)

        hook, self.hook = self.hook, None
        return plain(*args, **kwargs) if hook is None else hook(plain, *args, **kwargs)


def _sequence(q: Tensor, k: Tensor, kwargs: Mapping[str, Any]) -> int:
    """The dimension of the tokens; raises RuntimeError when this is no self-attention but the one after it."""
    axis = 2 if kwargs.get("skip_reshape") else 1
    if q.shape[axis] != k.shape[axis]:
        raise RuntimeError(NO_ATTENTION)
    return axis


class _Recorder:
    """Keeps the memory's keys and values, with rotary positions, as the attention gets them."""

    def __init__(self, memory: MemoryPass) -> None:
        self.tokens = memory.tokens
        self.keys_values: KeysValues | tuple[()] | None = None

    def __call__(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.keys_values is None:  # gradient checkpointing runs a block twice
            axis = _sequence(q, k, kwargs)
            start = k.shape[axis] - self.tokens
            self.keys_values = k.narrow(axis, start, self.tokens), v.narrow(axis, start, self.tokens)
        return attention(q, k, v, *args, **kwargs)

    @property
    def result(self) -> KeysValues:
        if not self.keys_values:
            raise RuntimeError(NO_ATTENTION)
        return self.keys_values


class _Reader:
    """Adds keys and values to those of the video."""

    def __init__(self, keys_values: KeysValues) -> None:
        self.keys_values = keys_values

    def __call__(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        axis = _sequence(q, k, kwargs)
        apart = non_blocking(k.device)
        more_k, more_v = (t.to(device=k.device, dtype=k.dtype, non_blocking=apart) for t in self.keys_values)
        mask = kwargs.get("mask")
        if mask is not None:  # additive, zero where attention is allowed
            kwargs = {**kwargs, "mask": torch.nn.functional.pad(mask, (0, more_k.shape[axis]))}
        return attention(q, torch.cat([k, more_k], dim=axis), torch.cat([v, more_v], dim=axis), *args, **kwargs)


def cached_patches(
    slots: list[tuple[str, int]],
    memory: MemoryPass | None,
    entries: dict[int, KeysValues],
    keep_on: torch.device | None,
) -> dict[tuple[str, int], BlockPatch]:
    """One patch for each block, in the order in which the host runs them; memory is None when no entry is missing."""
    return {slot: CachedPatch(index, memory, entries, keep_on) for index, slot in enumerate(slots)}
