"""A horizon bounds what the host sees of a film, keeps the near past fine, and follows from the memory alone."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.film.states import StateStore
from memory_encoder.injection.horizon import near_and_far, seen_tokens, within_horizon
from memory_encoder.memory.memory_file import Memory
from memory_encoder.phi.config import CompressionRate, EncoderConfig
from memory_encoder.phi.positions import cell_coordinates, cells_for, grid_for

from .test_states import KINDS, Maker, sections_of

RATES = ("2x2x2", "4x4x2", "4x4x8")
SIZE = (12, 20)  # latents


def times_of(rate: str, latents: int) -> tuple[torch.Tensor, int]:
    config = EncoderConfig("wan", 8, 3, rate=rate)
    cells = cells_for(latents, config.stride[0])[1]
    return cell_coordinates(0, cells, grid_for(*SIZE, config), config, latents)[:, 0], config.stride[0]


@settings(max_examples=200, deadline=None)
@given(
    latents=st.integers(1, 3000),
    budget=st.integers(1, 4000),
    rates=st.lists(st.sampled_from(RATES), min_size=1, max_size=3, unique=True),
)
def test_the_host_never_sees_more_than_the_budget_and_the_whole_film_is_in_it(latents, budget, rates):
    times, strides = zip(*(times_of(rate, latents) for rate in rates), strict=True)
    chosen = near_and_far(times, strides, budget)
    assert sum(map(len, chosen)) <= budget
    for indices in chosen:
        assert torch.equal(indices, indices.unique())  # ascending, none twice
    finest = max(range(len(times)), key=lambda number: len(times[number]))
    if len(times[finest]) <= budget:
        assert len(chosen[finest]) == len(times[finest])
    step = max(int((one == one[-1]).sum()) for one in times)
    if budget >= 8 * step * len(rates):
        assert chosen[finest][-1] == len(times[finest]) - 1  # the end of the film at the finest rate
        # Each encoder's whole part of the film, from fine to coarse, lies before that of the one before it.
        ends = [times[number][chosen[number]] for number in sorted(range(len(times)), key=lambda n: -len(times[n]))]
        seen = [one for one in ends if len(one)]
        assert all(float(far[-1]) <= float(near[-1]) for near, far in itertools.pairwise(seen))
        if sum(map(len, chosen)) < budget:  # nothing was thinned: the beginning is there as it is
            assert any(len(indices) and not indices[0] for indices in chosen)


def test_a_film_at_three_rates_is_fine_near_and_coarse_far_without_a_gap():
    times, strides = zip(*(times_of(rate, 600) for rate in RATES), strict=True)
    fine, middle, far = near_and_far(times, strides, 1000)
    assert min(len(fine), len(middle), len(far)) > 0
    begin, end = float(times[0][fine[0]]) - 0.5, float(times[1][middle[-1]]) + 0.5
    assert begin - 2 <= end <= begin + 2
    begin, end = float(times[1][middle[0]]) - 0.5, float(times[2][far[-1]]) + 3.5
    assert begin - 2 <= end <= begin + 8 and far[0] == 0
    assert CompressionRate.parse(RATES[2]).time == strides[2]


def test_one_encoder_keeps_the_near_half_whole_and_spreads_the_rest():
    times, stride = times_of("2x2x2", 600)
    (seen,) = near_and_far([times], [stride], 1000)
    whole = seen[-500 // 15 * 15 + 15 :]
    assert len(seen) <= 1000 and torch.equal(whole, torch.arange(int(whole[0]), len(times)))
    assert times[seen[:400]].diff().max() < 5


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=5), budget=st.integers(1, 60))
def test_what_is_seen_follows_from_the_sections_before_alone(lengths, budget, tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("film")
    sections = sections_of(*lengths)
    computed = Maker("two rates")
    kept = [Maker("two rates", StateStore(folder)) for _ in range(2)]
    for latents in sections:
        memories: list[Memory] = [maker.film([latents]) for maker in (computed, *kept)]
        first, *others = (seen_tokens(memory, budget) for memory in memories)  # type: ignore[arg-type]
        assert first[0].shape[1] == len(first[1]) <= max(budget, 0)
        assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    assert kept[1].appended == 0


def test_a_memory_within_its_horizon_and_one_without_a_horizon_are_seen_as_ever():
    memory = Maker("two rates").film(sections_of(3, 2))
    for budget in (0, memory.token_count):
        assert within_horizon(memory, budget) is None
        assert torch.equal(seen_tokens(memory, budget)[0], memory.all_tokens())
    assert len(KINDS["two rates"]) == 2 and within_horizon(replace(memory, others=()), 1) is not None


def test_the_recall_within_a_horizon_is_told_of_clips_of_any_length_and_as_the_results_have_it() -> None:
    from benchmarks import horizon

    frames = [[float(n) for n in range(count)] for count in (2, 3, 8)]
    told = horizon.table({"real": {"horizon 1": [frames, frames]}})["real"]["horizon 1"]
    assert set(told) == {"all", "far", "near"} and told["near"]["mean"] > told["far"]["mean"]
    written = horizon.RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    assert written == horizon.report(json.loads(horizon.RESULTS.with_suffix(".json").read_text()))
