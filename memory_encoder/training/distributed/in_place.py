"""Core's HunyuanVideo blocks add to their inputs in place, which is good for inference but spoils training.

A norm keeps its input for the backward pass, and gradients are wrong when the block has added to it since; gradient
checkpointing does not even notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...injection.hosts import HunyuanHost
from ...injection.hosts.base import host_blocks

NORMS = ("img_norm1", "img_norm2", "txt_norm1", "txt_norm2", "pre_norm")


@contextmanager
def norm_inputs_kept(model: nn.Module) -> Iterator[None]:
    """Within it the norms of such blocks get copies, which nothing is added to."""
    blocks = host_blocks(model) if HunyuanHost.matches(model) else []
    norms = [norm for block in blocks for name, norm in block.named_children() if name in NORMS]
    handles = [norm.register_forward_pre_hook(_copy_inputs, with_kwargs=True) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def copy_block_inputs(model: nn.Module) -> None:
    """Lets such blocks add to copies of their inputs: those that FSDP hands on must stay as they are."""
    for block in host_blocks(model) if HunyuanHost.matches(model) else []:
        block.register_forward_pre_hook(_copy_inputs, with_kwargs=True)


def _copy_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return tuple(_copy(value) for value in args), {name: _copy(value) for name, value in kwargs.items()}


def _copy(value: Any) -> Any:
    trained = isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled()
    return value.clone() if trained else value
