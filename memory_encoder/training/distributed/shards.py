"""Tensors that are split over processes (DTensor), and whole ones; light, since a node's start-up imports it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def is_main() -> bool:
    """Whether this is the only process, or the first of several: by the launcher until they have met."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return int(os.environ.get("WORLD_SIZE", "1")) <= 1 or int(os.environ.get("RANK", "0")) == 0


def own_shard(tensor: Tensor) -> Tensor:
    """The part that this process holds, sharing its memory; the tensor itself where it is whole."""
    part: Any = tensor.detach()
    return part.to_local() if hasattr(part, "to_local") else part


def shard_of(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that all processes have, as `like` lies in them."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, mesh, like.placements).to(like.device)  # type: ignore[attr-defined]


@torch.no_grad()
def put_whole(whole: Tensor, into: Tensor) -> None:
    """Copies a whole tensor that all processes have into one that lies in them in any way."""
    own_shard(into).copy_(own_shard(shard_of(whole, into)))


def from_shard(part: Tensor, like: Tensor) -> Tensor:
    """A tensor that lies in the processes as `like` does, of which this process holds `part`."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None:
        return part
    from torch.distributed.tensor import DTensor

    place: Any = like
    part = part.to(mesh.device_type)
    return DTensor.from_local(part, mesh, place.placements, shape=like.shape, stride=like.stride())


def whole_value(tensor: Any) -> Any:
    """A tensor as it is in the sum of all processes; all must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def gathered(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Whole tensors in RAM, one after the other; all processes must call it, and only the main one gets anything."""
    main, result = is_main(), {}
    for name, tensor in tensors.items():
        whole = tensor
        if hasattr(tensor, "full_tensor"):
            # Weights that are offloaded lie in RAM, where a card's processes cannot exchange them.
            whole = tensor.detach().to(tensor.device_mesh.device_type).full_tensor()
        if main:
            result[name] = whole.detach().cpu() if isinstance(whole, Tensor) else whole
    return result


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """State of an optimizer as `gathered` gives tensors."""
    state = optimizer.state_dict()
    return {**state, "state": {index: gathered(entry) for index, entry in state["state"].items()}}


def load_optimizer_state(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Inverse of `optimizer_state`, in all processes; how it computes is the optimizer's own affair, not the file's."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def parts(index: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        like = parameters[index]
        return {name: shard_of(value, like) if isinstance(value, Tensor) else value for name, value in entry.items()}

    loaded = {index: parts(index, each) for index, each in state["state"].items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": loaded})
