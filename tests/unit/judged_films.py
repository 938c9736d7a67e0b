"""Drawn films with one known fault, and stand-ins for the models that would look at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from demo.tiny_family.characters import Character
from demo.tiny_family.procedural import Film, Shot, make_film, render_shot
from demo.tiny_family.rooms import WOODS, Room
from memory_encoder.evaluation.judge.faces import Face, unit
from memory_encoder.evaluation.judge.footage import Clip, Footage, Join, footage_of_pictures, shrunk
from memory_encoder.evaluation.judge.instruments import Instruments
from memory_encoder.evaluation.judge.judging import judge_film
from memory_encoder.evaluation.judge.likeness import Ask
from memory_encoder.evaluation.judge.report import SEAMS, FilmReport
from memory_encoder.storyboard import CastLine, Storyboard
from memory_encoder.storyboard import Shot as Planned

WIDTH, HEIGHT, FPS, SHOTS, ODD = 128, 96, 8, 5, 2  # ODD: index of the shot with the fault
FRAMES = 8  # of a shot
ERRS = 0.1  # share of wrong answers of who is asked


@lru_cache(maxsize=2)
def drawn_film(seed: int = 5) -> Film:
    """One character in five shots."""
    return make_film(seed, SHOTS, WIDTH, HEIGHT, FRAMES, FPS, cast_size=1)


def someone_else(who: Character) -> Character:
    """Another look under the same name, in the same clothes."""
    hair = "blue" if who.hair_name != "blue" else "blond"
    skin = (105, 70, 50) if sum(who.skin) > 450 else (255, 220, 190)
    return replace(who, hair_name=hair, skin=skin, hat="", beard=not who.beard)


def other_shirt(who: Character) -> Character:
    return replace(who, top_name="yellow" if who.top_name not in ("yellow", "orange") else "blue", pattern="plain")


def other_room(room: Room) -> Room:
    """The same place in other colours, with another thing in it."""
    wall = next(name for name in ("sky", "peach") if name != room.wall_name)
    colour = "blue" if room.object_colour_name != "blue" else "red"
    return replace(
        room, wall_name=wall, object_colour_name=colour, wood=WOODS[0] if room.wood == WOODS[3] else WOODS[3]
    )


def pictures_of(film: Film) -> list[np.ndarray]:
    """The frames of each shot, to be spoiled."""
    return [film.frames[shot.start : shot.start + shot.frames].copy() for shot in film.shots]


def with_look(shot: Shot, look: Any) -> np.ndarray:
    changed = replace(shot, characters=tuple(look(who) for who in shot.characters))
    return render_shot(changed, WIDTH, HEIGHT, FPS)


@dataclass(frozen=True)
class Fault:
    """What is wrong in the odd shot of a film that is as meant otherwise.

    measure: whose task it is to name it. make: puts it into the film's pictures. asked: in films that stay in one room,
    with someone who is asked about it.
    """

    measure: str
    make: Callable[[Film, list[np.ndarray]], None]
    asked: bool = False

    def film(self, seed: int) -> Film:
        return in_one_room(seed) if self.asked else drawn_film(seed)

    def judged(self, film: Film) -> FilmReport:
        shots = pictures_of(film)
        self.make(film, shots)
        return judged_in_sections(film, shots, self.asked)


def judged_in_sections(film: Film, shots: Sequence[np.ndarray], asked: bool = False) -> FilmReport:
    """A section begins in the middle of each shot. asked: by someone who is asked about things too."""
    return judged(film, shots, ask=DrawnThings(film, shots) if asked else None, joins=joins_of(shots))


@lru_cache(maxsize=2)
def in_one_room(seed: int) -> Film:
    """The drawn film with all of its shots in the room of the first."""
    film = drawn_film(seed)
    shots = tuple(replace(shot, room=film.shots[0].room) for shot in film.shots)
    return replace(film, shots=shots, frames=np.concatenate([render_shot(s, WIDTH, HEIGHT, FPS) for s in shots]))


def joins_of(shots: Sequence[np.ndarray]) -> list[Join]:
    """One in the middle of each shot, the second of its two sections."""
    starts = np.cumsum([0, *(len(frames) for frames in shots)])
    halves = [start + len(frames) // 2 for start, frames in zip(starts, shots, strict=False)]
    return [Join(2 * i + 2, i + 1, half / FPS) for i, half in enumerate(halves)]


def swapped_person(film: Film, shots: list[np.ndarray]) -> None:
    shots[ODD] = with_look(film.shots[ODD], someone_else)


def changed_shirt(film: Film, shots: list[np.ndarray]) -> None:
    shots[ODD] = with_look(film.shots[ODD], other_shirt)


def other_things(film: Film, shots: list[np.ndarray]) -> None:
    shots[ODD] = render_shot(replace(film.shots[ODD], room=other_room(film.shots[ODD].room)), WIDTH, HEIGHT, FPS)


def frozen(film: Film, shots: list[np.ndarray]) -> None:
    shots[ODD][:] = shots[ODD][0]


def frozen_with_grain(film: Film, shots: list[np.ndarray]) -> None:
    frozen(film, shots)
    grain = np.random.default_rng(0).normal(0, 1, shots[ODD].shape)
    shots[ODD][:] = np.clip(shots[ODD] + grain, 0, 255)


def blurred(film: Film, shots: list[np.ndarray]) -> None:
    shots[ODD][:] = [cv2.GaussianBlur(picture, (0, 0), 3) for picture in shots[ODD]]


def wrong_prompt(film: Film, shots: list[np.ndarray]) -> None:
    shots[ODD] = shots[0][: len(shots[ODD])].copy()


def sliding_colours(film: Film, shots: list[np.ndarray]) -> None:
    away = np.linspace(0, 1, len(shots[ODD]))[:, None, None, None] * np.array([50, 10, -40])
    shots[ODD][:] = np.clip(shots[ODD] + away, 0, 255)


def growing_blur(film: Film, shots: list[np.ndarray]) -> None:
    widths = np.linspace(0, 2, len(shots[ODD]))[1:]
    shots[ODD][1:] = [cv2.GaussianBlur(p, (0, 0), width) for p, width in zip(shots[ODD][1:], widths, strict=True)]


def brighter_section(film: Film, shots: list[np.ndarray]) -> None:
    half = len(shots[ODD]) // 2
    shots[ODD][half:] = np.clip(shots[ODD][half:].astype(int) + 40, 0, 255)


FAULTS = {
    "swapped person": Fault("identity", swapped_person),
    "changed shirt": Fault("clothes", changed_shirt),
    "other room and things": Fault("objects", other_things, asked=True),
    "wrong prompt": Fault("semantic", wrong_prompt),
    "blurred": Fault("clarity", blurred),
    "frozen": Fault("dynamics", frozen),
    "frozen, with grain": Fault("dynamics", frozen_with_grain),
    "sliding colours": Fault("colour_drift", sliding_colours),
    "growing blur": Fault("sharpness_drift", growing_blur),
    "brighter section": Fault("seams", brighter_section),
}


def footage(film: Film, shots: Sequence[np.ndarray], cast: bool = True, **more: Any) -> Footage:
    starts = np.cumsum([0, *(len(frames) for frames in shots)]) / FPS
    lines = tuple(CastLine(who.describe(), who.name) for who in film.cast) if cast else ()
    planned = tuple(Planned(shot.prompt, float(start)) for shot, start in zip(film.shots, starts, strict=False))
    frames = torch.from_numpy(np.concatenate(list(shots))).float() / 255
    size = (frames.shape[2], frames.shape[1])
    return footage_of_pictures(lambda: [frames], len(frames), size, FPS, Storyboard(planned, cast=lines), **more)


def a_clip(frames: np.ndarray, fps: float = 10.0) -> Clip:
    times = np.arange(len(frames)) / fps
    tiny = np.stack([shrunk(frame) for frame in frames])
    return Clip(1, "", "-", frozenset(), (), frames, times, tiny, times, 1 / fps)


class DrawnFaces:
    """Knows where the heads are, frame by frame, and tells them apart by their colours."""

    tool, same = "the film's own boxes", 0.7

    def __init__(self, film: Film, shots: Sequence[np.ndarray]) -> None:
        self.heads = {}
        for shot, frames in zip(film.shots, shots, strict=True):
            for index, picture in enumerate(frames):
                self.heads.setdefault(picture.tobytes(), [boxes["head"][index] for boxes in shot.boxes.values()])

    def find(self, picture: np.ndarray) -> list[Face]:
        faces = []
        for left, top, right, bottom in self.heads[picture.tobytes()]:
            x0, y0, x1, y1 = (max(0, round(n)) for n in (left, top, right, bottom))
            head = picture[y0:y1, x0:x1]
            width, height = right - left, bottom - top  # with hair and hat; a face is the inner half
            inner = left + width / 4, top + height / 3, width / 2, height / 2
            faces.append(Face(inner, unit(colours(head))))
        return faces


def colours(picture: np.ndarray, bins: int = 8) -> np.ndarray:
    """A soft histogram of a picture's colours; the middle counts, where what is framed is."""
    width = picture.shape[1]
    middle = picture[:, width // 5 : max(width // 5 + 1, width - width // 5)]
    counts = cv2.calcHist([np.ascontiguousarray(middle)], [0, 1, 2], None, [bins] * 3, [0, 256] * 3)
    smooth = cv2.GaussianBlur(counts.reshape(bins, -1), (0, 0), 0.8).ravel()
    return np.sqrt(smooth / max(float(smooth.sum()), 1e-9))


def embed(pictures: Tensor) -> Tensor:
    """In CLIP's place: colours alone, [N,H,W,3] in 0..1 to vectors."""
    return torch.from_numpy(np.stack([colours((p.numpy() * 255).astype(np.uint8)) for p in pictures]))


def texts_of(film: Film) -> Any:
    """In CLIP's place for texts: what a picture of that prompt looks like, known from the film as it should be."""
    meant = {shot.prompt: film.frames[shot.start + shot.frames // 2] for shot in film.shots}

    def embed_text(texts: Sequence[str]) -> Tensor:
        found = [meant[max((p for p in meant if _words(p) <= _words(text)), key=len)] for text in texts]
        return embed(torch.from_numpy(np.stack(found)).float() / 255)

    return embed_text


def _words(prompt: str) -> set[str]:
    return set(prompt.replace(",", " ").replace(".", " ").split())


class DrawnThings:
    """In the place of a model that is asked about objects: knows which shots are as meant, and errs now and then."""

    def __init__(self, film: Film, shots: Sequence[np.ndarray]) -> None:
        self.known = [
            (_tiny(picture), np.array_equal(frames, meant))
            for frames, meant in zip(shots, pictures_of(film), strict=True)
            for picture in frames
        ]
        self.rng = np.random.default_rng(len(self.known))

    def __call__(self, pictures: Tensor, question: str) -> str:
        if "clothes" in question:
            return "I cannot see them."
        meant = [self._as_meant(_tiny((picture.numpy() * 255).astype(np.uint8))) for picture in pictures]
        return "Yes." if (meant[0] == meant[1]) != (self.rng.random() < ERRS) else "No."

    def _as_meant(self, tiny: np.ndarray) -> bool:
        return min(self.known, key=lambda one: float(np.abs(one[0] - tiny).sum()))[1]


def _tiny(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (24, 18), interpolation=cv2.INTER_AREA).astype(np.float32)


def judged(
    film: Film, shots: Sequence[np.ndarray], cast: bool = True, ask: Ask | None = None, **more: Any
) -> FilmReport:
    seen = Instruments(DrawnFaces(film, shots), embed, texts_of(film), "colours", ask, "one who mostly knows")
    return judge_film(footage(film, shots, cast, **more), seen)


def falls_out(report: FilmReport) -> dict[str, list[int]]:
    """Numbers of the shots that fall out, by measure, and of those with a join that does."""
    found: dict[str, list[int]] = {}
    for seam in report.seams:
        if seam.falls_out:
            found.setdefault(SEAMS, []).append(seam.shot)
    for shot in report.shots:
        for one in shot.falls_out:
            found.setdefault(one.measure, []).append(shot.number)
    return found
