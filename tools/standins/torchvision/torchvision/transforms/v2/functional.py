"""Stand-in for torchvision.transforms.v2.functional."""

from __future__ import annotations

from torchvision.transforms.functional import InterpolationMode, __getattr__

__all__ = ["InterpolationMode", "__getattr__"]
