"""What the protocol expects, and whether it came out: paired differences against their standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .returns import PARTS
from .settings import FINEST, PROPOSED, RATES, TABLE_1, UNTRAINED

Verdict = Literal["shown", "open", "against"]
Values = np.ndarray
"""[seeds, clips] of one row and measure."""


class Measure(NamedTuple):
    """rows: Values of each row. sources: what each clip is cut from; clips of one source are not independent."""

    rows: Mapping[str, Values]
    sources: Sequence[str]


MEMORIES = [row.name for row in TABLE_1 if row.name != "Whole history"]
FILM_MEMORIES = ("Memory 2x2x1", "Memory 2x2x2", "Memory 4x4x2")
LIMIT = 2.0  # standard errors


@dataclass(frozen=True)
class Claim:
    """`higher` has more of `measure` than `lower`; with `or_equal` it only must not have less."""

    number: str
    measure: str
    higher: str
    lower: str
    firm: bool = True
    or_equal: bool = False


@dataclass(frozen=True)
class Outcome:
    """Mean difference and its standard error, of so many seeds.

    One seed shows nothing: how far two trainings of one row lie apart is not known from it.
    """

    claim: Claim
    difference: float
    error: float
    seeds: int

    @property
    def verdict(self) -> Verdict:
        if self.seeds < 2:
            return "open"
        if self.difference < -LIMIT * self.error:
            return "against"
        return "shown" if self.claim.or_equal or self.difference > LIMIT * self.error else "open"


CLAIMS = (
    Claim("F1", "psnr", PROPOSED, "Only LR 4x4x2"),
    Claim("F2", "psnr", PROPOSED, "Without LR 4x4x2"),
    Claim("F3", "psnr", "Proposed 2x2x4", PROPOSED),
    Claim("F4", "psnr", "Proposed 2x2x2", "Proposed 2x2x4", or_equal=True),
    Claim("F5", "psnr", FINEST, "Proposed 2x2x2"),
    *(Claim("F6", "psnr", name, "No memory") for name in MEMORIES),
    *(Claim("F7", "psnr", "Whole history", name) for name in MEMORIES),
    Claim("F8", "person", "Memory 2x2x1", "Without Stage I"),
    *(Claim("F9", "psnr", row.name, "Flat colour") for row in TABLE_1 if row.variant == "proposed"),
    *(Claim("F10", "psnr", f"Proposed {rate}", untrained) for rate, untrained in UNTRAINED.items()),
    Claim("S1", "psnr", "Only LR 4x4x2", "Large Patchifier 4x4x2", firm=False),
    *(Claim("S2", "psnr", f"Proposed {rate}", f"Thumbnail {rate}", firm=False) for rate in RATES),
    Claim("S3", "person", "Two rates", "Memory 4x4x2", firm=False),
    *(
        Claim("S4", "person at 4 s", memory, other, firm=False)
        for memory in FILM_MEMORIES
        for other in ("Sliding window", "FramePack's schedule")
    ),
    *(Claim("S5", "person at 4 s", memory, "Nothing", firm=False) for memory in FILM_MEMORIES),
    *(Claim("S6", "identified", f"Proposed {rate}", f"Thumbnail {rate}", firm=False) for rate in RATES),
)


def difference(higher: Values, lower: Values, sources: Sequence[str]) -> tuple[float, float]:
    """Mean of the paired values [seeds, clips] and the larger of the standard errors over clips and over seeds."""
    paired = higher - lower
    return float(paired.mean()), larger_error(paired, sources)


def larger_error(values: Values, sources: Sequence[str]) -> float:
    """Of values [seeds, clips]: the larger of the standard errors over clips and over seeds."""
    seeds = [str(seed) for seed in range(len(values))]
    return max(standard_error(values.mean(axis=0), sources), standard_error(values.mean(axis=1), seeds))


def standard_error(values: Values, sources: Sequence[str]) -> float:
    """Of the mean of values, of which those of one source vary together; 0 for a single source, which knows none.

    The cluster-robust one: with a source for each value it is the usual one.
    """
    names = np.array(sources)
    sums = np.array([(values[names == name] - values.mean()).sum() for name in dict.fromkeys(sources)])
    count = len(sums)
    return float((count / (count - 1) * np.square(sums).sum()) ** 0.5 / len(values)) if count > 1 else 0.0


def source_of(clip: str) -> str:
    """The clip that a window is cut from ("CLIP from FRAME"), or what it is called itself."""
    return clip.rsplit(" from ", 1)[0]


def check(measures: Mapping[str, Measure]) -> list[Outcome]:
    """Outcomes of all claims."""
    outcomes = []
    for claim in CLAIMS:
        rows, sources = measures[claim.measure]
        higher, lower = rows[claim.higher], rows[claim.lower]
        outcomes.append(Outcome(claim, *difference(higher, lower, sources), len(higher)))
    return outcomes


def person(use: Mapping[str, Mapping[str, list[bool]]], seconds: tuple[int, ...]) -> list[float]:
    """Recall of identity and clothes for each film, a mean over these lengths of history."""
    return list(np.mean([use[str(s)][part] for s in seconds for part in PARTS[:2]], axis=0))
