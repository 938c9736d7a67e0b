"""What a judged film says of itself, as dataclasses and as the one JSON that the command, the node and the page share.

    {"version": 1, "film": "my_film", "fps": 16, "seconds": 20.0, "size": [832, 480],
     "measures": {"identity": {"label": "identity", "unit": "cosine", "higher_is_better": true, "with": "YuNet, SFace",
                               "says": "..."}},
     "shots": [{"number": 1, "name": "", "prompt": "...", "start": 0.0, "seconds": 5.0, "sections": [1],
                "measures": {"identity": {"value": 0.74, "with": "YuNet, SFace"}},
                "falls_out": [{"measure": "identity", "value": 0.31, "usual": 0.74, "said": "shot 3: the face ..."}]}],
     "pairs": [{"shots": [1, 3], "measures": {"identity": {"value": 0.31, "with": "YuNet, SFace"}}}],
     "seams": [{"section": 2, "shot": 1, "at": 5.0, "jump": 1.2, "with": "...", "falls_out": [...]}],
     "means": {"identity": 0.6, "seams": 1.2}, "drift": {"colour": 0.0, "sharpness": 0.0}, "source": "",
     "missing": [{"measure": "aesthetic", "needs": "...", "where": "models/aesthetic/..."}]}

`drift` is of the whole film, in ΔE and in percent a minute. Shots and sections count from 1. A shot lacks a measure
where it could not be taken (no face in it); a measure that is in no shot is in `missing`, with what it needs, and so is
one that was taken with a lesser tool. Readers ignore fields that they do not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...files import write_bytes

VERSION = 1
REPORT_JSON, REPORT_TEXT, REPORT_SHEET = "film_report.json", "film_report.md", "film_report.png"
SEAMS = "seams"
# In the order of a table: identity, clothes and objects are those of the paper's Table 2, then those of its Table 3.
MEASURES = (
    "identity",
    "clothes",
    "objects",
    "semantic",
    "aesthetic",
    "clarity",
    "dynamics",
    "colour_drift",
    "sharpness_drift",
)


@dataclass(frozen=True)
class Measure:
    """How a measure is to be read: its unit, whether more is better, and with what it was measured.

    says: what it is, in a sentence. threshold: distance from the film's own median below which no shot falls out; of
    logarithms where a measure is `logarithmic`. surely: a value beyond it falls out however much the others differ.
    """

    name: str
    unit: str
    higher_is_better: bool
    tool: str
    says: str
    threshold: float = 0.0
    logarithmic: bool = False
    surely: float | None = None

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")

    def to_dict(self) -> dict[str, Any]:
        facts = {"label": self.label, "unit": self.unit, "higher_is_better": self.higher_is_better}
        return {**facts, "with": self.tool, "says": self.says}


@dataclass(frozen=True)
class FallsOut:
    """Why a shot or a seam is not like the rest of its film, in words and in the two numbers behind them."""

    measure: str
    said: str
    value: float
    usual: float

    def to_dict(self) -> dict[str, Any]:
        numbers = {"value": _rounded(self.value), "usual": _rounded(self.usual)}
        return {"measure": self.measure, **numbers, "said": self.said}


@dataclass
class ShotReport:
    """One shot, counted from 1; times in seconds from the film's beginning. values: by name of the measure."""

    number: int
    start: float
    seconds: float
    prompt: str = ""
    name: str = ""
    sections: tuple[int, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    falls_out: list[FallsOut] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"shot {self.number}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class PairReport:
    """Two shots side by side; values: those of the measures that compare shots."""

    shots: tuple[int, int]
    values: Mapping[str, float]


@dataclass(frozen=True)
class SeamReport:
    """Where a section joins the one before it without a cut. jump: change there in steps of the film's own motion."""

    section: int
    shot: int
    at: float
    jump: float
    falls_out: tuple[FallsOut, ...] = ()


@dataclass(frozen=True)
class Missing:
    """A measure that was not taken. needs: what is missing; where: the file or package that brings it."""

    measure: str
    needs: str
    where: str

    @property
    def said(self) -> str:
        return f"{self.measure.replace('_', ' ')}: {self.needs}" + (f"; {self.where}" if self.where else "")

    def to_dict(self) -> dict[str, str]:
        return {"measure": self.measure, "needs": self.needs, "where": self.where}


@dataclass
class FilmReport:
    """All that was measured of one film.

    measures: those that were taken, `SEAMS` among them. drift: over the whole film, see `drift.film_drift`. source:
    what the pictures are where they are not the film's own. stills: one picture [H,W,3] uint8 RGB of each shot, by
    number.
    """

    film: str
    fps: float
    seconds: float
    size: tuple[int, int]
    measures: dict[str, Measure] = field(default_factory=dict)
    shots: list[ShotReport] = field(default_factory=list)
    pairs: list[PairReport] = field(default_factory=list)
    seams: list[SeamReport] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    drift: dict[str, float] = field(default_factory=dict)
    source: str = ""
    stills: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def means(self) -> dict[str, float]:
        """Each measure over the shots that have it, seams over all seams."""
        found = {
            name: [shot.values[name] for shot in self.shots if math.isfinite(shot.values.get(name, math.nan))]
            for name in self.measures
        }
        found[SEAMS] = [seam.jump for seam in self.seams]
        return {name: sum(values) / len(values) for name, values in found.items() if values}

    def remarks(self) -> list[str]:
        """Everything that falls out, in words, in the order of time."""
        shots = [(shot.start, one.said) for shot in self.shots for one in shot.falls_out]
        seams = [(seam.at, one.said) for seam in self.seams for one in seam.falls_out]
        return [said for _, said in sorted(shots + seams, key=lambda remark: remark[0])]

    def nothing(self) -> str:
        """What is said where nothing falls out: it also names what could not be seen."""
        blind = dict.fromkeys(one.measure for one in self.missing if one.measure not in {*self.measures, SEAMS})
        names = ", ".join(name.replace("_", " ") for name in blind)
        return f"nothing falls out of what was measured; not measured: {names}" if names else "nothing falls out"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, see the top of this file; numbers are rounded to 4 digits, what is not finite is left out."""
        return {
            "version": VERSION,
            "film": self.film,
            "fps": self.fps,
            "seconds": _rounded(self.seconds),
            "size": list(self.size),
            "source": self.source,
            "measures": {name: measure.to_dict() for name, measure in self.measures.items()},
            "shots": [self._shot(shot) for shot in self.shots],
            "pairs": [{"shots": list(pair.shots), "measures": self._values(pair.values)} for pair in self.pairs],
            "seams": [self._seam(seam) for seam in self.seams],
            "means": {name: _rounded(value) for name, value in self.means().items()},
            "drift": {name: _rounded(value) for name, value in self.drift.items()},
            "missing": [one.to_dict() for one in self.missing],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)

    def write(self, folder: Path) -> Path:
        """Writes REPORT_JSON into the folder; raises OSError that names the file."""
        path = folder / REPORT_JSON
        write_bytes(path, self.to_json().encode())
        return path

    def _shot(self, shot: ShotReport) -> dict[str, Any]:
        return {
            "number": shot.number,
            "name": shot.name,
            "prompt": shot.prompt,
            "start": _rounded(shot.start),
            "seconds": _rounded(shot.seconds),
            "sections": list(shot.sections),
            "measures": self._values(shot.values),
            "falls_out": [one.to_dict() for one in shot.falls_out],
        }

    def _seam(self, seam: SeamReport) -> dict[str, Any]:
        place = {"section": seam.section, "shot": seam.shot, "at": _rounded(seam.at), "jump": _rounded(seam.jump)}
        tool = self.measures[SEAMS].tool if SEAMS in self.measures else ""
        return {**place, "with": tool, "falls_out": [one.to_dict() for one in seam.falls_out]}

    def _values(self, values: Mapping[str, float]) -> dict[str, Any]:
        return {
            name: {"value": _rounded(value), "with": self.measures[name].tool}
            for name, value in values.items()
            if math.isfinite(value)
        }


def measure_order(names: Sequence[str]) -> list[str]:
    """Names of measures as they stand in a table; unknown ones last."""
    known = (*MEASURES, SEAMS)
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def _rounded(value: float) -> float:
    return round(float(value), 4)
