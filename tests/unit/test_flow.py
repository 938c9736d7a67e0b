"""Rectified flow and timesteps against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats

from memory_encoder.objectives.flow import noised, shifted, shifted_logit_normal, velocity


def test_flow_runs_straight_from_data_to_noise():
    clean, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    t = torch.tensor([0.0, 1.0])
    assert torch.equal(noised(clean, noise, t)[0], clean[0]) and torch.equal(noised(clean, noise, t)[1], noise[1])
    half, step = torch.full((2,), 0.5), torch.full((2,), 0.75)
    moved = noised(clean, noise, half) + 0.25 * velocity(clean, noise)
    assert torch.allclose(moved, noised(clean, noise, step), atol=1e-6)


@pytest.mark.parametrize(("shift", "low"), [(1.0, 0.0), (3.0, 0.0), (5.0, 0.2), (1.0, 0.2)])
def test_timesteps_follow_the_truncated_shifted_logit_normal(shift: float, low: float):
    drawn = shifted_logit_normal(20_000, shift, low, 1.0, torch.Generator().manual_seed(0)).double().numpy()
    generator = torch.Generator().manual_seed(1)
    plain = shifted(torch.sigmoid(torch.randn(200_000, generator=generator, dtype=torch.float64)), shift)
    reference = plain[plain > low].numpy()
    assert drawn.min() >= low and drawn.max() <= 1
    result: Any = stats.ks_2samp(drawn, reference)
    assert result.pvalue > 0.01


def test_unshifted_timesteps_are_logit_normal():
    drawn = shifted_logit_normal(20_000, generator=torch.Generator().manual_seed(2)).double()
    assert stats.kstest(torch.logit(drawn).numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("arguments", [{"low": 0.5, "high": 0.2}, {"high": 1.5}, {"shift": 0.0}])
def test_impossible_ranges_are_refused(arguments):
    with pytest.raises(ValueError):
        shifted_logit_normal(1, **arguments)
