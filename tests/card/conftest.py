"""A fake CUDA card in this process, and core's models on it: real code, real shapes, types and devices, no data.

A card sees what a CPU never shows: tensors that were left in RAM, and bytes. What fake tensors cannot do:

- They have no values. Where code looks at one, it finds 1 (`Looked`); what chooses by values runs on real tensors
  beside them (`on_real_tensors`: which tokens strength and a horizon keep, the random numbers of a training step).
- They do not check the types of a matrix product: `test_half.py` runs the same paths on small real tensors.
- Files and digests of weights: tests/integration. Samplers look at their sigmas: `hosts.Steps` asks the model as they
  do. The VAE is a stand-in of the right shapes, since core's is no part of what is tested. Accelerate's other processes
  and torch's kernels are not there at all, so that no time is measured here.
- With builds of torch for CPUs some fused operations fall apart, so that a peak reads higher: compare, do not publish.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from .device import streamless_cuda
from .films import PACK, pack
from .hosts import CARD, FullModel, build
from .meter import GIB


class Card:
    """`with card.on():` makes tensors that have all but data, and a card to lay them on. free: what core finds free."""

    def __init__(self, comfy: Any) -> None:
        self.comfy = comfy
        self.free = 80 * GIB
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._models: dict[Any, FullModel] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        with streamless_cuda(), self.mode, Looked():
            yield

    def model(self, name: str, dtype: torch.dtype = torch.bfloat16, layers: int | None = None) -> FullModel:
        """A model that tests leave as it is, built once."""
        key = (name, dtype, layers)
        if key not in self._models:
            self._models[key] = self.new_model(*key)
        return self._models[key]

    def new_model(
        self, name: str, dtype: torch.dtype = torch.bfloat16, layers: int | Sequence[int] | None = None
    ) -> FullModel:
        return build(self.comfy, name, dtype, layers)


class Looked(TorchDispatchMode):
    """Where someone looks at a value, which fake tensors do not have, it is 1, or True."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            dtype = args[0].dtype
            return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
        if func is torch.ops.aten.equal.default and isinstance(args[0], FakeTensor):
            return args[0].shape == args[1].shape
        return func(*args, **(kwargs or {}))


class FloatTensor(torch.Tensor):
    """torch.FloatTensor of a list, which core uses, and which would be real within the fake mode."""

    def __new__(cls, values: Sequence[float]) -> Any:
        return torch.zeros(len(values))


PLAIN = torch.nn.functional.scaled_dot_product_attention
PLAIN_RMS_NORM = torch.nn.functional.rms_norm


def fused_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """The kernel that a card chooses; for fake tensors torch would choose plain products."""
    if q.ndim != 4 or q.device.type != "cuda":
        return PLAIN(q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        q, k, v = (x.to(dtype) for x in (q, k, v))
    if attn_mask is None and q.dtype != torch.float32:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
    graph = torch.is_grad_enabled()
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, attn_mask, graph, scale=scale)[0]


class FusedNorm(torch.autograd.Function):
    """Shapes of the one kernel that a card has; builds of torch for CPUs take its parts, with float32 copies."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return torch.empty_like(ctx.saved_tensors[0]), None


def fused_rms_norm(input, normalized_shape, weight=None, eps=None):
    if input.device.type != "cuda" or torch.is_autocast_enabled("cuda"):
        return PLAIN_RMS_NORM(input, normalized_shape, weight, eps)
    return FusedNorm.apply(input, weight)


def moved(module: torch.nn.Module, change: Any, recurse: bool = True) -> torch.nn.Module:
    """Module._apply for fake parameters, which torch would swap for others and cannot."""
    for child in module.children():
        child._apply(change)
    for store in (module._parameters, module._buffers):
        for name, value in store.items():
            if value is None:
                continue
            with torch.no_grad():
                new = change(value.detach())
            if (new.dtype, new.device) != (value.dtype, value.device):
                trained = value.requires_grad
                store[name] = torch.nn.Parameter(new, trained) if store is module._parameters else new
    return module


def on_real_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function outside of the fake mode, for what takes shapes and makes values that decide on shapes."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args, **kwargs)

    return run


def load_models_gpu(models: Any, *_args: Any, **_kwargs: Any) -> None:
    for patcher in models:
        for one in (patcher, *patcher.model_patches_models()):
            one.model.to(one.load_device)


def is_card(device: Any = None, *_args: Any, **_kwargs: Any) -> bool:
    return device is None or torch.device(device).type == "cuda"


@pytest.fixture(scope="module")
def card(comfy: Any, load_pack: Callable[..., ModuleType]) -> Iterator[Card]:
    load_pack(PACK)
    card = Card(comfy)
    management, selection = comfy.module("comfy.model_management"), pack("memory_encoder.injection.selection")
    horizon = pack("memory_encoder.injection.horizon")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "_apply", moved)
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused_attention)
        patch.setattr(torch.nn.functional, "rms_norm", fused_rms_norm)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(torch, "FloatTensor", FloatTensor)
        for name, value in {
            "get_torch_device": lambda: CARD,
            "get_free_memory": lambda *_, **__: card.free,
            "get_total_memory": lambda *_, **__: card.free,
            "should_use_bf16": is_card,
            "should_use_fp16": is_card,
            "load_models_gpu": load_models_gpu,
            "cuda_device_context": lambda _: nullcontext(),
        }.items():
            patch.setattr(management, name, value)
        patch.setattr(pack("nodes.runtime.managed"), "_identity", lambda config, weights: "of fake weights")
        patch.setattr(selection, "kept_tokens", on_real_tensors(selection.kept_tokens))
        patch.setattr(horizon, "within_horizon", on_real_tensors(horizon.within_horizon))
        yield card
