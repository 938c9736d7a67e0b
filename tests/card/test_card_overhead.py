"""What a section computes beside its sampling: what is recorded holds, and is small where it is said to be."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.overhead import RESULTS, cells, entries, report, shares
from memory_encoder.files import write_bytes
from tests.card.film_flops import computed

RECORD = os.environ.get("VIDEO_MEMORY_OVERHEAD")  # where benchmarks/overhead.py wants the counts
LIMIT = 5.0  # percent of a section's sampling


def test_every_cell_is_counted_and_the_table_is_that_of_the_counts() -> None:
    assert list(entries()) == cells()
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == report(entries())


def test_a_section_joins_the_memory_for_less_than_a_twentieth_of_its_sampling() -> None:
    found = {cell: shares(flops) for cell, flops in entries().items()}
    assert {host for (host, *_), share in found.items() if share["memory"] > LIMIT} == {"wan_5b"}  # whose VAE is large
    assert all(share["with_small"] < LIMIT / 10 for share in found.values())


def test_the_small_vae_is_much_smaller() -> None:
    assert all(flops["small"] < flops["decode"] / 15 for flops in entries().values())


def test_what_is_recorded_is_what_the_card_counts(card: Any) -> None:
    with card.on():
        found = asdict(computed(card, "hunyuan", 832, 480))
    assert found == pytest.approx(entries()["hunyuan", 832, 480], rel=0.01)


@pytest.mark.skipif(RECORD is None, reason="benchmarks/overhead.py says where")
def test_table(card: Any) -> None:
    assert RECORD is not None
    counts = []
    for host, width, height in cells():
        with card.on():
            flops = asdict(computed(card, host, width, height))
        counts.append({"host": host, "width": width, "height": height, "flops": flops})
    write_bytes(Path(RECORD), (json.dumps(counts, indent=1) + "\n").encode())
