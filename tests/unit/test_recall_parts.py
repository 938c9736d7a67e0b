"""The parts of an error add up, and each sees what it is named for."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import recall_parts
from benchmarks.recall_parts import parts_of


@given(time=st.integers(3, 8), height=st.integers(4, 14), width=st.integers(4, 14), seed=st.integers(0, 99))
def test_the_parts_add_up_to_all(time: int, height: int, width: int, seed: int) -> None:
    error = torch.randn(1, 3, time, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    total = parts_of(error).pop("total")
    kept = 1 + (time - 1) // 2 * 2
    assert total == pytest.approx(float(error[:, :, 1:kept].square().mean()))
    whole = error[:, :, :, : height // 4 * 4, : width // 4 * 4]  # a rest at an edge is in no cell
    parts = parts_of(whole)
    assert sum(parts[name] for name in ("cell", "tokens", "inside", "time")) == pytest.approx(parts["total"])


@pytest.mark.parametrize("part", ["cell", "tokens", "inside", "time"])
def test_each_part_is_what_varies_at_its_own_scale(part: str) -> None:
    time, row, column = torch.meshgrid(torch.arange(5), torch.arange(8), torch.arange(8), indexing="ij")
    pattern = {"cell": row // 4, "tokens": column // 2, "inside": row + column, "time": time - 1}[part]
    signs = (1 - 2 * (pattern % 2)).double()[None, None]
    assert parts_of(signs) == pytest.approx({name: float(name in (part, "total")) for name in parts_of(signs)})


def test_the_page_is_made_of_the_record() -> None:
    result = json.loads(recall_parts.RESULTS.with_suffix(".json").read_text(encoding="utf-8"))
    assert recall_parts.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == recall_parts.report(result)
