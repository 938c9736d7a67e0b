"""Copies are left to run by themselves on CUDA alone; on MPS the values would not be there when they are read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memory_encoder.injection.cached import _Reader
from memory_encoder.training.module import Batch
from memory_encoder.training.streaming import inputs_in_ram, streamed_blocks

OTHER = torch.device("meta")  # stands for a device that is not CUDA


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each copy to OTHER and from it, whether it may still be running when it returns."""
    found: list[bool] = []
    to = Tensor.to

    def moved(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found.append(bool(kwargs.get("non_blocking")))
        return to(self, *args, **kwargs)

    def copied(self: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        found.append(non_blocking)  # nothing comes back from `meta`
        return self

    monkeypatch.setattr(Tensor, "to", moved)
    monkeypatch.setattr(Tensor, "copy_", copied)
    return found


def test_keys_and_values_of_a_cached_memory_are_there_when_they_are_read(copies: list[bool]) -> None:
    kept = torch.ones(1, 2, 8), torch.ones(1, 2, 8)
    q, k, v = (torch.zeros(1, 3, 8, device=OTHER) for _ in range(3))
    _Reader(kept)(lambda q, k, v: q, q, k, v)
    assert copies == [False, False]


def test_weights_and_inputs_that_wait_in_ram_are_there_when_they_are_read(copies: list[bool]) -> None:
    host = nn.Module()
    host.blocks = nn.ModuleList([nn.Linear(4, 4)]).requires_grad_(False)
    x = torch.zeros(2, 4, device=OTHER, requires_grad=True)
    with streamed_blocks(host, 0), inputs_in_ram():
        host.blocks[0](2 * x).sin().sum().backward()
    assert len(copies) > 4 and not any(copies)


def test_a_batch_is_there_when_it_is_read(copies: list[bool]) -> None:
    one = torch.zeros(1)
    Batch(one, {"4x4x2": one}, {"context": one, "rows": (one, None)}).to(OTHER)
    assert copies == [False] * 4
