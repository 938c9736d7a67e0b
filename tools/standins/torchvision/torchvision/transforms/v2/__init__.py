"""Stand-in for torchvision.transforms.v2, which newer transformers imports and diffusers through it."""

from __future__ import annotations

from torchvision.transforms import functional

__all__ = ["functional"]
