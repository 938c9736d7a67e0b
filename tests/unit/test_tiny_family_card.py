"""The tiny family's card, and what the project's page says of it, are what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.tiny_family.card import TABLES, filled


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_the_tables_of_the_pages_are_those_of_the_measurements(path: Path) -> None:
    assert filled(path) == path.read_text(encoding="utf-8")
