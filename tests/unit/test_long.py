"""Films in a row take no more of the process than the first ones, however they end; and killed ones are judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save

from benchmarks.faults import long
from benchmarks.faults.long import Held, in_a_row, interrupted, judged, whole
from benchmarks.faults.table import table
from benchmarks.faults.tally import Tally, content


@pytest.mark.parametrize(("make", "count"), [(whole, 12), (interrupted, 30)])
def test_films_in_a_row_leave_nothing_open_and_nothing_on_disk(make: object, count: int) -> None:
    """RSS is for the long run, `python -m benchmarks.faults long`: here it would tell of the tests before."""
    found = judged(in_a_row(count, make, 0, 4))  # type: ignore[arg-type]
    assert "descriptors" not in found["grows"], found


@pytest.fixture
def opened() -> Iterator[list[object]]:
    files: list[object] = []
    yield files
    for file in files:
        file.close()  # type: ignore[attr-defined]


def test_a_film_that_leaves_a_file_open_is_found(opened: list[object]) -> None:
    def leaking(root: Path, number: int, random: Random) -> None:
        root.mkdir()
        opened.append((root / "a").open("w"))

    assert judged(in_a_row(10, leaking, 0, 5))["grows"] == ["descriptors"]


def test_what_grows_is_named() -> None:
    flat = [Held(n * 10, 100 + n % 2, 5, 2) for n in range(60)]
    assert judged(flat)["grows"] == []
    assert judged([Held(h.films, h.rss_mib + h.films / 60, 5, 2) for h in flat])["grows"] == ["rss"]
    assert judged([Held(h.films, h.rss_mib, 5, 2 + (h.films > 400)) for h in flat])["grows"] == ["threads"]


def test_an_interrupted_film_that_leaves_a_temporary_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = long.film

    def careless(root: Path, *rest: object) -> None:
        try:
            real(root, *rest)  # type: ignore[arg-type]
        finally:
            (root / "film" / ".section.tmp").touch()

    monkeypatch.setattr(long, "film", careless)
    with pytest.raises(AssertionError, match=r"left: .*\.section\.tmp"):
        interrupted(tmp_path, 0, Random(1))


def test_a_film_that_was_killed_is_compared_to_the_bit_and_for_what_is_left(tmp_path: Path) -> None:
    for name, order in (("whole", ("a", "b")), ("killed", ("b", "a"))):
        folder = tmp_path / name / "film"
        folder.mkdir(parents=True)
        number = 1 + (name == "killed")
        (folder / f"memory_0000{number}.safetensors").write_bytes(
            save({"x": torch.ones(2)}, metadata={key: key for key in order})
        )
        status = {"status": "reused" if number == 2 else "stored", "key": "k"}
        (folder / "manifest.json").write_text(json.dumps({"sections": [status]}))
    tally = Tally(content(tmp_path / "whole"))
    tally.compare(tmp_path / "killed")
    assert not tally.examples
    (tmp_path / "killed" / "film" / ".a.tmp").touch()
    path = tmp_path / "killed" / "film" / "memory_00002.safetensors"
    path.write_bytes(save({"x": torch.tensor([1.0, 1.0000001])}, metadata={"a": "a", "b": "b"}))
    tally.compare(tmp_path / "killed")
    assert (tally.counts["different"], tally.counts["with files left"]) == (1, 1)
    assert "film/memory.safetensors" in tally.examples[0] and ".a.tmp" in tally.examples[1]


def test_the_table_says_what_did_not_hold() -> None:
    long_row = judged([Held(n * 10, 100, 5, 2 + n // 50) for n in range(60)]) | {"sections": 3}
    fuzz = {"memory": {"tried": 9, "refused": 8, "raw": 1}}
    *_, damaged, row = table({"fuzz": fuzz, "long": {"whole": long_row}, "machine": {}}).strip().splitlines()
    assert damaged.endswith("| raw: 1 |") and row.endswith("| grows: threads |")
