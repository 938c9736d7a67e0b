"""Pictures of a storyboard: those that shots begin with, and those of its cast, which a memory of pictures shows.

They are files that ComfyUI's image loader could load, named in the storyboard's JSON. A film refuses those that
its model or its memory cannot use, before anything is made.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import folder_paths
import node_helpers
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..memory_encoder.digests import section_key
from ..memory_encoder.files import read_plain
from ..memory_encoder.memory.keyframe_memory import KeyframeMemory, as_bytes
from ..memory_encoder.memory.memory_file import Memory, holds_pictures
from ..memory_encoder.memory.picture_choice import PictureChoice
from ..memory_encoder.storyboard import CastLine, Section, Storyboard, StoryboardError
from ..memory_encoder.storyboard.cast import is_in
from .lead import resized
from .runtime import folders

NO_FIRST_FRAME = (
    "{shots}: its picture cannot be used, since this model makes video from text alone; load an image-to-video model, "
    "or remove the picture in the storyboard"
)
NO_MEMORY_OF_PICTURES = (
    "cast: the picture of {who} cannot be used, since a memory of variant {variant} holds no pictures; use a memory "
    "encoder of variant keyframes, or remove the picture in the storyboard"
)


def path_of(name: str) -> Path:
    """The file that an image of a storyboard is in. Raises ValueError for a name that leaves ComfyUI's folders."""
    inner, base = folder_paths.annotated_filepath(name)
    root = Path(base or folder_paths.get_input_directory()).resolve()
    # A storyboard may come from anywhere: whatever else it names is not looked at, and no other machine is asked.
    if not folders.stays_inside(inner.strip()) or root not in (path := (root / inner.strip()).resolve()).parents:
        raise ValueError(f"picture {name!r} is not in ComfyUI's input folder; choose an image there")
    return path


def is_there(name: str) -> bool:
    """Whether the storyboard's image exists."""
    try:
        return path_of(name).is_file()
    except (ValueError, OSError):
        return False


def named_pictures(storyboard: Storyboard) -> dict[str, str]:
    """Each picture of a storyboard, and in words whose it is."""
    found: dict[str, str] = {}
    for number, shot in enumerate(storyboard.shots, 1):
        found.setdefault(shot.picture, f"shot {number}")
    for line in storyboard.cast:
        found.setdefault(line.picture, f"cast, {line.name or 'the whole film'}")
    found.pop("", None)
    return found


def load_pictures(storyboard: Storyboard) -> dict[str, Tensor]:
    """All pictures of a storyboard by name, [1,H,W,3] in 0..1. Raises StoryboardError that names the one at fault."""
    pictures = {}
    for name, where in named_pictures(storyboard).items():
        try:
            image = node_helpers.pillow(Image.open, io.BytesIO(read_plain(path_of(name))))
            image = node_helpers.pillow(ImageOps.exif_transpose, image).convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            there = "cannot be read as an image" if is_there(name) else "is not in ComfyUI's input folder"
            raise StoryboardError(f"{where}: picture {name!r} {there}; choose another, or remove it") from error
        pictures[name] = torch.from_numpy(np.array(image).astype(np.float32) / 255)[None]
    return pictures


def stamps_of(storyboard: Storyboard) -> list[Any]:
    """What changes when a picture's file does."""
    stats = {name: path_of(name).stat() for name in named_pictures(storyboard) if is_there(name)}
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())]


