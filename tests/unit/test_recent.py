"""The baseline of the last latents: sliding window and FramePack's schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.budget import HOSTS, Plan, token_count
from memory_encoder.phi.config import EncoderConfig, parse_schedule
from memory_encoder.phi.encoder import MemoryEncoder, StreamState

FRAMEPACK = "1@1x1x1+2@2x2x2+16@4x4x4"
WIDTH, CHANNELS = 12, 4


TRAINED: dict[str, Any] = {"anchor": True, "fill": "zeros", "positions": "pooled"}  # as FramePack and Helios were


def made(rate: str, **settings: Any) -> MemoryEncoder:
    config = EncoderConfig("wan", WIDTH, CHANNELS, rate=rate, variant="recent", **settings)
    encoder = MemoryEncoder(config)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(WIDTH, CHANNELS, 1, 2, 2, generator=generator)
    encoder.reset_parameters(generator, (weight, torch.randn(WIDTH, generator=generator)))
    return encoder.requires_grad_(False)


def latents(count: int, height: int = 8, width: int = 12) -> torch.Tensor:
    return torch.randn(1, CHANNELS, count, height, width, generator=torch.Generator().manual_seed(count))


def test_a_sliding_window_is_the_hosts_own_tokens_of_the_last_latents_at_their_true_places():
    encoder, x = made("3@1x1x1"), latents(7)
    encoded = encoder.append(x)
    assert encoder.recent is not None
    host = encoder.recent.layers[0].layer.conv
    expected = torch.nn.functional.conv3d(x[:, :, -3:], host.weight, host.bias, stride=(1, 2, 2)).flatten(2).mT
    assert torch.equal(encoded.all_tokens(), expected)
    assert encoded.tail_coordinates[:, 0].unique().tolist() == [4, 5, 6]
    assert encoded.tail_coordinates[:, 1:].amax(0).tolist() == [3, 5]


def test_framepacks_schedule_is_finest_at_the_end_and_forgets_what_is_older():
    encoded = made(FRAMEPACK).append(latents(40))
    times = encoded.tail_coordinates[:, 0]
    assert times.unique().tolist() == [22.5, 26.5, 30.5, 34.5, 37.5, 39.0]
    counts = [int((times == time).sum()) for time in (22.5, 37.5, 39.0)]
    assert counts == [1 * 2, 2 * 3, 4 * 6]


def test_only_what_the_schedule_reaches_changes_the_tokens():
    encoder, x = made(FRAMEPACK), latents(30)
    old, young = x.clone(), x.clone()
    old[:, :, :11] += 1
    young[:, :, 11] += 1
    assert torch.equal(encoder(old), encoder(x))
    assert not torch.equal(encoder(young), encoder(x))


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.sampled_from([("3@1x1x1", {}), (FRAMEPACK, {}), ("2@2x2x2", {}), (FRAMEPACK, TRAINED)]),
)
def test_any_partition_of_a_film_gives_the_tokens_of_the_whole(sections: list[int], kind: tuple[str, dict[str, Any]]):
    encoder, x = made(kind[0], **kind[1]), latents(sum(sections))
    state, start, encoded = StreamState(), 0, None
    for count in sections:
        encoded = encoder.append(x[:, :, start : start + count], state=state)
        state, start = encoded.state, start + count
    whole = encoder.append(x)
    assert encoded is not None
    torch.testing.assert_close(encoded.all_tokens(), whole.all_tokens())
    assert torch.equal(encoded.tail_coordinates, whole.tail_coordinates)


def test_a_still_flat_picture_gives_the_hosts_own_token_in_every_piece():
    encoder = made(FRAMEPACK)
    x = torch.randn(1, CHANNELS, 1, 1, 1, generator=torch.Generator().manual_seed(5)).expand(1, CHANNELS, 19, 16, 16)
    tokens = encoder(x)
    torch.testing.assert_close(tokens, tokens[:, -1:].expand_as(tokens), rtol=1e-4, atol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 60))
def test_the_budget_counts_the_tokens_that_the_encoder_makes(count: int):
    plan = Plan(HOSTS["wan-14b"], 192, 128, 4.0, float(count))  # one latent a second, a token grid of 8 x 12
    for rate in ("3@1x1x1", FRAMEPACK):
        assert token_count(plan, rate) == made(rate)(latents(count, 16, 24)).shape[1]


@pytest.mark.parametrize("rate", ["4x4x2", "1@", "0@1x1x1", "3@1x1x2", "1@1x1x1,2@2x2x2", "1@3x1x1"])
def test_a_malformed_schedule_is_refused_with_its_text(rate: str):
    with pytest.raises(ValueError, match="rate"):
        EncoderConfig("wan", WIDTH, CHANNELS, rate=rate, variant="recent")


def test_the_pieces_are_read_newest_first():
    assert [(piece.latents, str(piece.rate)) for piece in parse_schedule(FRAMEPACK)] == [
        (1, "1x1x1"),
        (2, "2x2x2"),
        (16, "4x4x4"),
    ]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 19), st.integers(1, 19))
def test_a_trained_history_has_as_many_tokens_for_a_film_of_any_length(count: int, height: int, width: int):
    encoder, rows, columns = made(FRAMEPACK, **TRAINED), -(-height // 2), -(-width // 2)
    encoded = encoder.append(latents(count, height, width))
    half, quarter = (-(-rows // n) * -(-columns // n) for n in (2, 4))
    assert encoded.tail.shape[1] == len(encoded.tail_coordinates) == 2 * rows * columns + half + 4 * quarter
    times = encoded.tail_coordinates[..., 0] - count  # from the section's first latent
    assert times.min() == -20 and times.max() == -1


def test_the_anchor_is_the_films_first_latent_and_what_is_missing_is_zero():
    encoder, x = made(FRAMEPACK, **TRAINED), latents(30)
    other = x.clone()
    other[:, :, 1:11] += 1  # neither the first nor among the last 19
    assert torch.equal(encoder(other), encoder(x))
    other[:, :, 0] += 1
    changed = (encoder(other) != encoder(x)).any(dim=2)[0]
    assert changed.nonzero().flatten().tolist() == list(range(24))  # the anchor's 4x6 come first
    short = torch.cat([torch.zeros(1, CHANNELS, 7, 8, 12), x[:, :, :12]], dim=2)
    assert torch.equal(encoder(short)[:, 24:], encoder(x[:, :, :12])[:, 24:])


@settings(deadline=None)
@given(st.integers(1, 19), st.integers(1, 19), st.sampled_from([2, 4]))
def test_pooled_places_have_the_mean_rotation_of_all_cells_that_a_token_covers(height: int, width: int, rate: int):
    """As FramePack pools: cosines on the grid of patches, its last row and column repeated, averaged over cells."""
    encoder = made(f"1@1x1x1+{4 * rate}@{rate}x{rate}x{rate}", **TRAINED | {"anchor": False})
    count = 1 + 4 * rate
    places = encoder.append(latents(count, 2 * height, 2 * width)).tail_coordinates
    frequency = torch.tensor([0.3, 0.7, 1.1])
    got = (places * frequency).cos().mean(1)
    axes = (torch.arange(4 * rate), torch.arange(height), torch.arange(width))
    grid = torch.stack(torch.meshgrid(*(axis.float() for axis in axes), indexing="ij"))
    cosines = (grid * frequency[:, None, None, None]).cos()[None]
    padded = torch.nn.functional.pad(cosines, (0, -width % rate, 0, -height % rate, 0, 0), mode="replicate")
    wanted = torch.nn.functional.avg_pool3d(padded, rate)[0].flatten(1).T
    torch.testing.assert_close(got[: len(wanted)], wanted, atol=1e-5, rtol=1e-5)
