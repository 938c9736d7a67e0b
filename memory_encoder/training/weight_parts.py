"""The plain tensors that a weight consists of; core's quantized kinds and GGUF's have more than one, or attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Rebuild = Callable[[Sequence[Tensor]], Tensor]


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
