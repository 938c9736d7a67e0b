"""An encoder's file says what it was trained on, and a film is told when it asks for more."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_encoder.phi.trained_on import KEY, Asked, TrainedOn, remarks

TRAINED = TrainedOn("continuation", 25.0, 5.0, 24.0, 3, 8.0, steps=10_000, width=832, height=480, clips=400)
FITS = Asked(20.0, 5.0, 24.0, 3, 8.0)
positive = st.floats(0.1, 1000.0)


@given(positive, positive, positive, st.integers(0, 8), positive, st.integers(0, 10**7))
def test_what_a_file_says_comes_back(
    history: float, section: float, fps: float, window: int, shift: float, n: int
) -> None:
    trained = TrainedOn("continuation", history, section, fps, window, shift, steps=n)
    assert TrainedOn.from_metadata(trained.to_metadata()) == trained
    assert trained.beyond(Asked(history, section, fps, window, shift)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"history_seconds": 60.0}, "history of 60.0 s, trained up to 25.0 s"),
        ({"fps": 16.0}, "16 fps, trained at 24"),
        ({"section_seconds": 8.0}, "sections of 8.0 s, trained up to 5.0 s"),
        ({"window": 6}, "sliding window of 6, trained with 3"),
        ({"shift": 3.0}, "shift 3, trained at 8"),
    ],
)
def test_each_thing_beyond_the_training_is_said_once_with_both_values(change: dict[str, float], said: str) -> None:
    asked = replace(FITS, **change)
    assert TRAINED.beyond(asked) == [said]
    assert len(remarks([TRAINED, None, TRAINED], asked)) == 1


def test_what_lies_within_the_training_is_not_said() -> None:
    for asked in (FITS, Asked(26.0, 0.5, 24.0, 0, None), Asked(0.0, 5.2, 23.976, 1, 8.0)):
        assert remarks([TRAINED], asked) == []


def test_an_encoder_of_stage_retrieval_was_trained_for_no_sections() -> None:
    said = replace(TRAINED, stage="retrieval", section_seconds=0.0, window=0).beyond(FITS)
    assert said == ["sections, trained for retrieval alone (stage continuation comes after it)"]


@pytest.mark.parametrize("damaged", ["", "[]", "3", '{"stage": "x"}', json.dumps({"stage": "x", "fps": "fast"})])
def test_a_file_that_does_not_say_it_or_says_it_in_another_form_is_no_error(damaged: str) -> None:
    assert TrainedOn.from_metadata({KEY: damaged}) is None
    assert TrainedOn.from_metadata(None) is None and TrainedOn.from_metadata({}) is None
    wrong = json.loads(TRAINED.to_metadata()[KEY]) | {"fps": "fast"}
    assert TrainedOn.from_metadata({KEY: json.dumps(wrong)}) is None
    more = json.loads(TRAINED.to_metadata()[KEY]) | {"gpus": 8}
    assert TrainedOn.from_metadata({KEY: json.dumps(more)}) == TRAINED
