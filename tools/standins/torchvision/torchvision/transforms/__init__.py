"""Stand-in for torchvision.transforms."""

from __future__ import annotations

from torchvision import _standin
from torchvision.transforms import functional
from torchvision.transforms.functional import InterpolationMode

__all__ = ["InterpolationMode", "functional"]


def __getattr__(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _standin.stand_in(f"{__name__}.{name}")
