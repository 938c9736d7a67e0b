"""Cartoon characters: names, colours, and a random but fixed look for each character of a film."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Colour

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
