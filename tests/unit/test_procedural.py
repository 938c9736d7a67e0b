"""Procedural films and the demo text encoder: deterministic, and faithful to their own ground truth."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.tiny_family.characters import CLOTHES, HAIR, random_cast
from demo.tiny_family.clips import HELD_OUT, list_clips, resize_short_side
from demo.tiny_family.install import WEIGHTS
from demo.tiny_family.procedural import Film, contact_sheet, make_film
from memory_encoder.training.run_files import clips_trained_on

# The start of the vector of "mira", computed once.
GOLDEN = [-0.578497, -0.84943, -0.55321, -0.744669]
ROOT = Path(__file__).resolve().parents[2]


def small_film(seed: int, **kwargs: int) -> Film:
    options = {"shots": 4, "width": 96, "height": 72, "frames_per_shot": 4, **kwargs}
    return make_film(seed, **options)


@pytest.fixture(scope="module")
def text_encoder() -> ModuleType:
    """The module by its file: its package is a ComfyUI node folder and imports ComfyUI."""
    spec = importlib.util.spec_from_file_location("demo_text_encoder", ROOT / "demo" / "nodes" / "text_encoder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    first, again, other = small_film(3), small_film(3), small_film(4)
    assert first.frames.tobytes() == again.frames.tobytes()
    assert [s.prompt for s in first.shots] == [s.prompt for s in again.shots]
    assert first.frames.tobytes() != other.frames.tobytes()


def test_frame_count_suits_a_wan_vae_and_shots_tile_the_film() -> None:
    film = small_film(1, frames_per_shot=8, shots=3)
    assert film.frames.shape == (25, 72, 96, 3) and film.frames.dtype == np.uint8
    assert [s.start for s in film.shots] == [0, 9, 17]
    assert film.shots[-1].start + film.shots[-1].frames == len(film.frames)
    assert film.storyboard()[1]["time"] == pytest.approx(9 / 16)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_the_first_character_returns_last_elsewhere_and_is_described_only_once(seed: int) -> None:
    film = small_film(seed)
    name = film.shots[0].characters[0].name
    assert film.shots[-1].characters[0] is film.shots[0].characters[0]
    assert film.shots[-1].room != film.shots[0].room
    for who in film.cast:
        described = [s.prompt for s in film.shots if who.describe() in s.prompt]
        appearing = [s.prompt for s in film.shots if who in s.characters]
        assert described == appearing[:1]
        assert all(who.name in p for p in appearing)
    assert film.shots[0].prompt.startswith(name)


def seen(frame: np.ndarray, box: np.ndarray, colour: tuple[int, int, int]) -> float:
    """Part of a box's pixels that have exactly (within 3 levels) this colour."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (round(v) for v in np.clip(box, 0, [width, height, width, height]))
    part = frame[y0:y1, x0:x1].astype(int)
    if part.size < 3 * 20:
        return 1.0  # outside the picture: nothing to see
    return float((np.abs(part - colour).max(-1) <= 3).mean())


@pytest.mark.parametrize("seed", [0, 5, 11, 23])
def test_a_returning_character_wears_the_same_colours_in_every_shot(seed: int) -> None:
    film = make_film(seed, shots=5, width=192, height=144, frames_per_shot=5)
    for shot in film.shots:
        for who in shot.characters:
            for i in (0, shot.frames - 1):
                frame = film.frames[shot.start + i]
                assert seen(frame, shot.boxes[who.name]["torso"][i], who.top) > 0.1, (shot.prompt, who)
                if who.hair_style != "bald" and not who.hat:
                    assert seen(frame, shot.boxes[who.name]["head"][i], who.hair) > 0.05, (shot.prompt, who)


