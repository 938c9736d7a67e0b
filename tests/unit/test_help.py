"""Every node has a help page with a picture of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "js" / "docs"
NODES = sorted(
    name for path in (ROOT / "nodes").glob("*.py") for name in re.findall(r'node_id="(\w+)"', path.read_text())
)


def test_every_page_belongs_to_a_node() -> None:
    assert sorted(path.stem for path in DOCS.glob("*.md")) == NODES


@pytest.mark.parametrize("node", NODES)
def test_the_page_shows_a_picture_that_is_there_and_small(node: str) -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (DOCS / f"{node}.md").read_text())
    assert pictures, f"{node}: take one with tools/workflows/pictures.mjs"
    for picture in pictures:
        content = (DOCS / picture).read_bytes()
        assert content[:3] == b"\xff\xd8\xff" and len(content) < 250_000, picture


TRANSLATED = sorted(DOCS.glob("*/*.md"))


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_translated_page_lies_where_core_looks_and_names_the_inputs(page: Path) -> None:
    assert page.parent.name in NODES and page.stem in ("zh", "ja")
    text, english = page.read_text(), (DOCS / f"{page.parent.name}.md").read_text()
    assert all((page.parent / picture).is_file() for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text))
    assert set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) <= set(re.findall(r"`(\w+)`", english))
