"""Frames as people count them, and the latents that hold them."""

from __future__ import annotations

import math
import re

MAX_ENTRIES = 256
_ROUNDING = 1e-6  # in frames: rates are sums and quotients of decimal fractions


TEMPORAL = 4  # frames in a latent, of every host there is


def frames_in(latents: int, temporal: int = TEMPORAL) -> int:
    """Frames of the first `latents` latents of a film: one of the first, `temporal` of each that follows."""
    return 1 + temporal * (latents - 1) if latents else 0


def first_frame(latent: int, temporal: int = TEMPORAL) -> int:
    """First frame that a latent of a causal VAE holds, which is as many as lie before it."""
    return frames_in(latent, temporal)


def last_frame(latent: int, temporal: int = TEMPORAL) -> int:
    """Last frame that a latent of a causal VAE holds."""
    return temporal * latent


def latents_in(frames: int, temporal: int = TEMPORAL) -> int:
    """Latents that so many frames fill; what fills none is left out."""
    return 1 + (frames - 1) // temporal


def evenly(length: int, count: int) -> list[int]:
    """`count` indices below `length`, evenly spread, first and last among them."""
    return [round(i * (length - 1) / max(count - 1, 1)) for i in range(count)]


def closing_frames(
    count: int, source_fps: float, fps: float, seconds: float = 0.0, temporal: int = TEMPORAL
) -> list[int]:
    """Which of `count` pictures at `source_fps` are the clip's end at `fps`: whole latents, the last picture last.

    At most `seconds` of them, 0 for all. What does not fill a latent is left out at the beginning; where the rates
    differ, the first picture may be shown for up to one frame longer than in the clip.
    """
    steps = math.ceil((count - 1) * fps / source_fps - _ROUNDING)
    if seconds:
        steps = min(steps, math.floor(seconds * fps + _ROUNDING))
    steps -= steps % temporal
    return [max(0, round(count - 1 - (steps - step) * source_fps / fps)) for step in range(steps + 1)]


def latent_ranges(text: str, latents: int, temporal: int = TEMPORAL) -> list[range]:
    """Parses "0-16, 40" (frames of the film) into ranges of latents.

    Frame 0 is latent 0; frames 4k-3 .. 4k are latent k. Raises ValueError that names the entry, what is wrong with it
    and the frames that exist.
    """
    end = last_frame(latents - 1, temporal)
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
        if last < first or last > end:
            raise ValueError(f"frame_indices: {entry} lies outside of the history, which has frames 0 to {end}")
        ranges.append(range(-(-first // temporal), -(-last // temporal) + 1))
    if len({len(r) for r in ranges}) > 1:
        raise ValueError("frame_indices: entries of several lengths cannot share one batch; use equally long ranges")
    return ranges
