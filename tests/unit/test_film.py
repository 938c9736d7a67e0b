"""The autoregressive loop with stubs: order, resume, reuse from the first change on, seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory_encoder.compressor import append_history
from memory_encoder.film import render_film, section_seeds
from memory_encoder.frames import latent_ranges
from memory_encoder.memory import VideoMemory
from memory_encoder.sections import SectionStore
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
        generator = torch.Generator().manual_seed(seed % 2**31 + len(section.prompt))
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
