"""What sections add to a memory, kept on disk: to the bit what appending gives, and nothing is computed twice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memory_encoder.film import states as states_module
from memory_encoder.film.states import FOLDER, KeptStates, StateStore, appended_section
from memory_encoder.memory.branching import cut
from memory_encoder.memory.compressor import append_history, append_pictures
from memory_encoder.memory.delta import added, ingredients
from memory_encoder.memory.growing import Growing
from memory_encoder.memory.keyframe_memory import KeyframeMemory
from memory_encoder.memory.memory_file import Memory, empty_memory, holds_pictures
from memory_encoder.memory.picture_choice import PictureMarks
from memory_encoder.memory.tail import Tail
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder

from .test_branching import encoder_of
from .test_compressor import CHANNELS, CODEC, WIDTH
from .test_keyframes import CONFIG as PICTURES

PAPER = encoder_of()


def recent(**trained: Any) -> MemoryEncoder:
    encoder = MemoryEncoder(
        EncoderConfig("wan", WIDTH, CHANNELS, rate="1@1x1x1+2@2x2x2", variant="recent", **trained)
    ).requires_grad_(False)
    encoder.reset_parameters(torch.Generator().manual_seed(0), (torch.randn(WIDTH, CHANNELS, 1, 2, 2), torch.zeros(8)))
    return encoder


KINDS: dict[str, Sequence[MemoryEncoder | EncoderConfig]] = {
    "paper": [PAPER],
    "long cells": [encoder_of("2x2x4")],
    "causal": [encoder_of("2x2x2", "causal", cross=1)],
    "full": [encoder_of("4x4x2", "full")],
    "cross-attention": [encoder_of("2x2x2", cross=2)],
    "two rates": [encoder_of("2x2x2"), encoder_of("4x4x4")],
    "framepack": [recent(anchor=True, fill="zeros", positions="pooled")],
    "sliding window": [recent()],
    "pictures": [replace(PICTURES, latent_channels=CHANNELS)],
}


class Maker:
    """Appends sections and counts how often. store: None computes all anew."""

    def __init__(self, kind: str, store: StateStore | None = None) -> None:
        self.encoders, self.appended = KINDS[kind], 0
        self.memory = self.empty()
        self.states = KeptStates.of(store, {"kind": kind, "memory": ingredients(self.memory)})

    def empty(self) -> Any:
        first, *others = (
            empty_memory(one if isinstance(one, EncoderConfig) else one.config, 1, "weights") for one in self.encoders
        )
        return replace(first, others=tuple(others)) if others else first

    def append(self, memory: Memory, latents: Tensor, prompt: str, seed: int) -> Any:
        self.appended += 1
        if holds_pictures(memory):
            return append_pictures(memory.config, CODEC, memory, latents, prompt, seed)
        first, *others = (
            append_history(encoder, CODEC, part, latents, prompt, seed)
            for encoder, part in zip(self.encoders, memory.parts, strict=True)
            if isinstance(encoder, MemoryEncoder)
        )
        return replace(first, others=tuple(others))

    def film(self, sections: Sequence[Tensor], seed: int = 0) -> Any:
        for number, latents in enumerate(sections):
            memory, prompt = self.memory, f"section {number}"
            facts = appended_section(latents, prompt, seed + number, None)
            self.memory = self.states.extended(
                memory, facts, lambda m=memory, x=latents, p=prompt, n=number: self.append(m, x, p, seed + n)
            )
        return self.memory


def sections_of(*lengths: int, seed: int = 1) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.rand(1, CHANNELS, n, 6, 6, generator=g) for n in lengths]


def contents(memory: Memory) -> tuple[dict[str, Tensor], list[Any]]:
    """All that a memory is."""
    if holds_pictures(memory):
        tensors, described = memory.to_tensors()
        return tensors, [described, [[(one.section, one.number) for one in clip.pictures] for clip in memory.clips]]
    parts = [part._to_tensors() for part in memory.parts]
    return {f"{n}.{name}": t for n, (tensors, _) in enumerate(parts) for name, t in tensors.items()}, [
        described for _, described in parts
    ]


def assert_same(a: Memory, b: Memory) -> None:
    (tensors, described), (others, also) = contents(a), contents(b)
    assert described == also and tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert value.dtype == others[name].dtype and torch.equal(value, others[name]), name


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), other=st.integers(0, 3))
def test_memory_of_states_is_the_computed_one_to_the_bit_and_nothing_is_computed(kind, lengths, other):
    sections = sections_of(*lengths)
    with tempfile.TemporaryDirectory() as folder:
        whole = Maker(kind).film(sections)
        assert_same(Maker(kind, StateStore(Path(folder))).film(sections), whole)
        again = Maker(kind, StateStore(Path(folder)))
        assert_same(again.film(sections), whole)
        assert again.appended == 0
        if kind not in ("full", "framepack", "sliding window"):  # which cannot be cut
            for count in range(len(lengths) + 1):
                assert_same(cut(again.memory, count), cut(whole, count))
        changed = [x + (number == other) for number, x in enumerate(sections)]
        later = Maker(kind, StateStore(Path(folder)))
        assert_same(later.film(changed), Maker(kind).film(changed))
        assert later.appended == max(0, len(lengths) - other)


def held(memory: Any) -> int:
    """Bytes of RAM that a memory holds, but for its coordinates."""
    tensors = [piece for part in (memory.tokens, memory.hidden) if part is not None for piece in part.pieces]
    for end in (memory, *memory.boundaries):
        tensors += end.end_to_tensors()[0].values() if isinstance(end, Tail) else []
    return sum(one.untyped_storage().nbytes() for one in tensors if isinstance(one, Tensor))


@pytest.mark.parametrize("kind", ["paper", "cross-attention"])
def test_what_a_film_with_states_holds_in_ram_does_not_grow_and_no_append_copies_what_was_there(
    kind: str, tmp_path: Path
) -> None:
    first, reused = Maker(kind, StateStore(tmp_path)), Maker(kind, StateStore(tmp_path))
    in_ram, sizes = Maker(kind), []
    for latents in sections_of(*[4] * 9):
        for maker in (first, reused):
            maker.film([latents])
        sizes.append((held(first.memory), held(reused.memory)))
        before = in_ram.memory.tokens.pieces
        after = in_ram.film([latents]).tokens.pieces
        assert all(any(one is piece for piece in after) for one in before if one.shape[1])
    assert reused.appended == 0 and len(set(sizes[2:])) == 1  # the first ones have fewer recent latents
    assert_same(first.memory, in_ram.memory)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:99])])
def test_what_is_read_again_and_is_gone_or_damaged_is_named_with_what_to_do(tmp_path: Path, damage: Any) -> None:
    memory = Maker("paper", StateStore(tmp_path)).film(sections_of(4, 4))
    for path in (tmp_path / FOLDER).iterdir():
        damage(path)
    for asked in (memory.all_tokens, lambda: cut(memory, 1).recent, lambda: memory.save(tmp_path / "memory")):
        with pytest.raises(ValueError, match=r"section_0000_\w+\.safetensors.*queue the film's workflow again"):
            asked()


@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5), cut_at=st.integers(0, 20), seed=st.integers(0, 99))
def test_pieces_are_the_tensor_that_they_make_up(lengths, cut_at, seed):
    tensors = [torch.randn(1, n, 2, generator=torch.Generator().manual_seed(seed + i)) for i, n in enumerate(lengths)]
    whole, growing = torch.cat(tensors, 1), Growing.of(tensors[0], 1).followed_by(*tensors[1:])
    end = min(cut_at, whole.shape[1])
    assert growing.shape == whole.shape and growing.length == whole.shape[1]
    assert torch.equal(growing.whole(), whole)
    assert torch.equal(growing.part(end // 2, end), whole[:, end // 2 : end])
    assert torch.equal(growing.until(end).whole(), whole[:, :end])


def test_a_memory_that_is_gone_on_with_in_another_type_has_the_types_of_the_computed_one(tmp_path: Path) -> None:
    sections = sections_of(3, 4, 2)
    memory = append_history(PAPER, CODEC, VideoMemory.empty(PAPER.config), sections[0], dtype=torch.float32)
    model = encoder_of().to(torch.bfloat16)
    after = append_history(model, CODEC, memory, sections[1])
    assert after.tokens.dtype == torch.bfloat16
    states = [KeptStates.of(StateStore(tmp_path), ingredients(memory)) for _ in range(2)]
    assert_same(states[0].extended(memory, {}, lambda: after), after)
    assert_same(states[1].extended(memory, {}, pytest.fail), after)


def test_a_state_that_is_damaged_gone_or_not_finite_is_made_again(tmp_path: Path) -> None:
    sections = sections_of(2, 3, 2)
    whole = Maker("paper", StateStore(tmp_path)).film(sections)
    for damage in (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x99"), Path.unlink, lambda p: p.write_bytes(b"")):
        damage(sorted((tmp_path / FOLDER).glob("*.safetensors"))[1])
        again = Maker("paper", StateStore(tmp_path))
        assert_same(again.film(sections), whole)
        assert again.appended == 1
    again = Maker("paper", StateStore(tmp_path))
    again.film(sections)
    assert again.appended == 0

    memory = Maker("paper").film(sections)
    bad = replace(memory, recent=memory.recent * float("nan"), sections=(*memory.sections, memory.sections[0]))
    store = StateStore(tmp_path / "bad")
    store.put("a" * 64, 0, *added(memory, bad))
    assert store.get("a" * 64) is None and not (tmp_path / "bad").exists()


@pytest.mark.parametrize("wrong", [{}, {"parts": []}, {"parts": [{}]}, {"parts": [{"record": 1}]}])
def test_a_state_of_another_form_is_made_again(tmp_path: Path, wrong: dict[str, Any]) -> None:
    sections = sections_of(2)
    maker = Maker("paper", StateStore(tmp_path))
    maker.film(sections)
    StateStore(tmp_path).put(maker.states.key, 0, {"0.tokens": torch.zeros(1)}, wrong)
    again = Maker("paper", StateStore(tmp_path))
    assert_same(again.film(sections), maker.memory)
    assert again.appended == 1


def test_within_the_limit_states_of_other_runs_go_first_and_those_in_use_stay(tmp_path: Path) -> None:
    first, second = sections_of(2, 2, 2), sections_of(2, 2, 2, seed=2)
    Maker("paper", StateStore(tmp_path)).film(first)
    files = set((tmp_path / FOLDER).iterdir())
    size = max(path.stat().st_size for path in files)
    Maker("paper", StateStore(tmp_path, limit=3.5 * size)).film(second)
    assert len(set((tmp_path / FOLDER).iterdir()) & files) == 0
    again = Maker("paper", StateStore(tmp_path, limit=3.5 * size))
    again.film(second)
    assert again.appended == 0

    few = tmp_path / "few"
    for expected in (3, 1, 1):  # what does not fit is made each time, and pushes out none that is needed
        again = Maker("paper", StateStore(few, limit=2.5 * size))
        again.film(first)
        assert again.appended == expected
    assert len(list((few / FOLDER).iterdir())) == 2


def test_states_leave_the_disk_to_the_sections_and_stop_no_film(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 2**40, "free": 2**20})())
    maker = Maker("paper", StateStore(tmp_path))
    assert_same(maker.film(sections_of(2, 3)), Maker("paper").film(sections_of(2, 3)))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_film_that_branches_off_finds_the_states_of_the_other_and_leaves_them(tmp_path: Path) -> None:
    sections, other = sections_of(2, 3, 2), sections_of(2, 2, seed=5)
    Maker("paper", StateStore(tmp_path / "first")).film(sections)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "first" / FOLDER).iterdir()}
    branch = Maker("paper", StateStore(tmp_path / "branch", limit=10, sources=[tmp_path / "first"]))
    branch.film([*sections[:2], *other])
    assert branch.appended == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "first" / FOLDER).iterdir()} == before


def test_a_picture_that_was_encoded_once_is_read(tmp_path: Path) -> None:
    picture, calls = torch.rand(1, 4, 4, 3), []

    def encode() -> Tensor:
        calls.append(1)
        return picture * 2

    def asked(vae: str, store: StateStore | None) -> Tensor:
        return KeptStates.of(store, {"vae": vae}).tensor({"picture": picture}, encode)

    for _ in range(2):
        assert torch.equal(asked("a", StateStore(tmp_path)), picture * 2)
    assert len(calls) == 1
    asked("b", StateStore(tmp_path))
    asked("a", None)
    assert len(calls) == 3


@given(
    pinned=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 9))), record=st.integers(0, 6), before=st.integers(0, 2)
)
def test_marks_of_later_sections_do_not_count_for_the_pictures_of_earlier_ones(pinned, record, before):
    """They are looked at by `appended` only for the section itself and for what the memory holds already."""
    names = frozenset(f"{section}:{frame}" for section, frame in pinned)
    seen = [section for section, _ in pinned if section <= record - before + 1]
    for marks in (PictureMarks(names, frozenset(), before), PictureMarks(frozenset(), names, before)):
        found = marks.until(record)
        assert (found is None) == (not seen)
        assert found is None or sum(len(part) for part in found[1:]) == len(seen)


def test_a_new_method_makes_all_states_anew(tmp_path: Path, monkeypatch: Any) -> None:
    Maker("paper", StateStore(tmp_path)).film(sections_of(2))
    monkeypatch.setattr(states_module, "METHOD", 2)
    again = Maker("paper", StateStore(tmp_path))
    again.film(sections_of(2))
    assert again.appended == 1


@pytest.mark.parametrize("change", [lambda m: replace(m, recent=m.recent + 1), lambda m: replace(m, tail=m.tail + 1)])
def test_all_of_the_memory_that_a_film_continues_is_in_the_key(change: Callable[[Any], Any]) -> None:
    memory = Maker("long cells").film(sections_of(3))
    store = StateStore(Path("nowhere"))
    keys = {KeptStates.of(store, ingredients(one)).key for one in (memory, change(memory))}
    assert len(keys) == 2


def test_references_of_a_memory_of_pictures_are_in_the_key() -> None:
    empty, store = KeyframeMemory(PICTURES), StateStore(Path("nowhere"))
    given_one = empty.with_references(torch.rand(1, 24, 24, 3), (6, 6))
    assert len({KeptStates.of(store, ingredients(memory)).key for memory in (empty, given_one)}) == 2
