"""The plan of a run against whole steps on the card, and the cards that people have."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from memory_encoder.training.card_plan import RESERVED

from .full_step import Case, measure
from .meter import GIB
from .test_card_training import training  # noqa: F401 - a fixture

CELLS = [
    Case("wan_5b", section=3, layers=4),
    Case("wan_5b", section=2, history=31, fp8=True, layers=2, options={"gradient_checkpointing": False}),
    Case("wan_1.3b", "retrieval", section=4, fp8=True, layers=4),
    Case("wan_14b", section=8, clips=2, layers=2, options={"resident_blocks": 1, "optimizer": "adamw8bit"}),
    Case("hunyuan", section=3, layers=2),
    Case("hunyuan", section=30, history=31, layers=2, options={"offload_inputs": True}),
]


def planned(measured: Any, case: Case) -> float:
    """What the plan says without its reserve, which is for what the card does not show."""
    return measured.plan.need(case.clips) - RESERVED


@pytest.mark.parametrize("case", CELLS, ids=lambda case: f"{case.host}-{case.stage}-{case.section}-{case.clips}")
def test_the_plan_is_within_a_tenth_of_a_whole_step(training: Any, case: Case, tmp_path: Path) -> None:  # noqa: F811
    measured = measure(training, case, tmp_path)
    plan = planned(measured, case)
    print(f"{case}: {measured.peak / GIB:.3f} GiB, planned {plan / GIB:.3f}")
    assert plan == pytest.approx(measured.peak, rel=0.1)


def test_wan_5b_in_fp8_trains_at_rank_128_on_a_12_gb_card_with_20_s_of_history(training: Any, tmp_path: Path) -> None:  # noqa: F811
    measured = measure(training, Case("wan_5b", fp8=True), tmp_path)
    print(f"{measured.peak / GIB:.2f} GiB")
    assert measured.peak <= 10.8 * GIB


