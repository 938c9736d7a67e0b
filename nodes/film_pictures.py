"""The sampler's part in a memory of pictures: references, what a person pins and bans, by what pictures are compared.

Token memories have none of it, and their films refuse it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..memory_encoder.film.opening import Opening
from ..memory_encoder.film.takes import parse_pictures
from ..memory_encoder.injection.inject import refuse_context_windows
from ..memory_encoder.injection.selection import MemorySettings
from ..memory_encoder.memory.keyframe_memory import as_pictures
from ..memory_encoder.memory.memory_file import Memory, holds_pictures
from ..memory_encoder.memory.picture_choice import PictureChoice, PictureMarks
from ..memory_encoder.phi.config import DEFAULT_WINDOW
from ..memory_encoder.storyboard import Section
from .lead import resized

AT_ONCE = 16  # pictures that CLIP vision sees in one batch
SIDE = 224  # of a picture for a CLIP vision model that does not say its own
NO_EMBEDDING = (
    "clip_vision: {of} whose output is not one vector for each picture cannot tell the film's pictures apart; load a "
    "CLIP model (clip_vision_h, or a CLIP ViT-L or ViT-B), or disconnect it"
)


def check_unused(
    memory: Memory, model: Any, model_low_noise: Any, settings: MemorySettings, low_noise_memory: bool
) -> None:
    """Raises ValueError for what a film of pictures cannot use: a changed setting of tokens, context windows."""
    if not holds_pictures(memory):
        return
    refuse_context_windows(model.model_options)
    if model_low_noise is not None:
        refuse_context_windows(model_low_noise.model_options, "model_low_noise")
    usual = vars(MemorySettings(sliding_window=DEFAULT_WINDOW)) | {"low_noise_memory": True}
    for name, value in (vars(settings) | {"low_noise_memory": low_noise_memory}).items():
        if value != usual[name]:
            raise ValueError(
                f"{name} {value}: it is about memory tokens, and a memory of variant {memory.config.variant} keeps "
                f"whole pictures, which both models see; leave it at {usual[name]}"
            )


def unread_pictures(memory: Memory, models: Mapping[str, Any]) -> list[str]:
    """What a film's report says of models by their inputs that have no LoRA to read a memory of pictures by."""
    plain = [name for name, model in models.items() if model is not None and not model.patches]
    if not plain or not holds_pictures(memory):
        return []
    return [
        f"no LoRA is loaded into {' and '.join(plain)}: unless its file was made with one, it was never taught to look "
        "at the pictures in front of a section (StoryMem and Memento have a LoRA for each expert)"
    ]


def with_references(
    memory: Memory, references: Tensor | None, width: int, height: int, latents: Sequence[int]
) -> Memory:
    """The memory with reference pictures [N,H,W,3] in it, at the film's size; latents: height and width of those."""
    if references is None:
        return memory
    if not holds_pictures(memory):
        raise ValueError(
            f"references: a memory of variant {memory.config.variant} holds no pictures; use a memory encoder of "
            "variant keyframes, or compress a clip of the pictures and connect it as memory"
        )
    return memory.with_references(resized(references, width, height), (latents[0], latents[1]))


def choice_of(memory: Memory, pictures: str, opening: Opening | None, clip_vision: Any) -> PictureChoice | None:
    """How the film chooses its pictures, after what `memory` and then the opening hold; None without pictures.

    Raises TakesError for a text that is no list of pictures.
    """
    pinned, banned = parse_pictures(pictures)
    if not holds_pictures(memory):
        if pinned or banned:
            raise ValueError(f"pictures: a memory of variant {memory.config.variant} holds none; empty the text")
        return None
    before = len(memory.clips) + (0 if opening is None else len(opening.sections))
    marks = PictureMarks(pinned, banned, before)
    return PictureChoice(marks) if clip_vision is None else PictureChoice(marks, ClipLook(clip_vision))


def check_marks(choice: PictureChoice | None, memory: Memory, plan: Sequence[Section]) -> None:
    """Raises ValueError that names a pinned or banned picture which the film cannot have."""
    if choice is None or not holds_pictures(memory):
        return
    most, pinned = memory.config.max_pictures, choice.marks.pinned
    given = memory.reference_numbers()
    references = {choice.marks.name(picture) for picture in memory.pictures if picture.number in given} - pinned
    for section in plan if choice.absent else plan[:1]:
        seen = references - choice.for_section(section.index).banned
        if len(pinned) + len(seen) > most:
            beside = f" beside {len(seen)} references" if seen else ""
            where = f"section {section.index + 1} sees {len(seen)} references: " if choice.absent else ""
            raise ValueError(
                f"pictures: {where}{len(pinned)} are pinned{beside}, and this memory keeps {most}; unpin some"
            )
    for name in sorted(choice.marks.pinned | choice.marks.banned):
        section, frame = (int(part) for part in name.split(":"))
        if section > len(plan):
            raise ValueError(f"pictures: {name} is of section {section}, and the film has {len(plan)}; remove it")
        if section and frame >= plan[section - 1].frames:
            frames = plan[section - 1].frames
            raise ValueError(f"pictures: section {section} has the frames 0 to {frames - 1}; remove {name}")
        if not section and not 1 <= frame <= len(memory.pictures):
            raise ValueError(
                f"pictures: {name} is before the film, where there are {len(memory.pictures)} pictures; remove it"
            )


def seen_pictures(choice: PictureChoice | None, memory: Memory, section: Section) -> dict[str, Any]:
    """What a section's key says of the pictures that it sees."""
    if choice is None or not holds_pictures(memory):
        return {}
    marks = choice.for_section(section.index)
    return {"pictures": [marks.name(picture) for picture in memory.bank(marks)]}


class ClipLook:
    """Compares pictures by core's CLIP_VISION: the cosine of their embeddings.

    Raises ValueError for a model that has no embedding of a whole picture, where it can be known before it is asked.
    """

    def __init__(self, clip_vision: Any) -> None:
        self.clip_vision = clip_vision
        self.side = getattr(clip_vision, "image_size", SIDE)
        if "siglip" in getattr(clip_vision, "model_type", ""):
            raise ValueError(NO_EMBEDDING.format(of="a SigLIP model"))

    def __call__(self, pictures_NHW3: Tensor) -> Tensor:
        parts = [self.clip_vision.encode_image(self._whole(part)) for part in pictures_NHW3.split(AT_ONCE)]
        embeds = torch.cat([part["image_embeds"].detach().float().cpu() for part in parts])
        if embeds.ndim != 2:
            raise ValueError(NO_EMBEDDING.format(of="one"))
        return torch.nn.functional.normalize(embeds, dim=1)

    def _whole(self, pictures_NHW3: Tensor) -> Tensor:
        """The pictures in 0..1, stretched to a square as StoryMem's choice has them: core would cut off their sides."""
        square = as_pictures(pictures_NHW3).movedim(-1, 1)
        square = torch.nn.functional.interpolate(square, (self.side, self.side), mode="bicubic", antialias=True)
        return square.clamp(0, 1).movedim(1, -1)
