"""Where a card has no room: frozen weights of the host's blocks wait in RAM until their block runs, and so do the
inputs that gradient checkpointing keeps. Nothing is computed differently.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..injection.hosts.base import host_blocks

_LOG = logging.getLogger("video_memory")


@contextmanager
def streamed_blocks(model: nn.Module, resident: int) -> Iterator[None]:
    """Within it the frozen weights of all blocks but the first `resident` lie in RAM; those of one are where it runs.

    A block's weights come before it runs, forward and again in the backward pass, and go when another one's come. They
    are no parameters of the model meanwhile, so that nothing moves them. resident: negative for all.
    """
    blocks = host_blocks(model)[resident:] if resident >= 0 else []
    slot = _Slot()
    parts = [_BlockInRam(block, slot) for block in blocks]
    try:
        yield
    finally:
        for part in parts:
            part.restore()


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
    def __init__(self, block: nn.Module, slot: _Slot) -> None:
        self.slot = slot
        frozen = [
            (module, name)
            for module in block.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and not parameter.requires_grad
        ]
        self.places: list[tuple[nn.Module, str, Tensor]] = []
        for module, name in frozen:
            weight: Any = module._parameters.pop(name)
            self.places.append((module, name, _in_ram(weight.data)))
        self.place(None)
        self.handle = block.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True)

    def _before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        self.slot.take(self, given.device)

    def place(self, device: torch.device | None) -> None:
        """Lays the weights on a device, or leaves those in RAM."""
        for module, name, data in self.places:
            module.__dict__[name] = data if device is None else data.to(device, non_blocking=True)

    def restore(self) -> None:
        self.handle.remove()
        for module, name, data in self.places:
            del module.__dict__[name]
            module._parameters[name] = nn.Parameter(data, requires_grad=False)


def inputs_in_ram() -> AbstractContextManager[Any]:
    """Within it what autograd keeps and has computed waits in RAM: around checkpointed blocks, their inputs."""

    def pack(tensor: Tensor) -> Any:
        if tensor.grad_fn is None or tensor.device.type == "cpu":
            return tensor
        kept = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=torch.cuda.is_available())
        return tensor.device, kept.copy_(tensor, non_blocking=True)

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        device, kept = packed
        return kept.to(device, non_blocking=True)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _in_ram(data: Tensor) -> Tensor:
    """The weight in system RAM, pinned where a card copies from it."""
    data = data.cpu()
    if not torch.cuda.is_available():
        return data
    try:
        return data.pin_memory()
    except RuntimeError:
        _LOG.warning("system RAM cannot be pinned for %d MiB of weights; copies of them take longer", data.nbytes >> 20)
        return data
