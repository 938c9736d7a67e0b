"""LoRA on a host's linear layers through peft, saved under the keys that core's own LoRA loader maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..injection.hosts.base import BLOCKS

ADAPTER = "video_memory"
PREFIX = "diffusion_model."


def linear_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers inside the blocks, also of quantised ones that are no `nn.Linear`."""
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(BLOCKS) and hasattr(module, "in_features") and hasattr(module, "out_features")
    ]


def add_lora(model: nn.Module, rank: int, seed: int) -> list[nn.Parameter]:
    """Puts a LoRA of `rank` on every linear layer of the blocks; returns its parameters, float32 and trainable.

    The base weights are called, never read, so that fp8 layers work. alpha equals the rank: scale 1. B starts
    at zero: the host is unchanged at first. Raises ValueError when the model has no linear layers in blocks.
    """
    from peft import LoraConfig, inject_adapter_in_model

    from .lora_layer import LoraLayer

    names = linear_layers(model)
    if not names:
        raise ValueError("model has no linear layers in its blocks; load a Wan or HunyuanVideo model")
    model.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names, bias="none")
    modules = dict(model.named_modules())
    config._register_custom_module({type(modules[name]): LoraLayer for name in names})
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            parameter.requires_grad_(False)
            continue
        parameter.data = parameter.data.float()
        if ".lora_A." in name:
            draw = torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5
            parameter.data.copy_(draw)
        parameter.requires_grad_(True)
        parameters.append(parameter)
    return parameters


def remove_lora(model: nn.Module) -> None:
    """Takes the adapters out again; the model is what it was before `add_lora`."""
    for name, module in list(model.named_modules()):
        base = getattr(module, "base_layer", None)
        if base is not None and hasattr(module, "lora_A"):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent) if parent else model, child, base)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """`diffusion_model.<layer>.lora_A.weight` and `.lora_B.weight`, as core's LoraLoaderModelOnly reads them."""
    state = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            state[PREFIX + name.replace(f".{ADAPTER}.", ".")] = parameter.detach()
    return state


def load_lora_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Inverse of `lora_state`; raises ValueError when the layers or the rank do not fit."""
    own = {PREFIX + n.replace(f".{ADAPTER}.", "."): p for n, p in model.named_parameters() if ".lora_" in n}
    if set(own) != set(state):
        wrong = sorted(set(own) ^ set(state))
        raise ValueError(f"LoRA does not fit the model ({wrong[0]} and {len(wrong) - 1} more); use one made for it")
    for name, parameter in own.items():
        if parameter.shape != state[name].shape:
            raise ValueError(
                f"LoRA {name} has shape {tuple(state[name].shape)}, not {tuple(parameter.shape)}; same rank?"
            )
        with torch.no_grad():
            parameter.copy_(state[name])
