"""Exponential moving average of the trained parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .distributed.shards import from_shard, gathered, own_shard, shard_of


class Ema:
    """Averages of named parameters, float32, in system RAM, since a card has better uses for its memory.

    The decay is lower in the first steps, so that the start is forgotten. Of parameters that are split over processes
    each has the averages of its own part.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.averages = {name: _in_ram(parameter) for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the averages towards the parameters after step number `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.parameters.items():
            self.averages[name].lerp_(own_shard(parameter).to(self.averages[name]), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the parameters hold their averages."""
        kept = {name: _in_ram(parameter) for name, parameter in self.parameters.items()}
        self._assign(self.averages)
        try:
            yield
        finally:
            self._assign(kept)

    def assign(self) -> None:
        """The parameters become their averages for good."""
        self._assign(self.averages)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Whole parameters and averages, as `parts.gathered` gives them."""
        averages = {name: from_shard(self.averages[name], parameter) for name, parameter in self.parameters.items()}
        return {"parameters": gathered(self.parameters), "averages": gathered(averages)}

    @torch.no_grad()
    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Inverse of `state`, in all processes."""
        for name, parameter in self.parameters.items():
            own_shard(parameter).copy_(own_shard(shard_of(state["parameters"][name], parameter)))
            self.averages[name].copy_(own_shard(shard_of(state["averages"][name], parameter)))

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            own_shard(parameter).copy_(values[name])


def _in_ram(parameter: Tensor) -> Tensor:
    return own_shard(parameter).to(device="cpu", dtype=torch.float32, copy=True)
