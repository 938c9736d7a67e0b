"""What a training step draws: the task, the context of a host, and the learning rate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memory_encoder.objectives.continuation import ContinuationDraw
from memory_encoder.objectives.flow import cumulative
from memory_encoder.objectives.retrieval import RetrievalDraw, cell_spans, clean_cells
from memory_encoder.training.draws import (
    MOST_CONTEXT,
    draw_rows,
    draw_together,
    drawn_for,
    section_of,
    target_of,
    task_of,
)
from memory_encoder.training.module import Batch
from memory_encoder.training.options import TrainOptions

STEPS = 600


def drawn_as(**changes: Any) -> TrainOptions:
    """Options of a run that has begun, with nothing that is not asked for."""
    nothing = {
        "shift": 3.0,
        "section": 8,
        "clean_share": 0.0,
        "window_share": 0.0,
        "shorter_share": 0.0,
        "per_clip": False,
    }
    return TrainOptions(**(nothing | changes))


def batch(frames: int = 12) -> Batch:
    return Batch(torch.zeros(2, 4, frames, 4, 4), {}, {})


def test_retrieval_takes_its_share_of_stage_two_and_none_of_the_held_out_loss() -> None:
    options = drawn_as(stage="continuation", retrieval_share=0.3, section=4)
    tasks = [task_of(options, step, "train") for step in range(STEPS)]
    assert tasks == [task_of(options, step, "train") for step in range(STEPS)]
    assert 0.25 < tasks.count("retrieval") / STEPS < 0.35
    assert {task_of(options, step, "heldout") for step in range(20)} == {"continuation"}
    for step in range(20):
        drawn = draw_together(batch(), options, 2, step, 0)
        assert isinstance(drawn, RetrievalDraw if tasks[step] == "retrieval" else ContinuationDraw)
        first, count = target_of(options, 2, step, "train", 12)
        asked = drawn.omega.start if isinstance(drawn, RetrievalDraw) else drawn.history
        assert first == asked and count == (len(drawn.omega) if isinstance(drawn, RetrievalDraw) else 4)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_what_retrieval_asks_for_is_whole_cells_of_the_encoders(stride: int) -> None:
    for step in range(100):
        first, count = target_of(drawn_as(), stride, step, "train", 30)
        touched = [any(first <= f < first + count for f in span) for span in cell_spans(30, stride)]
        assert clean_cells(range(first, first + count), 30, stride).tolist() == touched


@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
def test_without_a_share_a_stage_is_one_task(stage) -> None:
    options = drawn_as(stage=stage)
    assert {task_of(options, step, "train") for step in range(50)} == {stage}


def test_a_host_sees_a_piece_of_the_clip_in_its_share_of_steps() -> None:
    options = drawn_as(stage="host", train_host=True, context=0.5, section=4)
    drawn = [draw_together(batch(), options, 2, step, 0) for step in range(200)]
    contexts = [d.context for d in drawn if isinstance(d, ContinuationDraw) and d.context is not None]
    assert 0.4 < len(contexts) / 200 < 0.6
    assert {context.stop - context.start for context in contexts} == set(range(1, MOST_CONTEXT + 1))
    assert all(0 <= context.start < context.stop <= 12 and not context.coarse for context in contexts)
    assert all(d.drop_history == (d.context is None) for d in drawn if isinstance(d, ContinuationDraw))


def test_a_host_sees_lr_latents_of_the_whole_clip_or_of_what_came_before() -> None:
    options = drawn_as(stage="host", train_host=True, context=1.0, coarse=0.5, section=4)
    clip = Batch(torch.zeros(2, 4, 12, 4, 4), {"2x2x2": torch.zeros(2, 4, 7, 2, 2)}, {})
    drawn = [draw_together(clip, options, 2, step, 0) for step in range(200)]
    found = [(d.context, d.history) for d in drawn if isinstance(d, ContinuationDraw) and d.context is not None]
    coarse = [(context.stop, start) for context, start in found if context.coarse]
    assert 0.4 < len(coarse) / 200 < 0.6
    assert all(stop in (12, start) for stop, start in coarse) and {stop == 12 for stop, _ in coarse} == {True, False}


def test_a_clean_share_masks_nothing_in_its_share_of_steps() -> None:
    options = drawn_as(clean_share=0.5)
    levels = [draw_together(batch(), options, 2, step, 0).mask_level for step in range(100)]  # type: ignore[union-attr]
    clean = [bool((level == 0).all()) for level in levels]
    assert 0.35 < sum(clean) / 100 < 0.65
    assert all(bool((level >= 0.2).all()) for level, is_clean in zip(levels, clean, strict=True) if not is_clean)


@pytest.mark.parametrize("per_clip", [False, True])
def test_a_section_that_starts_as_one_of_a_film_does_sees_no_sliding_window(per_clip: bool) -> None:
    options = drawn_as(stage="continuation", section=4, aligned=0.7, window_share=0.5, per_clip=per_clip)
    clips = Batch(torch.zeros(4, 4, 21, 4, 4), {}, {})
    found = []
    for step in range(100):
        drawn = draw_rows(clips, options, 1, step, 0)
        found += [(d.history, d.window) for d in (drawn if isinstance(drawn, tuple) else (drawn,))]  # type: ignore[union-attr]
    going_on = [window for history, window in found if history % 4 != 1]
    starting = [window for history, window in found if history % 4 == 1]  # 3 of 10 anywhere, and of these 1 of 4 here
    assert 0.35 < sum(window > 0 for window in going_on) / len(going_on) < 0.65
    assert sum(window > 0 for window in starting) / len(starting) < 0.12
    whole = drawn_as(stage="continuation", section=4, aligned=1.0, window_share=1.0, per_clip=per_clip)
    drawn = draw_rows(clips, whole, 1, 0, 0)
    assert all(d.window == 0 and d.history % 4 == 1 for d in (drawn if isinstance(drawn, tuple) else (drawn,)))  # type: ignore[union-attr]


def test_no_clip_sees_a_sliding_window_over_a_cut_that_its_captions_tell() -> None:
    options = drawn_as(stage="continuation", section=4, window_share=1.0, per_clip=True)
    clips = Batch(torch.zeros(3, 4, 21, 4, 4), {}, {}, (False, True, False))
    for step in range(20):
        drawn = draw_rows(clips, options, 1, step, 0)
        assert isinstance(drawn, tuple)
        first, cut, last = (one.window for one in drawn)  # type: ignore[union-attr]
        assert cut == 0 and first > 0 and last > 0
    assert clips.rows(1, 2).cuts == (True,)
    together = draw_rows(clips, drawn_as(stage="continuation", section=4, window_share=1.0), 1, 0, 0)
    assert together.window > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_held_out_clips_are_masked_as_often_as_those_that_are_trained_on(share: float) -> None:
    options = drawn_as(clean_share=share)

    def clean(kind: str) -> float:
        levels = [draw_together(batch(), options, 2, step, 0, kind).mask_level for step in range(200)]  # type: ignore[union-attr]
        return sum(bool((level == 0).all()) for level in levels) / 200

    assert clean("train") == pytest.approx(share, abs=0.12) and clean("heldout") == pytest.approx(share, abs=0.12)


def test_without_a_share_a_host_sees_no_context() -> None:
    options = drawn_as(stage="host", train_host=True, section=4)
    assert all(draw_together(batch(), options, 2, step, 0).context is None for step in range(30))  # type: ignore[union-attr]


def test_learning_rate_rises_stays_and_falls_to_zero() -> None:
    options = drawn_as(steps=100, learning_rate=1.0, warmup=10, cooldown=20)
    rates = [options.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[80] == 1.0
    assert rates[90] == pytest.approx(0.5) and rates[100] == 0
    assert drawn_as(steps=100, learning_rate=1.0, warmup=1).learning_rate_at(99) == 1.0


@pytest.mark.parametrize(("low", "high"), [(0.875, 1.0), (0.9, 1.0), (0.0, 0.875), (0.2, 0.4)])
@pytest.mark.parametrize("stage", ["retrieval", "continuation", "host"])
@pytest.mark.parametrize("kind", ["train", "heldout"])
def test_timesteps_of_an_expert_are_those_of_all_as_far_as_they_lie_in_its_range(
    stage: Any, kind: str, low: float, high: float
) -> None:
    def timesteps(**range_of_t: Any) -> torch.Tensor:
        options = drawn_as(stage=stage, train_host=stage == "host", section=4, **range_of_t)
        return torch.cat([draw_together(batch(6), options, 2, step, 0, kind).t for step in range(400)]).double()

    drawn, every = timesteps(min_t=low, max_t=high), timesteps()
    assert low <= float(drawn.min()) and float(drawn.max()) <= high + 1e-7
    # Drawn from the same uniform numbers, so that it is the same share of what lies in the range.
    first, last = (cumulative(torch.tensor(edge, dtype=torch.float64), 3.0) for edge in (low, high))
    share = (cumulative(drawn, 3.0) - first) / (last - first)
    assert torch.allclose(share, cumulative(every, 3.0), atol=1e-4)
    assert stats.kstest(share.numpy(), "uniform").pvalue > 0.001


@pytest.mark.parametrize("wrong", [{"min_t": 0.9, "max_t": 0.9}, {"min_t": -0.1}, {"max_t": 1.1}])
def test_a_range_of_timesteps_that_is_none_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"min_t .*max_t .* is no range"):
        TrainOptions(**wrong)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1, 2, 4, 8]), st.integers(2, 160), st.integers(1, 40), st.integers(0, 10**6))
def test_every_section_follows_a_history_of_whole_cells_and_is_no_longer_than_asked(
    stride: int, frames: int, section: int, step: int
) -> None:
    options = drawn_as(stage="continuation", section=section, shorter_share=0.5)
    history, length = target_of(options, stride, step, "train", frames)
    assert 1 <= length <= section and history >= 1 and history + length <= frames
    assert (history - 1) % stride == 0 and length <= section_of(options, step, "heldout", frames)


def test_sections_have_all_lengths_in_their_share_and_the_longest_in_the_others_and_when_held_out() -> None:
    options = drawn_as(stage="continuation", section=6, shorter_share=0.5)
    lengths = [section_of(options, step, "train", 40) for step in range(STEPS)]
    assert set(lengths) == set(range(1, 7))
    assert 0.5 < lengths.count(6) / STEPS < 0.67  # half of them, and a sixth of the others
    assert {section_of(options, step, "heldout", 40) for step in range(50)} == {6}


@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
def test_a_batch_of_many_clips_has_as_many_places_histories_tasks_and_dropouts(stage: Any) -> None:
    """One step of 64 clips; before, all of them were asked for the same frames."""
    options = drawn_as(
        stage=stage, section=4, per_clip=True, retrieval_share=0.3, history_dropout=0.3, clean_share=0.5,
        shorter_share=0.5, window_share=0.5,
    )  # fmt: skip
    clips = Batch(torch.zeros(64, 2, 40, 2, 2), {"2x2x2": torch.zeros(64, 2, 21, 1, 1)}, {})
    drawn = draw_rows(clips, options, 2, 5, 0)
    assert isinstance(drawn, tuple) and len(drawn) == 64
    asked = [target_of(options, 2, 5, "train", 40, row) for row in range(64)]
    places = [(d.omega.start, len(d.omega)) if isinstance(d, RetrievalDraw) else (d.history, d.section) for d in drawn]
    assert places == asked and len({first for first, _ in places}) > 10
    assert len(torch.unique(torch.cat([d.t for d in drawn]))) == 64
    retrieved = [d for d in drawn if isinstance(d, RetrievalDraw)]
    made = [d for d in drawn if isinstance(d, ContinuationDraw)]
    assert {bool((d.mask_level == 0).all()) for d in retrieved} == {True, False}
    if stage == "continuation":
        assert 8 < len(retrieved) < 32
        assert len({d.section for d in made}) == 4 and {d.drop_history for d in made} == {True, False}
        assert len({d.window for d in made}) > 1
    # The same on however many processes, and all alike when they are held out.
    second = draw_rows(clips.rows(32, 64), options, 2, 5, 32)
    assert isinstance(second, tuple) and all(
        torch.equal(a.noise, b.noise) for a, b in zip(second, drawn[32:], strict=True)
    )
    assert not isinstance(draw_rows(clips, options, 2, 5, 0, "heldout"), tuple)
    assert not isinstance(draw_rows(clips, drawn_as(stage=stage, section=4), 2, 5, 0), tuple)


def test_clips_of_split_weights_are_drawn_for_together() -> None:
    """Their processes exchange the gradients that are there, and all of them need the same ones."""
    options = TrainOptions(stage="continuation", per_clip=True, history_dropout=0.5, batch_size=8)
    assert not drawn_for(options, True).per_clip and drawn_for(options, False) is options
