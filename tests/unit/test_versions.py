"""Versions of a section on disk: which of them a film takes when their take is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memory_encoder.film.loop import render_film
from memory_encoder.film.sections import SectionStore
from memory_encoder.film.versions import Version, comes_by_take, versions
from memory_encoder.memory.video_memory import VideoMemory
from tests.unit.test_film import World, plan


def made(folder: Path, texts: str, takes: dict[int, int] | None = None, seed: int = 7, **ingredients: Any) -> list[int]:
    """Indices of the sections that were sampled."""
    world = World()
    memory, store = VideoMemory.empty(world.encoder.config), SectionStore(folder, "film")
    render_film(plan(texts), store, memory, ingredients, seed, world, takes=takes)
    return world.sampled


def offered(folder: Path, index: int) -> dict[str, bool]:
    """Prompt and take of each version, and whether it is said to be taken from disk."""
    store = SectionStore(folder, "film")
    among, record = versions(store, index), store.manifest()[index]
    return {f"{one.prompt}{one.take}": comes_by_take(one, record, among) for one in among}


def test_a_take_that_is_offered_is_taken_from_disk_and_any_other_would_be_made_anew(tmp_path: Path) -> None:
    made(tmp_path, "ab")
    made(tmp_path, "ab", {1: 1})
    assert offered(tmp_path, 1) == {"b0": True, "b1": True}
    assert made(tmp_path, "ab", {1: 0}) == []
    made(tmp_path, "aB")
    assert offered(tmp_path, 1) == {"b0": False, "b1": False, "B0": True}
    assert made(tmp_path, "aB", {1: 1}) == [1], "none of the pictures that were seen"


def test_versions_of_other_inputs_are_not_offered(tmp_path: Path) -> None:
    made(tmp_path, "ab")
    made(tmp_path, "ab", {0: 1})  # the second section sees another one before it
    among = versions(SectionStore(tmp_path, "film"), 1)
    record = SectionStore(tmp_path, "film").manifest()[1]
    assert [comes_by_take(one, record, among) for one in among] == [False, True]
    made(tmp_path, "ab", seed=8)
    among, record = versions(SectionStore(tmp_path, "film"), 0), SectionStore(tmp_path, "film").manifest()[0]
    assert [comes_by_take(one, record, among) for one in among] == [False, False, True], "of another seed"


def test_what_an_earlier_version_of_the_pack_left_is_offered_as_far_as_it_is_known() -> None:
    record = {"key": "k", "take": 0, "seed": 5, "prompt": "a", "previous": "p"}
    old = Version("o", 0, 0.0)
    assert comes_by_take(old, record, [old])
    assert not comes_by_take(Version("o", None, 0.0), record, [])
    assert not comes_by_take(Version("o", 0, 0.0, prompt="b"), record, [])
