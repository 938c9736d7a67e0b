"""The linear code that the tiny VAE stands beside: exact where blocks have no more degrees of freedom than numbers."""

from __future__ import annotations

import numpy as np
import pytest

from demo.tiny_family.evaluate_vae import CUT, blocks, cut_windows, linear_code


def windows(count: int, freedom: int) -> np.ndarray:
    """Windows [count, 9, 16, 24, 3] whose blocks of four frames are sums of `freedom` patterns, around grey."""
    rng = np.random.default_rng(7)
    patterns = rng.uniform(-1, 1, (freedom, 4, 8, 8, 3))
    weights = rng.uniform(-1, 1, (count, 2, 2, 3, freedom))
    sums = np.einsum("ntyxk,kfabc->ntfyaxbc", weights, patterns).reshape(count, 8, 16, 24, 3)
    first = np.zeros((count, 1, 16, 24, 3))
    return np.concatenate([first, 128 + 100 * sums / freedom], 1).round().astype(np.uint8)


def test_a_block_is_what_a_latent_covers() -> None:
    shown = windows(2, 5)
    assert blocks(shown).shape == (2 * 2 * 2 * 3, 768)
    assert np.array_equal(blocks(shown)[1].reshape(4, 8, 8, 3), shown[0, 1:5, :8, 8:16])


@pytest.mark.parametrize(("freedom", "exact"), [(16, True), (40, False)])
def test_sixteen_numbers_hold_sixteen_patterns_and_no_more(freedom: int, exact: bool) -> None:
    shown = windows(400, freedom)
    assert (linear_code(shown[:300], shown[300:]) > 50) is exact


def test_the_cut_of_a_window_lies_between_two_latents() -> None:
    windows = cut_windows(range(1_000_000, 1_000_002), 64).astype(int)
    assert windows.shape[:2] == (4, 9) and (CUT - 1) % 4 == 0
    steps = np.abs(np.diff(windows, axis=1)).mean(axis=(2, 3, 4))
    assert (steps.argmax(axis=1) == CUT - 1).all()
