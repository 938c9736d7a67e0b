"""A small drawing surface for flat cartoons: world coordinates, a camera, and anti-aliasing by supersampling.

World units: the frame at zoom 1 is 1 high; x = 0 is its middle; y = 0 its top and y = 1 its bottom. Colours are RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]
INK: Colour = (50, 40, 45)
SUPERSAMPLE = 3
SHIFT = 4  # OpenCV draws with this many fractional bits


@dataclass(frozen=True)
class Camera:
    """Looks at (x, y); zoom 2 shows half the height."""

    x: float = 0.0
    y: float = 0.5
    zoom: float = 1.0


def shade(colour: Colour, factor: float) -> Colour:
    """Darker (factor below 1) or lighter (above 1: towards white) version of a colour."""
    if factor <= 1:
        r, g, b = (round(c * factor) for c in colour)
    else:
        r, g, b = (round(c + (255 - c) * (factor - 1)) for c in colour)
    return (r, g, b)


class Canvas:
    """Draws in world coordinates on an RGB image of ``width`` x ``height`` pixels."""

    def __init__(self, width: int, height: int, camera: Camera) -> None:
        self.size = (width, height)
        self.camera = camera
        self.scale = height * camera.zoom  # pixels for one world unit
        self.image = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE, 3), np.uint8)

    def pixel(self, x: float, y: float) -> Point:
        """World to final pixel coordinates."""
        width, height = self.size
        return ((x - self.camera.x) * self.scale + width / 2, (y - self.camera.y) * self.scale + height / 2)

    def _fixed(self, points: Sequence[Point]) -> np.ndarray:
        pixels = np.array([self.pixel(x, y) for x, y in points]) * SUPERSAMPLE
        return np.round(np.clip(pixels, -20000, 20000) * 2**SHIFT).astype(np.int32)

    def _thickness(self, width: float) -> int:
        return max(1, round(width * self.scale * SUPERSAMPLE))

    def polygon(self, points: Sequence[Point], colour: Colour, outline: Colour | None = None) -> None:
        fixed = self._fixed(points)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, SHIFT)
        if outline is not None:
            cv2.polylines(self.image, [fixed], True, outline, self._thickness(0.008), cv2.LINE_AA, SHIFT)

    def rectangle(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, outline: Colour | None = None
    ) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, outline)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A polyline with round ends."""
        fixed = self._fixed(points)
        cv2.polylines(self.image, [fixed], False, colour, self._thickness(width), cv2.LINE_AA, SHIFT)

    def limb(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A polyline with a darker outline."""
        self.line(points, shade(colour, 0.6), width + 0.014)
        self.line(points, colour, width)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        colour: Colour,
        outline: Colour | None = None,
        arc: tuple[float, float] = (0, 360),
    ) -> None:
        """A filled ellipse, or the part of it between two angles in degrees (clockwise from +x), closed by a chord."""
        angles = np.radians(np.linspace(arc[0], arc[1], 48))
        self.polygon([(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles], colour, outline)

    def ring(self, x: float, y: float, radius: float, colour: Colour, width: float) -> None:
        angles = np.radians(np.linspace(0, 360, 33))
        self.line([(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles], colour, width)

    def clipped(self, points: Sequence[Point], draw: Callable[[], None]) -> None:
        """Run ``draw`` and keep what falls inside the polygon."""
        before = self.image.copy()
        draw()
        mask = np.zeros(self.image.shape[:2], np.uint8)
        cv2.fillPoly(mask, [self._fixed(points)], 255, cv2.LINE_8, SHIFT)
        np.copyto(self.image, before, where=(mask == 0)[:, :, None])

    def finish(self) -> np.ndarray:
        """The anti-aliased picture, uint8 [H, W, 3]."""
        return cv2.resize(self.image, self.size, interpolation=cv2.INTER_AREA)
