"""Diffusion transformers that can carry a memory, one small file each."""

from __future__ import annotations

from torch import nn

from .base import Host, HostError, MemoryTokens, Patched, as_it_lies
from .hunyuan import HunyuanHost
from .wan import WanHost

__all__ = ["Host", "HostError", "HunyuanHost", "MemoryTokens", "WanHost", "find_host"]


def find_host(diffusion_model: nn.Module, patched: Patched = as_it_lies) -> Host:
    """Wraps a diffusion model; raises HostError for models whose blocks a memory cannot enter.

    patched: of the ModelPatcher that has the model (`comfy_models.host_of_patcher`).
    """
    for host in (WanHost, HunyuanHost):
        if host.matches(diffusion_model):
            return host(diffusion_model, patched)
    name = type(diffusion_model).__name__
    if hasattr(diffusion_model, "init_kv_caches"):
        raise HostError(
            f"model is core's causal autoregressive {name}, which bypasses block patches; load a plain Wan checkpoint"
        )
    patch = getattr(diffusion_model, "patch_size", None)
    if isinstance(patch, (list, tuple)) and len(patch) == 2:  # HunyuanImage shares its class with HunyuanVideo
        name = f"{name} for images"
    elif name == "HunyuanVideo":
        name = f"{name} for super-resolution"
    raise HostError(
        f"model {name} cannot carry a video memory; load Wan 2.1 or 2.2 (T2V, I2V, TI2V), HunyuanVideo or "
        "HunyuanVideo 1.5"
    )
