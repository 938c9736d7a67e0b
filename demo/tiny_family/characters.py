"""Cartoon characters: a random but fixed look per character, poses, and drawing.

A character is drawn from (x, ground, size): feet at ``ground``, ``size`` the height from feet to the top of the head,
both in world units (see canvas.py). Heads are large, so that a face and hair stay readable at 96 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Point, shade

NAMES: dict[str, str] = {
    "Mira": "girl", "Ana": "woman", "Zoe": "girl", "Ivy": "woman", "Nia": "girl",
    "Tom": "boy", "Leo": "man", "Max": "boy", "Sam": "man", "Ben": "boy",
}  # fmt: skip
SKINS: tuple[Colour, ...] = ((255, 220, 190), (240, 192, 150), (205, 150, 105), (150, 100, 70), (105, 70, 50))
HAIR: dict[str, Colour] = {
    "black": (45, 40, 50), "brown": (115, 70, 40), "blond": (240, 205, 95), "red": (205, 70, 35),
    "grey": (170, 170, 178), "blue": (60, 95, 205), "pink": (240, 120, 175),
}  # fmt: skip
CLOTHES: dict[str, Colour] = {
    "red": (215, 50, 50), "orange": (245, 140, 40), "yellow": (250, 215, 60), "green": (60, 165, 80),
    "teal": (35, 165, 165), "blue": (55, 105, 215), "purple": (140, 75, 185), "pink": (245, 130, 180),
    "white": (242, 242, 242), "black": (55, 55, 65),
}  # fmt: skip
EYES: tuple[Colour, ...] = ((60, 40, 30), (40, 90, 160), (50, 120, 60))
PATTERNS = ("plain", "striped", "dotted", "checked")
STYLES_LONG = ("long", "ponytail", "bun", "curly")
STYLES_SHORT = ("short", "spiky", "curly", "bald")
INK: Colour = (50, 40, 45)


def an(word: str) -> str:
    """The word with its article: "an orange", "a red"."""
    return f"{'an' if word[0] in 'aeio' else 'a'} {word}"


@dataclass(frozen=True)
class Character:
    """One look. Colours are kept by name, so that prompts and ground truth agree."""

    name: str
    kind: str
    skin: Colour
    eyes: Colour
    hair_style: str
    hair_name: str
    top_name: str
    pattern: str
    accent_name: str
    bottom_name: str
    hat: str
    glasses: bool
    beard: bool

    @property
    def hair(self) -> Colour:
        return HAIR[self.hair_name]

    @property
    def top(self) -> Colour:
        return CLOTHES[self.top_name]

    @property
    def bottom(self) -> Colour:
        return CLOTHES[self.bottom_name]

    @property
    def accent(self) -> Colour:
        return CLOTHES[self.accent_name]

    def describe(self) -> str:
        """For example "Mira, a girl with long red hair, glasses and a green striped shirt"."""
        hair = {
            "bald": "a bald head",
            "bun": f"{self.hair_name} hair in a bun",
            "ponytail": f"{an(self.hair_name)} ponytail",
        }.get(self.hair_style, f"{self.hair_style} {self.hair_name} hair")
        pattern = "" if self.pattern == "plain" else f" {self.pattern}"
        parts = [hair]
        parts += ["glasses"] if self.glasses else []
        parts += ["a beard"] if self.beard else []
        parts += [f"{an(self.accent_name)} {self.hat}"] if self.hat else []
        return f"{self.name}, a {self.kind} with {', '.join(parts)} and {an(self.top_name)}{pattern} shirt"


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


def random_cast(rng: np.random.Generator, count: int) -> list[Character]:
    """``count`` characters with different names, hair colours and shirt colours."""
    names = [str(n) for n in rng.permutation(list(NAMES))[:count]]
    hair = [str(n) for n in rng.permutation(list(HAIR))]
    tops = [str(n) for n in rng.permutation(list(CLOTHES))]
    cast = []
    for i, name in enumerate(names):
        kind = NAMES[name]
        style = str(rng.choice(STYLES_LONG if kind in ("girl", "woman") else STYLES_SHORT))
        hat = str(rng.choice(["cap", "beanie", "straw hat"])) if style != "bun" and rng.random() < 0.3 else ""
        top = tops[i]
        others = [c for c in CLOTHES if c != top]
        cast.append(
            Character(
                name=name,
                kind=kind,
                skin=SKINS[rng.integers(len(SKINS))],
                eyes=EYES[rng.integers(len(EYES))],
                hair_style=style,
                hair_name=hair[i % len(hair)],
                top_name=top,
                pattern=str(rng.choice(PATTERNS, p=[0.4, 0.3, 0.15, 0.15])),
                accent_name=str(rng.choice(others)),
                bottom_name=str(rng.choice(others)),
                hat=hat,
                glasses=bool(rng.random() < 0.3),
                beard=kind == "man" and bool(rng.random() < 0.5),
            )
        )
    return cast


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
                canvas.rectangle(x + (0.1 * i - 0.018) * s, shoulder - 0.02 * s, x + (0.1 * i + 0.018) * s, hip + 0.04 * s, who.accent)
        if who.pattern == "dotted":
            for i in range(4):
                for j in range(-2, 3):
                    canvas.ellipse(x + (0.085 * j + 0.04 * (i % 2)) * s, shoulder + (0.03 + 0.085 * i) * s, 0.022 * s, 0.022 * s, who.accent)

    if who.pattern != "plain":
        canvas.clipped(outline, pattern)
    canvas.line([*outline, outline[0]], shade(who.top, 0.55), 0.008)


def _draw_back_hair(canvas: Canvas, who: Character, head: Point, s: float) -> None:
    x, y = head
    dark = shade(who.hair, 0.8)
    edge = shade(who.hair, 0.5)
    if who.hair_style == "long":
        canvas.ellipse(x, y - 0.01 * s, 0.2 * s, 0.215 * s, dark, edge, (180, 360))
        canvas.polygon([(x - 0.2 * s, y - 0.03 * s), (x + 0.2 * s, y - 0.03 * s), (x + 0.21 * s, y + 0.27 * s), (x - 0.21 * s, y + 0.27 * s)], dark, edge)
    elif who.hair_style == "ponytail":
        canvas.limb([(x + 0.14 * s, y - 0.1 * s), (x + 0.25 * s, y - 0.04 * s), (x + 0.26 * s, y + 0.16 * s)], dark, 0.09 * s)
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
            canvas.ellipse(*eye, 0.036 * s, 0.042 * s, (255, 255, 255))
            canvas.ellipse(eye[0] + 0.01 * s * pose.look, eye[1] + 0.003 * s, 0.023 * s, 0.03 * s, who.eyes)
            canvas.ellipse(eye[0] + 0.01 * s * pose.look - 0.006 * s, eye[1] - 0.01 * s, 0.008 * s, 0.009 * s, (255, 255, 255))
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
        canvas.line([(x + 0.055 * s * math.cos(a), y + 0.07 * s + 0.04 * s * math.sin(a)) for a in angles], mouth, 0.014 * s)


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
    arc = [(x + 0.185 * s * math.cos(a), y + 0.2 * s * math.sin(a)) for a in np.linspace(math.pi * 0.97, math.pi * 2.03, 24)]
    fringe = [(x + 0.15 * s, y - 0.02 * s), (x + 0.12 * s, y - 0.08 * s), (x - 0.02 * s, y - 0.07 * s), (x - 0.13 * s, y - 0.04 * s)]
    canvas.polygon([*arc, *fringe], who.hair, edge)
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
