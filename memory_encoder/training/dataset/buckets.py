"""Buckets of aspect and length: which sizes and lengths the windows of one dataset may have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...frames import frames_in, latents_in
from ...phi.positions import grid_for
from .settings import ROUNDING, CacheSettings, Geometry, LatentSpace, plan_geometry, whole_cells

RATIOS = (2.35, 16 / 9, 4 / 3, 1.0, 3 / 4, 9 / 16)  # of width to height, as videos have them
LEAST_AREA = 0.9  # of the dataset's size, for "auto"
SAME = 1.12  # sizes whose ratios differ by less than this factor are one
LENGTHS = (1.0, 0.75)  # of a window and of its halves, quarters ...: a shorter clip keeps at least two thirds


@dataclass(frozen=True)
class Buckets:
    """Sizes and lengths of a dataset.

    sizes: a geometry for each size, the dataset's own first. lengths: of windows in frames, descending; the first is
    the whole window, the others are for stretches that are shorter.
    """

    sizes: tuple[Geometry, ...]
    lengths: tuple[int, ...]

    def for_ratio(self, ratio: float | None) -> Geometry:
        """The size that keeps most of a picture of this ratio of width to height; unknown: the dataset's own."""
        if ratio is None:
            return self.sizes[0]
        return min(self.sizes, key=lambda size: abs(math.log(ratio * size.height / size.width)))


def plan_buckets(settings: CacheSettings, space: LatentSpace) -> Buckets:
    """Sizes in whole cells of the host, lengths in whole latents.

    Raises what `plan_geometry` raises, also for each size that is named.
    """
    base = plan_geometry(settings, space)
    if isinstance(settings.buckets, tuple):
        named = (replace(settings, width=width, height=height) for width, height in settings.buckets)
        sizes: Iterable[Geometry] = (plan_geometry(each, space) for each in named)
    else:
        sizes = _of_about_the_area(base, settings, space)
    return Buckets(tuple(dict.fromkeys((base, *sizes))), _lengths(base, settings, space.temporal))


def _of_about_the_area(base: Geometry, settings: CacheSettings, space: LatentSpace) -> list[Geometry]:
    """The base turned by 90 degrees, and a size for each usual ratio that is not there yet."""
    found = [base]
    for ratio in (base.height / base.width, *RATIOS):
        if any(_apart(ratio, size.width / size.height) < SAME for size in found):
            continue
        size = _sized(base, ratio, space)
        if size is not None and _has_cells(size, settings, space):
            found.append(size)
    return found


def _sized(base: Geometry, ratio: float, space: LatentSpace) -> Geometry | None:
    """The size nearest to a ratio, of at most the base's area and little less; None where cells are too coarse."""
    cell_h, cell_w = whole_cells(space)
    area = base.width * base.height
    sizes = []
    for height in range(cell_h, area // cell_w + 1, cell_h):
        widest = area // height // cell_w * cell_w
        sizes += [(w, height) for w in (widest, widest - cell_w) if w > 0 and w * height >= LEAST_AREA * area]
    if not sizes:
        return None
    width, height = min(sizes, key=lambda size: (_apart(ratio, size[0] / size[1]), -size[0] * size[1]))
    return replace(base, width=width, height=height) if _apart(ratio, width / height) < SAME else None


def _has_cells(size: Geometry, settings: CacheSettings, space: LatentSpace) -> bool:
    try:
        for rate in settings.rates:
            config = space.encoder_config(rate, settings.padding)
            grid_for(size.height // space.spatial, size.width // space.spatial, config)
    except ValueError:
        return False
    return True


def _lengths(base: Geometry, settings: CacheSettings, temporal: int) -> tuple[int, ...]:
    """The window's length, and those of shorter ones down to the least that is asked for."""
    if not settings.min_window_seconds:
        return (base.frames,)
    asked = int(settings.min_window_seconds * settings.fps + ROUNDING)
    least = frames_in(max(2, latents_in(asked, temporal)), temporal)
    found = [base.frames]
    part = 1.0
    while base.frames * part >= least:
        found += [frames_in(latents_in(int(base.frames * share * part), temporal), temporal) for share in LENGTHS]
        part /= 2
    shorter = {max(length, least) for length in found if length < base.frames} | {least}
    return (base.frames, *sorted((length for length in shorter if length < base.frames), reverse=True))


def _apart(one: float, other: float) -> float:
    """The factor between two ratios, 1 or more."""
    return max(one / other, other / one)
