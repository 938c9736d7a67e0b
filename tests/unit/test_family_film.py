"""What is measured of the last shot of a film."""

from __future__ import annotations

import numpy as np

from demo.tiny_family.evaluate_film import MEASURES, lingering, measured
from demo.tiny_family.prepare import SHORT_SHOT, SOLO_SEED, film_of


def test_a_true_shot_is_without_fault_and_nothing_lingers() -> None:
    film = film_of(SOLO_SEED + 3, long=False)
    found = measured(film, film.frames[-SHORT_SHOT:] / 255 + 1e-4)
    assert set(found) == set(MEASURES)
    assert found["picture"] > 60 and found["character"] > 60 and found["clothes"] < 0.1 and found["lingering"] == 0


def test_pictures_of_before_the_cut_linger_in_the_first_latent_alone() -> None:
    before, true = np.zeros((6, 8, 3)), np.ones((SHORT_SHOT, 6, 8, 3))
    made = true.copy()
    made[:2] = 0.2  # half of the frames of a latent
    made[4:] = 0  # what a later frame shows has had time
    assert lingering(before, true, made) == 0.5
