"""What CLIP sees, or what a model answers that can be asked: clothes, objects, the prompt, and whether it pleases."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ...damage import damage_named, read_state
from .faces import REACHES, Person, clothes_box, clothes_of, unit
from .footage import NO_PROMPT, Clip
from .report import Measure

Embed = Callable[[Tensor], Tensor]  # pictures [N,H,W,3] in 0..1 to vectors [N,D]
EmbedText = Callable[[Sequence[str]], Tensor]  # texts to vectors [N,D] of the same space
Ask = Callable[[Tensor, str], str]  # pictures [N,H,W,3] in 0..1 and a question to an answer
NO_QUESTIONS = "CLIP similarity, no questions asked"
SIDE = 224  # pixels of a crop as a model sees it
CLOTHES_QUESTION = (
    "The two pictures are parts of two shots of one film and should show the same person. Are the clothes the same, in "
    "kind, colour and pattern? Answer yes or no."
)
OBJECTS_QUESTION = (
    "The two pictures are from two shots of one film. The first shot is meant to show: {first}. The second: {second}. "
    "Look at objects and places that should be in both: do they look the same? Answer yes or no."
)
COLOUR_QUESTION = "Is the first picture of the same colour as the second one? Answer yes or no."
# Flat pictures, by what CLIP calls them, that tell whether texts and pictures are vectors of one space.
COLOURS = {
    "red": (220, 20, 20), "green": (20, 160, 30), "blue": (20, 40, 220), "yellow": (250, 230, 20),
    "black": (8, 8, 8), "white": (250, 250, 250),
}  # fmt: skip
NAMED = 4  # of them that fit their own name best; of vectors that have nothing to do with each other one does
_ANSWER = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def clothes_measure(asked: str = "") -> Measure:
    says = "how alike the clothes of the same person are in a shot and in the others, below the faces"
    if asked:
        return Measure("clothes", "share of yes", True, asked, says, threshold=0.5)
    return Measure("clothes", "cosine", True, NO_QUESTIONS, says, threshold=0.1)


def objects_measure(asked: str = "") -> Measure:
    says = "how alike what is no person is in a shot and in the others"
    if asked:
        return Measure("objects", "share of yes", True, asked, says, threshold=0.5)
    return Measure("objects", "cosine", True, NO_QUESTIONS, f"{says}; places differ for good reason", threshold=2.0)


SEMANTIC = Measure(
    "semantic", "cosine", True, "CLIP", "how well the pictures of a shot fit its own prompt", threshold=0.04
)
AESTHETIC = Measure(
    "aesthetic", "LAION's scale, 1 to 10", True, "LAION's head on CLIP", "how pleasing people would find the pictures",
    threshold=0.7,
)  # fmt: skip


@torch.no_grad()
def vectors_of(embed: Embed, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Unit vectors [N,D] of pictures of any sizes, [H,W,3] uint8."""
    resized = [cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for picture in pictures]
    found = embed(torch.from_numpy(np.stack(resized)).float() / 255).detach().float().cpu()
    return torch.nn.functional.normalize(found, dim=1).numpy()


def clothes_pictures(clip: Clip, person: Person) -> dict[float, list[np.ndarray]]:
    """What someone wears in the frames of a shot, by how far down it is shown, farthest first; empty where only the
    face is seen."""
    found = {}
    for reach in REACHES:
        crops = [clothes_of(clip.looked_at[number], box, reach) for number, box in person.places]
        found[reach] = [picture for picture in crops if picture is not None]
    return {reach: pictures for reach, pictures in found.items() if pictures}


def clothes_alike(first: Mapping[float, np.ndarray], second: Mapping[float, np.ndarray]) -> float | None:
    """Of two shots, in the longest part of the clothes that both show, so that a close-up is no other shirt."""
    reach = max(first.keys() & second.keys(), default=None)
    return None if reach is None else cosine(first[reach], second[reach])