@dataclass(frozen=True)
class ShotPictures:
    """A storyboard's pictures in one film, at its size. start: the film's first frame. cast: of each line that has a
    picture, its number in the memory. added: those numbers that the cast has brought into it. begins: by a section's
    index, the picture that it begins with."""

    storyboard: Storyboard
    loaded: Mapping[str, Tensor]
    start: Tensor | None
    cast: Mapping[CastLine, int] = field(default_factory=dict)
    added: tuple[int, ...] = ()
    begins: Mapping[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        storyboard: Storyboard,
        loaded: Mapping[str, Tensor],
        start: Tensor | None,
        size: tuple[int, int],
        opened: bool,
    ) -> ShotPictures:
        """size: width and height. start: the sampler's start image. opened: something else comes before the film.

        Raises ValueError for two first frames.
        """
        pictures = {name: resized(picture, *size) for name, picture in loaded.items()}
        first = storyboard.shots[0].picture
        if first and start is not None:
            raise ValueError(
                "start_image and the picture of shot 1 are two first frames; disconnect start_image, or remove the "
                "picture in the storyboard"
            )
        return cls(storyboard, pictures, pictures[first] if first and not opened else start)

    def with_cast(self, memory: Memory, latents: Sequence[int]) -> tuple[Memory, ShotPictures]:
        """The memory with the cast's pictures in it, those that it has already but once; latents: height and width.

        Raises ValueError for a memory that holds no pictures.
        """
        cast: dict[CastLine, int] = {}
        known = len(memory.pictures) if holds_pictures(memory) else 0
        for line in self.storyboard.cast:
            if not line.picture:
                continue
            if not holds_pictures(memory):
                who = line.name or "the whole film"
                raise ValueError(NO_MEMORY_OF_PICTURES.format(who=who, variant=memory.config.variant))
            number = _number_of(memory, self.loaded[line.picture])
            if number is None:
                memory = memory.with_references(self.loaded[line.picture], (latents[0], latents[1]), at_once=False)
                number = len(memory.pictures)
            cast[line] = number
        added = tuple(sorted({number for number in cast.values() if number > known}))
        return memory, replace(self, cast=cast, added=added)

    def planned(self, plan: Sequence[Section]) -> ShotPictures:
        """The same for the sections of a film."""
        begins: dict[int, Tensor] = {}
        seen: set[int] = {0} if self.start is not None else set()
        for section in plan:
            name = self.storyboard.shots[section.shot_index].picture
            if name and section.shot_index not in seen:
                begins[section.index] = self.loaded[name]
            seen.add(section.shot_index)
        return replace(self, begins=begins)

    def check_taken(self, plan: Sequence[Section], taken: bool) -> None:
        """Raises ValueError that names the shots with a picture where the model cannot begin with one."""
        if self.begins and not taken:
            raise ValueError(NO_FIRST_FRAME.format(shots=_shots(plan[index].shot_index for index in self.begins)))

    def chosen(self, choice: PictureChoice | None, plan: Sequence[Section], memory: Memory) -> PictureChoice | None:
        """The choice, with what each section does not see: pictures of a cast that its prompt does not name.

        memory: with all that comes before the film.
        """
        if choice is None or not self.cast or not holds_pictures(memory):
            return choice
        before = [one for one in memory.pictures if one.section < choice.marks.before]
        marks = replace(choice.marks, cast=self.added, others=len(before) - len(self.added))
        names = {one.number: marks.name(one) for one in before}
        absent = {
            section.index: frozenset(names[number] for number in {*self.cast.values()} - self._seen_by(section))
            for section in plan
        }
        return replace(choice, marks=marks, absent={index: found for index, found in absent.items() if found})

    def facts(self, section: Section) -> dict[str, Any]:
        """What a section's key says of them: nothing where it has none."""
        begins = self.begins.get(section.index)
        seen = [self.loaded[line.picture] for line in self.cast if self._shows(section, line)]
        facts = {} if begins is None else {"picture": section_key("", {"picture": begins})}
        return facts | ({"cast": [section_key("", {"picture": picture}) for picture in seen]} if seen else {})

    def _seen_by(self, section: Section) -> frozenset[int]:
        return frozenset(number for line, number in self.cast.items() if self._shows(section, line))

    def _shows(self, section: Section, line: CastLine) -> bool:
        return is_in(line, section.prompt, self.storyboard.cast)


def _number_of(memory: KeyframeMemory, picture: Tensor) -> int | None:
    """The number of a reference of the memory that is this picture."""
    pixels, given = as_bytes(picture)[0], memory.reference_numbers()
    same = (one.number for one in memory.pictures if one.number in given and torch.equal(one.pixels, pixels))
    return next(same, None)


def _shots(indices: Iterable[int]) -> str:
    numbers = [str(index + 1) for index in indices]
    return f"shot {numbers[0]}" if len(numbers) == 1 else f"shots {', '.join(numbers[:10])}"
