"""Blind comparison: scores with known answers, a study that gives nothing away, and votes that are read strictly."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.cli import main
from memory_encoder.evaluation.comparison.elo import (
    BASE,
    DRAW,
    LOSS,
    WIN,
    Vote,
    bradley_terry,
    played_elo,
    scores,
    wins_of,
)
from memory_encoder.evaluation.comparison.study import read_key, read_votes, write_study

METHODS: tuple[str, ...] = ("a", "b", "c", "d")
TRUE: dict[str, float] = {"a": 1350.0, "b": 1250.0, "c": 1150.0, "d": 1050.0}


def drawn(count: int, seed: int = 0) -> list[Vote]:
    """Votes of people whose preferences follow TRUE."""
    generator = np.random.default_rng(seed)
    pairs = list(combinations(METHODS, 2))
    votes = []
    for i in range(count):
        first, second = pairs[i % len(pairs)]
        chance = 1 / (1 + 10 ** ((TRUE[second] - TRUE[first]) / 400))
        votes.append(Vote(first, second, WIN if generator.random() < chance else LOSS))
    return votes


def test_known_strengths_are_recovered_and_lie_in_their_intervals() -> None:
    found = scores(METHODS, drawn(2400), resamples=60)
    assert [one.method for one in found] == list(METHODS)
    for one in found:
        assert one.bradley_terry == pytest.approx(TRUE[one.method], abs=30)
        assert one.low < TRUE[one.method] < one.high and one.high - one.low < 90
        assert one.elo == pytest.approx(TRUE[one.method], abs=45)
    assert sum(one.votes for one in found) == 2 * 2400


def test_more_votes_make_the_interval_narrower() -> None:
    few, many = (scores(METHODS, drawn(count), resamples=60)[0] for count in (60, 1200))
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_ties_are_halves_and_leave_all_at_the_base() -> None:
    for one in scores("ab", [Vote("a", "b", DRAW)] * 5, resamples=10):
        assert one.bradley_terry == pytest.approx(BASE, abs=0.01) and one.elo == BASE
        assert (one.wins, one.draws, one.losses) == (0, 5, 0)
    for one in scores("ab", [Vote("a", "b", WIN), Vote("b", "a", WIN)], resamples=10):
        assert one.bradley_terry == pytest.approx(BASE, abs=0.01)


def test_a_method_without_votes_stays_at_the_base_and_no_votes_are_no_error() -> None:
    found = {one.method: one for one in scores("abc", [Vote("a", "b", WIN)], resamples=20)}
    assert found["c"].bradley_terry == pytest.approx(BASE, abs=0.01) and found["c"].votes == 0
    assert found["a"].bradley_terry > BASE > found["b"].bradley_terry
    assert [one.bradley_terry for one in scores("ab", [])] == pytest.approx([BASE, BASE])
    with pytest.raises(ValueError, match="name 'z', which is none of a, b"):
        scores("ab", [Vote("a", "z", WIN)])


def test_who_wins_every_vote_keeps_a_finite_score() -> None:
    best, worst = scores("ab", [Vote("a", "b", WIN)] * 50, resamples=10)
    assert BASE + 300 < best.bradley_terry < BASE + 1200 and worst.bradley_terry > BASE - 1200


def test_one_vote_moves_both_by_half_of_k() -> None:
    assert played_elo(np.array([[[0, 1]]]), np.array([[1.0]]), 3).tolist() == [[1216, 1184, 1200]]


@settings(max_examples=25, deadline=None)
@given(votes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([WIN, DRAW, LOSS])), max_size=30))
def test_scores_are_the_same_whichever_film_is_named_first(
    votes: list[tuple[int, int, float]],
) -> None:
    pairs = np.array([(a, (a + step) % 4) for a, step, _ in votes], dtype=int).reshape(-1, 2)
    points = np.array([point for *_, point in votes])
    fitted = bradley_terry(wins_of(pairs, points, 4))
    turned = bradley_terry(wins_of(pairs[:, ::-1], 1 - points, 4))
    assert np.allclose(fitted, turned, atol=0.1)


@pytest.fixture
def methods(tmp_path: Path) -> list[Path]:
    """Three methods with two stories each; what is in the files does not matter here."""
    for method in ("with_memory", "without", "other"):
        (tmp_path / method).mkdir()
        for story in ("harbour", "kitchen"):
            (tmp_path / method / f"{story}.mp4").write_bytes(f"{method} {story}".encode())
    return [tmp_path / "with_memory", tmp_path / "without", tmp_path / "other"]


def study_of(page: Path) -> dict:
    found = re.search(r"const STUDY = (\{.*\});", page.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(found[1])


def test_the_page_asks_every_pair_of_a_story_and_gives_nothing_away(methods: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert write_study(methods, out, 'Which </script> "one"?') == 6
    page, study, key = (out / "index.html").read_text(), study_of(out / "index.html"), read_key(out)
    assert study["question"] == 'Which </script> "one"?' and page.count("</script>") == 1
    told = json.loads((out / "key.json").read_text())["films"]
    for left, right in study["pairs"]:
        assert told[left]["story"] == told[right]["story"] and key[left] != key[right]
    assert not [word for word in ("with_memory", "without", "harbour", "kitchen") if word in page]
    assert not re.search(r"https?://", page), "nothing outside of the folder is asked"
    for name, film in told.items():
        assert (out / "films" / name).read_bytes().decode() == f"{film['method']} {film['story']}"
    with pytest.raises(FileExistsError, match="holds a study already"):
        write_study(methods, out, "")


def test_fewer_pairs_are_spread_over_the_methods(methods: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert write_study(methods, out, "", most=3, seed=1) == 3
    key = read_key(out)
    assert len({frozenset((key[a], key[b])) for a, b in study_of(out / "index.html")["pairs"]}) == 3


def test_votes_of_the_page_become_scores_by_the_command(
    methods: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, votes = tmp_path / "study", tmp_path / "votes.csv"
    assert main(["compare", *map(str, methods), "--out", str(out)]) == 0
    assert "6 pairs: open" in capsys.readouterr().out
    key = read_key(out)
    rows = [
        f"ab,{a},{b},{'1' if key[a] == 'with_memory' else '2' if key[b] == 'with_memory' else '0'}"
        for a, b in study_of(out / "index.html")["pairs"]
    ]
    votes.write_text("\r\n".join(["rater,left,right,choice", *rows]), encoding="utf-8-sig", newline="")
    assert main(["compare", "--out", str(out), "--votes", str(votes)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| with_memory | 1") and lines[-1] == "6 votes"
    assert all("| 0 | 2 | 2 |" in line for line in lines[3:5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("left,right,choice\n", "the column 'rater' is missing"),
        ("rater,left,right,choice\nx,aa.mp4,zz.mp4,1\n", "line 2: 'zz.mp4' is no film of this study"),
        ("rater,left,right,choice\nx,aa.mp4,bb.mp4,3\n", "line 2: the choice is '3'"),
        ("rater,left,right,choice\nx,aa.mp4,bb.mp4\n", "line 2: the choice is None"),
    ],
)
def test_votes_that_are_none_are_refused_with_file_and_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_votes([path], {"aa.mp4": "a", "bb.mp4": "b"})


def test_what_cannot_be_compared_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    film, twin = tmp_path / "film.mp4", tmp_path / "empty" / "film.mp4"
    film.write_bytes(b"")
    out = ["--out", str(tmp_path / "study")]
    for arguments, words in (
        ([], "give films to make a page of, or --votes"),
        ([str(film)], "no two films tell the same story"),
        ([str(tmp_path / "empty")], "holds no film"),
        ([str(tmp_path / "none.mp4")], "is neither a folder of films nor a film"),
    ):
        assert main(["compare", *arguments, *out]) == 2 and words in capsys.readouterr().err
    twin.write_bytes(b"")
    assert main(["compare", str(film), str(twin), *out]) == 2
    assert "two sources are called 'film'" in capsys.readouterr().err
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "key.json").write_text("[]")
    assert main(["compare", "--votes", str(film), *out]) == 2 and "is no key of a study" in capsys.readouterr().err
