"""The reproduction's statistics, its films of return, and that its protocol says what it does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.reproduce import main
from benchmarks.reproduction.claims import CLAIMS, Claim, Outcome, difference, person, source_of, standard_error
from benchmarks.reproduction.jobs import FINISHED, Job, waiting
from benchmarks.reproduction.material import Clips
from benchmarks.reproduction.measure import scored
from benchmarks.reproduction.origin import machines_of, origin
from benchmarks.reproduction.returns import CHOICES, PARTS, make_return, recalled
from benchmarks.reproduction.runs import Workshop
from benchmarks.reproduction.settings import (
    BASELINE_ROWS,
    CPU,
    FULL,
    PROPOSED,
    QUICK,
    RECIPE,
    ROWS,
    SECONDS,
    SHARES,
    TABLE_1,
    UNTRAINED,
)
from memory_encoder.evaluation.score import EQUAL

PROTOCOL = (Path(__file__).parents[2] / "benchmarks" / "protocol.md").read_text()
FILM = make_return(1_000_100)


def test_the_larger_of_both_standard_errors_counts():
    base, each = np.zeros((3, 4)), list("abcd")
    clips = base + np.array([0.0, 1.0, 2.0, 3.0])
    seeds = base + np.array([[0.0], [1.0], [2.0]])
    assert difference(clips, base, each) == pytest.approx((1.5, np.std([0, 1, 2, 3], ddof=1) / 2))
    assert difference(seeds, base, each) == pytest.approx((1.0, 1 / 3**0.5))


def test_windows_of_one_clip_are_not_taken_for_independent_ones():
    """Four windows that say the same are one clip; where each is of its own, the error is the usual one."""
    values = np.array([1.0, 1, 1, 1, 3, 3])
    assert standard_error(values, list("aaaabb")) == pytest.approx((2 * 2 * (4 * 2 / 3) ** 2) ** 0.5 / 6)
    assert standard_error(values, list("abcdef")) == pytest.approx(values.std(ddof=1) / 6**0.5)
    assert standard_error(values, list("aaaaaa")) == 0
    assert source_of("dog.mp4 from 102") == source_of("dog.mp4 from 0") == "dog.mp4"
    assert source_of("film 1000100") != source_of("film 1000101")


@pytest.mark.parametrize(
    ("value", "error", "or_equal", "seeds", "verdict"),
    [(2.1, 1, False, 2, "shown"), (1.9, 1, False, 3, "open"), (-2.1, 1, False, 3, "against"),
     (-1.9, 1, True, 2, "shown"), (-2.1, 1, True, 2, "against"), (9, 1, False, 1, "open"), (-9, 1, False, 1, "open")],
)  # fmt: skip
def test_a_claim_is_shown_beyond_two_standard_errors_and_never_by_one_seed(
    value: float, error: float, or_equal: bool, seeds: int, verdict: str
):
    assert Outcome(Claim("F", "psnr", "a", "b", or_equal=or_equal), value, error, seeds).verdict == verdict


def test_recall_of_the_person_is_the_mean_of_identity_and_clothes():
    use = {
        str(s): {"identity": [True, False], "clothes": [True, s > 2], "object": [False, False]} for s in (1, 2, 3, 4)
    }
    assert person(use, (1, 2, 3, 4)) == [1.0, 0.25]


def test_every_claim_compares_rows_that_are_trained_and_stands_in_the_protocol():
    for claim in CLAIMS:
        assert {claim.higher, claim.lower} <= {*ROWS, *BASELINE_ROWS, *UNTRAINED.values(), "No memory"}
        assert re.search(rf"\b{claim.number}\b", PROTOCOL)


def test_the_protocol_states_the_numbers_that_are_used():
    one, two = (CPU.options(ROWS[name], 0) for name in (PROPOSED, "Memory 2x2x1"))
    assert f"({CPU.films} of two characters, {CPU.solo_films} of one) and {CPU.reels} reels" in PROTOCOL
    assert f"channels {', '.join(map(str, CPU.channels))}" in PROTOCOL
    assert f"LoRA of rank {one.rank}" in PROTOCOL and f"{one.batch_size} clips a step" in PROTOCOL
    assert f"| Stage I | {CPU.first_steps:,} steps" in PROTOCOL
    assert f"| Stage II | {CPU.second_steps:,} steps" in PROTOCOL
    assert f"{one.reconstruction} steps of reconstruction" in PROTOCOL
    assert f"{one.learning_rate:g} in Stage I and {two.learning_rate:g} in Stage II" in PROTOCOL
    assert f"{SHARES[1][1]:.0%} of its clips are films" in PROTOCOL
    assert f"{CPU.use_films} held-out films" in PROTOCOL
    assert f"{CPU.retrieval_films} held-out films" in PROTOCOL
    assert (
        PROTOCOL.count(f"{CPU.drawing_steps} Euler steps") == 1 and f"({CPU.drawing_steps} steps, guidance" in PROTOCOL
    )
    assert "2, 3, 4 and 8 seconds" in PROTOCOL
    assert SECONDS == (1, 2, 3, 4, 8)
    assert f"{FULL.first_steps:,} and {FULL.second_steps:,} steps" in PROTOCOL


def test_all_rows_of_a_stage_train_the_same_number_of_steps_by_the_recipe():
    for row in ROWS.values():
        options = CPU.options(row, 2)
        assert options.steps == (CPU.first_steps if row in TABLE_1 else CPU.second_steps)
        assert options.seed == 2 and options.window_share == 0
        assert (options.rank, options.batch_size) == (RECIPE.both["rank"], RECIPE.both["batch_size"])
        assert QUICK.options(row, 0).steps == 2 and QUICK.options(row, 0).reconstruction <= 2
    assert CPU.options(ROWS["Nothing"], 0).history_dropout == 1
    assert (
        CPU.options(ROWS["Sliding window"], 0).retrieval_share
        == 0
        < CPU.options(ROWS["Memory 4x4x2"], 0).retrieval_share
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


def record(workshop: Workshop, *names: str) -> None:
    workshop.record.mkdir(exist_ok=True)
    for name in names:
        workshop.result(name, 0).write_text("{}")


def test_what_is_measured_elsewhere_is_not_made_again_but_for_what_something_begins_with(tmp_path: Path) -> None:
    """As on a new machine, which has the measurements alone."""
    workshop = Workshop(tmp_path / "work", tmp_path / "record")
    assert sorted(waiting(QUICK, workshop)) == sorted(Job(name, 0) for name in ROWS)
    record(workshop, *(name for name in ROWS if name not in ("Two rates", "Nothing")))
    assert waiting(QUICK, workshop) == [Job(PROPOSED, 0), Job("Two rates", 0), Job("Nothing", 0)]
    run = workshop.run(PROPOSED, 0)
    run.mkdir(parents=True)
    (run / FINISHED).touch()
    assert waiting(QUICK, workshop) == [Job("Two rates", 0), Job("Nothing", 0)]


def test_stage_one_is_followed_by_what_begins_with_it(tmp_path: Path) -> None:
    names = [job.row for job in waiting(QUICK, Workshop(tmp_path, tmp_path))]
    for row in ROWS.values():
        if row.start:
            between = names[names.index(row.start) + 1 : names.index(row.name)]
            assert all(ROWS[name].start == row.start for name in between)


def test_rows_of_other_models_or_sizes_are_not_put_into_one_table() -> None:
    here = json.loads(json.dumps(origin(CPU)))
    found = {"a": [here], "b": [here | {"machine": "another"}]}
    assert machines_of(CPU, found) == sorted(["another", here["machine"]])
    assert machines_of(replace(CPU, name="longer", seeds=(0, 1, 2, 3)), found)
    for other, what in (({"models": {}}, "with another host or VAE"), ({"sizes": {}}, "by another protocol than cpu")):
        with pytest.raises(ValueError, match=f"^b was measured {what}"):
            machines_of(CPU, {"a": [here], "b": [here | other]})
    with pytest.raises(ValueError, match=r"^a was measured by another protocol than quick"):
        machines_of(QUICK, found)


def test_rows_of_another_protocol_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    workshop = Workshop(tmp_path, tmp_path / "record")
    record(workshop, PROPOSED)
    workshop.result(PROPOSED, 0).write_text(json.dumps(origin(QUICK)))
    given = ["--work", str(tmp_path), "--record", str(workshop.record), "--clips", str(tmp_path / "clips")]
    monkeypatch.setattr("sys.argv", ["reproduce", *given])
    with pytest.raises(SystemExit):
        main()
    assert f"{PROPOSED} was measured by another protocol than cpu" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"clips", "record"}


def test_equal_pictures_have_a_number_of_decibels() -> None:
    """As where nothing moves in a film and the frame before is the frame."""
    pictures = torch.randint(0, 255, (2, 5, 48, 64, 3), dtype=torch.uint8)
    found = scored(Clips(("a", "b"), torch.zeros(2), {}, pictures), pictures.float().numpy() / 255)
    assert found["psnr"] == [EQUAL] * 2 and found["identified"] == [1, 1]
