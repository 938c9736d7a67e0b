"""Which windows of a history are drawn, and that they give what was asked for."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.evaluation.recall import WINDOW, draw_history, guided, windows


@given(st.integers(1, 30), st.data())
def test_windows_are_whole_lie_in_the_history_and_give_each_latent_once(total: int, data: st.DataObject):
    start = data.draw(st.integers(0, total - 1))
    asked = range(start, data.draw(st.integers(start + 1, total)))
    size, found = min(WINDOW, total), []
    for first, dropped in windows(asked, total):
        assert 0 <= first <= total - size
        found += list(range(first, first + size))[dropped:]
    assert found[: len(asked)] == list(asked)
    assert all(latent not in asked for latent in found[len(asked) :])


@settings(deadline=None)
@given(st.integers(1, 13))
def test_a_history_is_drawn_whole_and_in_order(total: int):
    """A velocity that leads from any noise to the true time of the frame."""

    def predict(x: torch.Tensor, t: torch.Tensor, memory: None, first: int) -> torch.Tensor:
        times = torch.arange(first, first + x.shape[2], dtype=x.dtype)[:, None, None].expand_as(x)
        return (x - times) / t[:, None, None, None, None]

    drawn = draw_history(predict, None, (1, 1, total, 1, 1), torch.Generator().manual_seed(0), steps=3)
    torch.testing.assert_close(drawn.flatten(), torch.arange(total, dtype=torch.float32), rtol=0, atol=1e-4)


@given(st.floats(0, 10))
def test_guidance_weighs_what_the_memory_changes_and_nothing_else(weight: float):
    asked = []

    def predict(x: torch.Tensor, t: torch.Tensor, memory: float | None, first: int) -> torch.Tensor:
        asked.append(memory)
        return x + first + (memory or 0.0)

    velocity, x = guided(predict, weight), torch.ones(1)
    assert velocity(x, x, None, 3) == 4 and asked == [None]
    expected = 4 + 2 * (1 if weight in (0, 1) else weight)
    torch.testing.assert_close(velocity(x, x, 2.0, 3), torch.tensor([expected], dtype=torch.float32))
    assert len(asked) == (2 if weight in (0, 1) else 3)
