"""The pictures of a keyframe memory in front of a section: leading latents that an image-to-video model is told of.

They are given in the channels beside the latent's, and as noise in front of the section's, which is cut off: StoryMem's
and Memento's way; what Memento does beside it is in `injection.leading_pictures`. A section that goes on is given its
first frames, the end of the one before, which the film leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import node_helpers
import torch
from torch import Tensor

from ..memory_encoder.frames import frames_in, latents_in
from ..memory_encoder.injection.hosts import Host
from ..memory_encoder.memory.keyframe_memory import KeyframeMemory, as_pictures
from ..memory_encoder.memory.picture_choice import PictureChoice
from ..memory_encoder.memory.picture_times import picture_times
from ..memory_encoder.pictures.codec import Codec
from ..memory_encoder.storyboard import Section
from .lead import GREY, LeadPicture, SectionInputs, lead_picture

EMPTY = (
    "section {number}: the memory has no picture yet, and the model is an image-to-video one, which begins with one; "
    "connect references (faces, places), a start_image, as history a clip that a text-to-video model made, or a "
    "memory, or give the shot or someone whom it names a picture in the storyboard"
)


@dataclass(frozen=True)
class KeyframeLead:
    """How a section is given the memory's pictures. start: the film's first frame [1,H,W,3] in 0..1, if it is given.

    begins: by a section's index, the picture that its shot begins with.
    """

    vae: Any
    codec: Codec
    choice: PictureChoice
    start: Tensor | None = None
    begins: Mapping[int, Tensor] = field(default_factory=dict)

    def inputs(
        self, section: Section, memory: KeyframeMemory, latent: Tensor, positive: Any, negative: Any
    ) -> SectionInputs:
        """latent: zeros [1,C,T,h,w] of the section in VAE space. Raises ValueError when there is no picture at all."""
        given = self._given(section, memory)
        kept = memory.bank(self.choice.for_section(section.index))
        if not kept and given is None:
            raise ValueError(EMPTY.format(number=section.index + 1))
        size = [self.codec.spatial * side for side in latent.shape[3:]]
        pixels = torch.full((frames_in(latent.shape[2], self.codec.temporal), *size, 3), GREY)
        known = len(kept)
        if given is not None:
            pixels[: len(given)] = given
            known += latents_in(len(given), self.codec.temporal)
        seen = [self.vae.encode(as_pictures(picture.pixels)[None]) for picture in kept]
        latent = torch.nn.functional.pad(latent, (0, 0, 0, 0, len(kept), 0))
        mask = torch.ones(1, 1, *latent.shape[2:])
        mask[:, :, :known] = 0
        values = {"concat_latent_image": torch.cat([*seen, self.vae.encode(pixels)], dim=2), "concat_mask": mask}
        conds = (node_helpers.conditioning_set_values(cond, values) for cond in (positive, negative))
        times = picture_times(memory, kept, self.codec.temporal)
        return SectionInputs(latent, *conds, lead=len(kept), times=tuple(times))

    def _given(self, section: Section, memory: KeyframeMemory) -> Tensor | None:
        """The first frames [k,H,W,3] of the section's clip, in 0..1, or None."""
        if section.index in self.begins:
            return self.begins[section.index].float().cpu()
        if section.index == 0 and self.start is not None:
            return self.start.float().cpu()
        closing = memory.closing(section.repeated) if section.repeated else None
        return None if closing is None else as_pictures(closing)


def lead_of(
    choice: PictureChoice | None,
    host: Host,
    codec: Codec,
    vae: Any,
    start: Tensor | None,
    clip_vision: Any,
    begins: Mapping[int, Tensor],
) -> LeadPicture | KeyframeLead | None:
    """How this film's sections are given pictures: those of its memory, or the one that its model begins with."""
    if choice is not None:
        return KeyframeLead(vae, codec, choice, start, begins)
    lead = lead_picture(host, codec, vae, start, clip_vision)
    return None if lead is None else replace(lead, begins=begins)
