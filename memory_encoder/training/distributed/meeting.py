"""How processes that train together meet: what they agree on before the run, and what they do not exchange."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# For the main process alone to write a checkpoint of a whole host to a slow disk; ten minutes is NCCL's own.
PATIENCE = timedelta(hours=1)


def least(values: Sequence[float | None], processes: int, cpu: bool) -> list[float | None]:
    """The smallest of each value over all processes, which must all ask alike; None is no limit.

    Plans that differ between cards or machines would cut the batch in different ways, and the processes wait for each
    other. cpu: as the run's own.
    """
    if processes < 2:
        return list(values)
    from accelerate import PartialState

    state = PartialState(cpu=cpu, timeout=PATIENCE)
    limits = torch.tensor([math.inf if one is None else one for one in values], dtype=torch.float64)
    limits = limits.to(state.device)
    torch.distributed.all_reduce(limits, torch.distributed.ReduceOp.MIN)
    return [None if math.isinf(one) else one for one in limits.tolist()]


def not_exchanged(module: nn.Module) -> None:
    """Tells DDP to leave weights alone that are not trained: each process has read them from the same file, they are
    most of what there is, and quantized ones cannot be sent."""
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model  # there is no other way
    ignore(module, frozen)
