"""Help pages in other languages: their tables of inputs and outputs are the words of the nodes themselves."""

from __future__ import annotations

import json
import re
from typing import Any

from tools.environment import ROOT

from .build import LANGUAGES, LOCALES

PAGES = ROOT / "js" / "docs"
# Headings of the two tables, and their columns, by language.
HEADINGS = {
    "zh": {"inputs": ("输入", "名称", "含义"), "outputs": ("输出", "含义")},
    "ja": {"inputs": ("入力", "名前", "意味"), "outputs": ("出力", "意味")},
}
TABLE = r"(?<=<!-- {part} -->\n).*?(?=<!-- /{part} -->)"


def page_of(node: str, language: str) -> str:
    return (PAGES / node / f"{language}.md").read_text(encoding="utf-8")


def with_tables(page: str, language: str, texts: dict[str, Any]) -> str:
    """The page with its tables made anew from the node's texts in that language, as `nodeDefs.json` has them."""
    for part, columns in HEADINGS[language].items():
        if texts[part]:
            table = _table(columns, part, texts[part])
            page = re.sub(TABLE.format(part=part), lambda _, table=table: table, page, count=1, flags=re.DOTALL)
    return page


def _table(columns: tuple[str, ...], part: str, entries: dict[str, Any]) -> str:
    lines = [f"## {columns[0]}", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for key, entry in entries.items():
        cells = [f"`{key}`", entry["name"], entry["tooltip"]] if part == "inputs" else [entry["name"], entry["tooltip"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def write_tables() -> None:
    """All pages that are there, in all languages; run after `locales/` was written."""
    for language in LANGUAGES[1:]:
        definitions = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
        for path in sorted(PAGES.glob(f"*/{language}.md")):
            page = path.read_text(encoding="utf-8")
            path.write_text(with_tables(page, language, definitions[path.parent.name]), encoding="utf-8")
