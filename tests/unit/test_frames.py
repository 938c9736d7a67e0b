"""Frames and latents: how many, and which of a clip open a film."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.frames import closing_frames, frames_in

RATES = st.sampled_from([8.0, 12.0, 15.0, 16.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0, 120.0])


def test_first_latent_holds_one_frame_and_the_others_four() -> None:
    assert [frames_in(latents) for latents in range(4)] == [0, 1, 5, 9]


def test_sixty_frames_of_thirty_a_second_are_two_seconds_of_a_film_at_sixteen() -> None:
    chosen = closing_frames(60, 30, 16)
    assert (len(chosen), chosen[0], chosen[-1]) == (33, 0, 59)


def test_what_fills_no_latent_is_left_out_at_the_beginning() -> None:
    assert closing_frames(40, 16, 16) == list(range(3, 40))
    assert closing_frames(200, 24, 24, 5.0) == list(range(79, 200))
    assert closing_frames(3, 16, 16) == [2]


@settings(deadline=None)
@given(st.integers(1, 400), RATES, RATES, st.sampled_from([0.0, 0.5, 2.0, 5.0]))
def test_chosen_frames_are_the_end_of_the_clip_at_the_films_speed(
    count: int, rate: float, fps: float, seconds: float
) -> None:
    chosen = closing_frames(count, rate, fps, seconds)
    assert len(chosen) % 4 == 1 and chosen[-1] == count - 1 and chosen == sorted(chosen) and chosen[0] >= 0
    assert not seconds or (len(chosen) - 1) / fps <= seconds + 1e-6
    for number, index in enumerate(chosen):
        before_end = (len(chosen) - 1 - number) / fps
        off = abs((count - 1 - index) / rate - before_end)
        assert off <= 0.5 / rate + 1e-6 or (index == 0 and off <= 1 / fps + 1e-6)
    whole = min(count / rate, seconds or count / rate)
    assert len(chosen) / fps > whole - 4 / fps - 1 / rate
