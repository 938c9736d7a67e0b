"""What one section adds to a memory, as tensors and JSON values: written once, it need not be computed again.

Tokens and all else that only grows count from where the memory before ends; the end of the memory is new each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from .keyframe_memory import KeyframeMemory
from .memory_file import Memory, holds_pictures
from .tail import end_from_tensors
from .video_memory import SectionRecord, VideoMemory

_GROWING = {"tokens": 1, "coordinates": 0, "hidden": 1, "features": 2, "lr": 2}  # along which axis


def added(before: Memory, after: Memory) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `after` has beyond `before`, to which one section was appended."""
    if holds_pictures(after):
        clip = after.clips[-1]
        clip = replace(clip, record=replace(clip.record, start_latent=0))
        return replace(after, clips=(clip,)).to_tensors()
    assert not holds_pictures(before), "memories of one encoder are of one kind"
    tensors: dict[str, Tensor] = {}
    parts = []
    for number, (old, new) in enumerate(zip(before.parts, after.parts, strict=True)):
        found, described = _added(old, new)
        tensors |= {f"{number}.{name}": tensor for name, tensor in found.items()}
        parts.append(described)
    return tensors, {"parts": parts}


def with_added(before: Memory, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> Any:
    """The memory after the section of which `added` gave this, equal to the bit.

    Raises KeyError, TypeError, ValueError or RuntimeError when something is missing or does not fit.
    """
    if holds_pictures(before):
        clip = KeyframeMemory.from_file(dict(described), dict(tensors), "of a section")
        return before.followed_by(clip)
    first, *others = (
        _with_added(part, {name: tensors[f"{number}.{name}"] for name in _names(tensors, number)}, one)
        for number, (part, one) in enumerate(zip(before.parts, described["parts"], strict=True))
    )
    return replace(first, others=tuple(others))


def ingredients(memory: Memory) -> dict[str, Any]:
    """All of a memory on which it depends what the next section adds to it, for a key."""
    ends = [] if holds_pictures(memory) else [part.end_to_tensors() for part in memory.parts]
    return {"contents": memory.contents(), "ends": ends, "records": len(memory.sections)}


def _added(before: VideoMemory, after: VideoMemory) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, described = after.end_to_tensors()
    old = _growing(before)
    for name, tensor in _growing(after).items():
        start = old[name].shape[_GROWING[name]] if name in old else 0
        tensors[name] = tensor.narrow(_GROWING[name], start, tensor.shape[_GROWING[name]] - start)
    return tensors, described | {"record": asdict(after.sections[-1])}


def _with_added(before: VideoMemory, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> VideoMemory:
    old, whole = _growing(before), dict(tensors)
    for name, axis in _GROWING.items():
        if name in old and name in tensors:
            whole[name] = torch.cat([old[name].to(tensors[name].dtype), tensors[name]], axis)
    return replace(
        before,
        tokens=whole["tokens"],
        coordinates=whole["coordinates"],
        hidden=whole.get("hidden"),
        sections=(*before.sections, SectionRecord(**described["record"])),
        boundaries=before.boundaries_with_end(),
        **end_from_tensors(described, whole),
    )


def _growing(memory: VideoMemory) -> dict[str, Tensor]:
    state = memory.state
    found = (memory.tokens, memory.coordinates, memory.hidden, state.features, state.lr)
    return {name: tensor for name, tensor in zip(_GROWING, found, strict=True) if tensor is not None}


def _names(tensors: Mapping[str, Tensor], number: int) -> Iterator[str]:
    """Names of the tensors of one encoder's memory."""
    prefix = f"{number}."
    return (name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
