"""Procedural multi-shot films: characters who come back, rooms, cuts, camera moves, and prompts that name them.

A film is a pure function of its arguments. A name has a new look in every film, and only the first prompt with that
name describes it ("Mira, a girl with ..."); later ones say "Mira". A model must therefore remember the look.

    film = make_film(seed=3, shots=5)
    film.frames            uint8 [T, H, W, 3]
    film.shots[0].prompt   "Mira, a girl with long red hair and a green striped shirt, waves in the kitchen"
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from .canvas import Camera, Canvas, shade
from .characters import Character, an, random_cast
from .figure import Placed, Pose, draw_character
from .rooms import Room, random_rooms
from .scenery import draw_room

ACTIONS: dict[str, str] = {
    "walk_right": "walks to the right",
    "walk_left": "walks to the left",
    "wave": "waves",
    "jump": "jumps",
    "sit": "sits on a stool",
    "talk": "talks",
}
FRAMINGS = ("wide", "close-up")
CAMERAS = ("still", "zoom in", "pan")
GROUND = 0.93

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shot:
    """One storyboard entry with its ground truth. Frames [start, start + frames) of the film."""

    start: int
    frames: int
    prompt: str
    room: Room
    characters: tuple[Character, ...]
    actions: tuple[str, ...]
    framing: str
    camera: str
    # boxes[name][part] is float [frames, 4] in pixels (x0, y0, x1, y1), not clipped; parts: body, head, torso
    boxes: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Film:
    """Frames uint8 [T, H, W, 3] at ``fps`` and the shots in order."""

    frames: np.ndarray
    shots: tuple[Shot, ...]
    fps: float
    cast: tuple[Character, ...]

    def storyboard(self) -> list[dict[str, float | str]]:
        """Start times in seconds and prompts."""
        return [{"time": s.start / self.fps, "prompt": s.prompt} for s in self.shots]


def make_film(
    seed: int,
    shots: int = 5,
    width: int = 128,
    height: int = 96,
    frames_per_shot: int = 32,
    fps: float = 16.0,
    cast_size: int = 2,
) -> Film:
    """Render a film. The first shot has one frame more, so that a Wan VAE sees 1 + 4n frames when
    ``frames_per_shot`` is a multiple of 4. The character of the first shot always returns in the last one.

    Raises ValueError for sizes below 32 pixels or a count below 1.
    """
    if min(width, height) < 32:
        raise ValueError(f"width and height must be at least 32, got {width}x{height}")
    if min(shots, frames_per_shot, cast_size) < 1:
        raise ValueError("shots, frames_per_shot and cast_size must be at least 1")
    rng = np.random.default_rng(seed)
    cast = random_cast(rng, cast_size)
    rooms = random_rooms(rng, min(7, max(2, (shots + 1) // 2 + 1)))
    planned, frames, start = [], [], 0
    introduced: set[str] = set()
    for index in range(shots):
        count = frames_per_shot + (index == 0)
        shot = _plan_shot(rng, index, shots, start, count, cast, rooms, introduced)
        rendered = [_render(shot, i, width, height, fps) for i in range(count)]
        frames += [picture for picture, _ in rendered]
        for name in rendered[0][1]:
            shot.boxes[name] = {p: np.array([b[name][p] for _, b in rendered]) for p in ("body", "head", "torso")}
        planned.append(shot)
        start += count
    return Film(np.stack(frames), tuple(planned), fps, tuple(cast))


def _plan_shot(
    rng: np.random.Generator,
    index: int,
    total: int,
    start: int,
    count: int,
    cast: list[Character],
    rooms: list[Room],
    introduced: set[str],
) -> Shot:
    together = len(cast) > 1 and 0 < index < total - 1 and rng.random() < 0.3
    lead = 0 if index in (0, total - 1) else int(rng.integers(len(cast)))
    if index == 1 and len(cast) > 1:
        lead = 1  # the other character comes early
    people = [cast[lead]] + ([cast[(lead + 1) % len(cast)]] if together else [])
    room = rooms[int(rng.integers(len(rooms)))] if index else rooms[0]
    if index == total - 1 and total > 1:
        room = rooms[1]  # the character returns somewhere else
    framing = "wide" if together or index == 0 else str(rng.choice(FRAMINGS, p=[0.6, 0.4]))
    allowed = ["wave", "talk", "jump"] if framing == "close-up" or together else list(ACTIONS)
    if framing == "close-up":
        allowed.remove("jump")
    actions = tuple(str(rng.choice(allowed)) for _ in people)
    walking = any(a.startswith("walk") for a in actions)
    camera = "still" if walking else str(rng.choice(CAMERAS))
    prompt = _prompt(people, actions, room, framing, camera, introduced)
    introduced.update(p.name for p in people)
    return Shot(start, count, prompt, room, tuple(people), actions, framing, camera)


def _prompt(
    people: list[Character], actions: tuple[str, ...], room: Room, framing: str, camera: str, introduced: set[str]
) -> str:
    phrases = []
    for who, action in zip(people, actions, strict=True):
        name = who.name if who.name in introduced else who.describe() + ","
        phrases.append(f"{name} {ACTIONS[action]}")
    place = room.place()
    if room.kind not in introduced:
        place += f" with {an(room.object_colour_name)} {room.object_name}"
        introduced.add(room.kind)
    text = f"{' and '.join(phrases)} {place}"
    text += ", close-up" if framing == "close-up" else ""
    return text + {"still": "", "zoom in": ", the camera zooms in", "pan": ", the camera pans"}[camera]


def render_shot(shot: Shot, width: int, height: int, fps: float) -> np.ndarray:
    """Frames uint8 [frames, H, W, 3] of one shot alone, for example of a copy with another look in it."""
    return np.stack([_render(shot, index, width, height, fps)[0] for index in range(shot.frames)])


def returning(shot: Shot, room: Room) -> Shot:
    """The shot in a room that was seen before, wide and still; its prompt gives the names of people and place alone."""
    known = {*(who.name for who in shot.characters), room.kind}
    prompt = _prompt(list(shot.characters), shot.actions, room, "wide", "still", known)
    return replace(shot, room=room, prompt=prompt, framing="wide", camera="still", boxes={})


def _camera(shot: Shot, progress: float, stage: float) -> Camera:
    x, y, zoom = 0.0, 0.5, 1.0
    if shot.framing == "close-up":
        y, zoom = 0.42, 1.65
    if shot.camera == "zoom in":
        zoom *= 1.0 + 0.3 * progress
        y -= 0.04 * progress
    elif shot.camera == "pan":
        x = (0.24 * stage) * (progress - 0.5)
    return Camera(x, y, zoom)


def _pose(action: str, t: float, phase: float) -> Pose:
    """Pose after ``t`` seconds. ``phase`` makes two people move apart from each other."""
    blink = (t + phase + 0.9) % 2.3 < 0.12
    breathe = 0.04 * math.sin(3 * t + phase)
    if action.startswith("walk"):
        swing = 0.5 * math.sin(2 * math.pi * 1.4 * t + phase)
        look = 1.0 if action == "walk_right" else -1.0
        arms = (0.3 + 0.4 * swing, 0.3 - 0.4 * swing)
        return Pose(arms, (swing, -swing), 0.02 * abs(math.cos(2 * math.pi * 1.4 * t + phase)), look=look, blink=blink)
    if action == "wave":
        hand = 1.95 + 0.4 * math.sin(2 * math.pi * 1.5 * t + phase)
        return Pose((0.25 + breathe, hand), blink=blink, mouth=0.4)
    if action == "jump":
        height = max(0.0, math.sin(2 * math.pi * 0.9 * t + phase))
        arm, leg = 0.4 + 1.8 * height, 0.25 * height
        return Pose((arm, arm), (-leg, leg), 0.15 * height, mouth=height)
    if action == "sit":
        return Pose((0.35 + breathe, 0.35 - breathe), sitting=True, blink=blink, look=0.5 * math.sin(0.9 * t + phase))
    mouth = 0.5 + 0.5 * math.sin(2 * math.pi * 2.5 * t + phase)
    arms = (0.4 + 2 * breathe, 0.7 + 0.3 * math.sin(4 * t + phase))
    return Pose(arms, mouth=mouth, blink=blink, look=0.4 * math.sin(t))


def _render(
    shot: Shot, index: int, width: int, height: int, fps: float
) -> tuple[np.ndarray, dict[str, dict[str, Box]]]:
    t = index / fps
    progress = index / max(1, shot.frames - 1)
    stage = min(width / height, 1.78)
    canvas = Canvas(width, height, _camera(shot, progress, stage))
    draw_room(canvas, shot.room, t)
    boxes: dict[str, dict[str, Box]] = {}
    for i, (who, action) in enumerate(zip(shot.characters, shot.actions, strict=True)):
        x = 0.0 if len(shot.characters) == 1 else (i - 0.5) * 0.46 * stage
        if action.startswith("walk"):
            x = 0.28 * stage * (2 * progress - 1) * (1 if action == "walk_right" else -1)
        size = 0.74 if who.kind in ("girl", "boy") else 0.82
        _draw_shadow(canvas, x, size, shot.room)
        if action == "sit":
            _draw_stool(canvas, x, size, shot.room)
        placed = draw_character(canvas, who, x, GROUND, size, _pose(action, t, 1.7 * i))
        boxes[who.name] = _to_pixels(canvas, placed)
    return canvas.finish(), boxes


def _draw_shadow(canvas: Canvas, x: float, size: float, room: Room) -> None:
    ground = {"garden": (100, 165, 75), "beach": (215, 188, 135), "street": (170, 166, 160)}
    colour = ground.get(room.kind, shade(room.wood, 0.9))
    canvas.ellipse(x, GROUND + 0.01, 0.24 * size, 0.035, colour)


def _draw_stool(canvas: Canvas, x: float, size: float, room: Room) -> None:
    seat = GROUND - 0.15 * size
    for dx in (-0.1, 0.1):
        canvas.line([(x + dx * size, seat), (x + dx * 1.3 * size, GROUND)], shade(room.wood, 0.6), 0.025)
    canvas.ellipse(x, seat, 0.19 * size, 0.04 * size, room.wood, shade(room.wood, 0.6))


def _to_pixels(canvas: Canvas, placed: Placed) -> dict[str, Box]:
    def convert(box: Box) -> Box:
        return (*canvas.pixel(box[0], box[1]), *canvas.pixel(box[2], box[3]))

    return {"body": convert(placed.body), "head": convert(placed.head), "torso": convert(placed.torso)}


def contact_sheet(film: Film, per_shot: int = 3, scale: int = 2) -> np.ndarray:
    """A picture with one row per shot, uint8 RGB."""
    rows = []
    for shot in film.shots:
        picks = [shot.start + round(i * (shot.frames - 1) / max(1, per_shot - 1)) for i in range(per_shot)]
        rows.append(np.concatenate([film.frames[i] for i in picks], 1))
    sheet = np.concatenate(rows, 0)
    return cv2.resize(sheet, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
