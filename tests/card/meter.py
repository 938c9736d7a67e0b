"""Live bytes of the fake card, to the byte."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 2**30


class Meter(TorchDispatchMode):
    """Counts the bytes of storages that are alive on one kind of device while it is entered: `now` and `peak`.

    Not in it: what an allocator loses to fragments, work space of kernels, the context of the card.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device, self.now, self.peak, self.at = device, 0, 0, ""
        self._known: dict[int, int] = {}

    def add(self, tensor: Tensor, name: str = "given") -> None:
        """Counts what was there before."""
        if tensor.device.type != self.device:
            return
        storage: Any = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = size
        self.now += size
        if self.now > self.peak:
            self.peak, self.at = self.now, name
        weakref.finalize(storage, self._gone, key)

    def add_module(self, module: torch.nn.Module) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            self.add(tensor)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)

    @contextmanager
    def above(self) -> Iterator[Meter]:
        """Enters the meter, and afterwards `peak` is the highest of what was used above what there was."""
        before = self.peak = self.now
        with self:
            yield self
        self.peak -= before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf, str(func))
        return result
