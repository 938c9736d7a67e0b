"""From node definitions and lists of words to ComfyUI's locale files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.environment import ROOT

LOCALES = ROOT / "locales"
LANGUAGES = ("en", "zh", "ja")
CATEGORIES = ("video memory", "demo")  # parts of the nodes' categories


def english(object_info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Texts of our nodes as they stand in the code, in the layout of `nodeDefs.json`."""
    found: dict[str, dict[str, Any]] = {}
    for name, node in sorted(object_info.items()):
        if not name.startswith("VideoMemory"):
            continue
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        tooltips = node.get("output_tooltips") or [None] * len(node["output_name"])
        found[name] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {key: _entry(key, (spec[1] if len(spec) > 1 else {})) for key, spec in inputs.items()},
            "outputs": {
                str(i): _entry(label, {"tooltip": tooltip})
                for i, (label, tooltip) in enumerate(zip(node["output_name"], tooltips, strict=True))
            },
        }
    return found


def _entry(name: str, options: dict[str, Any]) -> dict[str, str]:
    return {"name": options.get("display_name") or name, "tooltip": options.get("tooltip") or ""}


def texts_of(definitions: dict[str, dict[str, Any]]) -> list[str]:
    """Every English text once, in the order of the nodes."""
    return list(dict.fromkeys([*CATEGORIES, *_texts(definitions)]))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for part in value.values():
            yield from _texts(part)


def translations(language: str) -> dict[str, str]:
    """English text -> text in the language; English itself needs none."""
    if language == "en":
        return _Same()
    return json.loads((Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8"))


class _Same(dict[str, str]):
    """Every text as it is."""

    def __contains__(self, text: object) -> bool:
        return True

    def __getitem__(self, text: str) -> str:
        return text


def node_texts(value: Any, words: dict[str, str]) -> Any:
    """The same tree with every text translated; raises KeyError for one that is not there."""
    if isinstance(value, str):
        return words[value]
    return {key: node_texts(part, words) for key, part in value.items()}


def main_texts(words: dict[str, str]) -> dict[str, Any]:
    """`main.json`: the categories of the nodes."""
    return {"nodeCategories": {name: words[name] for name in CATEGORIES}}
