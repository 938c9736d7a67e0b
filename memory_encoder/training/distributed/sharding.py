"""Runs whose processes hold a part of the weights each: PyTorch's FSDP2 (`fully_shard`), through Accelerate.

Each block of the host is a unit, whole in a process only while the block runs. What lies outside of the blocks
(encoder, first projection, head) is small, and is whole from the beginning of TrainingModule.forward to the end of the
backward pass. Between steps every weight, gradient, moment and average is a part. Files hold whole tensors, so that a
run may go on with any number of processes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from ...injection.cached import beside_output
from ...injection.hosts import HunyuanHost
from ...injection.hosts.base import host_blocks
from ...phi.cross_attention import CrossBlock

# Every process holds all weights.
DATA_PARALLEL = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU)
IN_FORWARD = "in_forward"


def splits_weights(accelerator: Any) -> bool:
    """Whether the processes hold a part of the weights each. Raises ValueError for ways that are not supported."""
    kind = accelerator.distributed_type
    if kind == DistributedType.NO or kind in DATA_PARALLEL:
        return False
    version = getattr(getattr(accelerator.state, "fsdp_plugin", None), "fsdp_version", 1)
    if kind != DistributedType.FSDP or version != 2:
        name = f"FSDP version {version}" if kind == DistributedType.FSDP else kind.value
        raise ValueError(
            f"processes share a run as {name}, which is not supported; in `accelerate config` choose plain multi-GPU "
            "(every card holds the whole host) or FSDP with fsdp_version 2 (every card holds a part)"
        )
    others = getattr(getattr(accelerator, "parallelism_config", None), "non_data_parallel_size", 1)
    if others > 1:
        raise ValueError("tensor, context and sequence parallelism are not supported; set their sizes to 1")
    return True


def choose_units(accelerator: Any, module: nn.Module) -> None:
    """Sets what the user's FSDP configuration leaves open.

    Blocks are the units unless the configuration names other classes inside of them. Raises ValueError for settings and
    hosts that cannot work.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    plugin = accelerator.state.fsdp_plugin
    if plugin.auto_wrap_policy not in (None, transformer_auto_wrap_policy):
        raise ValueError("fsdp_auto_wrap_policy must be TRANSFORMER_BASED_WRAP: sizes do not tell blocks from the rest")
    if plugin.activation_checkpointing:
        raise ValueError("set fsdp_activation_checkpointing to false and give --gradient-checkpointing instead")
    blocks = _blocks(module)
    inside = {type(part).__name__ for block in blocks for part in block.modules()}
    named = {name.strip() for name in plugin.transformer_cls_names_to_wrap or ()} - {""}
    if named - inside:
        raise ValueError(
            f"fsdp_transformer_layer_cls_to_wrap names {', '.join(sorted(named - inside))}, which is no part of the "
            "host's blocks; leave it out, blocks are found"
        )
    for name, parameter in module.named_parameters():
        if type(parameter.data) is not Tensor:
            raise ValueError(
                f"host weight {name} is quantised ({type(parameter.data).__name__}), which FSDP cannot split; load a "
                "host in bf16, fp16 or plain fp8"
            )
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = sorted(named or {type(block).__name__ for block in blocks})
    plugin.cpu_ram_efficient_loading = False  # each process has read the files itself; nothing is to be sent
    # Autocast does it as in a run of one process: weights keep their type, gradients and the loss stay float32.
    plugin.mixed_precision_policy = MixedPrecisionPolicy()


def prepare_split(accelerator: Any, module: nn.Module, optimizers: Sequence[Any]) -> list[Any]:
    """Splits weights and optimizers, as `accelerator.prepare` gives them, by the user's FSDP configuration."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    choose_units(accelerator, module)
    names = accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap
    units = [part for part in module.modules() if type(part).__name__ in names]
    # Keys and values of a cached memory leave a block beside its output. FSDP gathers weights again for the backward
    # pass when gradients reach an output, so it is shown them as one: its own hook comes between these two.
    for unit in units:
        unit.register_forward_hook(_show_beside, with_kwargs=True)
    prepared = list(accelerator.prepare(module, *optimizers))
    for unit in units:
        unit.register_forward_hook(_hide_beside)
    # HunyuanVideo adds to its inputs: what FSDP hands on, to find the backward pass by, must stay as it is.
    for block in host_blocks(_host(module)) if HunyuanHost.matches(_host(module)) else []:
        block.register_forward_pre_hook(_copy_inputs, with_kwargs=True)
    # It warns of units that give a view, to which something might be added in place; here nothing is.
    warnings.filterwarnings("ignore", message=".*returned a view tensor", category=UserWarning)
    setattr(module, IN_FORWARD, lambda work: work())
    register_fsdp_forward_method(module, IN_FORWARD)
    return prepared


def in_forward(module: nn.Module, work: Callable[[], None]) -> None:
    """Runs `work`, which calls parts of a split module without gradients, as a forward pass of its own."""
    getattr(module, IN_FORWARD)(work)
    release(module)


def release(module: nn.Module) -> None:
    """Lets go of what a pass without a backward pass left whole; the next pass would see old values."""
    for part in module.modules():
        reshard = getattr(part, "reshard", None)
        if reshard is not None:
            reshard()


def _show_beside(unit: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    return output, beside_output(kwargs.get("transformer_options", {}))


def _hide_beside(unit: nn.Module, args: Any, output: Any) -> Any:
    return output[0]


def _blocks(module: nn.Module) -> list[nn.Module]:
    """Blocks of the host, and those of an encoder's cross-attention, which run beside them."""
    beside = [part for part in module.modules() if isinstance(part, CrossBlock)]
    return host_blocks(_host(module)) + beside


def _host(module: nn.Module) -> nn.Module:
    """The diffusion model of a training module."""
    return module.get_submodule("diffusion_model")


def _copy_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return tuple(_copy(value) for value in args), {name: _copy(value) for name, value in kwargs.items()}


def _copy(value: Any) -> Any:
    trained = isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled()
    return value.clone() if trained else value
