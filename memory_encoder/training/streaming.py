"""Where a card has no room: frozen weights of the host's blocks wait in RAM until their block runs, and so do the
inputs that gradient checkpointing keeps. Nothing is computed differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from ..injection.hosts.base import host_blocks, non_blocking
from .pinned import Pinning

_PINNING: ContextVar[Pinning | None] = ContextVar("pinning of the run", default=None)


@contextmanager
def streamed_blocks(model: nn.Module, resident: int) -> Iterator[None]:
    """Within it the frozen weights of all blocks but the first `resident` lie in RAM; those of one are where it runs.

    A block's weights come before it runs, forward and again in the backward pass, and go when another one's come. They
    are no parameters of the model meanwhile, so that nothing moves them. resident: negative for all. The RAM is pinned
    where a card copies from it, until the end.
    """
    pinning, slot = Pinning(), _Slot()
    token = _PINNING.set(pinning)
    parts: list[_BlockInRam] = []
    try:
        for block in host_blocks(model)[resident:] if resident >= 0 else []:
            parts.append(_BlockInRam(block, slot, pinning))
        yield
    finally:
        for part in parts:
            part.restore()
        _PINNING.reset(token)
        pinning.release()


class _Slot:
    """Room for the weights of one block."""

    def __init__(self) -> None:
        self.holder: _BlockInRam | None = None

    def take(self, part: _BlockInRam, device: torch.device) -> None:
        if self.holder is part:
            return
        if self.holder is not None:
            self.holder.place(None)
        self.holder = part
        part.place(device)


class _BlockInRam:
    def __init__(self, block: nn.Module, slot: _Slot, pinning: Pinning) -> None:
        self.slot = slot
        self.places = [
            (module, name)
            for module in block.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and not parameter.requires_grad
        ]
        weights: list[Any] = [module._parameters[name] for module, name in self.places]
        self.held = pinning.hold([weight.detach() for weight in weights])
        for module, name in self.places:
            del module._parameters[name]
        self.place(None)
        self.handle = block.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True)

    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        self.slot.take(self, given.device)

    def place(self, device: torch.device | None) -> None:
        """Lays the weights on a device, or leaves those in RAM."""
        for (module, name), held in zip(self.places, self.held, strict=True):
            module.__dict__[name] = held.weight if device is None else held.on(device)

    def restore(self) -> None:
        self.handle.remove()
        for (module, name), held in zip(self.places, self.held, strict=True):
            del module.__dict__[name]
            module._parameters[name] = nn.Parameter(held.weight, requires_grad=False)


def inputs_in_ram() -> AbstractContextManager[Any]:
    """Within it what autograd keeps and has computed waits in RAM: around checkpointed blocks, their inputs."""
    pinning = _PINNING.get() or Pinning()

    def pack(tensor: Tensor) -> Any:
        if tensor.grad_fn is None or tensor.device.type == "cpu":
            return tensor
        kept = pinning.empty_like(tensor)
        # What is not pinned must be there when the hook returns: nothing would say when it is.
        return tensor.device, kept.copy_(tensor, non_blocking=pinning.works and non_blocking(tensor.device))

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        device, kept = packed
        return kept.to(device, non_blocking=non_blocking(device))

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