def without_people(clip: Clip, people: Sequence[Person]) -> list[np.ndarray]:
    """The frames with faces and what is below them as a flat patch of the picture's mean colour."""
    pictures = [picture.copy() for picture in clip.looked_at]
    for person in people:
        for number, (x, y, width, height) in person.places:
            picture = pictures[number]
            left, _, right, bottom = clothes_box(picture.shape[:2], (x, y, width, height))
            picture[max(0, round(y - height / 2)) : bottom, left:right] = picture.mean(axis=(0, 1)).astype(np.uint8)
    return pictures


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Of the mean vectors of two sets [N,D] and [M,D]."""
    return float(unit(first.mean(axis=0)) @ unit(second.mean(axis=0)))


def fits_prompt(embed_text: EmbedText, prompt: str, pictures: np.ndarray) -> float | None:
    """Of a shot's pictures, as vectors [N,D]; None without a prompt."""
    if prompt in ("", NO_PROMPT):
        return None
    text = unit(embed_text([prompt])[0].detach().float().cpu().numpy())
    return float((pictures @ text).mean())


def says_yes(ask: Ask, first: np.ndarray, second: np.ndarray, question: str) -> float | None:
    """1 for yes, 0 for no, None for an answer that is neither: two pictures [H,W,3] uint8 and a question about both."""
    pair = [cv2.resize(picture, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA) for picture in (first, second)]
    answers = _ANSWER.findall(ask(torch.from_numpy(np.stack(pair)).float() / 255, question))
    # The last word of a model that thinks aloud is its answer.
    return None if not answers else float(answers[-1].lower() == "yes")


def is_blind(ask: Ask) -> bool:
    """Whether a model that answers does not look: one without eyes takes pictures as well, and answers all the same."""
    red, blue = (np.full((SIDE, SIDE, 3), COLOURS[name], np.uint8) for name in ("red", "blue"))
    return [says_yes(ask, red, other, COLOUR_QUESTION) for other in (red, blue)] != [1.0, 0.0]


def colour_vectors(embed: Embed) -> np.ndarray:
    """Unit vectors [N,D] of flat pictures of COLOURS."""
    return vectors_of(embed, [np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in COLOURS.values()])


def one_space(embed_text: EmbedText, colours: np.ndarray) -> bool:
    """Whether texts lie in the space of pictures, by `colour_vectors`: files do not say it, and the text encoder of
    another CLIP, or one without its projection, gives numbers as well."""
    texts = embed_text([f"a plain {name} picture" for name in COLOURS]).detach().float().cpu()
    if texts.shape != colours.shape or not torch.isfinite(texts).all():
        return False
    fits = colours @ torch.nn.functional.normalize(texts, dim=1).numpy().T
    # Without what all pictures and all texts have in common.
    fits = fits - fits.mean(axis=0, keepdims=True) - fits.mean(axis=1, keepdims=True)
    return int((fits.argmax(axis=1) == np.arange(len(fits))).sum()) >= NAMED


@dataclass(frozen=True)
class Aesthetic:
    """LAION's head: linear layers one after the other without anything between, on CLIP's unit vectors."""

    weight: np.ndarray  # [D]
    bias: float

    @classmethod
    def load(cls, path: Path) -> Aesthetic:
        """Raises DamagedFileError for a file that is something else."""
        with damage_named(path, "aesthetic head", "fetch it again"):
            state = read_state(path)
            weights = [value.double() for name, value in state.items() if name.endswith("weight")]
            biases = [value.double() for name, value in state.items() if name.endswith("bias")]
            total, shift = weights[0], biases[0]
            for weight, bias in zip(weights[1:], biases[1:], strict=True):
                total, shift = weight @ total, weight @ shift + bias
            if total.shape[0] != 1:
                raise ValueError(f"it gives {total.shape[0]} numbers instead of one")
            return cls(total[0].numpy(), float(shift))

    def score(self, pictures: np.ndarray) -> float:
        """Of vectors [N,D]."""
        return float((pictures @ self.weight).mean() + self.bias)
