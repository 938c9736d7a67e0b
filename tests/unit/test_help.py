"""Every node has a help page with a picture of it, in every language, and the pages say what the nodes have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools.translations.pages import page_of, with_tables

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "js" / "docs"
NODES = sorted(
    name
    for path in (*(ROOT / "nodes").glob("*.py"), *(ROOT / "demo" / "nodes").glob("*.py"))
    for name in re.findall(r'node_id="(\w+)"', path.read_text(encoding="utf-8"))
)
DEFINITIONS = {
    language: json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for language in ("en", "zh", "ja")
}
PICTURE = r"!\[[^\]]+\]\(([^)]+)\)"
AGAIN = "make its tables anew: python tools/environment.py run -m tools.translations"


def english(node: str) -> str:
    return (DOCS / f"{node}.md").read_text(encoding="utf-8")


def table_under(page: str, heading: str) -> list[str]:
    """What stands in the first column, of rows that name several each."""
    part = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [name for row in re.findall(r"^\|([^|]*)\|", part, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]


def test_every_page_belongs_to_a_node() -> None:
    assert len(NODES) >= 22
    assert sorted(path.stem for path in DOCS.glob("*.md")) == NODES == sorted(DEFINITIONS["en"])
    assert {path.parent.name for path in DOCS.glob("*/*.md")} == set(NODES)


@pytest.mark.parametrize("node", NODES)
def test_the_page_shows_a_picture_that_is_there_and_small(node: str) -> None:
    pictures = re.findall(PICTURE, english(node))
    assert pictures, f"{node}: take one with tools/workflows/pictures.mjs"
    for picture in pictures:
        content = (DOCS / picture).read_bytes()
        assert content[:3] == b"\xff\xd8\xff" and len(content) < 250_000, picture


@pytest.mark.parametrize("node", NODES)
def test_the_page_names_the_nodes_inputs_and_outputs_and_no_others(node: str) -> None:
    page, texts = english(node), DEFINITIONS["en"][node]
    assert page.startswith("# " + texts["display_name"].split(" (")[0])
    assert sorted(table_under(page, "Inputs")) == sorted(texts["inputs"])
    assert sorted(table_under(page, "Outputs")) == sorted(entry["name"] for entry in texts["outputs"].values())


@pytest.mark.parametrize("language", ["zh", "ja"])
@pytest.mark.parametrize("node", NODES)
def test_the_page_is_there_in_the_language_with_the_nodes_own_words(node: str, language: str) -> None:
    page, texts = page_of(node, language), DEFINITIONS[language][node]
    assert page.startswith(f"# {texts['display_name']}\n")
    assert with_tables(page, language, texts) == page, AGAIN
    for part in ("inputs", "outputs"):
        assert (f"<!-- {part} -->" in page) == bool(texts[part]), f"{node}: {part} are missing"
    pictures = re.findall(PICTURE, page)
    assert pictures and all((DOCS / node / picture).is_file() for picture in pictures)
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", page):  # inputs and files that a person would look for
        assert name in english(node) + json.dumps(DEFINITIONS["en"]), f"{node}: {name}"
    headings = [len(re.findall(r"^## ", text, re.MULTILINE)) for text in (page, english(node))]
    assert headings[0] >= headings[1] - 1, "a part of the English page is missing"
