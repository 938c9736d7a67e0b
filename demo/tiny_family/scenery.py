"""Drawing the rooms.

They reach from x = -2 to x = 2, so that a camera may pan. ``t`` (seconds) moves clouds, waves and cars.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .canvas import INK, Canvas, shade
from .characters import CLOTHES
from .rooms import WALLS, Room

FLOOR = 0.7  # where the floor meets the wall
LEFT, RIGHT = -2.0, 2.0


def draw_room(canvas: Canvas, room: Room, t: float) -> None:
    """Draw the room at time ``t`` in seconds."""
    DRAW[room.kind](canvas, room, np.random.default_rng(room.seed), t)


def _indoor(canvas: Canvas, room: Room, tiles: bool = False) -> None:
    canvas.rectangle(LEFT, -1, RIGHT, FLOOR, room.wall)
    floor = shade(room.wood, 1.25)
    canvas.rectangle(LEFT, FLOOR, RIGHT, 2, floor)
    dark = shade(floor, 0.88)
    for i in range(-12, 13):
        if tiles:
            canvas.line([(i * 0.22, FLOOR), (i * 0.42, 1.3)], dark, 0.008)
        else:
            canvas.line([(i * 0.3, FLOOR), (i * 0.5, 1.3)], dark, 0.008)
    if tiles:
        for y in (0.76, 0.86, 1.0):
            canvas.line([(LEFT, y), (RIGHT, y)], dark, 0.008)
    canvas.rectangle(LEFT, FLOOR - 0.03, RIGHT, FLOOR, shade(room.wall, 1.5), None)


def _window(canvas: Canvas, x: float, y: float, w: float, h: float) -> None:
    canvas.rectangle(x - w / 2, y, x + w / 2, y + h, (150, 205, 240))
    canvas.ellipse(x - w * 0.1, y + h * 0.45, w * 0.2, h * 0.1, (250, 252, 255))
    frame = (250, 250, 245)
    canvas.line([(x, y), (x, y + h)], frame, 0.016)
    canvas.line([(x - w / 2, y), (x + w / 2, y), (x + w / 2, y + h), (x - w / 2, y + h), (x - w / 2, y)], frame, 0.022)


def _sky(canvas: Canvas, t: float, horizon: float, rng: np.random.Generator) -> None:
    for i in range(8):
        y = horizon * i / 8
        canvas.rectangle(LEFT, y - (1 if i == 0 else 0), RIGHT, horizon, (150 + 10 * i, 205 + 5 * i, 245))
    canvas.ellipse(0.5, 0.13, 0.075, 0.075, (255, 226, 120))
    for i in range(5):
        x = -1.7 + i * 0.75 + float(rng.uniform(-0.1, 0.1)) + 0.03 * t
        y = float(rng.uniform(0.08, 0.24))
        for dx, r in ((-0.08, 0.045), (0.0, 0.065), (0.09, 0.05)):
            canvas.ellipse(x + dx, y, r * 1.5, r * 0.8, (252, 252, 255))


def _kitchen(canvas: Canvas, room: Room, rng: np.random.Generator, t: float) -> None:
    _indoor(canvas, room, tiles=True)
    _window(canvas, 0.05, 0.1, 0.36, 0.26)
    edge = shade(room.wood, 0.6)
    for x in (-1.5, -1.15, 0.85, 1.2, 1.55):
        canvas.rectangle(x, 0.05, x + 0.33, 0.28, room.wood, edge)
        canvas.ellipse(x + 0.28, 0.23, 0.012, 0.012, INK)
    for i in range(-5, 6):
        x = i * 0.32
        canvas.rectangle(x, 0.49, x + 0.31, FLOOR + 0.02, room.wood, edge)
        canvas.ellipse(x + 0.27, 0.55, 0.012, 0.012, INK)
    canvas.rectangle(LEFT, 0.455, RIGHT, 0.49, (245, 242, 236), (190, 185, 178))
    fridge = room.object_colour
    canvas.rectangle(-0.64, 0.12, -0.36, FLOOR + 0.04, fridge, shade(fridge, 0.55))
    canvas.line([(-0.64, 0.32), (-0.36, 0.32)], shade(fridge, 0.55), 0.01)
    canvas.line([(-0.4, 0.2), (-0.4, 0.27)], (235, 235, 235), 0.018)
    canvas.line([(-0.4, 0.37), (-0.4, 0.5)], (235, 235, 235), 0.018)
    canvas.ellipse(0.42, 0.43, 0.09, 0.03, (230, 110, 60), INK)
    for dx, c in ((-0.04, (230, 60, 50)), (0.0, (250, 200, 60)), (0.045, (110, 180, 70))):
        canvas.ellipse(0.42 + dx, 0.4, 0.03, 0.03, c)


def _garden(canvas: Canvas, room: Room, rng: np.random.Generator, t: float) -> None:
    _sky(canvas, t, 0.5, rng)
    for i in range(-4, 5):
        canvas.ellipse(i * 0.5, 0.55, 0.36, 0.17, (120, 185, 105))
    for i in range(-16, 17):
        x = i * 0.12
        board = [(x, 0.66), (x, 0.47), (x + 0.045, 0.43), (x + 0.09, 0.47), (x + 0.09, 0.66)]
        canvas.polygon(board, (248, 244, 232), (205, 196, 178))
    canvas.rectangle(LEFT, 0.63, RIGHT, 2, (125, 195, 90))
    for x in (-1.45, -0.62, 0.72, 1.5):
        canvas.line([(x, 0.66), (x, 0.3)], room.wood, 0.07)
        for dx, dy, r in ((-0.1, 0.0, 0.13), (0.1, 0.01, 0.13), (0.0, -0.1, 0.15)):
            canvas.ellipse(x + dx, 0.25 + dy, r, r * 0.9, (70, 150, 75))
    for _ in range(40):
        x, y = float(rng.uniform(LEFT, RIGHT)), float(rng.uniform(0.68, 0.98))
        colour = ((240, 90, 110), (255, 220, 80), (250, 250, 250), (190, 120, 220))[int(rng.integers(4))]
        canvas.ellipse(x, y, 0.016, 0.013, colour)
    bench = room.object_colour
    edge = shade(bench, 0.55)
    for x in (0.26, 0.56):
        canvas.line([(x, 0.58), (x, 0.76)], edge, 0.025)
    canvas.rectangle(0.2, 0.52, 0.62, 0.57, bench, edge)
    canvas.rectangle(0.2, 0.63, 0.62, 0.67, bench, edge)


def _street(canvas: Canvas, room: Room, rng: np.random.Generator, t: float) -> None:
    _sky(canvas, t, 0.6, rng)
    x = LEFT
    while x < RIGHT:
        w, h = float(rng.uniform(0.32, 0.5)), float(rng.uniform(0.3, 0.55))
        wall = list(WALLS.values())[int(rng.integers(len(WALLS)))]
        wall = shade(wall, 0.88)
        canvas.rectangle(x, 0.62 - h, x + w, 0.64, wall, shade(wall, 0.7))
        for wx in np.arange(x + 0.05, x + w - 0.08, 0.11):
            for wy in np.arange(0.62 - h + 0.05, 0.5, 0.13):
                canvas.rectangle(float(wx), float(wy), float(wx) + 0.06, float(wy) + 0.08, (110, 150, 190))
        x += w
    canvas.rectangle(LEFT, 0.62, RIGHT, 2, (205, 200, 192))
    canvas.rectangle(LEFT, 0.66, RIGHT, 0.82, (95, 95, 105))
    for i in range(-10, 11):
        canvas.rectangle(i * 0.26, 0.735, i * 0.26 + 0.13, 0.75, (240, 235, 215))
    canvas.rectangle(LEFT, 0.82, RIGHT, 0.84, (170, 166, 160))
    cx = 0.38 + 0.06 * t
    car = room.object_colour
    cabin = [(cx - 0.15, 0.6), (cx - 0.1, 0.52), (cx + 0.1, 0.52), (cx + 0.16, 0.6)]
    canvas.polygon(cabin, (190, 225, 240), shade(car, 0.5))
    canvas.rectangle(cx - 0.26, 0.595, cx + 0.26, 0.7, car, shade(car, 0.5))
    for dx in (-0.15, 0.15):
        canvas.ellipse(cx + dx, 0.7, 0.055, 0.055, (40, 40, 45))
        canvas.ellipse(cx + dx, 0.7, 0.024, 0.024, (200, 200, 205))


def _office(canvas: Canvas, room: Room, rng: np.random.Generator, t: float) -> None:
    _indoor(canvas, room)
    _window(canvas, -0.5, 0.1, 0.34, 0.3)
    _window(canvas, -1.2, 0.1, 0.34, 0.3)
    poster = room.object_colour
    canvas.rectangle(0.28, 0.1, 0.62, 0.38, poster, shade(poster, 0.5))
    canvas.ellipse(0.45, 0.24, 0.09, 0.09, (250, 245, 235))
    canvas.rectangle(1.0, 0.1, 1.5, 0.4, (250, 250, 250), (150, 150, 155))
    edge = shade(room.wood, 0.6)
    for x in (-0.45, 0.95):
        canvas.rectangle(x - 0.12, 0.41, x + 0.12, 0.545, (50, 55, 65), (30, 30, 35))
        canvas.rectangle(x - 0.1, 0.425, x + 0.1, 0.53, (120, 200, 225))
        canvas.line([(x, 0.55), (x, 0.58)], (50, 55, 65), 0.03)
        for dx in (-0.24, 0.24):
            canvas.line([(x + dx, 0.6), (x + dx, 0.82)], edge, 0.025)
        canvas.rectangle(x - 0.3, 0.57, x + 0.3, 0.61, room.wood, edge)
    canvas.rectangle(0.53, 0.6, 0.64, 0.72, (210, 120, 80), (140, 75, 50))
    for a in (-0.5, -0.2, 0.1, 0.45):
        canvas.limb([(0.585, 0.6), (0.585 + 0.16 * math.sin(a), 0.6 - 0.17 * math.cos(a))], (75, 150, 80), 0.03)


def _beach(canvas: Canvas, room: Room, rng: np.random.Generator, t: float) -> None:
    _sky(canvas, t, 0.45, rng)
    canvas.rectangle(LEFT, 0.42, RIGHT, 0.62, (65, 150, 205))
    for j, y in enumerate((0.47, 0.53)):
        points = [(x, y + 0.006 * math.sin(14 * x + 3 * t + j)) for x in np.arange(LEFT, RIGHT, 0.05)]
        canvas.line(points, (140, 200, 230), 0.01)
    shore = [(float(x), 0.61 + 0.012 * math.sin(5 * x + 1.5 * t)) for x in np.arange(LEFT, RIGHT + 0.1, 0.08)]
    canvas.polygon([*shore, (RIGHT, 2), (LEFT, 2)], (240, 215, 160))
    canvas.line(shore, (250, 250, 250), 0.02)
    for _ in range(30):
        x, y = float(rng.uniform(LEFT, RIGHT)), float(rng.uniform(0.68, 1.0))
        canvas.ellipse(x, y, 0.012, 0.007, (215, 185, 130))
    colour = room.object_colour
    canvas.line([(0.45, 0.28), (0.42, 0.76)], (245, 240, 230), 0.022)
    canvas.ellipse(0.45, 0.32, 0.24, 0.17, colour, shade(colour, 0.55), (180, 360))
    canvas.polygon([(0.39, 0.32), (0.42, 0.155), (0.48, 0.155), (0.51, 0.32)], (250, 248, 240))
    canvas.polygon([(-0.66, 0.5), (-0.46, 0.5), (-0.5, 0.54), (-0.62, 0.54)], room.wood, shade(room.wood, 0.6))
    canvas.polygon([(-0.56, 0.31), (-0.56, 0.48), (-0.44, 0.48)], (250, 250, 250))


def _library(canvas: Canvas, room: Room, rng: np.random.Generator, t: float) -> None:
    _indoor(canvas, room)
    edge = shade(room.wood, 0.55)
    for i in range(-3, 4):
        x = i * 0.58 - 0.26
        canvas.rectangle(x, 0.04, x + 0.5, FLOOR, shade(room.wood, 0.75), edge)
        for y in (0.08, 0.28, 0.48):
            cursor = x + 0.025
            while cursor < x + 0.45:
                w, h = float(rng.uniform(0.03, 0.055)), float(rng.uniform(0.11, 0.155))
                book = list(CLOTHES.values())[int(rng.integers(len(CLOTHES) - 2))]
                book = shade(book, 0.75)
                canvas.rectangle(cursor, y + 0.165 - h, cursor + w, y + 0.165, book, shade(book, 0.6))
                cursor += w
            canvas.rectangle(x, y + 0.165, x + 0.5, y + 0.185, room.wood)
    chair = room.object_colour
    dark = shade(chair, 0.55)
    canvas.rectangle(0.3, 0.46, 0.62, 0.74, chair, dark)
    canvas.rectangle(0.24, 0.57, 0.33, 0.78, shade(chair, 0.85), dark)
    canvas.rectangle(0.59, 0.57, 0.68, 0.78, shade(chair, 0.85), dark)
    canvas.rectangle(0.33, 0.64, 0.59, 0.72, shade(chair, 1.2), dark)


def _bedroom(canvas: Canvas, room: Room, rng: np.random.Generator, t: float) -> None:
    _indoor(canvas, room)
    _window(canvas, 0.42, 0.1, 0.34, 0.3)
    canvas.rectangle(-0.5, 0.14, -0.3, 0.34, (250, 250, 245), room.wood)
    canvas.ellipse(-0.4, 0.24, 0.06, 0.06, (250, 200, 90))
    canvas.ellipse(0.0, 0.86, 0.6, 0.09, shade(room.wall, 0.85))
    cover = room.object_colour
    edge = shade(room.wood, 0.6)
    canvas.rectangle(-0.85, 0.42, -0.79, 0.8, room.wood, edge)
    canvas.rectangle(-0.83, 0.56, -0.15, 0.74, cover, shade(cover, 0.55))
    canvas.ellipse(-0.67, 0.55, 0.11, 0.045, (250, 250, 250), (190, 190, 195))
    canvas.rectangle(-0.19, 0.5, -0.13, 0.8, room.wood, edge)
    canvas.rectangle(0.7, 0.3, 1.1, FLOOR + 0.02, room.wood, edge)
    canvas.line([(0.9, 0.3), (0.9, FLOOR)], edge, 0.01)


DRAW: dict[str, Callable[[Canvas, Room, np.random.Generator, float], None]] = {
    "kitchen": _kitchen,
    "garden": _garden,
    "street": _street,
    "office": _office,
    "beach": _beach,
    "library": _library,
    "bedroom": _bedroom,
}
