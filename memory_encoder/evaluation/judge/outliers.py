"""Which shot falls out of its film: beside the film's own median in the film's own spread, and in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .report import FallsOut, Measure

FEWEST = 3  # shots from which one of them can fall out
SPREADS = 3.5  # robust standard deviations (Iglewicz and Hoaglin 1993)
_MAD = 1.4826  # of a normal distribution's deviation
_WORDS = {
    "clothes": "the clothes differ from those of the other shots",
    "objects": "what is no person differs from the other shots",
    "semantic": "the picture fits its prompt less than those of the other shots",
    "aesthetic": "less pleasing than the other shots",
    "clarity": "less clear than the other shots",
    "dynamics": "hardly moves beside the other shots",
    "colour_drift": "the colours slide away further than in the other shots",
    "sharpness_drift": "the sharpness changes more than in the other shots",
}

Pairs = Mapping[tuple[int, int], float]  # of two indices, the smaller first


def odd_ones(titles: Sequence[str], values: Sequence[float | None], measure: Measure) -> dict[int, FallsOut]:
    """Shots whose value is worse than the median by SPREADS of the film's spread and by the measure's threshold."""
    known = {i: float(value) for i, value in enumerate(values) if value is not None and np.isfinite(value)}
    if len(known) < FEWEST:
        return {}
    scaled = {i: np.log(max(value, 0) + 0.1) if measure.logarithmic else value for i, value in known.items()}
    middle = float(np.median(list(scaled.values())))
    spread = _MAD * float(np.median([abs(value - middle) for value in scaled.values()]))
    bound = max(SPREADS * spread, measure.threshold)
    usual = float(np.median(list(known.values())))
    found = {}
    for i, value in scaled.items():
        worse = middle - value if measure.higher_is_better else value - middle
        if worse > (measure.threshold if _surely(known[i], measure) else bound):
            words = _WORDS.get(measure.name, f"its {measure.label} falls out")
            said = f"{titles[i]}: {words} ({known[i]:.2f} against {usual:.2f}, {measure.unit})"
            found[i] = FallsOut(measure.name, said, known[i], usual)
    return found


def _surely(value: float, measure: Measure) -> bool:
    sure = measure.surely
    return sure is not None and (value < sure if measure.higher_is_better else value > sure)


@dataclass(frozen=True)
class Company:
    """Shots that name one of the cast, or nobody: in parts that hang together by faces; the film's own face is that of
    most of them, of the first where that is open."""

    parts: tuple[tuple[int, ...], ...]
    named: bool

    @property
    def own(self) -> tuple[int, ...]:
        return max(self.parts, key=lambda part: (len(part), -part[0]))

    def beside(self, index: int) -> list[int]:
        """Whose faces a shot should have, itself left out; without names whose faces it has, or else all others."""
        part = next((part for part in self.parts if index in part), ())
        beside = self.own if self.named and part else part
        everyone = [other for each in self.parts for other in each if part and other != index]
        return [other for other in beside if other != index] or everyone


def companies(names: Sequence[frozenset[str]], alike: Pairs, same: float) -> list[Company]:
    """One for each name of the cast, and one of the shots that name nobody. names: of the cast, by shot."""
    known = sorted({index for pair in alike for index in pair})
    groups = [({i for i in known if name in names[i]}, True) for name in sorted(frozenset().union(*names))]
    groups.append(({i for i in known if not names[i]}, False))
    return [Company(tuple(_parts(group, alike, same)), named) for group, named in groups if group]


def like_own(index: int, found: Sequence[Company], alike: Pairs) -> float | None:
    """How alike a shot's faces are to the film's own of whom it names; the best of several, who may not all be seen."""
    values = [
        [alike[pair] for other in company.beside(index) if (pair := (min(index, other), max(index, other))) in alike]
        for company in found
    ]
    return max((statistics.median_high(those) for those in values if those), default=None)


def strangers(titles: Sequence[str], found: Sequence[Company], alike: Pairs, same: float) -> dict[int, FallsOut]:
    """Shots whose faces are not those of the shots that should show the same people.

    Of shots that name nobody only a face that no other shot has falls out, where two others share one: who it should
    be is not known. Whoever is right for one of its names stays.
    """
    wrong: dict[int, tuple[int, ...]] = {}
    right: set[int] = set()
    for company in found:
        own = company.own
        right.update(own if sum(map(len, company.parts)) > 1 else ())
        for part in company.parts:
            stray = company.named or (len(part) == 1 and len(own) > 1)
            if part is own or not stray:
                right.update(part if not stray else ())
            else:
                wrong.update(dict.fromkeys(part, own))
    return {i: _stranger(titles, i, own, alike, same) for i, own in sorted(wrong.items()) if i not in right}


def _parts(group: set[int], alike: Pairs, same: float) -> list[tuple[int, ...]]:
    """Shots of a group that hang together by faces of one person."""
    left, parts = set(group), []
    while left:
        part, waiting = set(), [min(left)]
        while waiting:
            one = waiting.pop()
            if one in left:
                left.discard(one)
                part.add(one)
                waiting += [other for other in left if alike.get((min(one, other), max(one, other)), -1.0) >= same]
        parts.append(tuple(sorted(part)))
    return parts


def _stranger(titles: Sequence[str], index: int, own: tuple[int, ...], alike: Pairs, same: float) -> FallsOut:
    def mean(pairs: Sequence[tuple[int, int]]) -> float:
        found = [alike[min(pair), max(pair)] for pair in pairs if (min(pair), max(pair)) in alike]
        return float(np.mean(found)) if found else same

    value = mean([(index, other) for other in own])
    usual = mean([(one, other) for one in own for other in own if one < other])
    against = f"against {usual:.2f}" if len(own) > 1 else f"one person's are alike from {same:.2f} on"
    said = f"{titles[index]}: the face differs from {_listed(own)} ({value:.2f} {against})"
    return FallsOut("identity", said, value, usual)


def _listed(indices: Sequence[int]) -> str:
    numbers = [str(i + 1) for i in indices]
    if len(numbers) == 1:
        return f"shot {numbers[0]}"
    return f"shots {', '.join(numbers[:-1])} and {numbers[-1]}"
