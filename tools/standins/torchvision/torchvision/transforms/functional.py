"""Stand-in for torchvision.transforms.functional."""

from __future__ import annotations

from enum import Enum

from torchvision._standin import stand_in


class InterpolationMode(Enum):
    """Named as default values of arguments, and as keys of tables, when modules are imported (transformers has all)."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


def __getattr__(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return stand_in(f"{__name__}.{name}")
