"""What a run shows: its pace, what the held-out loss is made of, and the curve with what it has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from memory_encoder.objectives.continuation import ContinuationDraw
from memory_encoder.objectives.retrieval import RetrievalDraw, cell_spans, clean_cells
from memory_encoder.training.heldout import NOTHING, THIRDS, WITHOUT_MEMORY, heldout_parts
from memory_encoder.training.module import Batch
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.pace import Clock, duration
from memory_encoder.training.pictures import TEXT, WITHOUT, loss_plot


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_what_is_left_counts_the_time_beside_the_steps_and_not_the_slow_first_step() -> None:
    time = Time()
    clock = Clock(steps=101, batch=8, now=time)
    for step, (inside, beside) in enumerate([(50.0, 0.0), (2.0, 2.0), (2.0, 48.0)]):
        clock.begin()
        time.seconds += inside
        pace = clock.end(step, 1e-4, 0.5)
        time.seconds += beside
    assert pace.seconds == 2.0 and pace.clips == 4.0
    assert pace.left == pytest.approx(98 * 2.0 * 56 / 54)  # 54 seconds in steps of 56
    clock.begin()
    time.seconds += 2.0
    assert clock.end(3, 1e-4, 0.5).left == pytest.approx(97 * 2.0 * 106 / 56)
    assert "2.00 s/step, 4.00 clips/s" in pace.describe() and "lr 0.0001, norm 0.5" in pace.describe()
    assert set(pace.values()) >= {"seconds_a_step", "clips_a_second", "seconds_left", "learning_rate", "gradient_norm"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (61, "1 min 1 s"), (3 * 3600 + 300, "3 h 5 min"), (90_000, "1 d 1 h")]
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("frames", [3, 9, 30, 121])
@pytest.mark.parametrize("stride", [1, 2, 8])
@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
def test_the_held_out_loss_is_told_by_task_and_by_how_far_back(stage: Any, stride: int, frames: int) -> None:
    options = TrainOptions(stage=stage, section=4, shift=3.0, history_dropout=1.0, shorter_share=1.0, window_share=1.0)
    seen: list[tuple[Any, int, int]] = []

    def rows(target: Any) -> Batch:
        first, length = target(frames, 0)
        assert 0 <= first < first + length <= frames
        return Batch(torch.zeros(2, 4, frames, 4, 4), {}, {})

    def loss(batch: Batch, drawn: Any) -> Tensor:
        first = drawn.omega.start if isinstance(drawn, RetrievalDraw) else drawn.history
        seen.append((drawn, first, drawn.noise.shape[2]))
        return torch.tensor(1.0)

    parts = heldout_parts(options, stride, 0, 0, rows, loss)
    names = [f"retrieval {third}" for third in THIRDS] + (["continuation"] if stage == "continuation" else [])
    assert list(parts) == [*names, WITHOUT_MEMORY, NOTHING]
    assert float(parts[NOTHING]) == pytest.approx(1.0, abs=0.3)  # the clip is zero: noise alone
    *retrieved, alone = seen if stage == "retrieval" else [*seen[:3], seen[-1]]
    firsts = [first for _, first, _ in retrieved]
    assert firsts == sorted(firsts, reverse=True) and (frames < 30 or len(set(firsts)) == 3)
    for drawn, first, length in retrieved:  # whole cells of a clip of which nothing is masked
        assert float(drawn.mask_level.abs().max()) == 0
        touched = [any(first <= f < first + length for f in span) for span in cell_spans(frames, stride)]
        assert clean_cells(range(first, first + length), frames, stride).tolist() == touched
    drawn, first, _ = alone
    assert isinstance(drawn, ContinuationDraw) and drawn.drop_history
    assert (first, drawn.noise.shape) == (seen[-2][1], seen[-2][0].noise.shape)
    assert stage == "retrieval" or not seen[-2][0].drop_history  # held out, nothing is dropped
    # Neither side is told by a sliding window what only the memory could tell.
    assert all(drawn.window == 0 for drawn, _, _ in seen if isinstance(drawn, ContinuationDraw))


def test_the_curve_has_what_the_memory_has_to_beat() -> None:
    losses, heldout = [(step, 0.5 - step / 100) for step in range(20)], [(10, 0.6), (19, 0.5)]

    def has(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
        return int((picture == np.array(colour, np.uint8)).all(axis=2).sum())

    plain = loss_plot(losses, heldout)
    assert has(plain, WITHOUT) == 0
    assert has(loss_plot(losses, heldout, [(10, 0.7), (19, 0.7)]), WITHOUT) > 100
    inside, above = (loss_plot(losses, heldout, [(10, 0.7), (19, 0.7)], nothing) for nothing in (0.65, 2.0))
    assert has(inside, TEXT) > has(above, TEXT) > has(plain, TEXT)
