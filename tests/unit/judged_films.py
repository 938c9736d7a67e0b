"""Drawn films with one known fault, and stand-ins for the models that would look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from demo.tiny_family.characters import Character
from demo.tiny_family.procedural import Film, Shot, make_film, render_shot
from memory_encoder.evaluation.judge.faces import Face, unit
from memory_encoder.evaluation.judge.footage import Footage, footage_of_pictures
from memory_encoder.evaluation.judge.instruments import Instruments
from memory_encoder.evaluation.judge.judging import judge_film
from memory_encoder.evaluation.judge.report import FilmReport
from memory_encoder.storyboard import CastLine, Storyboard
from memory_encoder.storyboard import Shot as Planned

WIDTH, HEIGHT, FPS, SHOTS, ODD = 128, 96, 8, 5, 2  # ODD: index of the shot with the fault
FRAMES = 8  # of a shot


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


def pictures_of(film: Film) -> list[np.ndarray]:
    """The frames of each shot, to be spoiled."""
    return [film.frames[shot.start : shot.start + shot.frames].copy() for shot in film.shots]


def with_look(shot: Shot, look: Any) -> np.ndarray:
    changed = replace(shot, characters=tuple(look(who) for who in shot.characters))
    return render_shot(changed, WIDTH, HEIGHT, FPS)


def footage(film: Film, shots: Sequence[np.ndarray], cast: bool = True, **more: Any) -> Footage:
    starts = np.cumsum([0, *(len(frames) for frames in shots)]) / FPS
    lines = tuple(CastLine(who.describe(), who.name) for who in film.cast) if cast else ()
    planned = tuple(Planned(shot.prompt, float(start)) for shot, start in zip(film.shots, starts, strict=False))
    frames = torch.from_numpy(np.concatenate(list(shots))).float() / 255
    size = (frames.shape[2], frames.shape[1])
    return footage_of_pictures(lambda: [frames], len(frames), size, FPS, Storyboard(planned, cast=lines), **more)


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


def judged(film: Film, shots: Sequence[np.ndarray], cast: bool = True, **more: Any) -> FilmReport:
    seen = Instruments(DrawnFaces(film, shots), embed, texts_of(film), clip_name="colours")
    return judge_film(footage(film, shots, cast, **more), seen)


def falls_out(report: FilmReport) -> dict[str, list[int]]:
    """Numbers of the shots that fall out, by measure."""
    found: dict[str, list[int]] = {}
    for shot in report.shots:
        for one in shot.falls_out:
            found.setdefault(one.measure, []).append(shot.number)
    return found