def test_a_name_looks_different_in_another_film() -> None:
    looks = {who for seed in range(40) for who in random_cast(np.random.default_rng(seed), 2) if who.name == "Mira"}
    assert len(looks) > 3
    assert len({(w.hair_name, w.top_name) for w in looks}) > 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_characters_of_one_film_differ_in_name_hair_and_shirt(seed: int, count: int) -> None:
    cast = random_cast(np.random.default_rng(seed), count)
    assert len({c.name for c in cast}) == len({c.hair_name for c in cast}) == len({c.top_name for c in cast}) == count
    assert all(c.hair_name in HAIR and c.top_name in CLOTHES for c in cast)


def test_characters_fill_a_good_part_of_the_frame() -> None:
    film = small_film(8)
    for shot in film.shots:
        for parts in shot.boxes.values():
            heights = parts["body"][:, 3] - parts["body"][:, 1]
            assert heights.min() > 0.6 * 72


def test_something_moves_in_every_shot() -> None:
    film = small_film(2, frames_per_shot=8)
    for shot in film.shots:
        frames = film.frames[shot.start : shot.start + shot.frames].astype(int)
        assert np.abs(np.diff(frames, axis=0)).mean() > 0.2


@pytest.mark.parametrize("options", [{"width": 8}, {"shots": 0}, {"frames_per_shot": 0}, {"cast_size": 0}])
def test_sizes_that_make_no_film_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        small_film(0, **options)


def test_contact_sheet_has_a_row_per_shot() -> None:
    assert contact_sheet(small_film(0), per_shot=2, scale=1).shape == (4 * 72, 2 * 96, 3)


def test_resizing_keeps_the_aspect_and_crops_to_the_multiple() -> None:
    assert resize_short_side(np.zeros((240, 424, 3), np.uint8), 128, 8).shape == (128, 224, 3)


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        list_clips(tmp_path / "clips")


def test_training_clips_and_held_out_clips_are_disjoint(tmp_path: Path) -> None:
    entries = [{"name": n, "fps": 16, "frames": 9, "licence": "CC0"} for n in (*HELD_OUT, "other.mp4")]
    (tmp_path / "manifest.json").write_text(json.dumps({"clips": entries}))
    assert [c.name for c in list_clips(tmp_path / "clips")] == ["other.mp4"]
    assert {c.name for c in list_clips(tmp_path / "clips", held_out=True)} == set(HELD_OUT)


def test_an_evaluation_knows_what_the_family_was_trained_on() -> None:
    memories = sorted(WEIGHTS.glob("tiny_memory_?x?x?.safetensors"))
    assert len(memories) == 3
    for memory in memories:
        trained = clips_trained_on(memory)
        assert {"asl/asl_brother.mkv", "asl_brother.mkv"} <= trained and not trained & {*HELD_OUT}
    assert {*HELD_OUT} == {*(WEIGHTS / "heldout.txt").read_text().splitlines()}


def test_text_vectors_are_the_same_on_every_machine(text_encoder: ModuleType) -> None:
    vector = text_encoder.word_vector("mira")
    assert vector.shape == (64,) and vector.dtype == torch.float32
    assert float(vector.mean()) == pytest.approx(0, abs=1e-6)
    assert float(vector.square().mean()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(vector[:4], torch.tensor(GOLDEN), atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_finite_conditioning_of_fixed_shape(text_encoder: ModuleType, text: str) -> None:
    clip = text_encoder.HashTextEncoder()
    cond = clip.encode(text)
    assert cond.shape == (1, 32, 64) and bool(cond.isfinite().all())
    assert torch.equal(cond, text_encoder.HashTextEncoder().encode(text))


def test_case_and_punctuation_do_not_matter_but_words_and_order_do(text_encoder: ModuleType) -> None:
    encode = text_encoder.HashTextEncoder().encode
    assert torch.equal(encode("Mira waves."), encode("mira, WAVES!"))
    assert not torch.equal(encode("Mira waves"), encode("Mira jumps"))
    assert not torch.equal(encode("Mira waves"), encode("waves Mira"))
    # The first word's row does not depend on what follows.
    assert torch.equal(encode("Mira waves")[0, 0], encode("Mira jumps")[0, 0])
