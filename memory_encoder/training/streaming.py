"""Where a card has no room: frozen weights of the host's blocks wait in RAM until their block runs, and so do the
inputs that gradient checkpointing keeps. Nothing is computed differently.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from ..injection.hosts.base import host_blocks, non_blocking

_LOG = logging.getLogger("video_memory")
_ALIGNED = 256  # bytes between the beginnings of two weights in one buffer
_PORTABLE = 1  # cudaHostRegisterPortable: for all cards, as core registers
Rebuild = Callable[[Sequence[Tensor]], Tensor]


@contextmanager
def streamed_blocks(model: nn.Module, resident: int) -> Iterator[None]:
    """Within it the frozen weights of all blocks but the first `resident` lie in RAM; those of one are where it runs.

    A block's weights come before it runs, forward and again in the backward pass, and go when another one's come. They
    are no parameters of the model meanwhile, so that nothing moves them. resident: negative for all. The RAM is pinned
    where a card copies from it, until the end.
    """
    pinning, slot = _Pinning(), _Slot()
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
    def __init__(self, block: nn.Module, slot: _Slot, pinning: _Pinning) -> None:
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


class _Held:
    """A weight in RAM. pinned: its plain tensors in RAM that a card copies from by itself, none elsewhere."""

    def __init__(self, weight: Tensor, pinned: Sequence[Tensor] = (), rebuild: Rebuild | None = None) -> None:
        self.weight, self.pinned, self.rebuild = weight, pinned, rebuild

    def on(self, device: torch.device) -> Tensor:
        if self.rebuild is None:
            return self.weight.to(device)
        # Part by part: a quantized tensor as a whole would wait for the copy.
        return self.rebuild([part.to(device, non_blocking=non_blocking(device)) for part in self.pinned])


class _Pinning:
    """What a run has pinned. After a first failure, which is said once, it pins no more.

    Weights by registering one buffer for each block: torch's own allocator, which the inputs have, rounds every tensor
    up to a power of two and keeps what it has until it is told.
    """

    def __init__(self) -> None:
        self.works = torch.cuda.is_available()
        self._registered: list[Tensor] = []
        self._allocated = False

    def hold(self, weights: Sequence[Tensor]) -> list[_Held]:
        """Weights in RAM, in one pinned buffer where that works, else as they are."""
        apart = [taken_apart(weight) for weight in weights] if self.works else []
        places, size = _laid_out([part for parts, _ in apart for part in parts])
        buffer = self._pinned(size) if size else None
        if buffer is None:
            return [_Held(weight.cpu()) for weight in weights]
        views = iter(places)
        held = []
        for parts, rebuild in apart:
            pinned = [_view(buffer, next(views), part) for part in parts]
            held.append(_Held(rebuild(pinned), pinned, rebuild))
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


_PINNING: ContextVar[_Pinning | None] = ContextVar("pinning of the run", default=None)


def inputs_in_ram() -> AbstractContextManager[Any]:
    """Within it what autograd keeps and has computed waits in RAM: around checkpointed blocks, their inputs."""
    pinning = _PINNING.get() or _Pinning()

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


def taken_apart(weight: Tensor) -> tuple[list[Tensor], Rebuild]:
    """The plain tensors that a weight consists of, and what makes one of its kind of others in their place.

    Core's quantized tensors hold values and scales; other subclasses (GGUF) have attributes beside their values.
    """
    kind: Any = type(weight)
    if kind is Tensor:
        return [weight], lambda parts: parts[0]
    if hasattr(weight, "__tensor_flatten__"):
        names, context = weight.__tensor_flatten__()  # type: ignore[attr-defined]
        size, stride = weight.size(), weight.stride()

        def joined(parts: Sequence[Tensor]) -> Tensor:
            return kind.__tensor_unflatten__(dict(zip(names, parts, strict=True)), context, size, stride)

        return [getattr(weight, name) for name in names], joined

    def with_attributes(parts: Sequence[Tensor]) -> Tensor:
        made = parts[0].as_subclass(kind)
        vars(made).update(vars(weight))
        return made

    return [weight.as_subclass(Tensor)], with_attributes


def weight_bytes(weight: Tensor) -> int:
    """Bytes that a weight really has, scales included; core's quantized tensors call themselves what they stand for."""
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.nbytes
    return sum(part.nbytes for part in taken_apart(weight)[0])


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
