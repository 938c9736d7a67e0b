"""Frames as people count them, and the latents that hold them."""

from __future__ import annotations

import re

MAX_ENTRIES = 256


def latent_ranges(text: str, latents: int, temporal: int = 4) -> list[range]:
    """Parses "0-16, 40" (frames of the film) into ranges of latents.

    Frame 0 is latent 0; frames 4k-3 .. 4k are latent k. Raises ValueError that names the entry, what is wrong with it
    and the frames that exist.
    """
    last_frame = temporal * (latents - 1)
    if latents < 1:
        raise ValueError("memory is empty; compress a history first")
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        raise ValueError("frame_indices is empty; write frames such as 0-16 or 40")
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"frame_indices has {len(entries)} entries; ask for at most {MAX_ENTRIES} at once")
    ranges = []
    for entry in entries:
        match = re.fullmatch(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", entry)
        if match is None:
            raise ValueError(
                f"frame_indices: {entry[:40]!r} is no frame; write numbers such as 40 or ranges such as 0-16"
            )
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if last < first or last > last_frame:
            raise ValueError(f"frame_indices: {entry} lies outside of the history, which has frames 0 to {last_frame}")
        ranges.append(range(-(-first // temporal), -(-last // temporal) + 1))
    if len({len(r) for r in ranges}) > 1:
        raise ValueError("frame_indices: entries of several lengths cannot share one batch; use equally long ranges")
    return ranges
