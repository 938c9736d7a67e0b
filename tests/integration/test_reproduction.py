"""The reproduction trains, measures, goes on where it was stopped, and reports: in two steps of some of its rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reproduction.jobs import Job, carry_out, prepare, ready
from benchmarks.reproduction.report import seeds_done, write_report
from benchmarks.reproduction.runs import Workshop
from benchmarks.reproduction.settings import BASELINE_ROWS, CPU, QUICK, RATES, ROWS, SECONDS
from demo.clip import data_folder

DATA = data_folder()
CLIPS = ("flutter_bee.mp4", "moviepy_chaplin.mp4", "mdn_toy_rabbit.mp4", "scikitvideo_bikes.mp4")  # reading all is slow
TRAINED = ("Proposed 4x4x2", "Memory 4x4x2", "Two rates", "Nothing")


@pytest.fixture(scope="module")
def workshop(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    if not (DATA / "clips").is_dir():
        pytest.skip("needs real clips; set VIDEO_MEMORY_DATA")
    folder = tmp_path_factory.mktemp("reproduction")
    manifest = json.loads((DATA / "manifest.json").read_text())
    some = [clip for clip in manifest["clips"] if clip["name"] in CLIPS]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"clips": some}))
    (folder / "clips").symlink_to(DATA.resolve() / "clips")
    shop = Workshop(folder, folder / "measured")
    prepare(QUICK, shop, folder / "clips", 1, lambda text: None)
    assert not ready(shop, Job("Memory 4x4x2", 0))
    for row in TRAINED:
        carry_out(QUICK, shop, Job(row, 0))
    return shop


def found(workshop: Workshop, row: str) -> dict[str, Any]:
    return json.loads(workshop.result(row, 0).read_text())


def test_retrieval_is_measured_for_each_clip_with_and_without_the_memory(workshop: Workshop) -> None:
    result = found(workshop, "Proposed 4x4x2")
    assert len(result["names"]) == len(result["retrieval"]["psnr"]) == len(result["without"]["ssim"]) == 2
    assert len(result["untrained"]["identified"]) == 2 and result["untrained"] != result["retrieval"]
    assert workshop.picture("Proposed 4x4x2").exists()
    assert found(workshop, "VAE alone")["retrieval"]["psnr"][0] > result["retrieval"]["psnr"][0]


def test_use_and_return_are_measured_for_every_length_of_history(workshop: Workshop) -> None:
    for row in ("Memory 4x4x2", "Two rates", "Nothing"):
        result = found(workshop, row)
        assert list(result["use"]) == [str(seconds) for seconds in SECONDS]
        assert len(result["reels"]["psnr"]) == len(result["reel_names"]) == 1


def test_a_finished_run_is_measured_again_to_the_same_numbers(workshop: Workshop) -> None:
    before = found(workshop, "Memory 4x4x2")
    losses = (workshop.run("Memory 4x4x2", 0) / "losses.jsonl").read_bytes()
    workshop.result("Memory 4x4x2", 0).unlink()
    carry_out(QUICK, workshop, Job("Memory 4x4x2", 0))
    assert found(workshop, "Memory 4x4x2") == before
    assert (workshop.run("Memory 4x4x2", 0) / "losses.jsonl").read_bytes() == losses


def test_the_report_waits_for_a_whole_seed_and_holds_every_row(workshop: Workshop, tmp_path: Path) -> None:
    cpu = replace(QUICK, name="cpu", seeds=CPU.seeds)
    with pytest.raises(ValueError, match="no seed"):
        write_report(cpu, workshop, tmp_path)
    for row in ROWS.values():
        like = "Memory 4x4x2" if row.stage == "continuation" else "Proposed 4x4x2"
        workshop.result(row.name, 0).write_text(json.dumps(found(workshop, like)))
    assert seeds_done(cpu, workshop) == [0]
    text = write_report(cpu, workshop, tmp_path)
    assert all(f"\n| {name} | " in text and "edges" in found(workshop, name)["retrieval"] for name in BASELINE_ROWS)
    assert all(f"\n| Untrained {rate} | " in text for rate in RATES)
    assert "Unfinished: 1 of 3 seeds" in text
    assert all(f"\n| {name} |" in text for name in ROWS)
    record = json.loads((tmp_path / "reproduction_cpu.json").read_text())
    assert record["seeds"] == [0]
    assert {claim["verdict"] for claim in record["claims"] if claim["number"] == "F1"} == {"open"}
