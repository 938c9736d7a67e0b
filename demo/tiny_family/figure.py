"""Drawing a character in a pose.

A figure is drawn from (x, ground, size): feet at ``ground``, ``size`` about the height from feet to the top of the
head, in world units (see canvas.py). Heads are large, so that a face and hair stay readable at 96 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .canvas import INK, Canvas, Colour, Point, shade
from .characters import Character


@dataclass(frozen=True)
class Pose:
    """Angles in radians: arms from hanging down (0) to straight up (pi); legs swing around vertical."""

    arms: tuple[float, float] = (0.25, 0.25)
    legs: tuple[float, float] = (0.0, 0.0)
    lift: float = 0.0
    sitting: bool = False
    look: float = 0.0
    mouth: float = 0.0
    blink: bool = False


@dataclass(frozen=True)
class Placed:
    """Where the parts of a drawn character are, as world boxes (x0, y0, x1, y1)."""

    body: tuple[float, float, float, float]
    head: tuple[float, float, float, float]
    torso: tuple[float, float, float, float]


def draw_character(canvas: Canvas, who: Character, x: float, ground: float, size: float, pose: Pose) -> Placed:
    """Draw ``who`` and return where the parts are."""
    s = size
    drop = 0.16 * s if pose.sitting else 0.0
    base = ground - pose.lift * s + drop
    hip, shoulder = base - 0.30 * s, base - 0.57 * s
    head = (x + 0.012 * s * pose.look, base - 0.775 * s)
    _draw_back_hair(canvas, who, head, s)
    _draw_legs(canvas, who, x, hip, ground - pose.lift * s, s, pose)
    _draw_arm(canvas, who, x, shoulder, s, -1, pose.arms[0])
    _draw_torso(canvas, who, x, shoulder, hip, s)
    _draw_arm(canvas, who, x, shoulder, s, 1, pose.arms[1])
    _draw_head(canvas, who, head, s, pose)
    return Placed(
        body=(x - 0.26 * s, head[1] - 0.24 * s, x + 0.26 * s, ground - pose.lift * s),
        head=(head[0] - 0.2 * s, head[1] - 0.24 * s, head[0] + 0.2 * s, head[1] + 0.2 * s),
        torso=(x - 0.15 * s, shoulder, x + 0.15 * s, hip),
    )


def _draw_legs(canvas: Canvas, who: Character, x: float, hip: float, ground: float, s: float, pose: Pose) -> None:
    shoe = shade(who.bottom, 0.45)
    for side, swing in zip((-1, 1), pose.legs, strict=True):
        top = (x + side * 0.07 * s, hip)
        if pose.sitting:
            knee = (x + side * 0.11 * s, hip + 0.05 * s)
            foot = (x + side * 0.12 * s, ground - 0.02 * s)
            canvas.limb([top, knee, foot], who.bottom, 0.1 * s)
        else:
            foot = (top[0] + 0.24 * s * math.sin(swing), hip + 0.27 * s * math.cos(swing))
            canvas.limb([top, foot], who.bottom, 0.1 * s)
        canvas.ellipse(foot[0] + 0.02 * s * (pose.look or side), foot[1] + 0.01 * s, 0.075 * s, 0.035 * s, shoe, INK)


def _draw_arm(canvas: Canvas, who: Character, x: float, shoulder: float, s: float, side: int, angle: float) -> None:
    start = (x + side * 0.125 * s, shoulder + 0.05 * s)
    elbow = (start[0] + side * 0.12 * s * math.sin(angle), start[1] + 0.12 * s * math.cos(angle))
    bend = angle + 0.25
    hand = (elbow[0] + side * 0.12 * s * math.sin(bend), elbow[1] + 0.12 * s * math.cos(bend))
    canvas.limb([elbow, hand], who.skin, 0.06 * s)
    canvas.limb([start, elbow], who.top, 0.085 * s)
    canvas.ellipse(*hand, 0.045 * s, 0.045 * s, who.skin, shade(who.skin, 0.6))


def _draw_torso(canvas: Canvas, who: Character, x: float, shoulder: float, hip: float, s: float) -> None:
    w, v = 0.145 * s, 0.165 * s
    outline: list[Point] = [
        (x - w * 0.75, shoulder - 0.01 * s), (x + w * 0.75, shoulder - 0.01 * s), (x + w, shoulder + 0.04 * s),
        (x + v, hip + 0.03 * s), (x - v, hip + 0.03 * s), (x - w, shoulder + 0.04 * s),
    ]  # fmt: skip
    canvas.polygon(outline, who.top)

    def pattern() -> None:
        if who.pattern in ("striped", "checked"):
            for i in range(3):
                y = shoulder + (0.06 + 0.09 * i) * s
                canvas.rectangle(x - v, y, x + v, y + 0.04 * s, who.accent)
        if who.pattern == "checked":
            for i in range(-1, 2):
                middle = x + 0.1 * i * s
                canvas.rectangle(
                    middle - 0.018 * s, shoulder - 0.02 * s, middle + 0.018 * s, hip + 0.04 * s, who.accent
                )
        if who.pattern == "dotted":
            for i in range(4):
                for j in range(-2, 3):
                    dot = (x + (0.085 * j + 0.04 * (i % 2)) * s, shoulder + (0.03 + 0.085 * i) * s)
                    canvas.ellipse(*dot, 0.022 * s, 0.022 * s, who.accent)

    if who.pattern != "plain":
        canvas.clipped(outline, pattern)
    canvas.line([*outline, outline[0]], shade(who.top, 0.55), 0.008)


def _draw_back_hair(canvas: Canvas, who: Character, head: Point, s: float) -> None:
    x, y = head
    dark = shade(who.hair, 0.8)
    edge = shade(who.hair, 0.5)
    if who.hair_style == "long":
        canvas.ellipse(x, y - 0.01 * s, 0.2 * s, 0.215 * s, dark, edge, (180, 360))
        top, bottom = y - 0.03 * s, y + 0.27 * s
        fall = [(x - 0.2 * s, top), (x + 0.2 * s, top), (x + 0.21 * s, bottom), (x - 0.21 * s, bottom)]
        canvas.polygon(fall, dark, edge)
    elif who.hair_style == "ponytail":
        tail = [(x + 0.14 * s, y - 0.1 * s), (x + 0.25 * s, y - 0.04 * s), (x + 0.26 * s, y + 0.16 * s)]
        canvas.limb(tail, dark, 0.09 * s)
    elif who.hair_style == "bun":
        canvas.ellipse(x, y - 0.22 * s, 0.085 * s, 0.08 * s, dark, edge)
    elif who.hair_style == "curly":
        for i in range(11):
            a = math.pi * (0.85 + 1.3 * i / 10)
            canvas.ellipse(x + 0.175 * s * math.cos(a), y + 0.17 * s * math.sin(a), 0.07 * s, 0.07 * s, who.hair, edge)


def _draw_head(canvas: Canvas, who: Character, head: Point, s: float, pose: Pose) -> None:
    x, y = head
    line = shade(who.skin, 0.55)
    for side in (-1, 1):
        canvas.ellipse(x + side * 0.17 * s, y + 0.02 * s, 0.035 * s, 0.045 * s, who.skin, line)
    canvas.ellipse(x, y, 0.17 * s, 0.18 * s, who.skin, line)
    if who.beard:
        canvas.ellipse(x, y + 0.02 * s, 0.17 * s, 0.175 * s, who.hair, shade(who.hair, 0.5), (15, 165))
    _draw_face(canvas, who, (x + 0.035 * s * pose.look, y), s, pose)
    _draw_top_hair(canvas, who, head, s)
    if who.hat:
        _draw_hat(canvas, who, head, s)


def _draw_face(canvas: Canvas, who: Character, centre: Point, s: float, pose: Pose) -> None:
    x, y = centre
    for side in (-1, 1):
        eye = (x + side * 0.068 * s, y + 0.015 * s)
        if pose.blink:
            canvas.line([(eye[0] - 0.03 * s, eye[1]), (eye[0] + 0.03 * s, eye[1])], INK, 0.012 * s)
        else:
            white = (255, 255, 255)
            iris = eye[0] + 0.01 * s * pose.look
            canvas.ellipse(*eye, 0.036 * s, 0.042 * s, white)
            canvas.ellipse(iris, eye[1] + 0.003 * s, 0.023 * s, 0.03 * s, who.eyes)
            canvas.ellipse(iris - 0.006 * s, eye[1] - 0.01 * s, 0.008 * s, 0.009 * s, white)
        canvas.ellipse(x + side * 0.105 * s, y + 0.075 * s, 0.026 * s, 0.018 * s, _blush(who.skin))
        if who.glasses:
            canvas.ring(*eye, 0.056 * s, INK, 0.014 * s)
    if who.glasses:
        canvas.line([(x - 0.015 * s, y + 0.01 * s), (x + 0.015 * s, y + 0.01 * s)], INK, 0.014 * s)
    mouth = shade(who.skin, 0.45) if not who.beard else (150, 50, 50)
    if pose.mouth > 0.2:
        canvas.ellipse(x, y + 0.1 * s, 0.035 * s, 0.012 * s + 0.025 * s * pose.mouth, (140, 45, 50), mouth)
    else:
        angles = np.linspace(0.35, math.pi - 0.35, 9)
        smile = [(x + 0.055 * s * math.cos(a), y + 0.07 * s + 0.04 * s * math.sin(a)) for a in angles]
        canvas.line(smile, mouth, 0.014 * s)


def _blush(skin: Colour) -> Colour:
    return (min(255, skin[0] + 8), round(skin[1] * 0.78), round(skin[2] * 0.78))


def _draw_top_hair(canvas: Canvas, who: Character, head: Point, s: float) -> None:
    x, y = head
    edge = shade(who.hair, 0.5)
    if who.hair_style == "bald":
        return
    if who.hair_style == "spiky":
        points = [(x - 0.18 * s, y - 0.02 * s)]
        for i in range(6):
            a = math.pi * (1.0 + (i + 0.5) / 6)
            points.append((x + 0.26 * s * math.cos(a), y + 0.26 * s * math.sin(a)))
            b = math.pi * (1.0 + (i + 1) / 6)
            points.append((x + 0.18 * s * math.cos(b), y - 0.02 * s + 0.17 * s * math.sin(b)))
        points += [(x + 0.18 * s, y - 0.02 * s), (x + 0.08 * s, y - 0.09 * s), (x - 0.08 * s, y - 0.09 * s)]
        canvas.polygon(points, who.hair, edge)
        return
    # A cap of hair with a swept fringe.
    angles = np.linspace(math.pi * 0.97, math.pi * 2.03, 24)
    arc = [(x + 0.185 * s * math.cos(a), y + 0.2 * s * math.sin(a)) for a in angles]
    fringe = [(0.15, -0.02), (0.12, -0.08), (-0.02, -0.07), (-0.13, -0.04)]
    canvas.polygon([*arc, *((x + dx * s, y + dy * s) for dx, dy in fringe)], who.hair, edge)
    canvas.line([(x - 0.08 * s, y - 0.14 * s), (x + 0.04 * s, y - 0.155 * s)], shade(who.hair, 1.3), 0.014 * s)


def _draw_hat(canvas: Canvas, who: Character, head: Point, s: float) -> None:
    x, y = head
    edge = shade(who.accent, 0.55)
    if who.hat == "straw hat":
        canvas.ellipse(x, y - 0.1 * s, 0.29 * s, 0.05 * s, who.accent, edge)
    canvas.ellipse(x, y - 0.085 * s, 0.19 * s, 0.16 * s, who.accent, edge, (180, 360))
    if who.hat == "cap":
        canvas.ellipse(x + 0.09 * s, y - 0.085 * s, 0.2 * s, 0.035 * s, shade(who.accent, 0.8), edge)
    elif who.hat == "beanie":
        canvas.rectangle(x - 0.195 * s, y - 0.13 * s, x + 0.195 * s, y - 0.07 * s, shade(who.accent, 1.35), edge)
        canvas.ellipse(x, y - 0.25 * s, 0.045 * s, 0.045 * s, shade(who.accent, 1.35), edge)
