"""Films in which a character returns, and what the truth could be mistaken for.

A character is shown once, then other shots follow, then the character comes back to the same room, by name alone. Eight
renderings of the shot of return differ in one part alone: the head, the clothes, or the room's object and wall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from demo.tiny_family.characters import CLOTHES, EYES, HAIR, PATTERNS, SKINS, STYLES_LONG, STYLES_SHORT
from demo.tiny_family.prepare import FPS, HEIGHT, SHORT_SHOT, SOLO_SEED, WIDTH
from demo.tiny_family.procedural import Film, Shot, make_film, render_shot, returning
from demo.tiny_family.rooms import WALLS

from .settings import SECONDS

PARTS = ("identity", "clothes", "object")
CHOICES = 8
SMALL = (WIDTH // 4, HEIGHT // 4)
OTHER_FILM = 1000  # seeds between a film and what is shown between its two shots


@dataclass(frozen=True)
class ReturnFilm:
    """frames: uint8 of the longest history. candidates: of each part uint8 [8,T,h,w,3], small, the true one first."""

    name: str
    frames: np.ndarray
    shot: Shot
    true: np.ndarray
    candidates: dict[str, np.ndarray]


def make_return(seed: int) -> ReturnFilm:
    """A film whose seed is `seed`; with SOLO_SEED added it has one character."""
    film = _solo(seed)
    between = _between(seed, film)
    shot = returning(film.shots[-1], film.shots[0].room)
    frames = np.concatenate([film.frames[: film.shots[0].frames], between])
    rng = np.random.default_rng((11, seed))
    candidates = {part: _candidates(shot, part, rng) for part in PARTS}
    return ReturnFilm(f"film {seed}", frames, shot, _render(shot), candidates)


def recalled(made: np.ndarray, candidates: np.ndarray) -> bool:
    """Whether the true rendering is the nearest of all to the made frames [T,H,W,3] in 0..1."""
    small = _small((made.clip(0, 1) * 255).round().astype(np.uint8)).astype(np.float32)
    distances = np.square(candidates.astype(np.float32) - small).mean(axis=(1, 2, 3, 4))
    return int(distances.argmin()) == 0


def _solo(seed: int) -> Film:
    return make_film(seed + SOLO_SEED, 2, WIDTH, HEIGHT, SHORT_SHOT, FPS, 1)


def _between(seed: int, film: Film) -> np.ndarray:
    """Shots of somebody else, without the frame more that opens a film."""
    for other in range(OTHER_FILM, OTHER_FILM + 20):
        filler = make_film(seed + SOLO_SEED + other, max(SECONDS) - 1, WIDTH, HEIGHT, SHORT_SHOT, FPS, 1)
        if filler.cast[0].name != film.cast[0].name:
            return filler.frames[1:]
    raise RuntimeError(f"no film near seed {seed} has another character; choose another seed")


def _candidates(shot: Shot, part: str, rng: np.random.Generator) -> np.ndarray:
    """The true rendering and others, all of them different."""
    found = {(true := _small(_render(shot))).tobytes(): true}
    while len(found) < CHOICES:
        other = _small(_render(_changed(shot, part, rng)))
        found.setdefault(other.tobytes(), other)
    return np.stack(list(found.values()))


def _changed(shot: Shot, part: str, rng: np.random.Generator) -> Shot:
    """A copy in which one part has another look, every colour of it a different one."""
    who, room = shot.characters[0], shot.room

    def other(values: list[str], now: str) -> str:
        return str(rng.choice([value for value in values if value != now]))

    if part == "object":
        colours, walls = [name for name in CLOTHES if name != "white"], list(WALLS)
        changed = replace(
            room,
            object_colour_name=other(colours, room.object_colour_name),
            wall_name=other(walls, room.wall_name),
        )
        return replace(shot, room=changed)
    if part == "clothes":
        names = list(CLOTHES)
        look = replace(
            who,
            top_name=other(names, who.top_name),
            bottom_name=other(names, who.bottom_name),
            pattern=str(rng.choice(PATTERNS)),
        )
        return replace(shot, characters=(look,))
    skins = [skin for skin in SKINS if skin != who.skin]
    styles = STYLES_LONG if who.kind in ("girl", "woman") else STYLES_SHORT
    look = replace(
        who,
        skin=skins[rng.integers(len(skins))],
        eyes=EYES[rng.integers(len(EYES))],
        hair_name=other(list(HAIR), who.hair_name),
        hair_style=str(rng.choice(styles)),
    )
    return replace(shot, characters=(look,))


def _render(shot: Shot) -> np.ndarray:
    return render_shot(shot, WIDTH, HEIGHT, FPS)


def _small(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(frame, SMALL, interpolation=cv2.INTER_AREA) for frame in frames])
