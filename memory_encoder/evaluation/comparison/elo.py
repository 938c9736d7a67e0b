"""ELO scores from pairwise votes, as the paper's Tables 2 and 3 have them: base 1200, K 32, and Bradley-Terry.

A Bradley-Terry model gives method i a strength s_i, with P(i is preferred to j) = 1 / (1 + 10^((s_j - s_i) / 400)). It
is fitted to all votes at once, so that their order means nothing; the ELO of chess, which moves by at most K with each
vote, is given beside it, as the mean over many orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

BASE, K = 1200.0, 32.0
SCALE = 400.0 / np.log(10.0)  # ELO points of one unit of log-odds
PRIOR = 1.0  # imaginary draws of each method with one of 1200, so that who wins every vote keeps a finite score
ORDERS, RESAMPLES = 200, 500
WIN, DRAW, LOSS = 1.0, 0.5, 0.0


@dataclass(frozen=True)
class Vote:
    """What someone chose between two methods. score: of the first, WIN, DRAW or LOSS."""

    first: str
    second: str
    score: float


@dataclass(frozen=True)
class Score:
    """A method's scores in ELO points. low, high: 95 % interval of `bradley_terry`, by bootstrap over the votes.

    wins, draws, losses: of its votes. All scores are BASE where there are no votes.
    """

    method: str
    bradley_terry: float
    low: float
    high: float
    elo: float
    wins: int
    draws: int
    losses: int

    @property
    def votes(self) -> int:
        return self.wins + self.draws + self.losses


def scores(methods: Sequence[str], votes: Sequence[Vote], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Score]:
    """The methods with their scores, the best first. Raises ValueError for a vote on a method that is not named."""
    place = {method: index for index, method in enumerate(methods)}
    unknown = sorted({name for vote in votes for name in (vote.first, vote.second)} - set(place))
    if unknown:
        raise ValueError(f"the votes name {unknown[0]!r}, which is none of {', '.join(methods)}")
    pairs = np.array([(place[vote.first], place[vote.second]) for vote in votes], dtype=int).reshape(-1, 2)
    points = np.array([vote.score for vote in votes], dtype=float)
    generator = np.random.default_rng(seed)
    fitted = bradley_terry(wins_of(pairs, points, len(methods)))
    drawn = (generator.integers(len(votes), size=len(votes)) for _ in range(resamples if votes else 0))
    spread = np.array([bradley_terry(wins_of(pairs[rows], points[rows], len(methods))) for rows in drawn])
    low, high = np.percentile(spread, (2.5, 97.5), axis=0) if len(spread) else (fitted, fitted)
    orders = np.array([generator.permutation(len(votes)) for _ in range(ORDERS)], dtype=int)
    played = played_elo(pairs[orders], points[orders], len(methods)).mean(axis=0)
    found = [
        Score(method, float(fitted[i]), float(low[i]), float(high[i]), float(played[i]), *_tally(pairs, points, i))
        for i, method in enumerate(methods)
    ]
    return sorted(found, key=lambda score: -score.bradley_terry)


def wins_of(pairs_V2: np.ndarray, points_V: np.ndarray, methods: int) -> np.ndarray:
    """Matrix [M,M]: how often the method of the row was preferred to that of the column; a draw is half of each."""
    wins = np.zeros((methods, methods))
    np.add.at(wins, (pairs_V2[:, 0], pairs_V2[:, 1]), points_V)
    np.add.at(wins, (pairs_V2[:, 1], pairs_V2[:, 0]), 1.0 - points_V)
    return wins


def bradley_terry(wins_MM: np.ndarray) -> np.ndarray:
    """Scores [M] in ELO points that make the votes most likely, see PRIOR."""

    def loss(strengths_M: np.ndarray) -> tuple[float, np.ndarray]:
        differences = strengths_M[:, None] - strengths_M[None, :]
        with_base = log_expit(strengths_M) + log_expit(-strengths_M)
        likelihood = (wins_MM * log_expit(differences)).sum() + 0.5 * PRIOR * with_base.sum()
        surprise = wins_MM * expit(-differences)
        slope = surprise.sum(axis=1) - surprise.sum(axis=0) + PRIOR * (0.5 - expit(strengths_M))
        return -float(likelihood), -slope

    found = minimize(loss, np.zeros(len(wins_MM)), jac=True, method="L-BFGS-B", options={"ftol": 1e-12})
    return BASE + SCALE * found.x


def played_elo(pairs_OV2: np.ndarray, points_OV: np.ndarray, methods: int) -> np.ndarray:
    """ELO [O,M] after the votes in each of O orders: a vote moves both by K times what was not expected of it."""
    orders = np.arange(len(points_OV))
    rating = np.full((len(orders), methods), BASE)
    for vote in range(points_OV.shape[1]):
        first, second = pairs_OV2[:, vote, 0], pairs_OV2[:, vote, 1]
        moved = K * (points_OV[:, vote] - expit((rating[orders, first] - rating[orders, second]) / SCALE))
        rating[orders, first] += moved
        rating[orders, second] -= moved
    return rating


def _tally(pairs: np.ndarray, points: np.ndarray, method: int) -> tuple[int, int, int]:
    own = np.concatenate([points[pairs[:, 0] == method], 1.0 - points[pairs[:, 1] == method]])
    return int((own == WIN).sum()), int((own == DRAW).sum()), int((own == LOSS).sum())


def table(found: Sequence[Score]) -> str:
    """The scores as a Markdown table for people."""
    lines = [
        "| method | Bradley-Terry | 95 % interval | ELO, K 32 | preferred | draws | not |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        interval = f"{one.low:.0f} to {one.high:.0f}" if one.votes else "no votes"
        counts = f"{one.wins} | {one.draws} | {one.losses}"
        lines.append(f"| {one.method} | {one.bradley_terry:.0f} | {interval} | {one.elo:.0f} | {counts} |")
    return "\n".join(lines)
