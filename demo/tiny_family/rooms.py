"""Rooms for the procedural films: random but fixed colours per room, and one named object in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Colour
from .characters import CLOTHES

WALLS: dict[str, Colour] = {
    "cream": (250, 236, 205), "mint": (200, 232, 210), "sky": (196, 222, 245), "lilac": (222, 208, 238),
    "peach": (250, 212, 190), "rose": (245, 205, 212), "sand": (232, 216, 180),
}  # fmt: skip
WOODS: tuple[Colour, ...] = ((190, 140, 90), (160, 105, 65), (215, 175, 125), (120, 85, 65))


@dataclass(frozen=True)
class Room:
    """A place with its own colours. ``object_name`` in ``object_colour_name`` is in every picture of it."""

    kind: str
    wall_name: str
    wood: Colour
    object_name: str
    object_colour_name: str
    seed: int

    @property
    def wall(self) -> Colour:
        return WALLS[self.wall_name]

    @property
    def object_colour(self) -> Colour:
        return CLOTHES[self.object_colour_name]

    def place(self) -> str:
        """For example "in the kitchen"."""
        return {"street": "on the street", "beach": "on the beach"}.get(self.kind, f"in the {self.kind}")


OBJECTS = {
    "kitchen": "fridge",
    "garden": "bench",
    "street": "car",
    "office": "poster",
    "beach": "parasol",
    "library": "armchair",
    "bedroom": "bed",
}


def random_rooms(rng: np.random.Generator, count: int) -> list[Room]:
    """``count`` different rooms."""
    rooms = []
    for kind in rng.permutation(list(OBJECTS))[:count]:
        wall = str(rng.choice(list(WALLS)))
        colour = str(rng.choice([c for c in CLOTHES if c != "white"]))
        wood = WOODS[rng.integers(len(WOODS))]
        rooms.append(Room(str(kind), wall, wood, OBJECTS[str(kind)], colour, int(rng.integers(2**31))))
    return rooms
