"""peft's LoRA layer, which keeps as little as it can for the backward pass.

peft casts its input to the LoRA's float32, which autocast casts back, and a layer with fp8 weights keeps the cast
weight: a step of training would hold all of that at once.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

FAST_FP8 = "fp8_ops.Linear"  # in comfy.ops, for fp8_e4m3fn_fast and --fast


class LoraLayer(Linear):
    """base(x) + B(A(x)), all in the type in which autocast computes; alpha is the rank and there is no dropout."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or not self.active_adapters:
            return super().forward(x, *args, **kwargs)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        (adapter,) = self.active_adapters
        a, b, layer = self.lora_A[adapter].weight, self.lora_B[adapter].weight, self.get_base_layer()
        weight = plain_weight(layer)
        with torch.set_grad_enabled(weight is None and torch.is_grad_enabled()):
            base = layer(x.clone() if writes_its_input(layer) else x)
        return _Product.apply(x, a, b, base, weight)


def plain_weight(layer: Any) -> Tensor | None:
    """The weight with which a layer multiplies, cast to its input's type, and nothing else; None for other layers."""
    weight = getattr(layer, "weight", None)
    changed = bool(getattr(layer, "weight_function", ())) or getattr(layer, "scale_weight", None) is not None
    packed = isinstance(weight, Tensor) and (not weight.is_floating_point() or hasattr(weight, "_qdata"))
    return weight if isinstance(weight, Tensor) and not (packed or changed or weight.requires_grad) else None


def writes_its_input(layer: Any) -> bool:
    """Whether a layer is core's fast one for fp8, which clamps what it gets in place.

    Autograd keeps that for the backward pass, and the layers beside this one get it too.
    """
    return any(kind.__qualname__ == FAST_FP8 for kind in type(layer).__mro__)


class _Product(torch.autograd.Function):
    """base + B(A(x)). Keeps x and A(x), and the weights as they are: cast ones are made again in the backward pass.

    weight: of the layer that has made `base` from x, outside of autograd; None where autograd knows how it was made.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, base: Tensor, weight: Tensor | None) -> Tensor:
        inner = nn.functional.linear(x, a.to(x.dtype))
        ctx.save_for_backward(x, inner, a, b, weight)
        return nn.functional.linear(inner, b.to(x.dtype)).to(base.dtype).add_(base)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (x, inner, a, b, weight) = grads, ctx.saved_tensors
        out_ND = grad.to(x.dtype).flatten(0, -2)
        inner_NR = out_ND @ b.to(x.dtype)
        grad_a = (inner_NR.t() @ x.flatten(0, -2)).to(a.dtype)
        grad_b = (out_ND.t() @ inner.flatten(0, -2)).to(b.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            through_a = inner_NR @ a.to(x.dtype)
            grad_x = through_a if weight is None else through_a.addmm_(out_ND, weight.to(x.dtype))
            grad_x = grad_x.view_as(x)
        return grad_x, grad_a, grad_b, grad if weight is None else None, None
