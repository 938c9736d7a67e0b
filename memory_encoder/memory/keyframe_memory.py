"""KeyframeMemory: whole pictures of a film, append-only, in the place of tokens (StoryMem, Memento).

It holds pictures and no latents, so that any image-to-video model can go on from it. Not from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..phi.config import EncoderConfig
from .picture_choice import KeptPicture, PictureChoice, PictureMarks, bank, chosen_frames
from .video_memory import SectionRecord, check_records, save_memory

KEYFRAMES_FORMAT = "video_memory_keyframes"
KEYFRAMES_SCHEMA_VERSION = 1
REFERENCES = "references"  # in the place of a prompt


@dataclass(frozen=True)
class KeptClip:
    """What is kept of one clip: its record, how many frames it adds to the film, the pictures chosen, and its last
    frames [k,H,W,3] uint8 to go on from."""

    record: SectionRecord
    frames: int
    pictures: tuple[KeptPicture, ...]
    closing: Tensor = field(repr=False)


@dataclass(frozen=True)
class KeyframeMemory:
    """Pictures of a film, clip by clip; every section is a clip of its own. Values are never changed in place.

    size: height and width of the film's latents, (0, 0) before there are any. encoder_id: identity of its settings.
    """

    config: EncoderConfig
    encoder_id: str = ""
    size: tuple[int, int] = (0, 0)
    clips: tuple[KeptClip, ...] = ()

    @property
    def batch(self) -> int:
        return 1

    @property
    def parts(self) -> tuple[KeyframeMemory, ...]:
        return (self,)

    @property
    def sections(self) -> tuple[SectionRecord, ...]:
        return tuple(clip.record for clip in self.clips)

    @property
    def latents(self) -> int:
        return sum(clip.record.latents for clip in self.clips)

    @property
    def frames(self) -> int:
        """Frames of the film so far."""
        return sum(clip.frames for clip in self.clips)

    @property
    def pictures(self) -> tuple[KeptPicture, ...]:
        """All that were ever chosen, oldest first."""
        return tuple(picture for clip in self.clips for picture in clip.pictures)

    @property
    def token_count(self) -> int:
        """Tokens that its pictures add to a section."""
        return min(len(self.pictures), self.config.max_pictures) * self._cells(self.size)

    def bank(self, marks: PictureMarks | None = None) -> tuple[KeptPicture, ...]:
        """The pictures that the next section sees, oldest first."""
        config, given = self.config, self.reference_numbers()
        return bank(self.pictures, config.max_pictures, config.first_kept, marks or PictureMarks(), given)

    def reference_numbers(self) -> frozenset[int]:
        """Numbers of the pictures that were given and are of no clip."""
        return frozenset(picture.number for clip in self.clips if not clip.record.latents for picture in clip.pictures)

    def frame_of(self, picture: KeptPicture) -> int | None:
        """How many frames of the film come before a picture of it; None for one that was given and is of no clip."""
        if not self.clips[picture.section].record.latents:
            return None
        return sum(clip.frames for clip in self.clips[: picture.section]) + picture.frame

    def closing(self, count: int) -> Tensor | None:
        """The film's last `count` frames [count,H,W,3] uint8, its last one repeated where there are fewer; None of
        nothing."""
        frames = next((clip.closing for clip in reversed(self.clips) if clip.record.latents), None)
        if frames is None or not len(frames):
            return None
        missing = max(0, count - len(frames))
        return torch.cat([frames[:1].expand(missing, -1, -1, -1), frames[-count:]])

    def contents(self) -> list[Any]:
        """All that it is, for a section's key."""
        return [
            [asdict(clip.record), [[picture.frame, picture.pixels] for picture in clip.pictures], clip.closing]
            for clip in self.clips
        ]

    def appended(
        self,
        pictures_THW3: Tensor,
        latents: int,
        size: tuple[int, int],
        prompt: str = "",
        seed: int | None = None,
        repeated: int = 0,
        choice: PictureChoice | None = None,
    ) -> KeyframeMemory:
        """The memory with one more clip: its pictures [T,H,W,3] in 0..1, decoded from so many latents of this size.

        repeated: frames at the clip's beginning that show the end of the one before; frames count after them.
        """
        if self.latents and size != self.size:
            raise ValueError(
                f"latents of {size[0]}x{size[1]} cannot continue a memory of {self.size[0]}x{self.size[1]}; keep one "
                "picture size for the whole film"
            )
        choice, clip = choice or PictureChoice(), as_bytes(pictures_THW3)
        marks, pixels = choice.marks, clip[repeated:]
        pinned = marks.pinned_frames(len(self.clips))
        if pinned and pinned[-1] >= len(pixels):
            raise ValueError(
                f"pictures: section {len(self.clips) - marks.before + 1} has the frames 0 to {len(pixels) - 1}, and "
                f"{pinned[-1]} is pinned; choose one of them"
            )
        banned = [picture for picture in self.pictures if marks.name(picture) in marks.banned]
        others = [picture.pixels for picture in (*self.bank(marks), *banned)]
        frames = chosen_frames(pixels, self.config.similarity, choice.look, others, pinned)
        kept = max(1, self.config.repeated_frames)
        return self._with(pixels, frames, SectionRecord(self.latents, latents, 0, prompt, seed), size, clip[-kept:])

    def with_references(self, pictures_NHW3: Tensor, size: tuple[int, int], at_once: bool = True) -> KeyframeMemory:
        """The memory with pictures [N,H,W,3] in 0..1 that a person gives; all of them stay.

        at_once: a section may see all of them. Raises ValueError when those are more than the memory keeps.
        """
        pixels = as_bytes(pictures_NHW3)
        known = len(self.reference_numbers())
        if at_once and known + len(pixels) > self.config.max_pictures:
            raise ValueError(
                f"references holds {len(pixels)} pictures{f' after {known} of the memory' if known else ''}, and this "
                f"memory keeps {self.config.max_pictures}; give fewer, or make the encoder with a larger max_pictures"
            )
        record = SectionRecord(self.latents, 0, 0, REFERENCES)
        return self._with(pixels, range(len(pixels)), record, self.size if self.latents else size, pixels[:0])

    def until(self, records: int) -> KeyframeMemory:
        """The memory as it was after so many records."""
        return replace(self, clips=self.clips[:records], size=self.size if records else (0, 0))

    def followed_by(self, second: KeyframeMemory) -> KeyframeMemory:
        """Both histories, one after the other."""
        latents, pictures, records = self.latents, len(self.pictures), len(self.clips)
        moved = (
            replace(
                clip,
                record=replace(clip.record, start_latent=clip.record.start_latent + latents),
                pictures=tuple(
                    replace(one, section=one.section + records, number=one.number + pictures) for one in clip.pictures
                ),
            )
            for clip in second.clips
        )
        return replace(self, size=second.size, clips=(*self.clips, *moved))

    def _with(
        self, pixels: Tensor, frames: Sequence[int], record: SectionRecord, size: tuple[int, int], closing: Tensor
    ) -> KeyframeMemory:
        number = len(self.pictures)
        kept = tuple(
            KeptPicture(len(self.clips), frame, number + place, pixels[frame].clone())
            for place, frame in enumerate(frames, 1)
        )
        record = replace(record, tokens=len(kept) * self._cells(size))
        clip = KeptClip(record, len(pixels) if record.latents else 0, kept, closing.clone())
        return replace(self, size=size, clips=(*self.clips, clip))

    def _cells(self, size: tuple[int, int]) -> int:
        return math.prod(-(-side // patch) for side, patch in zip(size, self.config.patch[1:], strict=True))

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and description, for a file."""
        tensors = {}
        for name, parts in (
            ("pictures", [picture.pixels[None] for picture in self.pictures]),
            ("closing", [clip.closing for clip in self.clips]),
        ):
            tensors[name] = torch.cat(parts) if parts else torch.zeros(0, 0, 0, 3, dtype=torch.uint8)
        sections = [
            {
                "record": asdict(clip.record),
                "frames": clip.frames,
                "pictures": [one.frame for one in clip.pictures],
                "closing": len(clip.closing),
            }
            for clip in self.clips
        ]
        return tensors, {
            "encoder": asdict(self.config), "encoder_id": self.encoder_id, "size": self.size, "sections": sections
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Writes a safetensors file atomically: the pictures, and metadata with schema version and checksum."""
        tensors, config = self.to_tensors()
        save_memory(path, KEYFRAMES_FORMAT, KEYFRAMES_SCHEMA_VERSION, config, tensors)

    @classmethod
    def from_file(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> KeyframeMemory:
        """What `to_tensors` gave; raises KeyError, TypeError or ValueError when something is missing or wrong."""
        height, width = (int(side) for side in config["size"])
        for name in ("pictures", "closing"):
            found = tensors[name]
            if found.ndim != 4 or found.shape[3] != 3 or found.dtype != torch.uint8 or not 0 <= height * width < 2**31:
                raise ValueError(f"{name} is {found.dtype} of shape {tuple(found.shape)}, which are no pictures")
        memory = cls(EncoderConfig.from_dict(config["encoder"], source), str(config["encoder_id"]), (height, width))
        closing = tensors["closing"].split([section["closing"] for section in config["sections"]])
        pictures = iter(tensors["pictures"].unbind())
        clips: list[KeptClip] = []
        number = 0
        for place, (section, end) in enumerate(zip(config["sections"], closing, strict=True)):
            frames = enumerate(section["pictures"], number + 1)
            ours = tuple(KeptPicture(place, int(frame), n, next(pictures).clone()) for n, frame in frames)
            clips.append(KeptClip(SectionRecord(**section["record"]), int(section["frames"]), ours, end.clone()))
            number += len(ours)
        if next(pictures, None) is not None:
            raise ValueError("it holds pictures of no section")
        check_records(clip.record for clip in clips)
        return replace(memory, clips=tuple(clips))


def as_bytes(pictures: Tensor) -> Tensor:
    """Pictures in 0..1 as bytes in CPU memory; a few at a time, since floats of a whole clip are large."""
    few = pictures[..., :3].detach().split(8)
    return torch.cat([(part.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu() for part in few])


def as_pictures(pixels: Tensor) -> Tensor:
    """Bytes as pictures in 0..1."""
    return pixels.float() / 255
