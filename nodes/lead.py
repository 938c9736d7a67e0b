"""The picture that an image-to-video checkpoint begins a section with: a start image, or the film's last frame.

The section is made one latent longer, with the picture as its first, where the last latent of the history lies;
that latent is dropped, so that no join of the film has passed through the VAE twice. Not from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import comfy.utils
import node_helpers
import torch
from torch import Tensor

from ..memory_encoder.frames import frames_in
from ..memory_encoder.injection.hosts import Host
from ..memory_encoder.memory.video_memory import VideoMemory
from ..memory_encoder.pictures.codec import CONTEXT, Codec
from ..memory_encoder.storyboard import Section

GREY = 0.5  # what Wan's image-to-video models see where no picture is given
TI2V_CHANNELS = 48  # Wan 2.2 5B makes video from text and from images alike


@dataclass(frozen=True)
class SectionInputs:
    """Inputs of core's sampling for one section. `lead` latents at the beginning are dropped from the result.

    times: where they stand in the model's rotary embedding, when not right before the section's.
    """

    latent: Tensor
    positive: Any
    negative: Any
    noise_mask: Tensor | None = None
    lead: int = 0
    times: tuple[float, ...] = ()


@dataclass(frozen=True)
class LeadPicture:
    """How one model takes a picture: in channels beside the latent's, or as a first latent that is kept."""

    vae: Any
    codec: Codec
    kind: Literal["channels", "mask"]
    fill: bool
    start: Tensor | None = None
    clip_vision: Any = None
    begins: Mapping[int, Tensor] = field(default_factory=dict)  # pictures of shots, by index of the section

    def inputs(
        self, section: Section, memory: VideoMemory, latent: Tensor, positive: Any, negative: Any
    ) -> SectionInputs:
        """latent: zeros [1,C,T,h,w] of the section in VAE space."""
        picture = self._picture(section, memory)
        lead = 0 if picture is None else 1
        latent = torch.nn.functional.pad(latent, (0, 0, 0, 0, lead, 0))
        if self.kind == "mask":
            if picture is None:
                return SectionInputs(latent, positive, negative)
            latent[:, :, :1] = self.vae.encode(picture)[:, :, :1].to(latent)
            mask = torch.ones(1, 1, *latent.shape[2:])
            mask[:, :, :1] = 0
            return SectionInputs(latent, positive, negative, mask, lead)
        values = self._channels(picture, latent)
        conds = (node_helpers.conditioning_set_values(cond, values) for cond in (positive, negative))
        return SectionInputs(latent, *conds, lead=lead)

    def _picture(self, section: Section, memory: VideoMemory) -> Tensor | None:
        """[1,H,W,3] in 0..1, or None after a cut to a shot without a picture."""
        if section.index in self.begins:
            return self.begins[section.index]
        if section.index == 0 and self.start is not None:
            return self.start
        if section.transition != "continue" or memory.recent.shape[2] == 0:
            return None
        return self.codec.decode(memory.recent[:, :, -1 - CONTEXT :])[0, -1:].float().cpu().clamp(0, 1)

    def _channels(self, picture: Tensor | None, latent: Tensor) -> dict[str, Any]:
        """The entries of CONDITIONING that core's image-to-video nodes set."""
        frames = frames_in(latent.shape[2], self.codec.temporal)
        size = [self.codec.spatial * side for side in latent.shape[3:]]
        mask = torch.ones(1, 1, *latent.shape[2:])
        if picture is None and not self.fill:
            return {}
        pixels = torch.full((frames if self.fill else 1, *size, 3), GREY)
        values: dict[str, Any] = {"concat_mask": mask}
        if picture is not None:
            pixels[:1], mask[:, :, :1] = picture, 0
            if self.clip_vision is not None:
                values["clip_vision_output"] = self.clip_vision.encode_image(picture)
        seen = self.vae.encode(pixels)
        # Core fills up what is missing for some models only.
        seen = torch.nn.functional.pad(seen, (0, 0, 0, 0, 0, latent.shape[2] - seen.shape[2]))
        return values | {"concat_latent_image": seen}


def lead_picture(host: Host, codec: Codec, vae: Any, start: Tensor | None, clip_vision: Any) -> LeadPicture | None:
    """How this model is given pictures; None for text-to-video models, which see them in their memory alone.

    A model whose layers do not say which it is (HunyuanVideo 1.5) is an image-to-video one when CLIP vision is given.
    """
    if host.image_channels and (clip_vision is not None or not host.image_optional):
        return LeadPicture(vae, codec, "channels", host.name == "wan", start, clip_vision)
    if host.latent_channels == TI2V_CHANNELS:
        return LeadPicture(vae, codec, "mask", False, start)
    return None


def resized(images: Tensor, width: int, height: int) -> Tensor:
    """Images at the film's size, [N,H,W,3], as core's image-to-video nodes resize."""
    picture = images[..., :3].movedim(-1, 1)
    return comfy.utils.common_upscale(picture, width, height, "bilinear", "center").movedim(1, -1)
