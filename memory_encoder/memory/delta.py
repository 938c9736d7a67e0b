"""What one section adds to a memory, as tensors and JSON values: written once, it need not be computed again.

Tokens and all else that only grows count from where the memory before ends; the end of the memory is new each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .growing import Growing
from .kept import InFile, of_part
from .keyframe_memory import KeyframeMemory
from .memory_file import Memory, holds_pictures
from .tail import KeptEnd, end_from_tensors
from .video_memory import SectionRecord, VideoMemory

_GROWING = {"tokens": 1, "coordinates": 0, "hidden": 1, "features": 2, "lr": 2}  # along which axis
_KEPT = ("tokens", "hidden")  # stay in the file; a coordinate takes a thousandth of its token
_OF_STATE = ("features", "lr")  # what an attention that looks back reads with every section


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


def with_added(
    before: Memory, tensors: Mapping[str, Tensor], described: Mapping[str, Any], path: Path | None = None
) -> Any:
    """The memory after the section of which `added` gave this, equal to the bit.

    path: the file in which it lies (see `kept`); the memory holds no more of it then than the next section needs.
    Raises KeyError, TypeError, ValueError or RuntimeError when something is missing or does not fit.
    """
    if holds_pictures(before):
        clip = KeyframeMemory.from_file(dict(described), dict(tensors), "of a section")
        return before.followed_by(clip)
    first, *others = (
        _with_added(part, of_part(tensors, number), one, path, number)
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
    for name, grown in _growing(after).items():
        tensors[name] = grown.part(old[name].length if name in old else 0, grown.length)
    return tensors, described | {"record": asdict(after.sections[-1])}


def _with_added(
    before: VideoMemory, tensors: Mapping[str, Tensor], described: Mapping[str, Any], path: Path | None, number: int
) -> VideoMemory:
    old = _growing(before)
    grown: dict[str, Growing] = {}
    for name, axis in _GROWING.items():
        if name in tensors:
            kept = path is not None and name in _KEPT
            piece = InFile.of(tensors[name], path, f"{number}.{name}") if kept and path else tensors[name]
            grown[name] = (old[name] if name in old else Growing(axis, (), piece.dtype)).followed_by(piece)
    state = {name: grown[name].whole() for name in _OF_STATE if name in grown}
    return replace(
        before,
        tokens=grown["tokens"],
        coordinates=grown["coordinates"],
        hidden=grown.get("hidden"),
        sections=(*before.sections, SectionRecord(**described["record"])),
        boundaries=before.boundaries_with_end(),
        end_kept=None if path is None else KeptEnd(path, number, grown["tokens"].length),
        **end_from_tensors(described, {**tensors, **state}),
    )


def _growing(memory: VideoMemory) -> dict[str, Growing]:
    found = {"tokens": memory.tokens, "coordinates": memory.coordinates, "hidden": memory.hidden}
    of_state = {name: getattr(memory.state, name) for name in _OF_STATE}
    grown = {name: Growing.of(tensor, _GROWING[name]) for name, tensor in of_state.items() if tensor is not None}
    return {name: one for name, one in found.items() if one is not None} | grown
