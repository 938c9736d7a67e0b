"""A film of any length from latents to pictures, chunk by chunk, so that memory does not grow with its length.

The VAE is causal in time: a picture depends on its latent and on earlier ones, less and less the further back. Each
chunk is decoded behind the last latents of the chunk before it, whose pictures are made once more and dropped. With the
tiny family's VAE, which has the layers of Wan's, the largest difference to decoding a film of 193 frames at once was
0.39 with one latent in front of each chunk of eight, 0.090 with 2, 0.011 with 3, 0.0020 with 4, 0.0004 with 5, 0.00007
with 6 and 0.00001 with 7 (pictures are 0 to 1; a level of 8 bits is 0.004). Not from the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..frames import frames_in
from .codec import CONTEXT, Codec
from .colours import ColourStatistics, colour_match


def decode_film(
    sections: Iterable[Tensor],
    codec: Codec,
    match_colours: bool = False,
    length: int | None = None,
    lead: int = 0,
) -> Iterator[Tensor]:
    """Pictures [T,H,W,3] of a film in order, a chunk at a time; `sections` are latents [1,C,T,h,w] and may be lazy.

    match_colours: moves the colours of every later section towards those of the first (see `colours`); each of them is
    then decoded twice. length: latents of a chunk, by default what CHUNK_BYTES allows. lead: latents at the beginning
    whose pictures are left out.
    """
    if match_colours:
        pictures = _matched(sections, codec, length)
    else:
        pictures = _decoded(chunks_of(sections, codec, length), codec, None)
    return _without_first(pictures, frames_in(lead, codec.temporal))


def _without_first(chunks: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    for chunk in chunks:
        shown, count = chunk[count:], max(0, count - chunk.shape[0])
        del chunk  # before the next one is decoded
        if shown.shape[0]:
            yield shown
        del shown


def chunks_of(sections: Iterable[Tensor], codec: Codec, length: int | None = None) -> Iterator[Tensor]:
    """The latents of all sections in chunks of equal length, the last one shorter; chunks run across sections."""
    waiting: list[Tensor] = []
    count = 0
    for section in sections:
        length = length or codec.chunk_length(*section.shape[3:])
        waiting.append(section)
        count += section.shape[2]
        if count >= length:
            whole = torch.cat(waiting, dim=2)
            cut = count - count % length
            yield from whole[:, :, :cut].split(length, dim=2)
            waiting, count = ([whole[:, :, cut:].clone()] if cut < count else []), count - cut
    if waiting:
        yield torch.cat(waiting, dim=2)


def _decoded(chunks: Iterable[Tensor], codec: Codec, before: Tensor | None) -> Iterator[Tensor]:
    """Pictures of the chunks; `before` holds the latents that come before the first one, if any."""
    for chunk in chunks:
        yield codec.decode_after(before, chunk)[0]
        before = _last(before, chunk)


def _matched(sections: Iterable[Tensor], codec: Codec, length: int | None) -> Iterator[Tensor]:
    """Section by section: the first as it is, the others measured in a first pass and corrected in a second."""
    before: Tensor | None = None
    first: ColourStatistics | None = None
    for section in sections:
        chunks = list(chunks_of([section], codec, length))  # views of the section
        found = ColourStatistics()
        if first is None:
            for pictures in _decoded(chunks, codec, before):
                found.add(pictures)
                yield pictures
                del pictures
            first = found
        else:
            for pictures in _decoded(chunks, codec, before):
                found.add(pictures)
                del pictures
            matched = colour_match(found, first)
            for pictures in _decoded(chunks, codec, before):
                pictures = matched(pictures)
                yield pictures
                del pictures
        before = _last(before, section)


def _last(before: Tensor | None, latents: Tensor) -> Tensor:
    joined = latents if before is None else torch.cat([before, latents], dim=2)
    return joined[:, :, -CONTEXT:].clone()
