"""The memory encoder: shapes, variants, and streaming that equals the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder, StreamState
from memory_encoder.phi.positions import cells_for, grid_for
from memory_encoder.phi.trunk import layer_strides

RATES = ("4x4x2", "2x2x2", "2x2x4", "2x2x1", "2x2x8", "1x1x1", "1x4x2", "8x2x1")
VARIANTS = ("proposed", "only_lr", "without_lr", "large_patchifier")


def small(**changes) -> EncoderConfig:
    values = {"host": "wan", "width": 24, "latent_channels": 4, "channels": (8, 8, 8, 16)} | changes
    return EncoderConfig(**values)


def build(config: EncoderConfig, seed: int = 0) -> MemoryEncoder:
    """An encoder whose output projection is not zero, so that both branches show."""
    encoder = MemoryEncoder(config)
    generator = torch.Generator().manual_seed(seed)
    patchifier = (
        torch.randn(24, config.latent_channels, 1, 2, 2, generator=generator),
        torch.randn(24, generator=generator),
    )
    encoder.reset_parameters(generator, patchifier)
    if encoder.attention is not None:
        torch.nn.init.normal_(encoder.out.weight, std=0.1, generator=generator)
    return encoder.requires_grad_(False)


def clip(config: EncoderConfig, frames: int, height: int, width: int, batch: int = 1) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(frames)
    latents = torch.randn(batch, config.latent_channels, frames, height, width, generator=generator)
    cells = cells_for(frames, config.stride[0])[1]
    lr = torch.randn(batch, config.width, cells, *grid_for(height, width, config), generator=generator)
    return latents, lr if config.has_lr else None


def stream(encoder: MemoryEncoder, latents, lr, pieces):
    """Tokens and coordinates after appending `pieces` frames one after the other."""
    state, position, tokens, coordinates, encoded = StreamState(), 0, [], [], None
    for frames in pieces:
        first = cells_for(position, encoder.config.stride[0])[0]
        last = cells_for(position + frames, encoder.config.stride[0])[1]
        piece = latents[:, :, position : position + frames]
        encoded = encoder.append(piece, None if lr is None else lr[:, :, first:last], state)
        state, position = encoded.state, position + frames
        tokens.append(encoded.tokens)
        coordinates.append(encoded.coordinates)
    assert encoded is not None
    return torch.cat([*tokens, encoded.tail], dim=1), torch.cat([*coordinates, encoded.tail_coordinates])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    size=st.tuples(st.integers(4, 20), st.integers(4, 20)),
    rate=st.sampled_from(RATES),
    attention=st.sampled_from(("frame", "causal")),
    variant=st.sampled_from(VARIANTS),
)
def test_appending_any_partition_equals_encoding_the_whole(pieces, size, rate, attention, variant):
    config = small(rate=rate, attention=attention, variant=variant)
    encoder = build(config)
    latents, lr = clip(config, sum(pieces), *size)
    whole = encoder.append(latents, lr)
    tokens, coordinates = stream(encoder, latents, lr, pieces)
    assert (tokens - whole.all_tokens()).abs().max() <= 1e-5
    assert torch.equal(coordinates, torch.cat([whole.coordinates, whole.tail_coordinates]))


def test_tokens_of_complete_cells_never_change_as_the_film_grows():
    config = small(rate="2x2x4", attention="causal")
    encoder = build(config)
    latents, lr = clip(config, 11, 8, 8)
    early = encoder.append(latents[:, :, :6], lr[:, :, : cells_for(6, 4)[1]])
    late = encoder.append(latents, lr)
    assert early.tail.shape[1] > 0
    assert (late.tokens[:, : early.tokens.shape[1]] - early.tokens).abs().max() <= 1e-5


def test_full_attention_recomputes_and_still_equals_the_whole():
    config = small(rate="2x2x2", attention="full")
    encoder = build(config)
    latents, lr = clip(config, 7, 8, 8)
    first = encoder.append(latents[:, :, :3], lr[:, :, :2])
    assert first.tokens.shape[1] == 0 and first.tail.shape[1] == 2 * 4
    second = encoder.append(latents[:, :, 3:], lr[:, :, 2:], first.state)
    assert (second.all_tokens() - encoder(latents, lr)).abs().max() <= 1e-5


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_and_rate_gives_one_token_per_cell(variant, rate):
    config = small(variant=variant, rate=rate)
    latents, lr = clip(config, 5, 9, 13, batch=2)
    cells, grid = cells_for(5, config.stride[0])[1], grid_for(9, 13, config)
    assert build(config)(latents, lr).shape == (2, cells * grid[0] * grid[1], 24)


def test_attention_within_steps_is_fused_where_nothing_is_trained(monkeypatch):
    """Fused kernels take four dimensions; with five, all scores of a film are laid out at once."""
    config, seen = small(rate="2x2x2"), []
    encoder, attend = build(config), torch.nn.functional.scaled_dot_product_attention

    def spy(q, *rest):
        seen.append(q.ndim)
        return attend(q, *rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    latents, lr = clip(config, 7, 8, 12, batch=2)
    with torch.no_grad():
        found = encoder(latents, lr)
    assert seen == [4]
    torch.testing.assert_close(found, encoder(latents, lr))


def test_untrained_encoder_equals_only_lr_and_its_output_layer_receives_gradient():
    config = small()
    encoder = MemoryEncoder(config)
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    latents, lr = clip(config, 5, 8, 8)
    tokens = encoder(latents, lr)
    only = MemoryEncoder(small(variant="only_lr"))(latents, lr)
    assert torch.equal(tokens, only)
    tokens.square().sum().backward()
    assert encoder.out.weight.grad.abs().max() > 0


def test_large_patchifier_gives_the_hosts_own_tokens_for_a_still_flat_picture():
    config = small(variant="large_patchifier", rate="2x2x2")
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(24, 6, 1, 2, 2, generator=generator), torch.randn(24, generator=generator)
    encoder = MemoryEncoder(config)
    encoder.reset_parameters(generator, (weight, bias))
    colour = torch.randn(1, 4, 1, 1, 1, generator=generator)
    expected = torch.nn.functional.conv3d(colour.expand(1, 4, 1, 2, 2), weight[:, :4], bias).flatten()
    tokens = encoder(colour.expand(1, 4, 5, 8, 8).contiguous())
    assert (tokens - expected).abs().max() <= 1e-5


def test_reset_draws_from_the_generator_alone():
    weights = [build(small(), seed).state_dict()["trunk.layers.0.conv.weight"] for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    fresh = MemoryEncoder(small())
    state = torch.random.get_rng_state()
    fresh.reset_parameters(torch.Generator().manual_seed(3))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("4x4x2", [(2, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)]),
        ("2x2x4", [(2, 1, 1), (2, 1, 1), (1, 2, 2), (1, 2, 2)]),
        ("2x2x1", [(1, 2, 2), (1, 2, 2), (1, 1, 1), (1, 1, 1)]),
        ("2x2x8", [(2, 1, 1), (2, 1, 1), (2, 1, 1), (1, 2, 2), (1, 2, 2)]),
    ],
)
def test_time_is_reduced_before_space(rate, expected):
    assert layer_strides(small(rate=rate)) == expected


@pytest.mark.parametrize(
    ("width", "channels", "size", "tokens", "parameters"),
    [
        (5120, 16, (60, 104), 61 * 8 * 13, 8_351_680),
        (3072, 48, (30, 52), 61 * 4 * 7, 7_356_352),
        (3072, 16, (60, 104), 61 * 8 * 13, 7_301_056),
    ],
)
def test_full_size_shapes_on_the_meta_device(width, channels, size, tokens, parameters):
    config = EncoderConfig("wan", width, channels)
    encoder: Any = MemoryEncoder(config, device=torch.device("meta"))
    latents = torch.empty((1, channels, 121, *size), device="meta")
    lr = torch.empty((1, width, 61, *grid_for(size[0], size[1], config)), device="meta")
    assert encoder(latents, lr).shape == (1, tokens, width)
    assert sum(p.numel() for p in encoder.parameters()) == parameters


def test_shapes_that_do_not_fit_are_refused_with_the_numbers():
    encoder = build(small())
    latents, lr = clip(encoder.config, 5, 8, 8)
    with pytest.raises(ValueError, match=r"\(1, 4, 8, 8\).*\[batch, 4"):
        encoder(latents[:, :, 0], lr)
    with pytest.raises(ValueError, match="LR tokens"):
        encoder(latents, lr[:, :, :1])
    state = encoder.append(latents, lr).state
    with pytest.raises(ValueError, match="8x10 cannot continue a memory of 8x8"):
        encoder.append(torch.zeros(1, 4, 2, 8, 10), lr, state)
    with pytest.raises(ValueError, match="smaller than one cell"):
        build(small(padding="floor", rate="8x8x2"))(latents, lr)


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "best"},
        {"attention": "some"},
        {"padding": "round"},
        {"rate": "4x4"},
        {"rate": "0x4x2"},
        {"heads": 5},
    ],
)
def test_unknown_settings_are_refused(changes):
    with pytest.raises(ValueError):
        small(**changes)


def test_config_survives_its_metadata_and_foreign_metadata_is_refused():
    config = small(rate="2x2x8", attention="causal", padding="floor")
    assert EncoderConfig.from_metadata(config.to_metadata()) == config
    for metadata in (
        None,
        {},
        {"format": "pt"},
        config.to_metadata() | {"schema_version": "99"},
        config.to_metadata() | {"config": "{"},
        config.to_metadata() | {"config": '{"width": 3}'},
        config.to_metadata() | {"config": '{"colour": 3}'},
    ):
        with pytest.raises(ValueError, match=r"some\.safetensors"):
            EncoderConfig.from_metadata(metadata, "some.safetensors")


@pytest.mark.parametrize("rate", ["4x4x2", "2x2x2", "2x2x8"])
def test_a_new_trunk_keeps_the_scale_of_its_input(rate):
    """Without a norm, an initialisation that shrinks leaves nothing for the zero-initialised output to learn from."""
    config = EncoderConfig("wan", 64, 16, rate=rate)
    encoder: Any = MemoryEncoder(config)
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    latents = torch.randn(1, 16, 17, 24, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features, _ = encoder.trunk.stream(latents, ())
    assert 0.3 < float(features.std()) < 1.5


def test_what_is_chosen_leaves_out_defaults_so_that_new_settings_change_no_identity():
    plain = EncoderConfig("wan", 128, 16)
    assert plain.chosen() == {"host": "wan", "latent_channels": 16, "width": 128}
    assert replace(plain, rate="2x2x2", heads=4).chosen() == plain.chosen() | {"heads": 4, "rate": "2x2x2"}
