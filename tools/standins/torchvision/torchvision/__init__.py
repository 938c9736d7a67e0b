"""Stand-in: lets ComfyUI start on a machine that has no build of torchvision for its torch. Nothing here computes."""

from __future__ import annotations

from torchvision import io, models, ops, transforms

__all__ = ["io", "models", "ops", "transforms"]
__version__ = "0.0.0"
