"""Baselines that a memory has to beat, and the measures that tell shape from the right average colour."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.evaluation.baselines import (
    BASELINES,
    BEFORE,
    EQUAL_NUMBERS,
    LOW_RESOLUTION,
    LR_LATENTS,
    THUMBNAIL,
    baselines,
    equal_size,
    flat_colour,
    frame_before,
    low_resolution,
    lr_latents,
    numbers_per_pixel,
    thumbnail,
    thumbnail_size,
)
from memory_encoder.evaluation.counted import Counted, counted
from memory_encoder.evaluation.identification import CANDIDATES, Lineup, signature
from memory_encoder.evaluation.metrics import edges, psnr
from memory_encoder.evaluation.score import EQUAL, means_of
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.positions import grid_for

RATES = st.sampled_from(["4x4x2", "2x2x2", "2x2x1", "2x2x8"])


def frames(count: int, height: int = 96, width: int = 128, seed: int = 0) -> torch.Tensor:
    """Soft shapes that move: each frame differs from the others."""
    small = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear").movedim(1, -1)


def config(rate: str) -> EncoderConfig:
    return EncoderConfig("wan", 16, 4, rate=rate)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(2, 12), st.integers(2, 16), RATES)
def test_every_baseline_has_the_clips_own_shape_and_range(latents: int, rows: int, columns: int, rate: str) -> None:
    pictures = frames(1 + 4 * (latents - 1), 8 * rows, 8 * columns)
    made = dict(baselines(pictures, [config(rate)], numbers=pictures.numel() // 7))
    step = config(rate).compression.height
    made[LR_LATENTS] = lr_latents(pictures, config(rate), pictures[:, ::step, ::step], 5)
    assert {*made} == {*BASELINES}
    for picture, numbers in made.values():
        assert picture.shape == pictures.shape and picture.min() >= 0 and picture.max() <= 1 and numbers > 0
    without = dict(baselines(pictures, [config(rate)]))
    assert THUMBNAIL in without and EQUAL_NUMBERS not in without


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(8, 200), st.integers(8, 200), st.integers(1, 100_000))
def test_a_thumbnail_of_as_many_numbers_has_no_more_and_hardly_fewer(
    count: int, height: int, width: int, numbers: int
) -> None:
    rows, columns = equal_size(numbers, torch.empty(count, height, width, 3))
    kept = count * rows * columns * 3
    assert kept <= max(numbers, 3 * count), "no more than the memory, or a pixel a frame"
    if rows < height and columns < width:
        assert count * (rows + 1) * (columns + 1) * 3 > numbers
    assert rows <= height and columns <= width


def test_each_baseline_says_of_how_many_numbers_it_is() -> None:
    pictures = frames(17)
    made = dict(baselines(pictures, [config("4x4x2")], numbers=17 * 25 * 3))
    assert made[BEFORE].numbers == pictures.numel()
    assert made[THUMBNAIL].numbers == 17 * 2 * 2 * 3
    assert made[EQUAL_NUMBERS].numbers == 17 * 4 * 6 * 3
    assert made[LOW_RESOLUTION].numbers == 9 * 32 * 32 * 3  # every second frame, whole cells


def test_flat_colour_is_the_best_single_colour_of_each_frame() -> None:
    pictures = frames(3)
    flat = flat_colour(pictures)
    assert torch.equal(flat, flat[:, :1, :1].expand_as(flat))
    for change in (0.02, -0.02):
        assert bool((psnr(pictures, flat) > psnr(pictures, flat + change)).all())


def test_the_frame_before_is_the_frame_before() -> None:
    pictures = frames(4)
    assert torch.equal(frame_before(pictures)[1:], pictures[:-1])
    assert torch.equal(frame_before(pictures)[0], pictures[1]), "nothing is compared with itself"
    assert torch.equal(frame_before(pictures[:1]), pictures[:1])
    repeated = pictures[[0, 0, 0, 1, 2]]
    assert torch.equal(frame_before(repeated)[0], pictures[1]), "nor with its own repetition"
    assert torch.equal(frame_before(repeated)[1:], repeated[:-1])


def test_a_thumbnail_has_a_pixel_for_each_token_of_a_cell() -> None:
    assert thumbnail_size([config("4x4x2")], 96, 128) == (2, 2) == grid_for(12, 16, config("4x4x2"))
    rows, columns = thumbnail_size([config("4x4x2"), config("2x2x8")], 96, 128)
    tokens = 2 * 2 + 3 * 4
    assert abs(rows * columns - tokens) <= 2
    four = torch.zeros(1, 96, 128, 3)
    four[:, :48, :64], four[:, 48:, 64:] = 1, 0.5
    shown = thumbnail(four, (2, 2))
    assert shown[0, 12, 12, 0] > 0.9 and shown[0, 80, 110, 0] == pytest.approx(0.5, abs=0.15)
    assert torch.allclose(thumbnail(four, (96, 128)), four)


def test_what_the_lr_branch_is_shown_is_coarser_at_a_higher_rate_and_holds_each_cells_own_picture() -> None:
    pictures = frames(17)
    by_rate = {
        rate: psnr(pictures, low_resolution(pictures, [config(rate)]).pictures) for rate in ("2x2x2", "4x4x2", "2x2x8")
    }
    assert by_rate["2x2x2"].mean() > by_rate["4x4x2"].mean()
    assert by_rate["2x2x2"].mean() > by_rate["2x2x8"].mean()
    several = low_resolution(pictures, [config("4x4x2"), config("2x2x2")])
    assert torch.equal(several.pictures, low_resolution(pictures, [config("2x2x2")]).pictures)
    assert by_rate["2x2x2"][0] > 25  # a frame that is kept


def test_numbers_for_each_pixel() -> None:
    assert numbers_per_pixel(100 * 256, frames(5)) == pytest.approx(100 * 256 / (5 * 96 * 128))


def test_edges_reward_shape_and_punish_blur_noise_and_flat_colour() -> None:
    pictures = (frames(2) > 0.5).float()
    flat = edges(pictures, flat_colour(pictures))
    blurred = edges(pictures, thumbnail(pictures, (24, 32)))
    noise = edges(pictures, torch.rand(pictures.shape, generator=torch.Generator().manual_seed(1)))
    assert edges(pictures, pictures).tolist() == [1, 1] and flat.tolist() == [0, 0]
    assert bool((blurred < 0.9).all()) and bool((blurred > 0.05).all()) and bool((noise.abs() < 0.05).all())
    assert bool((edges(pictures, 1 - pictures) < 0).all())
    assert edges(flat_colour(pictures), flat_colour(pictures)).tolist() == [1, 1]
    moved = edges(pictures, pictures.roll(16, dims=2))
    assert bool((moved < 0.5).all())


def test_identification_knows_a_frame_from_others_and_gives_a_flat_colour_the_chance_of_a_guess() -> None:
    lineup = Lineup()
    for seed in range(3):
        pictures = frames(17, seed=seed)
        other = frames(17, seed=seed + 100)
        shown = {"true": pictures, "flat": flat_colour(pictures), "wrong": other, "soft": thumbnail(pictures, (6, 8))}
        lineup.add(pictures, shown)
    rates = lineup.rates()
    assert rates["true"] == 1 and rates["soft"] > 0.9
    assert rates["flat"] == pytest.approx(lineup.chance) == pytest.approx(1 / CANDIDATES)
    assert rates["wrong"] < 0.4
    of_clips = lineup.rates_of_clips()
    assert len(of_clips) == 3
    for kind, rate in rates.items():
        assert rate == pytest.approx(sum(clip[kind] for clip in of_clips) / 3)


def test_identification_counts_frames_that_look_the_same_once() -> None:
    """A clip that stands still is not asked to tell its frames apart; the other clips are the choice then."""
    still = frames(1).expand(17, -1, -1, -1)
    lineup = Lineup()
    lineup.add(still, {"true": still})
    assert lineup.rates()["true"] == 1 and lineup.chance == 1  # nothing to choose from yet
    other = frames(17, seed=5)
    lineup.add(other, {"true": other})
    assert lineup.rates()["true"] == 1
    assert lineup.chance == pytest.approx(1 / CANDIDATES, abs=0.01)


def test_what_the_true_frames_could_not_answer_is_not_asked() -> None:
    """Exact recall is told in all frames, whatever the clips are: twice the same, black, black at the beginning."""
    clips = [frames(17, seed=seed) for seed in range(3)]
    black = torch.zeros_like(clips[0])
    late = clips[2].clone()
    late[:6] = 0
    lineup = Lineup()
    for clip in (clips[0], clips[0].clone(), clips[1], black, late):
        lineup.add(clip, {"true": clip})
    of_clips = lineup.rates_of_clips()
    assert [rates.get("true") for rates in of_clips] == [1, 1, 1, None, 1]
    assert lineup.rates()["true"] == 1 and lineup.chance < 0.1
    nothing = Lineup()
    nothing.add(black, {"true": black})
    assert nothing.rates() == {} and nothing.chance == 1


def test_frames_that_tell_nothing_are_not_measured_and_said() -> None:
    clip = frames(6)
    assert counted(clip) == Counted([0, 1, 2, 3, 4, 5], 0, 0) and str(counted(clip)) == ""
    mixed = torch.cat([torch.zeros_like(clip[:2]), clip[[0, 0, 1, 2, 2]], torch.full_like(clip[:1], 0.5)])
    found = counted(mixed)
    assert found.frames == [2, 4, 5] and found.left_out == {"repeated": 3, "flat": 2}
    assert str(found) == "3 repeat the one before, 2 show one colour"
    assert counted(torch.zeros_like(clip)).frames == []


def test_a_repeated_frame_does_not_decide_a_mean() -> None:
    """A clip of 15 frames a second that is read at 16: the frame before is the frame itself once a second."""
    clip = frames(17, seed=3)
    read = clip[[0, 0, *range(1, 17)]]
    kept = counted(read).frames
    for metric in ("psnr", "ssim"):
        plain, again = (means_of(one, frame_before(one))[metric] for one in (clip, read))
        measured = means_of(read[kept], frame_before(read)[kept])[metric]
        assert measured == pytest.approx(plain, rel=0.02) and again > measured
    assert means_of(clip, clip)["psnr"] == pytest.approx(EQUAL) == pytest.approx(58.92, abs=0.01)


def test_brightness_and_tint_do_not_identify_a_frame() -> None:
    pictures = frames(4)
    changed = (pictures * 0.6 + torch.tensor([0.2, 0.1, 0.0])).clamp(0, 1)
    assert torch.allclose(signature(pictures), signature(changed), atol=1e-5)
    assert math.isclose(float((signature(pictures)[0] ** 2).sum()), 1, rel_tol=1e-5)
