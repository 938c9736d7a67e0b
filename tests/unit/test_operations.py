"""Film, memory, checkpoint, dataset and movie, interrupted at every file operation there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.faults.cases import CASES
from benchmarks.faults.watching import Case, Watched, failed_at, points, watching, worked


@pytest.mark.skipif(os.name == "nt", reason="closes what a dead process held open the POSIX way")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_whatever_file_operation_fails_nothing_is_lost_different_or_left(tmp_path: Path, case: Case) -> None:
    wanted, tried = case.after(worked(case, tmp_path / "whole")), points(case, tmp_path)
    assert {fault for fault, _ in tried} == {"crash", "error", "half"}
    for fault, at in tried:
        assert failed_at(case, tmp_path, fault, at) == wanted, f"{fault} at operation {at}"


def test_a_writer_that_is_not_atomic_is_found(tmp_path: Path) -> None:
    """The suite sees what it should see."""

    def work(folder: Path) -> None:
        with (folder / "a.tmp").open("w") as file:
            file.write("whole")
        (folder / "a.tmp").open("rb+").close()
        (folder / "a.tmp").rename(folder / "a")

    careless = Case("careless", work, lambda folder: [path.read_text() for path in folder.glob("a*")])
    assert ("half", 1) in points(careless, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    results = {(fault, at): failed_at(careless, tmp_path, fault, at) for fault, at in points(careless, other)}
    assert results["half", 1] == ["wh"] and results["crash", 2] == ["whole"] and results["crash", 0] == []


def test_a_dead_process_does_nothing_more_and_holds_no_lock(tmp_path: Path) -> None:
    from memory_encoder.locks import alone

    watched = Watched(str(tmp_path), "crash", 1)
    with watching(watched), alone(tmp_path / ".lock"):
        (tmp_path / "a").write_text("x")
    assert watched.dead and [path.name for path in tmp_path.iterdir()] == [".lock"]
    with alone(tmp_path / ".lock") as held:
        assert held
