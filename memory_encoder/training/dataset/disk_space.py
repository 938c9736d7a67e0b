"""What a cache will take on disk, said before anything is encoded; a disk that is too small is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...frames import evenly, latents_in
from ...phi.positions import cells_for, grid_for
from .buckets import Buckets
from .clips import ClipTask, bytes_there
from .settings import CacheSettings, DatasetError, Geometry, LatentSpace
from .video import declared_seconds

MOST_PROBED = 2000  # headers that are read; of more clips a part speaks for all
HALF = 2  # bytes
CHARACTERS_A_TOKEN = 3.5  # of English, in the tokenizers of umT5 and Llama
GB = 1e9


@dataclass(frozen=True)
class DiskSpace:
    """Bytes, estimated from the lengths that the clips' headers declare.

    there: of these windows, cached already. unknown: clips that do not declare their length; each counts as the others
    do in the mean, and where there are no others, as nothing.
    """

    clips: int
    seconds: float
    windows: int
    latents: float
    text: float
    there: float
    free: float
    unknown: int = 0

    @property
    def missing(self) -> float:
        """What is still to be written."""
        return max(0.0, self.latents - self.there) + self.text

    def __str__(self) -> str:
        there = f" ({self.there / GB:.1f} GB are there)" if self.there else ""
        return (
            f"{self.clips} clips of {self.seconds / 60:.1f} minutes: about {self.windows} windows, "
            f"{self.latents / GB:.1f} GB of latents{there} and {self.text / GB:.1f} GB of text; "
            f"{self.free / GB:.1f} GB are free{self._unknown()}"
        )

    def _unknown(self) -> str:
        if not self.unknown:
            return ""
        who = (
            "1 clip does not say how long it is"
            if self.unknown == 1
            else f"{self.unknown} clips do not say how long they are"
        )
        counted = "not counted" if self.unknown >= self.clips else "counted as the others in the mean"
        return f"; {who}: {counted}"

    def check(self, out: Path) -> None:
        """Raises DatasetError when it does not fit."""
        if self.missing > self.free:
            raise DatasetError(
                f"out {out} is on a disk that is too small. {self}. Free {(self.missing - self.free) / GB:.1f} GB, "
                "choose another disk, or a smaller width and height, a longer stride_seconds or fewer rates"
            )


def probed_of(clips: int) -> list[int]:
    """Numbers of the clips that speak for so many."""
    return evenly(clips, min(clips, MOST_PROBED))


def disk_space(probed: Iterable[ClipTask], clips: int, prompts: Iterable[str], out: Path, shares: int = 1) -> DiskSpace:
    """An estimate for `clips` clips, of which `probed` are looked at.

    prompts: distinct ones of one of `shares` processes that share the clips.
    """
    seconds = windows = latents = there = there_of_unknown = 0.0
    known = unknown = width = 0
    for task in probed:
        width, length = task.space.text_width, declared_seconds(task.path)
        if length is None:
            unknown, there_of_unknown = unknown + 1, there_of_unknown + bytes_there(task)
            continue
        lengths = _windows(length, task.settings, task.buckets)
        size = [window_bytes(frames, task.settings, task.buckets, task.space, task.geometry) for frames in lengths]
        known, seconds, windows, latents = known + 1, seconds + length, windows + len(size), latents + sum(size)
        there += min(sum(size), bytes_there(task))
    there += min(there_of_unknown, latents * unknown / max(1, known))
    each, all_of = clips / max(1, known), clips / max(1, known + unknown)
    text = shares * sum(1 + len(prompt) / CHARACTERS_A_TOKEN for prompt in prompts) * width * HALF
    counts = clips, seconds * each, round(windows * each), latents * each, text, there * all_of, _free(out)
    return DiskSpace(*counts, unknown=round(unknown * all_of))


def window_bytes(
    frames: int, settings: CacheSettings, buckets: Buckets, space: LatentSpace, size: Geometry | None = None
) -> int:
    """Bytes of one window: its latents and, for each rate, those of the LR branch. size: by default the dataset's."""
    size, length = size or buckets.sizes[0], latents_in(frames, space.temporal)
    height, width = size.height // space.spatial, size.width // space.spatial
    values = length * height * width
    for rate in settings.rates:
        config = space.encoder_config(rate, settings.padding)
        rows, columns = grid_for(height, width, config)
        values += cells_for(length, config.stride[0])[1] * rows * columns * config.patch[1] * config.patch[2]
    return values * space.channels * HALF


def _windows(seconds: float, settings: CacheSettings, buckets: Buckets) -> list[int]:
    """Lengths in frames of the windows of a clip without cuts."""
    frames, stride = int(seconds * settings.fps + 0.5), buckets.sizes[0].stride
    whole, *shorter = buckets.lengths
    if frames >= whole:
        return [whole] * (1 + (frames - whole) // stride)
    return [next(length for length in shorter if length <= frames)] if shorter and shorter[-1] <= frames else []


def _free(folder: Path) -> float:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return float(shutil.disk_usage(folder).free)
