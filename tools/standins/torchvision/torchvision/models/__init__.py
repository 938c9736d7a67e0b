"""Stand-in for torchvision.models."""

from __future__ import annotations

from torchvision import _standin
from torchvision.models import optical_flow

__all__ = ["optical_flow"]


def __getattr__(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _standin.stand_in(f"{__name__}.{name}")
