"""The autoregressive loop with stubs: order, resume, reuse from the first change on, seeds."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.film.loop import render_film, section_seeds
from memory_encoder.film.sections import SectionStore
from memory_encoder.frames import latent_ranges
from memory_encoder.locks import BusyError
from memory_encoder.memory.compressor import append_history
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.storyboard import Section, parse_storyboard, plan_sections

from .test_compressor import CHANNELS, CODEC, make


def plan(prompts: str, seeds: dict[int, int] | None = None) -> tuple[Section, ...]:
    shots = []
    for i, prompt in enumerate(prompts):
        seed = f',"seed":{seeds[i]}' if seeds and i in seeds else ""
        shots.append(f'{{"start":{i},"end":{i + 1},"prompt":"{prompt}"{seed}}}')
    return plan_sections(
        parse_storyboard('{"version":1,"shots":[' + ",".join(shots) + "]}", section_seconds=1), fps=8, section_seconds=1
    )


class World:
    """Samples noise that depends on seed, prompt and memory; may die while a section is sampled."""

    def __init__(self, die_at: int | None = None) -> None:
        self.encoder, self.die_at, self.sampled = make("2x2x2"), die_at, []

    def sample(self, section: Section, seed: int, memory: VideoMemory) -> torch.Tensor:
        if section.index == self.die_at:
            raise KeyboardInterrupt
        self.sampled.append(section.index)
        generator = torch.Generator().manual_seed(seed % 2**31 + sum(map(ord, section.prompt)))
        noise = torch.randn(1, CHANNELS, section.latents, 4, 4, generator=generator)
        return noise + memory.all_tokens().sum() * 1e-3

    def append(self, memory: VideoMemory, latents: torch.Tensor, section: Section, seed: int) -> VideoMemory:
        return append_history(self.encoder, CODEC, memory, latents, section.prompt, seed)

    def section_done(self, section: Section, latents: torch.Tensor, reused: bool) -> None:
        pass


def render(folder: Path, prompts: str = "abcde", world: World | None = None, **changes):
    world = world or World()
    values = {"cfg": 1.0, "size": [4, 4]} | changes
    memory = VideoMemory.empty(world.encoder.config)
    return render_film(plan(prompts), SectionStore(folder, "film"), memory, values, 7, world), world


def test_interrupted_film_resumes_to_the_same_bits(tmp_path: Path):
    whole, _ = render(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path / "cut", world=World(die_at=2))
    resumed, world = render(tmp_path / "cut")
    assert world.sampled == [2, 3, 4]
    assert all(torch.equal(a, b) for a, b in zip(whole.latents, resumed.latents, strict=True))
    assert torch.equal(whole.memory.all_tokens(), resumed.memory.all_tokens())


def test_second_run_reuses_everything_and_a_changed_prompt_renders_from_there_on(tmp_path: Path):
    render(tmp_path)
    assert render(tmp_path)[1].sampled == []
    changed, world = render(tmp_path, "abcXe")
    assert world.sampled == [3, 4]
    assert [entry.reused for entry in changed.sections] == [True, True, True, False, False]


def test_anything_that_made_the_film_is_part_of_the_key(tmp_path: Path):
    render(tmp_path)
    changes: tuple[dict[str, Any], ...] = (
        {"cfg": 2.0},
        {"size": [4, 8]},
        {"sigmas": torch.ones(3)},
        {"models": {"model": ["a", [1, 2]]}},
    )
    for change in changes:
        assert render(tmp_path, **change)[1].sampled == [0, 1, 2, 3, 4], change


def test_manifest_tells_what_is_on_disk_after_a_crash(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path, world=World(die_at=3))
    entries = SectionStore(tmp_path, "film").manifest()
    assert [entry["prompt"] for entry in entries] == ["a", "b", "c"]
    assert all((tmp_path / "film" / entry["file"]).is_file() for entry in entries)


def test_locked_section_keeps_what_was_made_in_its_place_whatever_changed(tmp_path: Path):
    first, _ = render(tmp_path)
    world = World()
    memory = VideoMemory.empty(world.encoder.config)
    store = SectionStore(tmp_path, "film")
    film = render_film(
        plan("aXcde"), store, memory, {"cfg": 9.0}, 7, world, locked=lambda section: section.index in (1, 3)
    )
    assert [entry.status for entry in film.sections] == ["stored", "locked", "stored", "locked", "stored"]
    assert torch.equal(film.latents[1], first.latents[1]) and torch.equal(film.latents[3], first.latents[3])
    assert [record["status"] for record in store.manifest()] == [entry.status for entry in film.sections]


def with_locks(folder: Path, prompts: str, locked: str, die_at: int | None = None):
    world = World(die_at)
    memory, store = VideoMemory.empty(world.encoder.config), SectionStore(folder, "film")
    film = render_film(
        plan(prompts), store, memory, {"cfg": 1.0, "size": [4, 4]}, 7, world, locked=lambda one: one.prompt in locked
    )
    return {entry.section.prompt: made for entry, made in zip(film.sections, film.latents, strict=True)}, world


@given(
    order=st.permutations("BCDEXYZ"),
    gone=st.sets(st.sampled_from("BCDE")),
    stops=st.lists(st.integers(0, 7), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_no_locked_section_is_made_anew_however_shots_are_moved_and_runs_are_cut(order, gone, stops):
    """Shots that a run leaves out come back too. The first one stays: its section is a latent longer."""
    order = ["A", *order]
    with tempfile.TemporaryDirectory() as folder:
        first, _ = with_locks(Path(folder), "ABCDE", "")
        for die_at in stops:
            with contextlib.suppress(KeyboardInterrupt):
                with_locks(Path(folder), "".join(shot for shot in order if shot not in gone), "ABCDE", die_at)
        film, world = with_locks(Path(folder), "".join(order), "ABCDE")
    assert not {order[index] for index in world.sampled} & set("ABCDE")
    assert all(torch.equal(film[shot], first[shot]) for shot in "ABCDE")


def test_sections_of_one_prompt_stay_in_their_order_when_a_run_is_cut(tmp_path: Path):
    """Two sections of a shot, the first of which lies where an inserted one comes."""
    render(tmp_path, "ABCCD")
    made = [entry["key"] for entry in SectionStore(tmp_path, "film").manifest()]
    for die_at in (3, None):
        with contextlib.suppress(KeyboardInterrupt):
            with_locks(tmp_path, "ABXYCCD", "ABCD", die_at)
    found = {entry["index"]: entry["key"] for entry in SectionStore(tmp_path, "film").manifest()}
    assert [found[index] for index in (0, 1, 4, 5, 6)] == made


def test_a_lock_keeps_this_film_s_section_where_another_film_had_its_name_meanwhile(tmp_path: Path):
    first, _ = with_locks(tmp_path, "ABC", "")
    with_locks(tmp_path, "XYZ", "")
    again, world = with_locks(tmp_path, "ABC", "BC")
    assert world.sampled == [] and all(torch.equal(again[shot], first[shot]) for shot in "ABC")


@given(
    changed=st.sets(st.integers(0, 4)), takes=st.dictionaries(st.integers(0, 4), st.integers(1, 3)),
    locks=st.sets(st.integers(0, 4)), gone=st.sets(st.integers(0, 4)), die_at=st.none() | st.integers(0, 4),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_what_is_expected_of_every_section_is_what_happens(changed, takes, locks, gone, die_at):
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(KeyboardInterrupt):
            render(Path(folder), world=World(die_at=die_at))
        store = SectionStore(Path(folder), "film")
        for record in store.manifest():
            if record["index"] in gone:
                (store.folder / record["file"]).unlink()
        world, expected = World(), []
        prompts = "".join("X" if i in changed else "abcde"[i] for i in range(5))
        film = render_film(
            plan(prompts), store, VideoMemory.empty(world.encoder.config), {"cfg": 1.0, "size": [4, 4]}, 7, world,
            locked=lambda section: section.index in locks, takes=takes, begins=expected.extend,
        )  # fmt: skip
    assert [entry.kept for entry in expected] == [entry.reused for entry in film.sections]
    assert [entry.take for entry in expected] == [takes.get(i, 0) for i in range(5)]


def test_film_stopped_on_its_way_still_knows_the_sections_that_were_made_before(tmp_path: Path):
    render(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path, world=World(die_at=1), cfg=2.0)
    assert [record["prompt"] for record in SectionStore(tmp_path, "film").manifest()] == list("abcde")


def test_each_section_sees_the_memory_of_all_before_it(tmp_path: Path):
    film, _ = render(tmp_path)
    assert [entry.memory_tokens for entry in film.sections] == sorted({e.memory_tokens for e in film.sections})
    assert film.memory.latents == sum(latents.shape[2] for latents in film.latents)
    assert [record.prompt for record in film.memory.sections] == list("abcde")


@given(seed=st.integers(0, 2**63 - 1), count=st.integers(1, 8))
def test_section_seeds_are_fixed_by_the_film_seed_and_do_not_repeat(seed: int, count: int):
    sections = plan("abcdefgh"[:count])
    state = torch.random.get_rng_state()
    seeds = section_seeds(sections, seed)
    assert seeds == section_seeds(sections, seed) and len(set(seeds)) == count
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_shots_own_seed_moves_no_other_section():
    free, fixed = section_seeds(plan("abc"), 1), section_seeds(plan("abc", {1: 99}), 1)
    assert free[0] == fixed[0] and free[2] == fixed[2] and free[1] != fixed[1]
    assert fixed[1] == section_seeds(plan("xyz", {1: 99}), 5)[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", [range(0, 1)]),
        ("0-16", [range(0, 5)]),
        ("1-4, 5-8", [range(1, 2), range(2, 3)]),
        (" 13 - 16 ", [range(4, 5)]),
    ],
)
def test_frames_find_the_latents_that_hold_them(text: str, expected: list[range]):
    assert latent_ranges(text, 5) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("x", "no frame"),
        ("17", "0 to 16"),
        ("8-4", "0 to 16"),
        ("0-16, 3", "equally long"),
        ("-1", "no frame"),
        (",".join(["1"] * 300), "at most"),
        ("9" * 40, "no frame"),
    ],
)
def test_impossible_frames_are_refused_with_what_exists(text: str, words: str):
    with pytest.raises(ValueError, match=words):
        latent_ranges(text, 5)


# What goes wrong


class Glitch(World):
    """Gives NaN for a section the first time."""

    def __init__(self, index: int, value: float) -> None:
        super().__init__()
        self.index, self.value = index, value

    def sample(self, section: Section, seed: int, memory: VideoMemory) -> torch.Tensor:
        made = super().sample(section, seed, memory)
        if section.index == self.index:
            made[0, 0, 0, 0, 0] = self.value
        return made


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_section_that_is_not_finite_is_named_not_stored_and_made_again(tmp_path: Path, value: float):
    whole, _ = render(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"section 3 \('c'\).*NaN.*--use-sage-attention.*LoRA.*cfg"):
        render(tmp_path / "film", world=Glitch(2, value))
    assert len(list((tmp_path / "film" / "film").glob("section_*"))) == 2
    film, world = render(tmp_path / "film")
    assert world.sampled == [2, 3, 4]
    assert all(torch.equal(a, b) for a, b in zip(film.latents, whole.latents, strict=True))


@pytest.mark.parametrize("locked", [False, True])
def test_stored_section_that_is_not_finite_counts_as_missing(tmp_path: Path, locked: bool):
    film, _ = render(tmp_path)
    bad = film.latents[1].clone()
    bad[0, 0, 0, 0, 0] = float("nan")
    SectionStore(tmp_path, "film").put(film.sections[1].key, 1, {"latents": bad}, {})
    world = World()
    memory, store = VideoMemory.empty(world.encoder.config), SectionStore(tmp_path, "film")
    again = render_film(
        plan("abcde"), store, memory, {"cfg": 1.0, "size": [4, 4]}, 7, world, locked=lambda section: locked
    )
    assert world.sampled == [1] and torch.equal(again.latents[1], film.latents[1])


def test_locked_section_of_another_picture_size_is_made_anew_as_one_of_another_length_is(tmp_path: Path):
    render(tmp_path)
    world = World()
    memory, store = VideoMemory.empty(world.encoder.config), SectionStore(tmp_path, "film")

    def locked_with(size: tuple[int, int, int]) -> list[str]:
        film = render_film(
            plan("abcde"), store, memory, {"size": size}, 7, world,
            locked=lambda section: section.index == 1, latent_size=size,
        )  # fmt: skip
        return [entry.status for entry in film.sections]

    assert locked_with((CHANNELS, 4, 4)) == ["stored", "locked", "stored", "stored", "stored"]
    assert locked_with((CHANNELS, 6, 4)) == ["stored"] * 5


def test_full_disk_is_found_before_the_section_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = World()
    memory, store = VideoMemory.empty(world.encoder.config), SectionStore(tmp_path, "film")

    def made(free: int) -> list[int]:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=2**40, used=0, free=free))
        render_film(plan("ab"), store, memory, {}, 7, world, latent_size=(CHANNELS, 4, 4))
        return world.sampled

    needed = plan("a")[0].latents * CHANNELS * 4 * 4 * 4
    with pytest.raises(OSError, match=r"section 1 is not made: it takes .* MiB, but .* MiB are free .*free space"):
        made(needed - 1)
    assert world.sampled == [] and made(2 * needed) == [0, 1]
    assert made(0) == [0, 1], "what is on disk needs no room"


def test_records_that_are_none_of_ours_are_skipped(tmp_path: Path):
    render(tmp_path)
    path = tmp_path / "film" / "manifest.json"
    data = json.loads(path.read_text())
    key = data["sections"][0]["key"]
    bad = [{}, {"index": "0", "key": key}, {"index": True, "key": key}, {"index": 1}, {"index": 1, "key": "../x"},
           {"index": -1, "key": key}, {"index": 10**9, "key": key}, {"index": None, "key": None}]  # fmt: skip
    path.write_text(json.dumps(data | {"sections": [*bad, *data["sections"]]}))
    assert render(tmp_path)[1].sampled == []
    assert [record["prompt"] for record in SectionStore(tmp_path, "film").manifest()] == list("abcde")


def test_a_film_that_is_being_made_is_refused_by_name_and_free_when_it_ends(tmp_path: Path):
    store = SectionStore(tmp_path, "film")
    with store.making(), pytest.raises(BusyError, match=rf"film 'film' is being made by process {os.getpid()} on"):
        render(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path, world=World(die_at=2))
    assert render(tmp_path)[1].sampled == [2, 3, 4]
    assert not (tmp_path / "film" / ".lock").exists()


def test_files_that_were_written_before_the_version_of_the_method_was_counted_keep_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Written down once, by the version before the method had a number: with METHOD 1 films made then are reused.
    first, _ = render(tmp_path)
    assert [entry.key[:16] for entry in first.sections[:2]] == ["e68b27850e11e9d4", "f71c1360591f4d12"]
    monkeypatch.setattr("memory_encoder.film.loop.METHOD", 2)
    assert render(tmp_path)[1].sampled == [0, 1, 2, 3, 4]


def test_what_a_section_sees_of_the_memory_is_in_its_key_and_known_beforehand(tmp_path: Path):
    def run(hidden: int = 99) -> tuple[list[bool], list[bool]]:
        """Sections see the numbers of those before them but for `hidden`; which are reused, and were expected to be."""
        world, expected = World(), []
        film = render_film(
            plan("abcd"), SectionStore(tmp_path, "film"), VideoMemory.empty(world.encoder.config), {}, 7, world,
            begins=expected.extend,
            seen=lambda memory, section: {"pictures": [n for n in range(len(memory.sections)) if n != hidden]},
        )  # fmt: skip
        return [entry.reused for entry in film.sections], [entry.kept for entry in expected]

    assert run() == ([False] * 4, [False] * 4)
    assert run() == ([True] * 4, [True] * 4)
    assert [record["pictures"] for record in SectionStore(tmp_path, "film").manifest()] == [[], [0], [0, 1], [0, 1, 2]]
    assert run(hidden=1)[0] == [True, True, False, False]
    assert run(hidden=1) == ([True] * 4, [True] * 4)
