"""The step-time benchmark runs on the real WanModel, and its FLOPs are those that PyTorch itself counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import timing
from benchmarks.report import main
from benchmarks.settings import parser, settings_from
from benchmarks.wan_host import Bench, start_comfy

# Section 2 latents, history 8, 32 tokens each; width 128, one head; memory ceil(8/2) * ceil(4/4) * ceil(8/4) tokens.
TINY = ["--cpu", "--scale=40", "--picture=128x64", "--fps=16", "--section-seconds=20", "--history-seconds=80"]
SECTION, MEMORY, HISTORY = 2 * 32, 4 * 1 * 2, 8 * 32


@pytest.fixture(scope="module")
def result(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of one tiny run; the folder did not exist before."""
    out = tmp_path_factory.mktemp("bench") / "results"
    assert main([*TINY, "--repeats", "2", "--warmup", "1", "--out", str(out)]) == 0
    (written,) = out.iterdir()
    assert written.name.startswith("step_time-") and written.suffix == ".json"
    return json.loads(written.read_text())


def counted(cases: dict[str, Callable[[], Callable[[], Any]]]) -> dict[str, int]:
    """FLOPs of every case, counted by PyTorch operation by operation; unfused attention is what its counter knows."""
    flops = {}
    steps = {name: prepare() for name, prepare in cases.items()}
    with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for name, step in steps.items():
            with FlopCounterMode(display=False) as counter:
                step()
            flops[name] = counter.get_total_flops()
    return flops


def test_result_says_what_was_measured_where_and_when(result: dict[str, Any]) -> None:
    machine = result["machine"]
    assert machine["cores"] >= 1 and machine["ram_gib"] > 0 and machine["cpu"] and machine["comfyui"]
    assert machine["torch"] == torch.__version__ and machine["threads"] == torch.get_num_threads()
    assert (result["device"], result["dtype"]) == ("cpu", "float32")
    assert result["settings"]["seed"] == 0 and result["settings"]["scale"] == 40
    assert result["host"]["width"] == 128 and result["date"].endswith("+00:00")
    counted = {"section": SECTION, "memory": MEMORY, "history": HISTORY}
    assert {name: result["tokens"][name] for name in counted} == counted


def test_every_case_is_timed_in_every_round_and_compared_with_no_memory(result: dict[str, Any]) -> None:
    rows = {row["case"]: row for row in result["rows"]}
    assert list(rows) == ["without", "strength 0", "memory", "history"]
    assert [row["tokens"] for row in rows.values()] == [SECTION, SECTION, SECTION + MEMORY, SECTION + HISTORY]
    for row in rows.values():
        assert len(row["all_seconds"]) == len(row["all_cpu_seconds"]) == 2 and min(row["all_seconds"]) > 0
        assert row["seconds"] == pytest.approx(sum(row["all_seconds"]) / 2)
        assert row["ratio"] == pytest.approx(row["seconds"] / rows["without"]["seconds"])


def test_strength_zero_computes_what_no_memory_does(result: dict[str, Any]) -> None:
    assert result["strength_0_difference"] == 0.0


def test_flops_and_their_ratios_are_those_that_pytorch_counts(comfy: Any, result: dict[str, Any]) -> None:
    settings = settings_from(parser().parse_args(TINY), gpu=False)
    bench = Bench(start_comfy(cpu=True), settings.shape(), settings.plan(), torch.device("cpu"), torch.float32, seed=0)
    flops = counted(bench.cases())
    assert flops["without"] < flops["memory"] < flops["history"]
    for row in result["rows"]:
        assert row["flops"] == flops[row["case"]], row["case"]
        assert row["flops_ratio"] == pytest.approx(flops[row["case"]] / flops["without"], rel=1e-12)


def test_flops_of_the_enhancements_are_those_that_pytorch_counts(comfy: Any, tmp_path: Path) -> None:
    arguments = [*TINY, "--enhancements", "--repeats", "1", "--warmup", "0"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    (written,) = tmp_path.iterdir()
    rows = {row["case"]: row for row in json.loads(written.read_text())["rows"]}
    settings = settings_from(parser().parse_args(arguments), gpu=False)
    bench = Bench(start_comfy(cpu=True), settings.shape(), settings.plan(), torch.device("cpu"), torch.float32, seed=0)
    flops = counted(bench.cases(settings.cross_width()))
    assert set(rows) == {"without", "memory", "cached", "window", "cross", "two", "guided"}
    for name, row in rows.items():
        assert row["flops"] == flops[name], name
    assert rows["without"]["flops"] < rows["cached"]["flops"] < rows["memory"]["flops"] < rows["two"]["flops"]
    assert rows["guided"]["flops"] == rows["memory"]["flops"] + rows["without"]["flops"]


def test_what_prepares_a_case_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step of a section fills the cache of keys and values; with no warm-up round it must not count."""
    clock = [0.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock[0], process_time=lambda: clock[0]))

    def step() -> torch.Tensor:
        clock[0] += 1
        return torch.zeros(1)

    def prepare() -> Callable[[], torch.Tensor]:
        clock[0] += 100
        return step

    times = timing.measure({"a": prepare, "not asked for": prepare}, ["a"], 0, 2, torch.device("cpu"))
    assert clock == [102.0] and list(times) == ["a"]
    assert times["a"].seconds == times["a"].cpu_seconds == [1.0, 1.0]


def test_case_that_is_not_run_keeps_its_flops_ratio(
    comfy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--cpu", "--real", "--picture=32x16", "--fps=4", "--section-seconds=1", "--history-seconds=4"]
    assert main([*small, "--out", str(tmp_path)]) == 0
    (written,) = tmp_path.iterdir()
    row = json.loads(written.read_text())["rows"][-1]
    assert (row["case"], row["seconds"], row["ratio"]) == ("history", None, None) and row["flops_ratio"] > 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| whole history"))
    assert line.count("not run") == 3 and f"{row['flops_ratio']:.3f}" in line


def test_scale_that_would_change_the_proportions_is_refused(comfy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scale", "7", "--cpu"]) == 2
    assert "scale 7" in capsys.readouterr().err
