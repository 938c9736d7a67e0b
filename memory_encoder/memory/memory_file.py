"""Memories of any kind: a new one, one from a file, and what tells them apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..phi.config import EncoderConfig
from .keyframe_memory import KEYFRAMES_FORMAT, KEYFRAMES_SCHEMA_VERSION, KeyframeMemory
from .video_memory import MEMORY_FORMAT, MEMORY_SCHEMA_VERSION, VideoMemory, memory_damage_named, read_memory

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Memory: TypeAlias = VideoMemory | KeyframeMemory
FORMATS = {MEMORY_FORMAT: MEMORY_SCHEMA_VERSION, KEYFRAMES_FORMAT: KEYFRAMES_SCHEMA_VERSION}


def load_memory(path: Path) -> Memory:
    """Reads a memory that was saved, of whichever kind.

    Raises ValueError that names the file when it is damaged, foreign or too new, OSError when it cannot be read.
    """
    with memory_damage_named(path):
        kind, config, tensors = read_memory(path, FORMATS)
        made = KeyframeMemory if kind == KEYFRAMES_FORMAT else VideoMemory
        return made.from_file(config, tensors, path.name)


def holds_pictures(memory: Memory) -> TypeIs[KeyframeMemory]:
    """Whether a memory is one of pictures, by what it says: another copy of the library may have made it."""
    return not memory.config.has_tokens


def empty_memory(config: EncoderConfig, batch: int = 1, encoder_id: str = "") -> Memory:
    """A memory of nothing for an encoder."""
    if config.has_tokens:
        return VideoMemory.empty(config, batch, encoder_id)
    if batch != 1:
        raise ValueError(f"a memory of keyframes holds one film, not {batch}; pick a clip with Latent From Batch")
    return KeyframeMemory(config, encoder_id)
