"""Stand-in: lets ComfyUI start on a machine that has no build of torchaudio for its torch. Nothing here computes."""

from __future__ import annotations

from torchaudio import _standin, functional, transforms

__all__ = ["functional", "transforms"]
__version__ = "0.0.0"


def __getattr__(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _standin.stand_in(f"{__name__}.{name}")
