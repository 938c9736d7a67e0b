"""Attention with gradients, whichever core or a custom node has chosen for sampling.

SageAttention's kernels give an output that autograd does not see: the weights behind it would never be trained, and
nothing would say so. Flash attention, as core calls it, has no backward pass.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn


class GradientAttention:
    """Core's attention override for one pass of a host: PyTorch's attention in place of the chosen one."""

    def __init__(self) -> None:
        self.pytorch: Any = sys.modules["comfy.ldm.modules.attention"].attention_pytorch  # there with every host
        self.asked = False

    def __call__(self, chosen: Any, *args: Any, **kwargs: Any) -> Tensor:
        self.asked = True
        return self.pytorch(*args, **kwargs)

    def check(self, host: nn.Module) -> None:
        """Raises RuntimeError after a pass whose attention did not ask for an override, so that it may be any."""
        if not self.asked:
            found = getattr(sys.modules.get(type(host).__module__), "optimized_attention", None)
            name = f"{getattr(found, '__module__', '')}.{getattr(found, '__name__', type(found).__name__)}"
            raise RuntimeError(
                f"model: its attention ({name}) is not core's and may have no gradients, without which nothing is "
                "trained; start ComfyUI without the custom node or the option that has replaced it"
            )
