"""The command for a real card runs here in small, on the CPU: every part comes out, and what fails stops no other."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import on_a_card
from benchmarks.on_a_card import CASES, Bench, measure, size_named, table


@pytest.fixture
def bench(comfy: Any) -> Bench:
    core, device = on_a_card.start(12.0)
    return Bench(core, size_named("tiny", 1), False, device, time.monotonic() + 600)


def test_every_part_is_measured_and_written(comfy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    on_a_card.main(["--size", "tiny", "--layers", "1", "--rounds", "1", "--out", str(out)])
    result = json.loads(out.read_text(encoding="utf-8"))
    parts, shown = result["parts"], capsys.readouterr().out
    assert list(parts) == ["steps", "beside", "training"] and "error" not in str(parts)
    assert list(parts["steps"]) == list(CASES) and all(one["seconds"] > 0 for one in parts["steps"].values())
    ratios = [parts["steps"][case]["flops_ratio"] for case in CASES]
    assert ratios[0] == 1 < ratios[2] == ratios[3] < ratios[1] < ratios[4]
    assert list(parts["beside"]) == ["decoded", "encoded", "decoded small", "Save Film"]
    assert all(one["share"] > 0 for one in parts["beside"].values()) and parts["training"]["seconds"] > 0
    assert result["machine"]["gpu"] is None and all(f"| {case} |" in shown for case in CASES)


def test_a_case_without_room_and_a_part_that_fails_are_told_and_the_rest_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB\nmore words")

    cases = bench.cases()
    monkeypatch.setattr(Bench, "cases", lambda _: cases | {"whole history": too_much})
    monkeypatch.setattr(Bench, "vae", too_much)
    monkeypatch.setattr(Bench, "training", lambda _: {"way": "so", "seconds": 1.0})
    written: list[dict[str, Any]] = []
    found = measure(bench, 1, lambda parts: written.append(dict(parts)))
    assert found["steps"]["whole history"]["error"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 7 GiB"
    assert found["steps"]["memory"]["seconds"] > 0 and found["beside"]["error"].startswith("OutOfMemoryError: CUDA")
    assert "7 GiB" in table(found) and "training, so: 1.00 s" in table(found)
    assert [list(parts) for parts in written] == [["steps"], ["steps", "beside"], ["steps", "beside", "training"]]


def test_when_its_time_is_over_nothing_more_is_begun(bench: Bench) -> None:
    bench.end = 0.0
    found = measure(bench, 1, lambda _: None)
    assert {part["error"] for part in found.values()} == {"no time left"} and "no time left" in table(found)


def test_a_published_size_is_what_core_takes_it_for(comfy: Any) -> None:
    size = size_named("5b", None)
    assert (size.shape.width, size.shape.layers, size.shape.channels, size.plan.fps) == (3072, 30, 48, 24.0)
    assert size_named("14b", 2).shape.layers == 2
