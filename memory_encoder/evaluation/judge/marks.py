"""What a report says of a film's sections, beside the film: only of those that are still the ones it judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import read_plain
from ...film.opening import stored_film
from .report import REPORT_JSON, VERSION

# Measures whose odd shots are worth making anew; another prompt or another place is no fault of a section.
REDO = ("identity", "clothes", "colour_drift", "sharpness_drift", "clarity", "dynamics", "seams")
MAX_BYTES = 64 * 1024 * 1024  # pairs of 200 shots are 4 MB


def section_keys(folder: Path) -> dict[int, str]:
    """Keys of a film's sections by their number, from 1. Raises StoredFilmError for a folder that holds no film."""
    place = folder.resolve()
    return {int(record["index"]) + 1: record["key"] for record in stored_film(place.parent, place.name).records}


def with_keys(keys: Mapping[int, str] | None) -> dict[str, Any]:
    """What is added to a report's JSON so that its marks stay with the sections which it judged."""
    return {"keys": {str(number): key for number, key in keys.items()}} if keys else {}


def read_marks(folder: Path, keys: Mapping[int, str]) -> dict[int, list[dict[str, Any]]]:
    """By number of the section what falls out in it, `{"measure", "said", "value", "usual"}`; only where its key is
    the one that was judged. Empty without a report, or with one that cannot be read."""
    path = folder / REPORT_JSON
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        data = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict) or data.get("version") != VERSION or not isinstance(data.get("keys"), dict):
        return {}
    found: dict[int, list[dict[str, Any]]] = {}
    for shot in _objects(data.get("shots")):
        sections = shot.get("sections")
        for number in sections if isinstance(sections, list) else ():
            _add(found, number, _remarks(shot))
    for seam in _objects(data.get("seams")):
        _add(found, seam.get("section"), _remarks(seam))
    judged = data["keys"]
    return {number: remarks for number, remarks in found.items() if judged.get(str(number)) == keys.get(number, "")}


def _add(found: dict[int, list[dict[str, Any]]], number: object, remarks: list[dict[str, Any]]) -> None:
    if remarks and isinstance(number, int):
        found.setdefault(number, []).extend(remarks)


def _remarks(place: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"measure": one["measure"], "said": one["said"]}
        | {name: one[name] for name in ("value", "usual") if _finite(one.get(name))}
        for one in _objects(place.get("falls_out"))
        if isinstance(one.get("measure"), str) and one["measure"] in REDO and isinstance(one.get("said"), str)
    ]


def _finite(value: object) -> bool:
    """The page's JSON has no word for NaN and infinity."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _objects(value: object) -> Sequence[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
