"""A film against others: each measure's mean with the interval in which it lies, and the difference shot by shot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import t

from .report import SEAMS, FilmReport

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean of `count` values and its 95 % interval; both ends are the mean where a single value says nothing."""

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """By Student's t, since shots are few: a bootstrap over six values holds their mean in 86 of 100 cases."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean, mean, mean, len(values))
        error = np.std(values, ddof=1) / len(values) ** 0.5
        reach = float(error * t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
        return cls(mean, mean - reach, mean + reach, len(values))

    def to_dict(self) -> dict[str, float]:
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": round(self.high, 4), "n": self.count}

    def __str__(self) -> str:
        interval = f" [{self.low:.2f}, {self.high:.2f}]" if self.count > 1 else ""
        return f"{self.mean:.2f}{interval} (n {self.count})"


@dataclass(frozen=True)
class Compared:
    """Another film, or a folder of films, beside the judged one, by measure.

    own, values: the judged film and the other. differences: judged minus other over the shots, where the storyboards
    agree; empty otherwise, and `note` says so.
    """

    name: str
    own: Mapping[str, Estimate]
    values: Mapping[str, Estimate]
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        kinds = {"own": self.own, "values": self.values, "differences": self.differences}
        return {
            "name": self.name,
            **{kind: {name: one.to_dict() for name, one in found.items()} for kind, found in kinds.items()},
            "note": self.note,
        }


def compare(report: FilmReport, name: str, others: Sequence[FilmReport]) -> Compared:
    """A judged film against one other, over shots, or against several, over films. Measures taken with different tools
    do not compare and are left out. Raises ValueError for no film."""
    if not others:
        raise ValueError(f"against {name!r}: there is no film to compare with")
    shared = [one for one in report.measures if all(_same_tool(report, other, one) for other in others)]
    left_out = sorted({one for other in others for one in other.measures if one in report.measures} - set(shared))
    notes = [f"{', '.join(left_out)} taken with other tools, not compared"] if left_out else []
    if len(others) > 1:
        values = {one: [other.means()[one] for other in others if one in other.means()] for one in shared}
        own = {one: Estimate.of([report.means()[one]]) for one in shared if one in report.means()}
        notes.append(f"{len(others)} films, the interval is over films")
    else:
        values = {one: _values(others[0], one) for one in shared}
        own = {one: Estimate.of(found) for one in shared if (found := _values(report, one))}
    differences: dict[str, Estimate] = {}
    if len(others) == 1 and _agree(report, others[0]):
        for one in shared:
            gaps = [
                shot.values[one] - other.values[one]
                for shot, other in zip(report.shots, others[0].shots, strict=True)
                if one in shot.values and one in other.values
            ]
            if gaps:
                differences[one] = Estimate.of(gaps)
    elif len(others) == 1:
        notes.append("the storyboards differ, so that shots are not compared one by one")
    estimates = {one: Estimate.of(found) for one, found in values.items() if found and one in own}
    return Compared(name, own, estimates, differences, "; ".join(notes))


def _values(report: FilmReport, measure: str) -> list[float]:
    if measure == SEAMS:
        return [seam.jump for seam in report.seams]
    return [shot.values[measure] for shot in report.shots if measure in shot.values]


def _same_tool(report: FilmReport, other: FilmReport, measure: str) -> bool:
    return measure in other.measures and other.measures[measure].tool == report.measures[measure].tool


def _agree(report: FilmReport, other: FilmReport) -> bool:
    """Whether both films show the same prompts, shot by shot."""
    return [shot.prompt for shot in report.shots] == [shot.prompt for shot in other.shots]
