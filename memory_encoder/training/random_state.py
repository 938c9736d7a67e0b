"""The random state of the whole process is not a run's to change."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Leaves the global random states of Python, NumPy and PyTorch (CPU and `device`) as they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    kind = device.type if device.type in ("cuda", "xpu") else None  # others have no state that can be set aside
    places = [] if kind is None else [device.index or 0]
    try:
        with torch.random.fork_rng(places, device_type=kind or "cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
