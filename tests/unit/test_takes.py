"""Takes and locks: how they are written, what they do to seeds, and what a film keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memory_encoder.film.clock import FilmClock
from memory_encoder.film.loop import render_film, section_seeds
from memory_encoder.film.sections import SectionStore
from memory_encoder.film.takes import TakesError, parse_locks, parse_pictures, parse_takes, take_seed
from memory_encoder.memory.video_memory import VideoMemory

from .test_film import World, plan


@pytest.mark.parametrize(
    ("text", "takes"), [("", {}), ("  ", {}), ("{}", {}), ('{"2": 1}', {1: 1}), ('{"1": 0, "5": 3}', {4: 3})]
)
def test_takes_are_read_by_sections_counted_from_1(text: str, takes: dict[int, int]):
    assert parse_takes(text, 5) == takes


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("2", "no object"),
        ("{2: 1}", "no JSON"),
        ('{"0": 1}', "counted from 1"),
        ('{"6": 1}', "section 6 does not exist, the film has 5"),
        ('{"2": -1}', "take -1"),
        ('{"2": true}', "take True"),
        ('{"2": 1.0}', "take 1.0"),
        ('{"2": 1, "2": 2}', "twice"),
        ('{"two": 1}', "'two' is no section"),
        ("[" * 20_000, "no JSON"),
        (" " + "x" * 100_001, "characters"),
    ],
)
def test_takes_that_are_not_understood_name_the_entry(text: str, named: str):
    with pytest.raises(TakesError, match=named):
        parse_takes(text, 5)


@pytest.mark.parametrize(("text", "locks"), [("", set()), ("2", {1}), ("1, 3-5,", {0, 2, 3, 4}), ("2 - 3", {1, 2})])
def test_locks_are_read_as_numbers_and_ranges(text: str, locks: set[int]):
    assert parse_locks(text, 5) == locks


@pytest.mark.parametrize(
    ("text", "named"), [("a", "'a' is no section"), ("0", "counted from 1"), ("4-6", "section 6"), ("3-2", "backwards")]
)
def test_locks_that_are_not_understood_name_the_entry(text: str, named: str):
    with pytest.raises(TakesError, match=named):
        parse_locks(text, 5)


def test_take_0_is_the_seed_itself_and_a_take_moves_no_other_section():
    sections = plan("abcd")
    plain = section_seeds(sections, 7)
    assert section_seeds(sections, 7, {}) == section_seeds(sections, 7, {2: 0}) == plain
    other = section_seeds(sections, 7, {2: 1})
    assert [a == b for a, b in zip(plain, other, strict=True)] == [True, True, False, True]
    assert len({take_seed(plain[2], take) for take in range(100)}) == 100
    assert all(0 <= take_seed(plain[2], take) < 2**63 for take in range(100))


def film(folder: Path, takes: dict[int, int] | None = None, locks: frozenset[int] = frozenset()):
    world = World()
    memory = VideoMemory.empty(world.encoder.config)
    store = SectionStore(folder, "film")
    made = render_film(plan("abcde"), store, memory, {}, 7, world, locked=lambda s: s.index in locks, takes=takes)
    return made, world, store


def test_redone_section_is_made_anew_and_the_locked_ones_after_it_stay(tmp_path: Path):
    first, _, _ = film(tmp_path)
    again, world, store = film(tmp_path, {1: 1}, frozenset({2, 3, 4}))
    assert world.sampled == [1]
    assert [entry.status for entry in again.sections] == ["reused", "stored", "locked", "locked", "locked"]
    same = [torch.equal(a, b) for a, b in zip(first.latents, again.latents, strict=True)]
    assert same == [True, False, True, True, True]
    assert [record["take"] for record in store.manifest()] == [0, 1, 0, 0, 0]
    # The same inputs once more: nothing is made.
    assert film(tmp_path, {1: 1}, frozenset({2, 3, 4}))[1].sampled == []


def test_without_locks_a_redone_section_takes_the_later_ones_with_it_and_going_back_finds_all_on_disk(tmp_path: Path):
    first, _, _ = film(tmp_path)
    assert film(tmp_path, {1: 1})[1].sampled == [1, 2, 3, 4]
    back, world, _ = film(tmp_path, {1: 0})
    assert world.sampled == []
    assert all(torch.equal(a, b) for a, b in zip(first.latents, back.latents, strict=True))


def test_locked_section_keeps_the_take_it_has(tmp_path: Path):
    film(tmp_path, {1: 2})
    _, _, store = film(tmp_path, {0: 1, 1: 3}, frozenset({1}))
    assert [record["take"] for record in store.manifest()][:2] == [1, 2]


def told(folder: Path, texts: str, locked: str = "", about: dict[str, str] | None = None):
    """A film of one section a letter, the status of each, and a number for each picture."""
    world = World()
    memory, sections, expected = VideoMemory.empty(world.encoder.config), plan(texts), []
    made = render_film(
        sections, SectionStore(folder, "film"), memory, {}, 7, world, locked=lambda s: s.prompt in locked,
        about=about, begins=expected.extend,
    )  # fmt: skip
    statuses = {entry.section.prompt: entry.status for entry in made.sections}
    assert [one.kept for one in expected] == [entry.status != "stored" for entry in made.sections]
    return statuses, {section.prompt: made.latents[i] for i, section in enumerate(sections)}


@pytest.mark.parametrize(
    ("texts", "locked", "statuses"),
    [
        ("aXbc", "b", {"a": "reused", "X": "stored", "b": "locked", "c": "stored"}),  # a shot before it is new
        ("acb", "b", {"a": "reused", "c": "stored", "b": "locked"}),  # it was moved
        ("ac", "c", {"a": "reused", "c": "locked"}),  # a shot before it is gone
        ("abXc", "bX", {"a": "reused", "b": "reused", "X": "stored", "c": "stored"}),  # nothing was made of the new one
        ("aYc", "Y", {"a": "reused", "Y": "locked", "c": "stored"}),  # its own text was changed
    ],
)
def test_a_locked_shot_keeps_its_own_film_wherever_it_stands(
    tmp_path: Path, texts: str, locked: str, statuses: dict[str, str]
):
    _, before = told(tmp_path, "abc")
    found, after = told(tmp_path, texts, locked)
    assert found == statuses
    assert all(torch.equal(before.get(name, before["b"]), after[name]) for name in locked if found[name] == "locked")
    again, same = told(tmp_path, texts, locked)
    assert set(again.values()) <= {"reused", "locked"}
    assert all(torch.equal(after[name], same[name]) for name in after)


def test_a_lock_holds_though_an_older_version_of_its_section_lies_on_disk(tmp_path: Path):
    first, _, _ = film(tmp_path)
    redone, _, _ = film(tmp_path, {1: 1})
    back, world, _ = film(tmp_path, {}, frozenset({2}))
    assert not torch.equal(first.latents[2], redone.latents[2])
    assert torch.equal(back.latents[2], redone.latents[2]) and back.sections[2].status == "locked"
    assert world.sampled == [3, 4], "what follows sees another picture than it had seen"


def test_a_lock_keeps_no_latents_of_another_kind(tmp_path: Path):
    told(tmp_path, "abc", about={"latent_format": "Wan21"})
    assert told(tmp_path, "abc", "b", {"latent_format": "Wan21"})[0]["b"] == "reused"
    # Keys do not differ here, so that only a lock could bring it back.
    found, _ = told(tmp_path, "aBc", "B", {"latent_format": "HunyuanVideo"})
    assert found["B"] == "stored"


def test_time_left_comes_from_steps_first_and_from_whole_sections_afterwards():
    now = [0.0]
    clock = FilmClock(10, lambda: now[0])
    assert clock.left(4) is None
    clock.begin()
    assert clock.left(4) is None, "nothing is known before the first step"
    now[0], clock.step = 2.0, 2
    assert clock.left(4) == pytest.approx(8 + 4 * 10)
    now[0] = 14.0  # ten seconds of steps, four of compression
    assert clock.finish() == 14.0
    assert clock.left(4) == pytest.approx(56)
    clock.begin()
    now[0], clock.step = 24.0, 10
    assert clock.left(3) == pytest.approx(4 + 42), "the memory is still to be made after the last step"
    assert clock.finish() == 10.0 and clock.finish() is None


@pytest.mark.parametrize(
    ("text", "pinned", "banned"),
    [("", set(), set()), ("2:40", {"2:40"}, set()), (" +2:40 , -3:16,0:1", {"2:40", "0:1"}, {"3:16"}),
     ("- 03:016", set(), {"3:16"})],
)  # fmt: skip
def test_pictures_are_pinned_and_banned_by_section_and_frame(text: str, pinned: set[str], banned: set[str]):
    assert parse_pictures(text) == (pinned, banned)


@pytest.mark.parametrize(
    ("text", "named"),
    [("2", "'2' is no picture"), ("2:x", "'2:x' is no picture"), ("--2:1", "is no picture"),
     ("2:1, -2:1", "2:1 is pinned and banned"), ("," * 100_001, "characters")],
)  # fmt: skip
def test_bad_pictures_are_refused_by_name(text: str, named: str):
    with pytest.raises(TakesError, match=named):
        parse_pictures(text)
