"""The reproduction's statistics, its films of return, and that its protocol says what it does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reproduction.claims import CLAIMS, Claim, Outcome, difference, person
from benchmarks.reproduction.returns import CHOICES, PARTS, make_return, recalled
from benchmarks.reproduction.settings import (
    CPU,
    FULL,
    FURTHER,
    PAIRS,
    PLANNED,
    PROPOSED,
    QUICK,
    ROWS,
    SECONDS,
    USE_PAIRS,
)

PROTOCOL = (Path(__file__).parents[2] / "benchmarks" / "protocol.md").read_text()
FILM = make_return(1_000_100)


def test_the_larger_of_both_standard_errors_counts():
    base = np.zeros((3, 4))
    clips = base + np.array([0.0, 1.0, 2.0, 3.0])
    seeds = base + np.array([[0.0], [1.0], [2.0]])
    assert difference(clips, base) == pytest.approx((1.5, np.std([0, 1, 2, 3], ddof=1) / 2))
    assert difference(seeds, base) == pytest.approx((1.0, 1 / 3**0.5))


@pytest.mark.parametrize(
    ("value", "error", "or_equal", "verdict"),
    [(2.1, 1, False, "shown"), (1.9, 1, False, "open"), (-2.1, 1, False, "against"), (-1.9, 1, True, "shown"),
     (-2.1, 1, True, "against")],
)  # fmt: skip
def test_a_claim_is_shown_beyond_two_standard_errors(value: float, error: float, or_equal: bool, verdict: str):
    assert Outcome(Claim("F", "psnr", "a", "b", or_equal=or_equal), value, error).verdict == verdict


def test_recall_of_the_person_is_the_mean_of_identity_and_clothes():
    use = {
        str(s): {"identity": [True, False], "clothes": [True, s > 2], "object": [False, False]} for s in (1, 2, 3, 4)
    }
    assert person(use, (1, 2, 3, 4)) == [1.0, 0.25]


def test_every_claim_compares_rows_that_are_trained_and_stands_in_the_protocol():
    for claim in CLAIMS:
        assert {claim.higher, claim.lower} <= {*ROWS, "No memory"}
        assert re.search(rf"\b{claim.number}\b", PROTOCOL)


def test_the_protocol_states_the_numbers_that_are_used():
    host = CPU.host_options()
    assert f"all weights, {host.steps:,} steps of {host.batch_size} clips" in PROTOCOL
    assert f"| Stage I | {CPU.first_steps} steps" in PROTOCOL
    assert f"{CPU.second_steps} steps from Stage I" in PROTOCOL
    assert f"what has no Stage I gets {CPU.first_steps + CPU.second_steps} steps" in PROTOCOL
    assert f"batch {CPU.batch}" in PROTOCOL
    assert f"LoRA of rank {CPU.rank}" in PROTOCOL
    assert f"{CPU.use_films} held-out films" in PROTOCOL
    assert f"{CPU.retrieval_films} held-out films" in PROTOCOL
    assert "2, 3, 4 and 8 seconds" in PROTOCOL
    assert SECONDS == (1, 2, 3, 4, 8)
    assert f"{FULL.host_steps:,}, {FULL.first_steps:,} and {FULL.second_steps:,} steps" in PROTOCOL


def test_all_planned_rows_train_the_same_number_of_steps():
    for row in PLANNED.values():
        before = ROWS[row.start].steps(CPU) if row.start else 0
        total = CPU.first_steps + (CPU.second_steps if row.stage == "continuation" else 0)
        assert row.steps(CPU) + before == total
        assert row.steps(QUICK) <= QUICK.first_steps + QUICK.second_steps


def test_further_rows_are_compared_with_what_is_trained_and_are_declared():
    pairs = (*PAIRS, *USE_PAIRS)
    assert {name for pair in pairs for name in pair} <= {*ROWS}
    assert {name for pair in pairs for name in pair} >= {*FURTHER}
    assert all(ROWS[name].stage == "retrieval" for pair in PAIRS for name in pair)
    assert all(ROWS[name].stage == "continuation" for pair in USE_PAIRS for name in pair)
    assert "four times the steps" in PROTOCOL and "cached memory" in PROTOCOL and "without Stage I at 2x2x2" in PROTOCOL


def test_what_trains_longer_has_four_times_the_steps_of_both_stages():
    assert ROWS[f"{PROPOSED} longer"].steps(CPU) == 4 * CPU.first_steps
    begun, anew = ROWS["Memory 4x4x2 longer"], ROWS["Without Stage I longer"]
    assert (
        anew.steps(CPU) == begun.steps(CPU) + ROWS[begun.start].steps(CPU) == 4 * (CPU.first_steps + CPU.second_steps)
    )


def test_stage_two_goes_on_with_an_encoder_of_its_own_kind():
    for row in ROWS.values():
        if row.start:
            assert (ROWS[row.start].rate, ROWS[row.start].variant) == (row.rate, row.variant)
    assert ROWS[PROPOSED].variant == "proposed"


def test_the_character_returns_by_name_alone_to_the_room_of_the_beginning():
    name = FILM.shot.characters[0].name
    assert FILM.shot.prompt.startswith(f"{name} ")
    assert " with " not in FILM.shot.prompt
    assert FILM.shot.room.place() in FILM.shot.prompt
    assert len(FILM.frames) == 1 + 16 * max(SECONDS)


def test_the_true_shot_is_recalled_and_no_other_one():
    for part in PARTS:
        candidates = FILM.candidates[part]
        assert candidates.shape[0] == CHOICES
        assert len({candidate.tobytes() for candidate in candidates}) == CHOICES
        assert recalled(FILM.true / 255, candidates)
        assert not recalled(np.repeat(np.repeat(candidates[3] / 255, 4, 1), 4, 2), candidates)


def test_candidates_differ_in_their_own_part_alone():
    """The head's differences lie above the clothes'; the object's lie outside of the character."""
    spread = {part: np.ptp(FILM.candidates[part].astype(int), axis=0).max(axis=(0, 3)) for part in PARTS}
    changed = {part: np.argwhere(spread[part] > 40) for part in PARTS}
    assert changed["identity"][:, 0].mean() < changed["clothes"][:, 0].mean()
    assert all(len(places) for places in changed.values())
