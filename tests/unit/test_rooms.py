"""The house: rooms without a circle, one file name once, and pages that say what is so."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tools import rooms

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for folder in ("", "docs", "benchmarks", "memory_encoder", "demo/tiny_family")
    for path in (ROOT / folder).glob("*.md")
)


def test_no_import_goes_up_and_no_files_form_a_circle() -> None:
    rooms.circles()
    heights = rooms.floors(rooms.rooms())
    assert all(heights[below] < heights[room] for room, imported in rooms.rooms().items() for below in imported)


def test_a_circle_of_imports_is_found_for_type_checkers_too(tmp_path: Path) -> None:
    library = tmp_path / rooms.LIBRARY
    for name, text in {"a/x.py": "from ..b import y", "b/y.py": "if False:\n    from ..a.x import thing"}.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(text)
        (library / name).with_name("__init__.py").write_text("")
    with pytest.raises(ValueError, match=r"circle of imports: .*a\.x -> .*b\.y -> .*a\.x"):
        rooms.circles(tmp_path)
    with pytest.raises(ValueError, match="circle of imports: a -> b -> a"):
        rooms.floors(rooms.rooms(tmp_path))


def test_the_page_shows_the_rooms_as_they_are() -> None:
    text = rooms.PAGE.read_text(encoding="utf-8")
    assert rooms.page(text, rooms.table()) == text, "python tools/environment.py run -m tools.rooms --write"


def test_no_file_name_stands_twice_in_what_is_published() -> None:
    names = Counter(
        path.name
        for folder in ("nodes", "memory_encoder")
        for path in (ROOT / folder).rglob("*.py")
        if path.name[0] != "_"
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_the_way_of_one_section_is_at_most_twenty_files_that_are_there() -> None:
    text = rooms.PAGE.read_text(encoding="utf-8")
    way = text.split("## The way of one section", 1)[1].split("\n## ", 1)[0]
    files = re.findall(r"^\d+\. \[`([^`]+)`\]", way, re.MULTILINE)
    assert 10 <= len(files) <= 20 and len(set(files)) == len(files)
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_the_readme_is_short_enough_to_read() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`|```.*?```", "", text, flags=re.DOTALL)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else page.parent / name
        assert file.exists(), f"{target}: no such file"
        if anchor and file.suffix == ".md":
            assert anchor in {
                _anchor(line) for line in file.read_text(encoding="utf-8").splitlines() if line[:1] == "#"
            }, target


def _anchor(heading: str) -> str:
    """How a web page of the repository names a heading."""
    words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lstrip("#").strip().lower()))
    return words.replace(" ", "-")
