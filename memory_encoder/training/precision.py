"""In which type a host computes."""

from __future__ import annotations

import torch
from torch import nn

from ..injection.hosts.base import host_blocks

HALF = (torch.bfloat16, torch.float16)


def computing_type(model: nn.Module, device: str) -> torch.dtype | None:
    """The half type in which a host runs on a kind of device, or None where its inputs stay as they are.

    A host of half weights takes no other inputs, as core loads it on a card that computes in the file's type; one of
    narrower weights (fp8) computes in the type of its inputs. An autocast that is on, such as Accelerate's, decides.
    """
    weights = _weights(model)
    if weights.itemsize > 2:
        return None
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    if weights not in HALF:
        return None
    # Gradients would vanish in fp16, whose smallest numbers are too large for them; bf16 has float32's range.
    return torch.bfloat16 if torch.is_grad_enabled() else weights


def _weights(model: nn.Module) -> torch.dtype:
    """Type of the weights of the blocks' linear layers, those of a LoRA aside."""
    for block in host_blocks(model):
        for name, parameter in block.named_parameters():
            if parameter.ndim == 2 and ".lora_" not in name:
                return parameter.dtype
    return torch.float32
