"""From latents to memory with a stand-in VAE: both branches, any partition, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from einops import rearrange, repeat
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.memory import compressor
from memory_encoder.memory.compressor import RECENT_LATENTS, append_history
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.phi.low_resolution import downsample, lr_frame_indices
from memory_encoder.phi.positions import cells_for
from memory_encoder.pictures.codec import CONTEXT, Codec

SPATIAL, CHANNELS, WIDTH = 4, 3, 8


def encode(pictures: torch.Tensor) -> torch.Tensor:
    """A causal VAE in miniature: latent 0 is frame 0, latent k the mean of frames 4k-3 .. 4k, averaged in space."""
    x = rearrange(pictures, "b t h w c -> b c t h w")
    small = torch.nn.functional.avg_pool3d(x, (1, SPATIAL, SPATIAL))
    rest = torch.nn.functional.avg_pool3d(small[:, :, 1:], (4, 1, 1)) if small.shape[2] > 1 else small[:, :, 1:]
    return torch.cat([small[:, :, :1], rest], dim=2)


def decode(latents: torch.Tensor) -> torch.Tensor:
    large = repeat(latents, "b c t h w -> b c t (h a) (w d)", a=SPATIAL, d=SPATIAL)
    frames = torch.cat([large[:, :, :1], large[:, :, 1:].repeat_interleave(4, dim=2)], dim=2)
    return rearrange(frames, "b c t h w -> b t h w c")


def embed(latents: torch.Tensor) -> torch.Tensor:
    pooled = torch.nn.functional.avg_pool3d(latents, (1, 2, 2))
    return torch.cat([pooled, pooled, pooled[:, :2]], dim=1)


CODEC = Codec(encode=encode, decode=decode, embed=embed, temporal=4, spatial=SPATIAL)


def make(rate: str, variant: Any = "proposed", padding: Any = "ceil") -> MemoryEncoder:
    config = EncoderConfig("wan", WIDTH, CHANNELS, rate=rate, variant=variant, padding=padding, channels=(8, 8, 8, 16))
    encoder = MemoryEncoder(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    encoder.reset_parameters(generator)
    if encoder.attention is not None:
        torch.nn.init.normal_(encoder.out.weight, std=0.1, generator=generator)
    return encoder


def append_all(encoder: MemoryEncoder, latents: torch.Tensor, pieces: list[int]) -> VideoMemory:
    memory = VideoMemory.empty(encoder.config)
    for piece in latents.split(pieces, dim=2):
        memory = append_history(encoder, CODEC, memory, piece)
    return memory


@settings(max_examples=40, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    rate=st.sampled_from(("4x4x2", "2x2x1", "2x2x4", "2x2x8")),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
)
def test_any_partition_of_the_latents_gives_one_memory_through_both_branches(pieces, rate, size):
    """With a VAE that looks at one latent at a time the LR branch is exact too."""
    encoder = make(rate)
    latents = torch.randn(1, CHANNELS, sum(pieces), *size, generator=torch.Generator().manual_seed(1))
    whole, parts = append_all(encoder, latents, [sum(pieces)]), append_all(encoder, latents, pieces)
    assert (whole.all_tokens() - parts.all_tokens()).abs().max() <= 1e-5
    assert torch.equal(whole.all_coordinates(), parts.all_coordinates())
    assert whole.lr_frames is not None and parts.lr_frames is not None
    assert torch.allclose(whole.lr_frames, parts.lr_frames, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    before=st.integers(0, 9),
    latents=st.integers(1, 40),
    piece=st.integers(1, 12),
    rate=st.sampled_from(("4x4x2", "2x2x1", "2x2x4")),
)
def test_a_long_clip_is_decoded_in_pieces_and_gives_the_memory_of_the_whole(before, latents, piece, rate):
    encoder, counts = make(rate), []
    clip = torch.randn(1, CHANNELS, before + latents, 5, 6, generator=torch.Generator().manual_seed(1))

    def counted(latents: torch.Tensor) -> torch.Tensor:
        counts.append(latents.shape[2])
        return decode(latents)

    memory = VideoMemory.empty(encoder.config)
    if before:
        memory = append_history(encoder, CODEC, memory, clip[:, :, :before])
    whole = append_history(encoder, CODEC, memory, clip[:, :, before:])
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(compressor, "PIECE", piece)
        parts = append_history(encoder, replace(CODEC, decode=counted), memory, clip[:, :, before:])
    assert max(counts) <= piece + CONTEXT and len(counts) == -(-latents // piece)
    assert torch.equal(whole.all_tokens(), parts.all_tokens())
    assert whole.lr_frames is not None and parts.lr_frames is not None
    assert torch.equal(whole.lr_frames, parts.lr_frames)


def test_only_lr_token_shows_the_pictures_of_its_own_cell():
    """Latent k holds the value k, so a token of rate 2 in time tells which latents it was made from."""
    encoder = make("2x2x2", "only_lr")
    latents = torch.arange(7.0).reshape(1, 1, 7, 1, 1).expand(1, CHANNELS, 7, 8, 8)
    memory = append_all(encoder, latents, [3, 4])
    values = memory.all_tokens()[0, :, 0].reshape(4, -1)
    expected = torch.tensor([0.0, 1.5, 3.5, 5.5])
    assert torch.allclose(values, expected[:, None].expand_as(values))
    assert torch.equal(memory.all_coordinates()[:, 0].reshape(4, -1)[:, 0], expected)


def test_memory_keeps_the_last_latents_and_a_record_of_each_section():
    encoder = make("2x2x4")
    latents = torch.randn(1, CHANNELS, 14, 4, 4)
    memory = append_all(encoder, latents, [6, 8])
    assert torch.equal(memory.recent, latents[:, :, -RECENT_LATENTS:])
    assert [(s.start_latent, s.latents) for s in memory.sections] == [(0, 6), (6, 8)]
    assert sum(s.tokens for s in memory.sections) == memory.token_count == memory.all_coordinates().shape[0]
    assert memory.latents == 14 and cells_for(14, 4)[1] * 1 == memory.token_count


def test_appending_leaves_the_earlier_memory_as_it_was():
    encoder = make("2x2x2")
    latents = torch.randn(1, CHANNELS, 6, 4, 4)
    first = append_history(encoder, CODEC, VideoMemory.empty(encoder.config), latents[:, :, :3])
    before = first.all_tokens().clone()
    branches = [append_history(encoder, CODEC, first, latents[:, :, 3:] * scale) for scale in (1, 2)]
    assert torch.equal(first.all_tokens(), before)
    assert not torch.equal(branches[0].all_tokens(), branches[1].all_tokens())


def test_low_resolution_keeps_every_nth_frame_of_the_film():
    assert lr_frame_indices(0, 9, 2) == [0, 2, 4, 6, 8]
    assert lr_frame_indices(9, 8, 2) == [1, 3, 5, 7]
    assert lr_frame_indices(5, 4, 1) == [0, 1, 2, 3]


@settings(max_examples=30, deadline=None)
@given(height=st.integers(8, 40), width=st.integers(8, 40), padding=st.sampled_from(("ceil", "floor")))
def test_downsampled_pictures_fill_the_grid_whatever_the_size(height, width, padding):
    config = EncoderConfig("wan", WIDTH, CHANNELS, rate="2x2x2", padding=padding, channels=(16,))
    from memory_encoder.phi.positions import grid_for

    if padding == "floor" and min(height, width) < 4:
        return
    grid = grid_for(height, width, config)
    pictures = torch.rand(1, 2, height * SPATIAL, width * SPATIAL, 3)
    small = downsample(pictures, grid, config, SPATIAL)
    assert embed(encode(small[:, :1])).shape[3:] == grid
    if padding == "floor" or (height % 4 == 0 and width % 4 == 0):
        h, w = grid[0] * 16, grid[1] * 16
        assert torch.allclose(small.mean(), pictures[:, :, :h, :w].mean(), atol=1e-4)


def test_the_encoder_is_called_for_when_the_vae_has_done_its_part() -> None:
    calls: list[str] = []
    codec = Codec(
        encode=lambda pictures: (calls.append("encode"), encode(pictures))[1],
        decode=lambda latents: (calls.append("decode"), decode(latents))[1],
        embed=embed,
        temporal=4,
        spatial=SPATIAL,
    )
    encoder = make("2x2x2")
    latents = torch.randn(1, CHANNELS, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    append_history(encoder, codec, VideoMemory.empty(encoder.config), latents, ready=lambda: calls.append("ready"))
    assert calls[0] == "decode" and calls[-1] == "ready" and calls.count("ready") == 1
