"""Stand-in for torchvision.io."""

from __future__ import annotations

from torchvision._standin import stand_in


def __getattr__(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return stand_in(f"{__name__}.{name}")
