"""What processes that train together agree on, and what they do not send: in one process that stands for several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from memory_encoder.training import pictures
from memory_encoder.training.distributed.meeting import PATIENCE, least, not_exchanged
from memory_encoder.training.listener import LOSS_PICTURE, PictureListener


@pytest.fixture
def group() -> Iterator[None]:
    store: Any = getattr(torch.distributed, "HashStore")  # noqa: B009 - not exported by name
    torch.distributed.init_process_group("gloo", store=store(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.zeros(5), requires_grad=False)
        self.trained = nn.Parameter(torch.zeros(3))


def test_frozen_weights_are_not_sent(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(
        torch.distributed, "_broadcast_coalesced", lambda group, tensors, *_: sent.extend(map(len, tensors))
    )
    DistributedDataParallel(Host())
    assert sent == [5, 3]
    host = Host()
    not_exchanged(host)
    DistributedDataParallel(host)
    assert sent == [5, 3, 3]


def test_the_smallest_card_and_machine_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    assert least([None, 5.0], 1, True) == [None, 5.0]
    made: list[dict[str, Any]] = []

    class State:
        device = torch.device("cpu")

        def __init__(self, **settings: Any) -> None:
            made.append(settings)

    def others_have(values: torch.Tensor, operation: Any) -> None:
        assert operation == torch.distributed.ReduceOp.MIN
        values.copy_(torch.minimum(values, torch.tensor([float("inf"), 4.0, 9.0], dtype=torch.float64)))

    monkeypatch.setattr(accelerate, "PartialState", State)
    monkeypatch.setattr(torch.distributed, "all_reduce", others_have)
    assert least([None, 5.0, 6.0], 2, True) == [None, 4.0, 6.0]
    assert made == [{"cpu": True, "timeout": PATIENCE}]


def test_one_that_helps_with_a_picture_decodes_nothing_and_one_that_fails_has_helped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []

    def rows(trainer: Any) -> Any:
        passes.append(trainer)
        return [("original", torch.zeros(1, 3, 2, 4, 4))]

    def decode(latents: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no room")

    for module in (pictures, __import__("memory_encoder.training.listener", fromlist=["listener"])):
        monkeypatch.setattr(module, "recalled_rows", rows)
    listener: Any = PictureListener(tmp_path, decode)
    listener.assist(1, "assistant")
    with pytest.raises(RuntimeError, match="no room"):
        listener.picture(1, "main")
    assert passes == ["assistant", "main"] and not (tmp_path / LOSS_PICTURE).exists()
