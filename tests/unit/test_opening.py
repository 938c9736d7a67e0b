"""What a film opens with, and films on disk as the beginning of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from memory_encoder.film.loop import Film, render_film
from memory_encoder.film.opening import Opening, OpeningSection, StoredFilmError, stored_film
from memory_encoder.film.sections import MANIFEST, SectionStore
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.storyboard import Lattice, Section, parse_storyboard, plan_sections

from .test_compressor import CHANNELS
from .test_film import World, plan

FACTS = {"width": 16, "height": 16, "fps": 8.0, "latent_format": "Wan21", "memory": ""}


def opening_clip(latents: int = 3) -> Opening:
    values = torch.randn(1, CHANNELS, latents, 4, 4, generator=torch.Generator().manual_seed(3))
    return Opening(values, (OpeningSection(latents, "history"),))


def make(root: Path, name: str, prompts: str, opening: Opening | None = None, **changes: Any) -> Film:
    """A film by the stand-in world, its opening in the memory piece by piece."""
    world, store = World(), SectionStore(root, name)
    memory = VideoMemory.empty(world.encoder.config)
    for latents, piece in opening.appended() if opening else ():
        section = plan("x")[0]
        memory = world.append(memory, latents, section, piece.seed)  # type: ignore[arg-type]
    ingredients = {"history": opening.latents if opening else None} | changes
    about = FACTS | {"opening": opening.keep(store) if opening else ""}
    return render_film(plan(prompts), store, memory, ingredients, 7, world, about=about)


@pytest.mark.parametrize("opening", [None, opening_clip()])
def test_stored_film_is_read_whole_in_order_with_its_opening_and_facts(tmp_path: Path, opening: Opening | None):
    film = make(tmp_path, "first", "abc", opening)
    stored = stored_film(tmp_path, "first")
    parts = [*([opening.latents] if opening else []), *film.latents]
    assert [torch.equal(a.latents, b) for a, b in zip(stored.parts(), parts, strict=True)] == [True] * len(parts)
    assert {name: stored.fact(name) for name in FACTS} == FACTS
    found = stored.opening()
    assert (found and found.key) == (opening and opening.key)


def test_branch_holds_the_opening_and_the_first_sections_and_what_they_were_made_of(tmp_path: Path):
    film = make(tmp_path, "first", "abc", opening_clip())
    branch = stored_film(tmp_path, "first").until(2)
    assert torch.equal(branch.latents, torch.cat([opening_clip().latents, *film.latents[:2]], dim=2))
    assert [piece.prompt for piece in branch.sections] == ["history", "a", "b"]
    assert [piece.seed for piece in branch.sections] == [None, film.sections[0].seed, film.sections[1].seed]
    pieces = list(branch.appended())
    assert all(torch.equal(a[0], b) for a, b in zip(pieces[1:], film.latents[:2], strict=True))


def test_memory_after_the_pieces_of_a_branch_is_the_films_own_at_that_place_to_the_bit(tmp_path: Path):
    whole, short = make(tmp_path, "first", "abc"), make(tmp_path, "second", "ab")
    branch = stored_film(tmp_path, "first").until(2)
    world = World()
    memory = VideoMemory.empty(world.encoder.config)
    for (latents, piece), section in zip(branch.appended(), plan("ab"), strict=True):
        assert piece.seed is not None
        memory = world.append(memory, latents, section, piece.seed)
    assert torch.equal(memory.all_tokens(), short.memory.all_tokens()) and memory.sections == short.memory.sections
    assert memory.latents < whole.memory.latents


def test_branch_of_a_branch_goes_back_to_the_first_film(tmp_path: Path):
    make(tmp_path, "first", "abc", opening_clip())
    second = make(tmp_path, "second", "xy", stored_film(tmp_path, "first").until(1))
    branch = stored_film(tmp_path, "second").until(1)
    assert [piece.prompt for piece in branch.sections] == ["history", "a", "x"]
    assert torch.equal(branch.latents[:, :, -second.latents[0].shape[2] :], second.latents[0])


def test_opening_of_which_the_first_latents_are_remembered_already_appends_the_rest():
    latents = torch.arange(5.0).reshape(1, 1, 5, 1, 1)
    pieces = [
        part.flatten().tolist() for part, _ in Opening(latents, (OpeningSection(2), OpeningSection(2))).appended()
    ]
    assert pieces == [[1, 2], [3, 4]]
    assert list(Opening(latents).appended()) == []


def clips_of_a_film(tmp_path: Path) -> Film:
    """A film whose sections are clips: a cut, one that goes on with five frames once more, a cut."""
    shots = [f'{{"start": {i}, "end": {i + 1}, "prompt": "{p}", "transition": "{t}"}}' for i, p, t in (
        (0, "a", "cut"), (1, "b", "continue"), (2, "c", "cut")
    )]  # fmt: skip
    storyboard = parse_storyboard('{"shots": [' + ",".join(shots) + "]}", section_seconds=1)
    sections = plan_sections(storyboard, fps=8, section_seconds=1, lattice=Lattice(clips="section", repeated_frames=5))
    world, store = World(), SectionStore(tmp_path, "clips")
    memory = VideoMemory.empty(world.encoder.config)
    about = FACTS | {"opening": ""}
    return render_film(sections, store, memory, {"history": None}, 7, world, about=about)


def test_film_of_clips_keeps_the_borders_of_its_clips_on_disk_and_in_a_branch(tmp_path: Path):
    film = clips_of_a_film(tmp_path)
    stored = stored_film(tmp_path, "clips")
    assert [part.repeated for part in stored.parts()] == [0, 5, 0]
    branch = stored.until(2)
    assert [(part.latents.shape[2], part.repeated) for part in branch.parts()] == [(3, 0), (4, 5)]
    assert [torch.equal(a.latents, b) for a, b in zip(branch.parts(), film.latents[:2], strict=True)] == [True] * 2
    assert branch.frames == sum(entry.section.frames for entry in film.sections[:2]) == 9 + 8
    make(tmp_path, "second", "x", branch)
    assert [part.repeated for part in stored_film(tmp_path, "second").parts()] == [0, 5, None]
    assert stored_film(tmp_path, "second").until(0).key == branch.key


def test_opening_of_clips_is_one_clip_up_to_the_first_border():
    latents = torch.arange(9.0).reshape(1, 1, 9, 1, 1)
    sections = (OpeningSection(2), OpeningSection(3, repeated=1), OpeningSection(1))
    parts = [(part.latents.flatten().tolist(), part.repeated) for part in Opening(latents, sections, lead=2).parts()]
    assert parts == [([0, 1, 2, 3, 4], None), ([5, 6, 7, 8], 1)]
    assert Opening(latents, sections, lead=2).frames == (17 - 5) + (13 - 1)


def test_openings_of_one_clip_keep_their_keys():
    values = torch.arange(5.0).reshape(1, 1, 5, 1, 1)
    assert Opening(values, (OpeningSection(5, "history", 3),)).key[:16] == "585f67ae56d06c7d"


def test_locked_clip_is_made_anew_where_other_frames_of_it_would_be_shown(tmp_path: Path):
    film = clips_of_a_film(tmp_path)
    store, world = SectionStore(tmp_path, "clips"), World()
    sections = [entry.section for entry in film.sections]
    sections[2] = replace(sections[2], repeated=1, frames=sections[2].frames - 1)
    memory = VideoMemory.empty(world.encoder.config)
    again = render_film(sections, store, memory, {"cfg": 2}, 7, world, locked=lambda section: True)
    assert [entry.status for entry in again.sections] == ["locked", "locked", "stored"]


def test_films_that_are_not_there_or_not_whole_are_refused_with_the_cure(tmp_path: Path):
    with pytest.raises(StoredFilmError, match="branch_film: no film 'other'"):
        stored_film(tmp_path, "other", "branch_film")
    film = make(tmp_path, "first", "abc")
    with pytest.raises(StoredFilmError, match="there are first"):
        stored_film(tmp_path, "other")
    with pytest.raises(StoredFilmError, match=r"branch_film.*'\.\./first'"):
        stored_film(tmp_path, "../first", "branch_film")
    stored = stored_film(tmp_path, "first")
    for section in (4, -1):
        with pytest.raises(StoredFilmError, match="0 to 3"):
            stored.until(section)
    with pytest.raises(StoredFilmError, match="no opening"):
        stored.until(0)
    path = stored.store.path(film.sections[1].key, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoredFilmError, match="section 2 is missing or damaged"):
        stored.until(2)
    assert path.is_file(), "who only reads moves nothing"
    assert stored.until(1).sections[0].prompt == "a"


class Stopped(Exception):
    pass


class Stopping(World):
    """Stops the film when so many sections are done; may make pictures of another size."""

    def __init__(self, stop: int, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.stop, self.size = stop, size

    def sample(self, section: Section, seed: int, memory: VideoMemory) -> torch.Tensor:
        made = super().sample(section, seed, memory)
        return made if self.size is None else made[:, :, :, :1, :1].expand(-1, -1, -1, *self.size)

    def append(self, memory: VideoMemory, latents: torch.Tensor, section: Section, seed: int) -> VideoMemory:
        return memory if self.size else super().append(memory, latents, section, seed)

    def section_done(self, section: Section, latents: torch.Tensor, reused: bool) -> None:
        if section.index + 1 == self.stop:
            raise Stopped


def remake(
    root: Path, prompts: str, stop: int, size: tuple[int, int] | None = None, locked: tuple[int, ...] = (), **about: Any
) -> None:
    """Begins the film "first" anew and stops when so many sections are done."""
    world = Stopping(stop, size)
    memory = VideoMemory.empty(world.encoder.config)
    store, about = SectionStore(root, "first"), FACTS | {"opening": ""} | about
    with pytest.raises(Stopped):
        render_film(
            plan(prompts), store, memory, {"history": None}, 7, world,
            locked=lambda section: section.index in locked, about=about,
        )  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"opening": "x"}, {"width": 99}, {"memory": "y"}])
def test_film_that_was_begun_anew_and_stopped_is_what_was_made_anew_and_the_rest_is_stale(
    tmp_path: Path, changes: dict[str, Any]
):
    make(tmp_path, "first", "abcd")
    remake(tmp_path, "xyz", 1, **changes)
    stored = stored_film(tmp_path, "first")
    assert [record["prompt"] for record in stored.records] == ["x"]
    assert [record["prompt"] for record in stored.stale] == ["b", "c"]
    with pytest.raises(StoredFilmError, match="1 finished sections, and 2 of an earlier run"):
        stored.until(2)


def test_mixture_of_two_picture_sizes_is_read_as_the_film_made_last(tmp_path: Path):
    make(tmp_path, "first", "abcd")
    remake(tmp_path, "xyz", 1, size=(6, 6))
    assert [tuple(part.latents.shape[3:]) for part in stored_film(tmp_path, "first").parts()] == [(6, 6)]


def test_section_made_after_another_locked_one_is_stale_though_the_lock_kept_the_one_between(tmp_path: Path):
    make(tmp_path, "first", "abcd")
    remake(tmp_path, "aXcd", 3, locked=(2,))
    assert [record["prompt"] for record in stored_film(tmp_path, "first").records] == list("aXc")


def test_film_whose_storyboard_came_back_follows_again(tmp_path: Path):
    make(tmp_path, "first", "abcd")
    remake(tmp_path, "xbcd", 1)
    remake(tmp_path, "abcd", 1)
    assert len(stored_film(tmp_path, "first").records) == 4


def test_manifest_of_a_version_without_chains_is_read_whole_and_what_a_run_makes_anew_ends_there(tmp_path: Path):
    make(tmp_path, "first", "abcd")
    store = SectionStore(tmp_path, "first")
    old = [{name: value for name, value in r.items() if name not in ("chain", "previous")} for r in store.manifest()]
    store.write_manifest(old)
    assert len(stored_film(tmp_path, "first").records) == 4
    remake(tmp_path, "xbcd", 1)
    assert [record["prompt"] for record in stored_film(tmp_path, "first").records] == ["x"]


def test_section_with_nan_on_disk_is_named_and_not_saved(tmp_path: Path):
    film = make(tmp_path, "first", "abc")
    SectionStore(tmp_path, "first").put(film.sections[1].key, 1, {"latents": film.latents[1] * float("nan")}, {})
    with pytest.raises(StoredFilmError, match="section 2 is not finite"):
        list(stored_film(tmp_path, "first").parts())


def test_film_of_an_earlier_version_is_read_unless_it_lacks_its_opening(tmp_path: Path):
    store = SectionStore(tmp_path, "old")
    for name, frames in (("plain", 9), ("continued", 12)):
        store = SectionStore(tmp_path, name)
        store.put("a" * 64, 0, {"latents": torch.zeros(1, CHANNELS, 3, 4, 4)}, {})
        store.write_manifest([{"index": 0, "key": "a" * 64, "status": "stored", "frames": frames, "latents": 3}])
    assert len(list(stored_film(tmp_path, "plain").parts())) == 1
    with pytest.raises(StoredFilmError, match="earlier version"):
        list(stored_film(tmp_path, "continued").parts())


def test_reading_a_film_changes_nothing_on_disk(tmp_path: Path):
    make(tmp_path, "first", "abc", opening_clip())
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    stored_film(tmp_path, "first").until(3)
    list(stored_film(tmp_path, "first").parts())
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert (tmp_path / "first" / MANIFEST) in before
