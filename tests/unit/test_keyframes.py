"""A memory of pictures: which are kept, cut and joined to the bit, saved and loaded, and what a person says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memory_encoder.memory.branching import cut, join
from memory_encoder.memory.keyframe_memory import KeyframeMemory
from memory_encoder.memory.memory_file import load_memory
from memory_encoder.memory.picture_choice import (
    MOST,
    PictureChoice,
    PictureMarks,
    chosen_frames,
    colours_and_edges,
    focus,
    stretches,
)
from memory_encoder.memory.picture_times import picture_times, times_in_film
from memory_encoder.phi.config import EncoderConfig

CONFIG = EncoderConfig(
    "wan", 8, 16, variant="keyframes", clips="section", repeated_frames=1, max_pictures=4, first_kept=2
)
SIZE = (4, 6)


def scene(number: int, frames: int = 5, blurred: bool = False) -> Tensor:
    """A clip [T,32,48,3] that looks like no other scene; its third frame is the sharpest."""
    g = torch.Generator().manual_seed(number)
    colour, grain = torch.rand(1, 1, 1, 3, generator=g), torch.randn(1, 32, 48, 1, generator=g)
    shape = torch.zeros(1, 32, 48, 1)
    y, x = int(torch.randint(0, 24, (), generator=g)), int(torch.randint(0, 40, (), generator=g))
    shape[:, y : y + 8, x : x + 8] = 1
    base = 0.7 * colour + 0.3 * shape
    sharpness = torch.tensor([0.002, 0.004, 0.02, 0.003, 0.001]).repeat(1 + frames // 5)[:frames].view(-1, 1, 1, 1)
    return (base + (0 if blurred else 1) * sharpness * grain).clamp(0, 1)


def film(*numbers: int, config: EncoderConfig = CONFIG, marks: PictureMarks | None = None) -> KeyframeMemory:
    """A film whose sections show these scenes."""
    memory = KeyframeMemory(config, "maker")
    choice = None if marks is None else PictureChoice(marks)
    for place, number in enumerate(numbers):
        memory = memory.appended(scene(number), 2, SIZE, f"scene {number}", place, choice=choice)
    return memory


def names(memory: KeyframeMemory, marks: PictureMarks | None = None) -> list[str]:
    marks = marks or PictureMarks()
    return [marks.name(picture) for picture in memory.bank(marks)]


def test_the_sharpest_picture_of_a_stretch_is_kept() -> None:
    assert names(film(1)) == ["1:2"]
    assert int(focus((scene(1) * 255).to(torch.uint8)).argmax()) == 2


def test_a_clip_of_several_scenes_keeps_a_picture_of_each_and_at_most_three() -> None:
    clip = torch.cat([scene(n) for n in (1, 2, 3)])
    kept = KeyframeMemory(CONFIG).appended(clip, 4, SIZE)
    assert [picture.frame for picture in kept.pictures] == [2, 7, 12]
    many = torch.cat([scene(n) for n in range(1, 7)])
    assert 1 <= len(KeyframeMemory(CONFIG).appended(many, 8, SIZE).pictures) <= MOST


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.floats(0.1, 1.0))
@settings(max_examples=40, deadline=None)
def test_stretches_cover_every_frame_once_and_are_few(scenes: list[int], threshold: float) -> None:
    clip = (torch.cat([scene(n, 1) for n in scenes]) * 255).to(torch.uint8)
    found = stretches(colours_and_edges(clip), threshold)
    assert [frame for start, stop in found for frame in range(start, stop)] == list(range(len(scenes)))
    assert len(found) <= MOST and all(start < stop for start, stop in found)


def test_near_doubles_of_what_is_kept_are_left_out() -> None:
    assert names(film(1, 2, 1)) == ["1:2", "2:2"]
    assert names(film(1, 1)) == ["1:2"]


def test_repeated_frames_at_the_beginning_of_a_clip_are_no_pictures_of_it() -> None:
    clip = torch.cat([scene(2, 1), scene(3)])
    memory = KeyframeMemory(CONFIG).appended(clip, 3, SIZE, repeated=1)
    assert [picture.frame for picture in memory.pictures] == [2] and memory.frames == 5
    both = chosen_frames((clip * 255).to(torch.uint8), 0.9, colours_and_edges, [])
    assert both == [0, 3]  # what would be kept otherwise


def test_the_bank_holds_the_first_and_the_newest() -> None:
    assert names(film(1, 2, 3, 4, 5, 6)) == ["1:2", "2:2", "5:2", "6:2"]


def test_pinned_pictures_stay_and_banned_ones_are_never_seen_nor_their_doubles() -> None:
    marks = PictureMarks(pinned=frozenset({"3:2"}), banned=frozenset({"1:2"}))
    memory = film(1, 2, 3, 4, 5, 6, 1, marks=marks)
    assert names(memory, marks) == ["2:2", "3:2", "5:2", "6:2"]
    assert "7:2" not in [marks.name(picture) for picture in memory.pictures]


def test_a_pinned_frame_is_kept_whatever_the_rule_says() -> None:
    marks = PictureMarks(pinned=frozenset({"1:4", "2:0"}))
    assert names(film(1, 1, marks=marks), marks) == ["1:4", "2:0"]
    with pytest.raises(ValueError, match="section 1 has the frames 0 to 4, and 9 is pinned"):
        film(1, marks=PictureMarks(pinned=frozenset({"1:9"})))


def test_more_pins_than_the_memory_keeps_are_refused() -> None:
    memory = film(1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="5 are pinned, and this memory keeps 4"):
        memory.bank(PictureMarks(pinned=frozenset(f"{n}:2" for n in range(1, 6))))


def test_references_stay_and_what_lies_before_the_film_is_numbered() -> None:
    pictures = torch.cat([scene(n, 1) for n in (7, 8, 9)])
    memory = KeyframeMemory(CONFIG).with_references(pictures, SIZE)
    assert memory.latents == memory.frames == 0 and len(memory.bank()) == 3
    for place, number in enumerate((1, 2, 3)):
        memory = memory.appended(scene(number), 2, SIZE, "", place)
    assert names(memory, PictureMarks(before=1)) == ["0:1", "0:2", "0:3", "3:2"]
    with pytest.raises(ValueError, match="references holds 5 pictures, and this memory keeps 4"):
        KeyframeMemory(CONFIG).with_references(torch.cat([scene(n, 1) for n in range(5)]), SIZE)


def test_references_after_a_memory_stay_too_and_a_shot_of_that_name_is_none() -> None:
    memory = film(1, 2, 3).with_references(scene(7, 1), SIZE)
    memory = memory.appended(scene(4), 2, SIZE, "references", 4).appended(scene(5), 2, SIZE, "", 5)
    assert names(memory, PictureMarks(before=4)) == ["0:1", "0:2", "0:4", "2:2"]


def test_a_cut_memory_is_the_earlier_one_and_a_joined_one_holds_both() -> None:
    whole, first = film(1, 2, 3), film(1, 2)
    assert same(cut(whole, 2), first) and same(cut(whole, -3), film())
    joined = join(first, film(4))
    assert [record.start_latent for record in joined.sections] == [0, 2, 4]
    assert names(joined) == ["1:2", "2:2", "3:2"] and [p.number for p in joined.pictures] == [1, 2, 3]
    assert same(join(film(), first), first)


def test_appending_leaves_the_memory_before_as_it_was() -> None:
    memory = film(1, 2)
    before = memory.contents()
    memory.appended(scene(3), 2, SIZE)
    assert str(before) == str(memory.contents())


def test_a_saved_memory_comes_back_to_the_bit(tmp_path: Path) -> None:
    memory = film(1, 2).appended(torch.cat([scene(3), scene(4)]), 4, SIZE, "both", 7, repeated=1)
    memory = join(KeyframeMemory(CONFIG, "maker").with_references(scene(9, 1), SIZE), memory)
    path = tmp_path / "film.safetensors"
    memory.save(path)
    loaded = load_memory(path)
    assert isinstance(loaded, KeyframeMemory) and same(loaded, memory)
    assert same(loaded.appended(scene(5), 2, SIZE), memory.appended(scene(5), 2, SIZE))
    for kept in (0, 20, 500, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ValueError, match=r"film\.safetensors"):
            load_memory(path)


def test_the_last_frames_are_kept_to_go_on_from() -> None:
    memory = film(1, config=replace(CONFIG, repeated_frames=5))
    assert equal(memory.closing(5), (scene(1) * 255).round().to(torch.uint8))
    short = memory.appended(torch.cat([scene(1), scene(2, 4)]), 3, SIZE, repeated=5)  # adds four frames
    assert equal(short.closing(5), (torch.cat([scene(1)[-1:], scene(2, 4)]) * 255).round().to(torch.uint8))
    one = KeyframeMemory(replace(CONFIG, repeated_frames=5)).appended(scene(1, 1), 1, SIZE)
    assert equal(one.closing(5), (scene(1, 1) * 255).round().to(torch.uint8).expand(5, -1, -1, -1))
    assert KeyframeMemory(CONFIG).with_references(scene(1, 1), SIZE).closing(1) is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("max_pictures", 0, "max_pictures is 0"), ("first_kept", 9, "first_kept 9"), ("similarity", 0.0, "similarity 0.0"),
     ("picture_step", -1, "picture_step -1"), ("clips", "film", "clips"), ("film_times", True, "needs a picture_step")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **{field: value, **({"repeated_frames": 0} if field == "clips" else {})})


def test_pictures_of_a_cast_are_named_after_all_others_before_the_film() -> None:
    """Else giving someone a picture would rename what is pinned and make a finished film anew."""
    before = film(1, 2)
    known = [PictureMarks(before=2).name(one) for one in before.pictures]
    cast = KeyframeMemory(CONFIG).with_references(scene(7, 1), SIZE).with_references(scene(8, 1), SIZE)
    both = cast.followed_by(before).appended(scene(3), 2, SIZE)
    marks = PictureMarks(before=4, cast=(1, 2), others=2)
    assert known == ["0:1", "0:2"] and [marks.name(one) for one in both.pictures] == ["0:3", "0:4", *known, "1:2"]


def test_pictures_stand_as_far_before_a_section_as_they_are_in_the_film() -> None:
    """As Memento trains: frame // 4 of the picture less that of the section, 512 latents at most."""
    memory = KeyframeMemory(replace(CONFIG, picture_step=5, film_times=True)).with_references(
        torch.cat([scene(7, 1), scene(8, 1)]), SIZE
    )
    for number in range(1, 5):
        memory = memory.appended(torch.cat([scene(number, 81)]), 21, SIZE)
    assert [memory.frame_of(one) for one in memory.pictures[:2]] == [None, None]
    frames = [81 * (one.section - 1) + one.frame for one in memory.pictures[2:]]
    section = 4 * 81 // 4
    expected = [-section - 10, -section - 5, *(frame // 4 - section for frame in frames)]
    assert picture_times(memory, memory.pictures) == expected
    steps = replace(memory, config=replace(memory.config, film_times=False))
    assert picture_times(steps, steps.pictures) == [-30, -25, -20, -15, -10, -5]
    assert times_in_film([0, 4 * 600], 4 * 600, 4, 5) == [-512, -1], "never older, never in the section"
    assert times_in_film([0, None, 8], 16, 4, 5) == [-4, -9, -2], "each at its place"


def same(one: Any, other: Any) -> bool:
    """Whether two memories are one, to the bit."""
    plain = [replace(memory, clips=()) == replace(other, clips=()) for memory in (one, other)]
    pairs = zip(flat(one.contents()), flat(other.contents()), strict=True)
    equal = (torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)
    return all(plain) and one.frames == other.frames and all(equal)


def equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other)


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return flat(list(value.items()))
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in flat(part)]
    return [value]
