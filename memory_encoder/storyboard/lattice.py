"""What a section may be: how frames lie in latents, and whether sections are pieces of one clip or clips themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..frames import latents_in
from ..phi.config import Clips, EncoderConfig
from .model import StoryboardError


class Form(NamedTuple):
    """How a section begins, before the steps of `temporal_stride` frames, one latent each, that it is made of.

    single: 1 when its first latent holds a single frame that is shown. repeated: frames of a clip of its own that show
    the end of the section before once more, None for a piece of the film's one clip.
    """

    single: int
    repeated: int | None

    def latents(self, steps: int, temporal_stride: int) -> int:
        """Latents of a section of so many steps."""
        given = latents_in(self.repeated, temporal_stride) if self.repeated else 0
        return steps + self.single + given


@dataclass(frozen=True)
class Lattice:
    """What the sections of a film are; for the meaning of its fields see EncoderConfig.

    temporal_stride: frames in a latent of the VAE. Raises StoryboardError for a stride that is none.
    """

    temporal_stride: int = 4
    clips: Clips = "film"
    section_latents: int = 0
    repeated_frames: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.temporal_stride, int) or self.temporal_stride < 1:
            raise StoryboardError(
                f"temporal_stride is {self.temporal_stride!r}; give the VAE's frames per latent, 4 for Wan"
            )

    @classmethod
    def of(cls, configs: Sequence[EncoderConfig], temporal_stride: int) -> Lattice:
        """The lattice of a film whose memory these encoders make together; raises StoryboardError where they differ."""
        asked = {cls(temporal_stride, one.clips, one.section_latents, one.repeated_frames) for one in configs}
        if len(asked) > 1:
            raise StoryboardError(
                "memory_encoder combines encoders for sections of different forms (clips, section_latents, "
                "repeated_frames); combine encoders of one kind"
            )
        return asked.pop() if asked else cls(temporal_stride)

    def form(self, goes_on: bool, frames_before: int) -> Form:
        """How a section begins that goes on from the one before, or not, after so many frames of the film."""
        if self.clips == "film":
            return Form(0 if frames_before else 1, None)
        repeated = min(self.repeated_frames, frames_before) if goes_on else 0
        return Form(0 if repeated else 1, repeated)

    def locked_steps(self, form: Form) -> int:
        """Steps of a section of exactly `section_latents` latents; 0 where the length is free."""
        return self.section_latents and self.section_latents - form.latents(0, self.temporal_stride)
