"""What waits in RAM while a full-size model trains on the card is what the plan has said before the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from memory_encoder.training.pinned import Pinning
from memory_encoder.training.ram_plan import pinned

from .full_step import Case, measure
from .test_card_training import training  # noqa: F401 - a fixture

OPTIONS = {"offload_inputs": True, "resident_blocks": 0}
CASES = [
    Case("wan_5b", section=8, clips=2, layers=2, options=OPTIONS),
    Case("wan_14b", "retrieval", section=4, fp8=True, layers=2, options=OPTIONS),
    Case("hunyuan", section=3, layers=2, options=OPTIONS | {"resident_blocks": 1}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.host}-{case.stage}-{case.clips}")
def test_the_inputs_of_a_step_that_wait_are_planned(
    training: Any, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    kept: list[int] = []
    room = Pinning.empty_like

    def counted(pinning: Pinning, tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return room(pinning, tensor)

    monkeypatch.setattr(Pinning, "empty_like", counted)
    plan = measure(training, case, tmp_path).plan
    planned, rounded = plan.ram(case.clips).inputs, sum(pinned(size) for size in kept)
    print(f"{case}: {sum(kept) / 2**20:.0f} MiB, rounded {rounded / 2**20:.0f}, planned {planned / 2**20:.0f}")
    assert rounded <= planned < rounded + 4 * case.clips * plan.step.input  # a power of two is up to twice as much
