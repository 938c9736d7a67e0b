"""A film of any length from latents to pictures, chunk by chunk, so that memory does not grow with its length.

The VAE is causal in time: a picture depends on its latent and on earlier ones, less and less the further back. Each
chunk is decoded behind the last latents of the chunk before it, whose pictures are made once more and dropped. With the
tiny family's VAE, which has the layers of Wan's, the largest difference to decoding a film of 193 frames at once was
0.39 with one latent in front of each chunk of eight, 0.090 with 2, 0.011 with 3, 0.0020 with 4, 0.0004 with 5, 0.00007
with 6 and 0.00001 with 7 (pictures are 0 to 1; a level of 8 bits is 0.004). Not from the paper.

A film may also consist of clips, each of which begins with a latent of a single frame: nothing is decoded across their
borders, and they are joined as pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..frames import TEMPORAL, frames_in
from .codec import CONTEXT, Codec
from .colours import ColourStatistics, colour_match


class Part(NamedTuple):
    """Latents [1,C,T,h,w] of a section. repeated: None where they go on with the clip of the part before; a number
    where a clip of its own begins, whose first so many frames show the end of the part before and are left out.
    """

    latents: Tensor
    repeated: int | None = None


def frames_of(latents: int, repeated: int | None, temporal: int = TEMPORAL) -> int:
    """Frames that a clip of so many latents adds to a film."""
    return frames_in(latents, temporal) - (repeated or 0)


def shown_frames(parts: Iterable[Part], temporal: int = TEMPORAL, lead: int = 0) -> list[int]:
    """How many pictures `decode_film` gives of each part."""
    frames, left, begun = [], frames_in(lead, temporal), False
    for latents, repeated in parts:
        begins = repeated is not None or not begun
        count = frames_of(latents.shape[2], repeated, temporal) if begins else temporal * latents.shape[2]
        frames.append(max(0, count - left))
        left, begun = max(0, left - count), True
    return frames


def decode_film(
    parts: Iterable[Part],
    codec: Codec,
    match_colours: bool = False,
    length: int | None = None,
    lead: int = 0,
) -> Iterator[Tensor]:
    """Pictures [T,H,W,3] of a film in order, a chunk at a time; `parts` may be lazy.

    match_colours: moves the colours of every later section towards those of the first (see `colours`); each of them is
    then decoded twice. length: latents of a chunk, by default what CHUNK_BYTES allows. lead: latents at the beginning
    whose pictures are left out.
    """
    decoder = _Decoder(codec, length, match_colours)
    pictures = itertools.chain.from_iterable(decoder.clip(clip, repeated) for repeated, clip in clips_of(parts))
    return _without_first(pictures, frames_in(lead, codec.temporal))


def clips_of(parts: Iterable[Part]) -> Iterator[tuple[int, Iterator[Tensor]]]:
    """The clips of a film: how many frames of each are left out, and its latents, to be read before the next clip."""
    clip = (0, 0)  # number and repeated frames

    def clip_of(part: Part) -> tuple[int, int]:
        nonlocal clip
        if part.repeated is not None:
            clip = clip[0] + 1, part.repeated
        return clip

    for (_, repeated), of_clip in itertools.groupby(parts, clip_of):
        yield repeated, (part.latents for part in of_clip)


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


def _without_first(chunks: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    for chunk in chunks:
        shown, count = chunk[count:], max(0, count - chunk.shape[0])
        del chunk  # before the next one is decoded
        if shown.shape[0]:
            yield shown
        del shown


def decoded(chunks: Iterable[Tensor], codec: Codec, before: Tensor | None) -> Iterator[Tensor]:
    """Pictures [B,T,H,W,3] of the chunks; `before` holds the latents that come before the first one, if any."""
    for chunk in chunks:
        yield codec.decode_after(before, chunk)
        before = _last(before, chunk)


def _first_clip(pictures: Iterable[Tensor]) -> Iterator[Tensor]:
    for chunk in pictures:
        yield chunk[0]
        del chunk  # before the next one is decoded


@dataclass
class _Decoder:
    """Decodes clip after clip. first: colours of the film's first section, once they are known."""

    codec: Codec
    length: int | None
    match_colours: bool
    first: ColourStatistics | None = None

    def clip(self, sections: Iterable[Tensor], repeated: int) -> Iterator[Tensor]:
        """Pictures of a clip without its first `repeated` frames."""
        if not self.match_colours:
            pictures = _first_clip(decoded(chunks_of(sections, self.codec, self.length), self.codec, None))
            yield from _without_first(pictures, repeated)
            return
        before: Tensor | None = None
        for section in sections:
            yield from self._matched(section, before, repeated)
            before, repeated = _last(before, section), 0

    def _matched(self, section: Tensor, before: Tensor | None, repeated: int) -> Iterator[Tensor]:
        """The first section as it is, another one measured in a first pass and corrected in a second."""
        found = ColourStatistics()
        for pictures in self._pictures(section, before, repeated):
            found.add(pictures)
            if self.first is None:
                yield pictures
            del pictures
        if self.first is None:
            self.first = found
            return
        matched = colour_match(found, self.first)
        for pictures in self._pictures(section, before, repeated):
            pictures = matched(pictures)
            yield pictures
            del pictures

    def _pictures(self, section: Tensor, before: Tensor | None, repeated: int) -> Iterator[Tensor]:
        chunks = chunks_of([section], self.codec, self.length)
        return _without_first(_first_clip(decoded(chunks, self.codec, before)), repeated)


def _last(before: Tensor | None, latents: Tensor) -> Tensor:
    joined = latents if before is None else torch.cat([before, latents], dim=2)
    return joined[:, :, -CONTEXT:].clone()
