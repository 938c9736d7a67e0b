"""A film decoded piece by piece: the same pictures, flat memory; colours of later sections matched within limits."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.pictures import codec, decoding
from memory_encoder.pictures.codec import CONTEXT, Codec
from memory_encoder.pictures.colours import MAX_SCALE, MAX_SHIFT, ColourStatistics, colour_match
from memory_encoder.pictures.decoding import Part, decode_film

REACH = 5  # latents that the stand-in VAE looks back


def causal_decode(latents: torch.Tensor) -> torch.Tensor:
    """A causal VAE in miniature: every picture shows the mean of its latent and the REACH before it."""
    padded = torch.cat([latents[:, :, :1].expand(-1, -1, REACH, -1, -1), latents], dim=2)
    mean = padded.unfold(2, REACH + 1, 1).mean(-1)
    frames = torch.cat([mean[:, :, :1], mean[:, :, 1:].repeat_interleave(4, dim=2)], dim=2)
    return frames.repeat_interleave(2, 3).repeat_interleave(2, 4).permute(0, 2, 3, 4, 1)


DECODER = Codec(decode=causal_decode, temporal=4, spatial=2)


def sections_of(lengths: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, n, 4, 6, generator=generator) for n in lengths]


def pieces_of(sections: Iterable[torch.Tensor], **options: Any) -> list[torch.Tensor]:
    """Pictures of sections that are pieces of one clip."""
    return list(decode_film(map(Part, sections), DECODER, **options))


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), piece=st.integers(1, 8))
def test_film_in_pieces_is_the_film_decoded_at_once(lengths: list[int], piece: int):
    """Exact for a VAE that looks back no further than the context."""
    sections = sections_of(lengths)
    whole = causal_decode(torch.cat(sections, dim=2))[0]
    pieces = pieces_of(sections, length=piece)
    assert torch.allclose(torch.cat(pieces), whole, atol=1e-6)
    assert max(len(p) for p in pieces) <= 4 * piece


def test_without_context_the_pieces_would_differ(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "CONTEXT", 1)
    sections = sections_of([12])
    got = torch.cat(pieces_of(sections, length=4))
    assert not torch.allclose(got, causal_decode(sections[0])[0], atol=1e-3)


CLIPS = st.lists(
    st.tuples(st.lists(st.integers(3, 7), min_size=1, max_size=3), st.sampled_from([0, 1, 5])), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(clips=CLIPS, piece=st.integers(1, 8))
def test_film_of_clips_is_each_clip_decoded_alone_and_joined_without_what_is_repeated(
    clips: list[tuple[list[int], int]], piece: int
):
    latents = sections_of([sum(lengths) for lengths, _ in clips])
    parts, alone = [], []
    for (lengths, repeated), clip in zip(clips, latents, strict=True):
        pieces = clip.split(lengths, dim=2)
        parts += [Part(one, None if number else repeated) for number, one in enumerate(pieces)]
        alone.append(torch.cat(pieces_of(pieces, length=piece))[repeated:])
    got = list(decode_film(iter(parts), DECODER, length=piece))
    assert torch.equal(torch.cat(got), torch.cat(alone)) and max(len(p) for p in got) <= 4 * piece
    once = [causal_decode(clip)[0, repeated:] for (_, repeated), clip in zip(clips, latents, strict=True)]
    assert torch.equal(torch.cat(list(decode_film(parts, DECODER, length=64))), torch.cat(once))


def test_what_is_repeated_at_the_beginning_of_a_film_is_left_out_as_well():
    first, second = sections_of([3, 3])
    got = torch.cat(list(decode_film([Part(first, 5), Part(second, 0)], DECODER)))
    assert torch.equal(got, torch.cat([causal_decode(first)[0, 5:], causal_decode(second)[0]]))


@pytest.mark.parametrize("repeated", [None, 1])
@pytest.mark.parametrize("match", [False, True])
def test_what_is_alive_does_not_grow_with_the_length_of_the_film(match: bool, repeated: int | None):
    """Before each piece is decoded no earlier pictures are left, and the running section with the one before it."""
    sections: list[weakref.ref] = []
    pictures: list[weakref.ref] = []
    most = {"sections": 0, "pictures": 0, "latents": 0}

    def tracked(tensor: torch.Tensor, refs: list[weakref.ref]) -> torch.Tensor:
        """The same values in an array that lives exactly as long as any tensor that looks at it."""
        array = tensor.contiguous().numpy().copy()
        refs.append(weakref.ref(array))
        return torch.from_numpy(array)

    def decode(latents: torch.Tensor) -> torch.Tensor:
        for name, refs in (("sections", sections), ("pictures", pictures)):
            most[name] = max(most[name], sum(ref() is not None for ref in refs))
        most["latents"] = max(most["latents"], latents.shape[2])
        return tracked(causal_decode(latents), pictures)

    lazily = (Part(tracked(section, sections), repeated) for section in sections_of([6] * 20))
    for piece in decode_film(lazily, Codec(decode=decode, temporal=4, spatial=2), match, length=4):
        assert piece.shape[0] <= 16
        del piece
    assert len(sections) == 20 and len(pictures) >= 30
    assert most["pictures"] == 0 and most["sections"] <= 2
    assert most["latents"] == (4 + CONTEXT if repeated is None else 6)  # nothing is decoded across clips


def test_pieces_get_shorter_as_pictures_get_larger():
    wan = Codec(decode=causal_decode, temporal=4, spatial=8)
    lengths = [wan.chunk_length(*size) for size in ((12, 16), (60, 104), (88, 160), (135, 240), (270, 480))]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] == 32 and lengths[-1] == 4
    height, width = 88, 160  # 1280x704
    made = (wan.chunk_length(height, width) + CONTEXT) * 4 * height * width * 64 * 3 * 4
    assert made <= codec.CHUNK_BYTES


def tinted(pictures: torch.Tensor, scale: float, shift: tuple[float, float, float]) -> torch.Tensor:
    return ((pictures - 0.5) * scale + 0.5 + torch.tensor(shift)).clamp(0, 1)


def statistics(pictures: torch.Tensor) -> ColourStatistics:
    found = ColourStatistics()
    for piece in pictures.split(3):
        found.add(piece)
    return found


def scene(seed: int = 0) -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(8, 16, 16, 3, generator=torch.Generator().manual_seed(seed))


def test_small_drift_of_brightness_contrast_and_tint_is_taken_away():
    reference = scene()
    drifted = tinted(reference, 1.08, (0.02, -0.01, 0.03))
    back = colour_match(statistics(drifted), statistics(reference))(drifted)
    assert (back - reference).abs().max() < 0.002 < (drifted - reference).abs().max()


def test_section_with_the_colours_of_the_first_is_left_as_it_is():
    pictures = scene()
    assert torch.allclose(colour_match(statistics(pictures), statistics(pictures))(pictures), pictures, atol=1e-6)


def test_change_of_scene_moves_no_further_than_the_limits():
    day, night = scene(), 0.02 + 0.05 * scene(1)
    moved = statistics(colour_match(statistics(night), statistics(day))(night))
    shift = (moved.mean() - statistics(night).mean()).abs()
    assert (shift <= torch.tensor(MAX_SHIFT, dtype=torch.float64) + 1e-6).all()
    assert (moved.spread() <= MAX_SCALE * statistics(night).spread() + 1e-6).all()
    assert shift[0] > 0.9 * MAX_SHIFT[0]  # and it is no limit of zero


def test_picture_of_one_colour_does_not_blow_up():
    plain = torch.full((2, 8, 8, 3), 0.5)
    out = colour_match(statistics(plain), statistics(scene()))(plain)
    assert torch.isfinite(out).all() and (out - plain).abs().max() < 0.1


def test_colours_of_clips_are_matched_to_the_first_clip_by_what_is_shown_of_them():
    first, later = (0.3 + 0.4 * section for section in sections_of([8, 8]))
    white = torch.cat([torch.ones_like(later[:, :, :2]), later[:, :, 2:] + 0.04], dim=2)  # five frames once more
    decode = {"parts": [Part(first, 0), Part(white, 5)], "codec": DECODER, "length": 4}
    plain, matched = (torch.cat(list(decode_film(**decode, match_colours=match))) for match in (False, True))
    assert torch.equal(matched[:29], plain[:29]) and matched.shape == plain.shape
    wanted = colour_match(statistics(plain[29:]), statistics(plain[:29]))(plain[29:])
    assert torch.allclose(matched[29:], wanted, atol=1e-6) and not torch.allclose(wanted, plain[29:], atol=1e-3)


def test_matched_film_keeps_the_first_section_to_the_bit_and_brings_later_ones_nearer():
    first, later = (0.3 + 0.4 * section for section in sections_of([8, 8]))  # whole pieces
    sections = [first, (later + 0.04).contiguous()]
    plain = torch.cat(pieces_of(sections, length=4))
    matched = torch.cat(pieces_of(sections, match_colours=True, length=4))
    cut = 1 + 4 * 7
    assert torch.equal(matched[:cut], plain[:cut]) and matched.shape == plain.shape
    reference = statistics(plain[:cut]).mean()
    gaps = [(statistics(film[cut:]).mean() - reference).abs().max() for film in (plain, matched)]
    assert gaps[1] < 0.2 * gaps[0]
