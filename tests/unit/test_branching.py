"""Memories cut at section boundaries and joined: to the bit what was there, and what goes on from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.memory.branching import cut, join, section_ends, section_numbers
from memory_encoder.memory.compressor import append_history
from memory_encoder.memory.video_memory import SectionRecord, VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder

from .test_compressor import CHANNELS, CODEC, WIDTH


def encoder_of(rate: str = "2x2x2", attention: Any = "frame", cross: int = 0) -> MemoryEncoder:
    config = EncoderConfig(
        "wan", WIDTH, CHANNELS, rate=rate, attention=attention, channels=(8, 8, 8, 16), cross_blocks=cross, head_dim=8
    )
    encoder = MemoryEncoder(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    encoder.reset_parameters(generator)
    torch.nn.init.normal_(encoder.out.weight, std=0.1, generator=generator)
    return encoder


def film(pieces: list[int], seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, CHANNELS, n, 6, 6, generator=generator) for n in pieces]


def grown(encoder: MemoryEncoder, pieces: list[torch.Tensor], memory: VideoMemory | None = None) -> list[VideoMemory]:
    """The memory before the first piece and after each."""
    steps = [memory or VideoMemory.empty(encoder.config, 1, "weights")]
    for number, piece in enumerate(pieces):
        steps.append(append_history(encoder, CODEC, steps[-1], piece, f"section {number}", number))
    return steps


def assert_same(a: VideoMemory, b: VideoMemory) -> None:
    """All that a memory is, to the bit."""
    assert a.sections == b.sections and (a.latents, a.origin, a.encoder_id) == (b.latents, b.origin, b.encoder_id)
    (tensors, described), (others, also) = a._to_tensors(), b._to_tensors()
    assert described == also and tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert torch.equal(value, others[name]), name


@settings(max_examples=30, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    rate=st.sampled_from(("2x2x1", "2x2x2", "4x4x2", "2x2x4")),
    attention=st.sampled_from(("frame", "causal")),
    cross=st.sampled_from((0, 2)),
)
def test_memory_cut_anywhere_is_what_it_was_there_and_goes_on_to_the_same_bits(pieces, rate, attention, cross):
    encoder, latents = encoder_of(rate, attention, cross), film(pieces)
    steps = grown(encoder, latents)
    for end in range(len(pieces) + 1):
        branch = cut(steps[-1], end)
        assert_same(branch, steps[end])
        for number, piece in enumerate(latents[end:], end):
            branch = append_history(encoder, CODEC, branch, piece, f"section {number}", number)
        assert_same(branch, steps[-1])


def test_cut_memory_takes_another_continuation_and_leaves_the_first_one_alone():
    encoder = encoder_of()
    whole = grown(encoder, film([3, 4, 4]))[-1]
    before = whole.all_tokens().clone()
    other = append_history(encoder, CODEC, cut(whole, 1), film([5], seed=2)[0], "another street", 9)
    assert torch.equal(whole.all_tokens(), before)
    assert [record.prompt for record in other.sections] == ["section 0", "another street"] and other.latents == 8


def test_saved_memory_can_be_cut_as_before(tmp_path: Path):
    encoder = encoder_of("2x2x4", "causal", cross=1)
    steps = grown(encoder, film([3, 2, 4]))
    steps[-1].save(tmp_path / "film.safetensors")
    loaded = VideoMemory.load(tmp_path / "film.safetensors")
    assert_same(loaded, steps[-1])
    for end in (1, 2):
        assert_same(cut(loaded, end), steps[end])


def test_what_a_boundary_keeps_does_not_grow_with_the_film():
    memory = grown(encoder_of(), film([4] * 6))[-1]
    sizes = [
        sum(tensor.untyped_storage().nbytes() for tensor in boundary.read().to_tensors()[0].values())
        for boundary in memory.boundaries
        if boundary is not None
    ]
    assert len(sizes) == 5 and max(sizes[1:]) <= sizes[1]  # the first one has fewer recent latents


@pytest.mark.parametrize(("section", "words"), [(4, "0 to 3"), (-4, "0 to 3")])
def test_section_that_does_not_exist_is_refused_with_those_that_do(section: int, words: str):
    memory = grown(encoder_of(), film([2, 2, 2]))[-1]
    with pytest.raises(ValueError, match=words):
        cut(memory, section)


def test_negative_sections_count_from_the_end():
    steps = grown(encoder_of(), film([2, 3, 2]))
    assert_same(cut(steps[-1], -1), steps[2])
    assert cut(steps[-1], -3).latents == 0


def test_boundary_that_was_not_kept_is_refused_with_the_cure():
    full = grown(encoder_of(attention="full"), film([2, 2, 2]))[-1]
    with pytest.raises(ValueError, match="compress the history"):
        cut(full, 1)
    assert_same(cut(full, 3), full)
    assert cut(full, 0).latents == 0
    encoder = encoder_of()
    old = replace(grown(encoder, film([2, 2]))[-1], boundaries=())  # as in files of earlier versions
    longer = append_history(encoder, CODEC, old, film([3])[0], "more", 1)
    with pytest.raises(ValueError, match="earlier"):
        cut(longer, 1)
    kept = cut(longer, 2)
    assert torch.equal(kept.all_tokens(), old.all_tokens()) and kept.sections == old.sections


def test_sections_are_what_a_sampler_made_and_clips_belong_to_what_is_before_them():
    def records(*seeds: int | None) -> list[SectionRecord]:
        return [SectionRecord(0, 1, 1, seed=seed) for seed in seeds]

    assert section_ends(records(1, 2)) == [0, 1, 2]
    assert section_ends(records(None, 1, 2, None, 3)) == [1, 2, 4, 5]
    assert section_ends(records(None, None)) == [0, 1, 2]
    assert section_ends([]) == [0]
    assert section_numbers(records(None, 1, 2, None, 3)) == [0, 1, 2, 2, 3], "0 is what opens the film"
    assert section_numbers(records(None, None)) == [1, 2]


@pytest.mark.parametrize("attention", ["frame", "causal", "full"])
@pytest.mark.parametrize("rate", ["2x2x2", "2x2x4"])
def test_what_is_appended_to_joined_memories_continues_the_second_to_the_bit(rate: str, attention: str):
    encoder = encoder_of(rate, attention)
    first = grown(encoder, film([3, 3], seed=2))[-1]
    steps = grown(encoder, film([4, 3, 2]))
    joined = append_history(encoder, CODEC, join(first, steps[2]), film([4, 3, 2])[2], "section 2", 2)
    assert_same(joined, join(first, steps[3]))
    assert joined.latents == 15 and joined.token_count == first.token_count + steps[3].token_count


def test_joined_memories_lie_one_after_the_other():
    encoder = encoder_of()
    first, second = (grown(encoder, film(pieces))[-1] for pieces in ([3, 3], [4]))
    joined = join(first, second)
    assert torch.equal(joined.all_tokens(), torch.cat([first.all_tokens(), second.all_tokens()], dim=1))
    times = joined.all_coordinates()[:, 0]
    assert times[: first.token_count].max() < 6 <= times[first.token_count :].min()
    assert torch.equal(times[first.token_count :] - 6, second.all_coordinates()[:, 0])
    assert torch.equal(joined.all_coordinates()[:, 1:][first.token_count :], second.all_coordinates()[:, 1:])
    assert [record.start_latent for record in joined.sections] == [0, 3, 6]


def test_joined_memory_can_be_saved_and_cut_in_both_its_parts(tmp_path: Path):
    encoder = encoder_of("2x2x4")
    first, second = grown(encoder, film([3, 2], seed=2)), grown(encoder, film([4, 3]))
    join(first[-1], second[-1]).save(tmp_path / "joined.safetensors")
    joined = VideoMemory.load(tmp_path / "joined.safetensors")
    assert_same(cut(joined, 1), first[1])
    assert_same(cut(joined, 2), first[2])
    assert_same(cut(joined, 3), join(first[2], second[1]))
    assert_same(cut(joined, 4), joined)


def test_memory_of_several_encoders_is_cut_and_joined_in_all_of_them():
    fine, coarse = (grown(encoder_of(rate), film([3, 4, 2])) for rate in ("2x2x2", "4x4x2"))
    both = [replace(a, others=(b,)) for a, b in zip(fine, coarse, strict=True)]
    assert_same(cut(both[3], 2), both[2])
    assert_same(cut(both[3], 2).others[0], coarse[2])
    joined = join(both[1], both[3])
    assert joined.token_count == both[1].token_count + both[3].token_count and len(joined.others) == 1
    with pytest.raises(ValueError, match="another encoder"):
        join(both[3], fine[3])


def test_joining_with_nothing_changes_nothing():
    encoder = encoder_of()
    memory, nothing = grown(encoder, film([3]))[-1], VideoMemory.empty(encoder.config, 1, "weights")
    assert join(nothing, memory) is memory and join(memory, nothing) is memory


def test_memories_that_do_not_belong_together_are_refused():
    encoder = encoder_of()
    memory = grown(encoder, film([3]))[-1]
    with pytest.raises(ValueError, match="another encoder"):
        join(memory, grown(encoder_of("4x4x2"), film([3]))[-1])
    with pytest.raises(ValueError, match="another encoder"):
        join(memory, replace(memory, encoder_id="others"))
    small = append_history(encoder, CODEC, VideoMemory.empty(encoder.config, 1, "weights"), film([3])[0][..., :4, :4])
    with pytest.raises(ValueError, match="4x4"):
        join(memory, small)
    two = VideoMemory.empty(encoder.config, 2, "weights")
    two = append_history(encoder, CODEC, two, film([3])[0].repeat(2, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="2"):
        join(memory, two)
