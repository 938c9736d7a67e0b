"""Which pictures of a film a keyframe memory keeps: different from one another, sharp, the first and the newest.

A clip is divided into stretches that look alike; the sharpest picture of each is a candidate, at most MOST of a clip.
Those that look like one that is kept, or like one that a person has banned, are left out. The rule is StoryMem's, with
a measure of focus in the place of its quality model. Not from the paper.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST = 3  # pictures of one clip
STEP = 0.01  # by which similarity is lowered until no more are left
SIDE = 16  # of the small pictures whose colours and edges are compared

# Pictures [N,H,W,3] uint8 -> features [N,F] of length one; the inner product of two says how alike they are.
Look = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class KeptPicture:
    """A picture of a film. section: the record of the memory that it is of, from 0. frame: in that record's clip.

    number: its place among all pictures of its memory, from 1. pixels [H,W,3] uint8.
    """

    section: int
    frame: int
    number: int
    pixels: Tensor


@dataclass(frozen=True)
class PictureMarks:
    """What a person says of single pictures, by name: `pinned` always stay, `banned` never do.

    Names are SECTION:FRAME, section from 1 and frame from 0; 0:N is the N-th picture of what came before the film,
    in the memory's first `before` records. cast: numbers of the pictures of a cast, which come after the `others` there
    in these names, so that giving someone a picture renames none of those.
    """

    pinned: frozenset[str] = frozenset()
    banned: frozenset[str] = frozenset()
    before: int = 0
    cast: tuple[int, ...] = ()
    others: int = 0

    def name(self, picture: KeptPicture) -> str:
        """How a person calls a picture; it stays the same however the film goes on."""
        if picture.section < self.before:
            in_front = sum(number < picture.number for number in self.cast)
            return f"0:{self.others + 1 + in_front if picture.number in self.cast else picture.number - in_front}"
        return f"{picture.section - self.before + 1}:{picture.frame}"

    def pinned_frames(self, section: int) -> list[int]:
        """Frames of a record of the memory that are to be kept whatever the rule says."""
        prefix = f"{section - self.before + 1}:"
        ours = [name for name in self.pinned if name.startswith(prefix)] if section >= self.before else []
        return sorted(int(name.removeprefix(prefix)) for name in ours)

    def until(self, record: int) -> list[Any] | None:
        """All of it that decides on the pictures of the memory up to this record, for a key; None when nothing does."""
        last = record - self.before + 1
        names = [
            sorted(name for name in marked if int(name.partition(":")[0]) <= last)
            for marked in (self.pinned, self.banned)
        ]
        return [self.before, *names] if any(names) else None


def bank(
    pictures: Sequence[KeptPicture],
    most: int,
    first: int,
    marks: PictureMarks,
    references: Collection[int] = (),
) -> tuple[KeptPicture, ...]:
    """The pictures that a section sees, oldest first: pinned ones, the references, the `first` ones, then the newest.

    references: numbers of the pictures that are references. Raises ValueError when more are pinned than `most`.
    """
    allowed = [picture for picture in pictures if marks.name(picture) not in marks.banned]
    pinned = [picture for picture in allowed if marks.name(picture) in marks.pinned]
    if len(pinned) > most:
        raise ValueError(f"pictures: {len(pinned)} are pinned, and this memory keeps {most}; unpin some")
    given = [picture for picture in allowed if picture.number in references]
    kept: dict[int, KeptPicture] = {}
    for picture in (*pinned, *given, *allowed[:first], *reversed(allowed)):
        if len(kept) < most:
            kept[picture.number] = picture
    return tuple(kept[number] for number in sorted(kept))


def chosen_frames(
    pictures_THW3: Tensor, threshold: float, look: Look, others: Iterable[Tensor], pinned: Sequence[int] = ()
) -> list[int]:
    """Frames of a clip [T,H,W,3] uint8 that are worth keeping beside the pictures `others` [H,W,3], in order.

    pinned: frames that are kept whatever they look like.
    """
    features = look(pictures_THW3)
    sharpness = focus(pictures_THW3)
    known = [look(picture[None])[0] for picture in others] + [features[frame] for frame in pinned]
    kept = set(pinned)
    for start, stop in stretches(features, threshold):
        best = start + int(sharpness[start:stop].argmax())
        if all(float(features[best] @ other) <= threshold for other in known):
            kept.add(best)
            known.append(features[best])
    return sorted(kept)


def stretches(features_TF: Tensor, threshold: float, most: int = MOST) -> list[tuple[int, int]]:
    """Ranges [start, stop) of frames that look like the first one of their range; `threshold` falls until `most` do."""
    while True:
        starts = [0]
        for frame in range(1, len(features_TF)):
            if float(features_TF[frame] @ features_TF[starts[-1]]) < threshold:
                starts.append(frame)
        if len(starts) <= most:
            return list(zip(starts, [*starts[1:], len(features_TF)], strict=True))
        threshold -= STEP


def check_opencv() -> None:
    """Raises ValueError where pictures cannot be compared, which a film would find out after its first section."""
    if importlib.util.find_spec("cv2") is None:
        raise ValueError(
            "a memory of pictures compares them with OpenCV, which is missing; install one, for example "
            "opencv-python-headless, and restart ComfyUI"
        )


def focus(pictures_THW3: Tensor) -> Tensor:
    """How sharp each picture of [T,H,W,3] uint8 is: the variance of its Laplacian, float64 [T]."""
    import cv2  # here, since films of tokens do without it

    greys = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures_THW3.numpy())
    return torch.tensor([cv2.Laplacian(grey, cv2.CV_64F).var() for grey in greys], dtype=torch.float64)


def colours_and_edges(pictures_NHW3: Tensor) -> Tensor:
    """A cheap `Look` without a model: colours (Lab, around grey) and edges of pictures of 16x16, weighed alike.

    It tells scenes and framings apart, not who is in them; CLIP vision does.
    """
    return torch.stack([_look_at(picture) for picture in pictures_NHW3.numpy()])


@dataclass(frozen=True)
class PictureChoice:
    """By what pictures are compared, and what a person says of them.

    absent: by a section's index, names of references that it does not see, since it does not show who is in them.
    """

    marks: PictureMarks = field(default_factory=PictureMarks)
    look: Look = colours_and_edges
    absent: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def for_section(self, index: int) -> PictureMarks:
        """What holds for one section of the film; a pinned picture is seen by all."""
        absent = self.absent.get(index, frozenset()) - self.marks.pinned
        return replace(self.marks, banned=self.marks.banned | absent)

    def of_section(self, index: int) -> PictureChoice:
        """The choice as it is for one section."""
        return replace(self, marks=self.for_section(index), absent={})


def _look_at(picture: np.ndarray) -> Tensor:
    import cv2

    small = cv2.resize(picture.astype(np.float32) / 255, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB) - np.array([50, 0, 0], dtype=np.float32)
    edges = np.hypot(*(cv2.Sobel(lab[..., 0], cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1))))
    parts = (cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() for part in (lab, edges))
    return torch.cat([_of_length(torch.from_numpy(part).double(), 0.5**0.5) for part in parts])


def _of_length(values: Tensor, length: float) -> Tensor:
    """A vector of this length; one of nothing, such as the edges of a plain picture, points to its own corner."""
    padded = torch.nn.functional.pad(values, (0, 1))
    norm = padded.norm()
    if norm < 1e-6:
        padded[-1], norm = 1, torch.ones(())
    return padded * (length / norm)
