"""RAM that a card copies from by itself, without the processor: pinned where that works, plain where not."""

from __future__ import annotations

import contextlib
import logging
import mmap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..injection.hosts.base import non_blocking
from .weight_parts import Rebuild, taken_apart

_LOG = logging.getLogger("video_memory")
_ALIGNED = 256  # bytes between the beginnings of two weights in one buffer
_PORTABLE = 1  # cudaHostRegisterPortable: for all cards, as core registers


class Held:
    """A weight in RAM. pinned: its plain tensors in RAM that a card copies from by itself, none elsewhere."""

    def __init__(self, weight: Tensor, pinned: Sequence[Tensor] = (), rebuild: Rebuild | None = None) -> None:
        self.weight, self.pinned, self.rebuild = weight, pinned, rebuild

    def on(self, device: torch.device) -> Tensor:
        if self.rebuild is None:
            return self.weight.to(device)
        # Part by part: a quantized tensor as a whole would wait for the copy.
        return self.rebuild([part.to(device, non_blocking=non_blocking(device)) for part in self.pinned])


class Pinning:
    """What a run has pinned. After a first failure, which is said once, it pins no more.

    Weights by registering one buffer for each block: torch's own allocator, which the inputs have, rounds every tensor
    up to a power of two and keeps what it has until it is told.
    """

    def __init__(self) -> None:
        self.works = torch.cuda.is_available()
        self._registered: list[Tensor] = []
        self._allocated = False

    def hold(self, weights: Sequence[Tensor]) -> list[Held]:
        """Weights in RAM, in one pinned buffer where that works, else as they are."""
        apart = [taken_apart(weight) for weight in weights] if self.works else []
        places, size = _laid_out([part for parts, _ in apart for part in parts])
        buffer = self._pinned(size) if size else None
        if buffer is None:
            return [Held(weight.cpu()) for weight in weights]
        views = iter(places)
        held = []
        for parts, rebuild in apart:
            pinned = [_view(buffer, next(views), part) for part in parts]
            held.append(Held(rebuild(pinned), pinned, rebuild))
        return held

    def empty_like(self, tensor: Tensor) -> Tensor:
        """Room in RAM for a tensor of a card, from torch's allocator, which has what earlier steps gave back."""
        if self.works:
            try:
                kept = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
                self._allocated = True
                return kept
            except RuntimeError:
                self._failed(tensor.nbytes)
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")

    def _pinned(self, size: int) -> Tensor | None:
        """Whole pages, since two buffers in one page cannot both be registered."""
        page = mmap.PAGESIZE
        try:
            buffer = torch.empty(size + 2 * page, dtype=torch.uint8)
        except RuntimeError:
            return self._failed(size)
        buffer = buffer[-buffer.data_ptr() % page :][: -(-size // page) * page]
        cudart: Any = torch.cuda.cudart()
        if int(cudart.cudaHostRegister(buffer.data_ptr(), buffer.nbytes, _PORTABLE)):
            _forget_error()
            return self._failed(size)
        self._registered.append(buffer)
        return buffer

    def _failed(self, size: int) -> None:
        self.works = False
        _LOG.warning(
            "system RAM cannot be pinned for %d MiB; what waits there from here on is copied more slowly. Free RAM, or "
            "raise the limit of locked memory",
            size >> 20,
        )

    def release(self) -> None:
        """Unregisters the weights' RAM, which stays as RAM for whoever has it, and gives back the inputs'."""
        if self._registered or self._allocated:
            torch.cuda.synchronize()  # copies may be on their way
        cudart: Any = torch.cuda.cudart() if self._registered else None
        for buffer in self._registered:
            if int(cudart.cudaHostUnregister(buffer.data_ptr())):
                _forget_error()
        self._registered.clear()
        give_back = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)  # not in older versions
        if self._allocated and give_back is not None:
            give_back()


def _laid_out(parts: Sequence[Tensor]) -> tuple[list[int], int]:
    """Where each begins in a buffer for all, in bytes, and the length of that."""
    starts, end = [], 0
    for part in parts:
        starts.append(end)
        end += -(-part.nbytes // _ALIGNED) * _ALIGNED
    return starts, end


def _view(buffer: Tensor, start: int, source: Tensor) -> Tensor:
    """A tensor of the buffer's bytes from `start` on, with what the source holds."""
    like = torch.empty_like(source, device="meta")  # has its strides, where nothing lies between its values
    values = buffer[start : start + source.nbytes].view(source.dtype)
    return values.as_strided(like.shape, like.stride()).copy_(source)


def _forget_error() -> None:
    """The next kernel that starts reports a failed registration once more: here, a small one."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=torch.device("cuda", torch.cuda.current_device()))
        torch.cuda.synchronize()
