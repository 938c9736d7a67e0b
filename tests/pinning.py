"""CUDA's registration of system RAM on a processor: what is registered, and a limit like an operating system's."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

import pytest
import torch


@dataclass
class Registrations:
    """Ranges of RAM by address. limit: bytes that can be registered together; `most` were at one time."""

    limit: float = float("inf")
    ranges: dict[int, int] = field(default_factory=dict)
    most: int = 0
    calls: int = 0

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        assert flags == 1 and address % mmap.PAGESIZE == 0 and size % mmap.PAGESIZE == 0
        self.calls += 1
        if sum(self.ranges.values()) + size > self.limit:
            return 2  # cudaErrorMemoryAllocation
        assert all(address >= start + length or start >= address + size for start, length in self.ranges.items())
        self.ranges[address] = size
        self.most = max(self.most, sum(self.ranges.values()))
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        del self.ranges[address]
        return 0

    def holds(self, tensor: torch.Tensor) -> bool:
        start = tensor.data_ptr()
        return any(first <= start and start + tensor.nbytes <= first + size for first, size in self.ranges.items())


def registering(monkeypatch: pytest.MonkeyPatch, limit: float = float("inf")) -> Registrations:
    """A card seems to be there, with which RAM up to `limit` can be registered."""
    found = Registrations(limit)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: found)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr("memory_encoder.training.pinned._forget_error", lambda: None)
    return found
