"""A film as its judge sees it: shot after shot, so that RAM does not grow with its length."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from PIL import Image
from torch import Tensor

from ...damage import DAMAGE
from ...film.opening import StoredFilm, stored_film
from ...frames import evenly
from ...storyboard import Shot, Storyboard
from ...storyboard.cast import is_in, with_cast
from ...storyboard.schedule import nearest_shot
from ...training.dataset.settings import BadClip
from ...training.dataset.video import VideoReader
from ...training.dataset.windows import scene_cuts

MOST_FRAMES = 256  # of a shot that are kept; of a longer one every second, every third ...
MOST_PIXELS = 1920  # of the longer side
TINY = 96  # pixels across, in which joins and cuts are looked at
LOOKED_AT = 5  # frames of a shot that are looked at one by one, evenly chosen
EDGE = 0.05  # of a shot at either end that is not looked at: a storyboard's cut may lie some frames beside the film's
PREVIEW_FRAMES = 24  # of a section, or as many as it has
PREVIEWS = f"moving previews of the sections, at most {PREVIEW_FRAMES} frames each and 256 pixels wide"

Pieces = Callable[[], Iterable[Tensor]]  # pictures [T,H,W,3] in 0..1, in order, as often as asked
Stamped = tuple[float, np.ndarray]  # seconds from the beginning, and the picture [H,W,3] uint8 RGB


@dataclass(frozen=True)
class Join:
    """Where section `section`, counted from 1, goes on without a cut, in shot `shot`; at: seconds."""

    section: int
    shot: int
    at: float


@dataclass(frozen=True)
class Footage:
    """A film and what is known of it.

    shots: in order, with starts in seconds of this film. sections: of each shot, counted from 1, where they are known.
    read: pictures in the order of time, as often as asked. source: what these are where they are not the film's own.
    """

    name: str
    fps: float
    seconds: float
    size: tuple[int, int]
    storyboard: Storyboard
    read: Callable[[], Iterator[Stamped]]
    joins: tuple[Join, ...] = ()
    sections: tuple[tuple[int, ...], ...] = ()
    source: str = ""

    def clips(self) -> Iterator[Clip]:
        """The shots that have pictures, one after the other."""
        shots = self.storyboard.shots
        starts = [0.0, *(shot.start for shot in shots[1:])]
        ends = [*starts[1:], self.seconds]
        taken = -1
        held: list[Stamped] = []
        tiny: list[Stamped] = []
        every = 1
        for time, picture in self.read():
            number = nearest_shot(self.storyboard, time)
            if number != taken:
                if held:
                    yield self._clip(taken, held, tiny)
                held, tiny, taken = [], [], number
                every = max(1, math.ceil((ends[number] - starts[number]) * self.fps / MOST_FRAMES))
            if len(tiny) % every == 0:
                held.append((time, picture))
            tiny.append((time, shrunk(picture)))
        if held:
            yield self._clip(taken, held, tiny)

    def _clip(self, index: int, held: Sequence[Stamped], tiny: Sequence[Stamped]) -> Clip:
        shot = self.storyboard.shots[index]
        prompt = with_cast(shot.prompt, self.storyboard.cast)
        cast = self.storyboard.cast
        names = frozenset(line.name for line in cast if line.name and is_in(line, prompt, cast))
        times, pictures = zip(*held, strict=True)
        small_times, small = zip(*tiny, strict=True)
        return Clip(
            index + 1, shot.name, prompt, names, self.sections[index] if self.sections else (),
            np.stack(pictures), np.array(times), np.stack(small), np.array(small_times), 1 / self.fps,
        )  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One shot. frames: uint8 [T,H,W,3] RGB, shown from `times` (seconds of the film); tiny: all of them, grey, small.

    names: of the cast that its prompt names.
    """

    number: int
    name: str
    prompt: str
    names: frozenset[str]
    sections: tuple[int, ...]
    frames: np.ndarray
    times: np.ndarray
    tiny: np.ndarray
    tiny_times: np.ndarray
    step: float
    looked_at: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.frames)
        inner = range(math.ceil(EDGE * count), max(math.ceil(EDGE * count) + 1, count - math.ceil(EDGE * count)))
        picked = [min(inner[i], count - 1) for i in evenly(len(inner), min(LOOKED_AT, len(inner)))]
        object.__setattr__(self, "looked_at", self.frames[picked])

    @property
    def start(self) -> float:
        return float(self.tiny_times[0])

    @property
    def seconds(self) -> float:
        return float(self.tiny_times[-1] - self.tiny_times[0]) + self.step


def shrunk(picture: np.ndarray) -> np.ndarray:
    """A picture [H,W,3] uint8 as a small grey one, float32 in 0..255."""
    height, width = picture.shape[:2]
    size = TINY, max(1, round(TINY * height / width))
    return cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA).astype(np.float32)


def footage_of_pictures(
    pieces: Pieces,
    frames: int,
    size: tuple[int, int],
    fps: float,
    storyboard: Storyboard,
    name: str = "film",
    joins: Sequence[Join] = (),
    sections: Sequence[Sequence[int]] = (),
) -> Footage:
    """A film as pictures in RAM: `pieces` gives [T,H,W,3] in 0..1, all together `frames` of width and height `size`."""
    numbers = tuple(tuple(of_shot) for of_shot in sections)
    going = tuple(joins) or going_on(storyboard)
    return Footage(name, fps, frames / fps, size, storyboard, lambda: _stamped(pieces, fps), going, numbers)


def _stamped(pieces: Pieces, fps: float, before: int = 0) -> Iterator[Stamped]:
    """Pictures with their times, without the first `before`."""
    index = -before
    for piece in pieces():
        for picture in piece:
            if index >= 0:
                yield index / fps, (picture[..., :3].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
            index += 1


def footage_of_movie(path: Path, storyboard: Storyboard | None = None) -> Footage:
    """A film as a file. Without a storyboard each cut that PySceneDetect finds begins a shot, and there are no prompts.

    Raises BadClip for a file that cannot be read, DatasetError where cuts are to be found and PySceneDetect is missing.
    """
    fps, size = _rate_and_size(path)

    def read() -> Iterator[Stamped]:
        for picture in VideoReader(path, fps, *size):
            yield picture.index / fps, picture.pixels

    is_cut = scene_cuts() if storyboard is None else None
    starts, last = [0.0], 0.0
    small = size if is_cut is None else (256, max(2, round(256 * size[1] / size[0])))
    reader = VideoReader(path, fps, *small)
    for picture in reader if is_cut is not None else ():
        if is_cut is not None and is_cut(picture) and picture.index:
            starts.append(picture.index / fps)
    last = reader.seconds or _length(path)
    if storyboard is None:
        storyboard = Storyboard(tuple(Shot(NO_PROMPT, start) for start in starts))
    return Footage(path.stem, fps, last, size, storyboard, read, going_on(storyboard))


NO_PROMPT = "-"  # of a shot of which nothing is said; a storyboard has no empty one


@dataclass(frozen=True)
class Decoded:
    """A film's own pictures, decoded. before: how many of them are of what it opens with; size: width and height."""

    pieces: Pieces
    size: tuple[int, int]
    before: int = 0


def footage_of_film(folder: Path, storyboard: Storyboard | None = None, decoded: Decoded | None = None) -> Footage:
    """A film of ours, by its folder: what its sections' previews show, so that no VAE is needed, or its `decoded`
    pictures.

    Raises StoredFilmError, and BadClip for a section without a preview.
    """
    stored = stored_film(folder.parent, folder.name)
    told = [Shot(str(record.get("prompt") or NO_PROMPT), 0.0) for record in stored.records]
    lengths = [_seconds(stored, index) for index in range(len(stored.records))]
    shots, sections, joins = _laid_out(_shot_numbers(stored), told, lengths)
    starts = [0.0, *itertools.accumulate(lengths)]
    now = starts.pop()
    fps = float(stored.fact("fps") or 16.0)
    made = Storyboard(tuple(shots))
    if storyboard is not None and len(storyboard.shots) == len(shots):  # which says names and the cast
        named = zip(storyboard.expanded().shots, shots, strict=True)
        made = Storyboard(
            tuple(replace(told, start=shot.start, end=None) for told, shot in named), cast=storyboard.cast
        )
        joins += [join for join in going_on(made, sections) if join not in joins]
    ordered = tuple(sorted(joins, key=lambda join: join.at))
    footage = Footage(stored.name, fps, now, (0, 0), made, lambda: iter(()), ordered, sections)
    if decoded is not None:
        return replace(footage, size=decoded.size, read=lambda: _stamped(decoded.pieces, fps, decoded.before))
    previews = [_preview_path(stored, index) for index in range(len(stored.records))]

    def read() -> Iterator[Stamped]:
        for index, path in enumerate(previews):
            length = _seconds(stored, index)
            pictures = _animation(path, min(PREVIEW_FRAMES, round(length * fps)))
            last = length - 1 / fps
            for number, picture in enumerate(pictures):
                yield starts[index] + last * number / max(1, len(pictures) - 1), picture

    with Image.open(previews[0]) as image:
        return replace(footage, size=image.size, read=read, source=PREVIEWS)


def footage_of_sections(decoded: Decoded, frames: Sequence[int], fps: float, storyboard: Storyboard) -> Footage:
    """A film that is in RAM, decoded. frames: of each of its sections, which belongs to the shot that is on in its
    middle; shots begin with their sections, which lie on the lattice of latents and not quite where they are told."""
    lengths = [count / fps for count in frames]
    ends = list(itertools.accumulate(lengths))
    numbers = [nearest_shot(storyboard, end - length / 2) for end, length in zip(ends, lengths, strict=True)]
    shots, sections, joins = _laid_out(numbers, [storyboard.shots[number] for number in numbers], lengths)
    made = replace(storyboard, shots=tuple(shots))
    joins += [join for join in going_on(made, sections) if join not in joins]
    ordered = tuple(sorted(joins, key=lambda join: join.at))
    return Footage(
        "film", fps, ends[-1], decoded.size, made, lambda: _stamped(decoded.pieces, fps, decoded.before), ordered,
        sections,
    )  # fmt: skip


def _laid_out(
    numbers: Sequence[Any], told: Sequence[Shot], lengths: Sequence[float]
) -> tuple[list[Shot], tuple[tuple[int, ...], ...], list[Join]]:
    """Shots with their starts, the sections of each, and where sections go on; from the shot's number, the shot and the
    seconds of each section."""
    shots: list[Shot] = []
    sections: list[list[int]] = []
    joins: list[Join] = []
    now = 0.0
    for index, (shot, length) in enumerate(zip(told, lengths, strict=True)):
        if index == 0 or numbers[index] != numbers[index - 1]:
            shots.append(replace(shot, start=now, end=None))
            sections.append([])
        else:
            joins.append(Join(index + 1, len(shots), now))
        sections[-1].append(index + 1)
        now += length
    return shots, tuple(tuple(of_shot) for of_shot in sections), joins


def going_on(storyboard: Storyboard, sections: Sequence[Sequence[int]] = ()) -> tuple[Join, ...]:
    """The joins that a storyboard tells of: shots that go on from the one before. Each shot is taken for a section
    where the sections are not known."""
    return tuple(
        Join(sections[index][0] if sections else index + 1, index + 1, shot.start)
        for index, shot in enumerate(storyboard.shots)
        if index and shot.transition == "continue"
    )


def _shot_numbers(stored: StoredFilm) -> list[Any]:
    """Of each section the shot that it belongs to, by the plan beside the manifest, else by its prompt."""
    prompts = [record.get("prompt") for record in stored.records]
    try:
        planned = json.loads((stored.store.folder / "plan.json").read_text(encoding="utf-8"))["sections"]
        by_index = {entry["index"]: entry for entry in planned}
        told = [by_index[record["index"]] for record in stored.records]
        if [entry["prompt"] for entry in told] == prompts:
            return [entry["shot"] for entry in told]
    except (OSError, KeyError, TypeError, *DAMAGE):
        pass  # a film of before, or one whose plan is for another run
    return prompts


def _seconds(stored: StoredFilm, index: int) -> float:
    """Of a section; the film's beginning may be one frame longer than the plan's even pace."""
    record = stored.records[index]
    return float(record.get("seconds") or record.get("frames", 0) / float(stored.fact("fps") or 16.0))


def _preview_path(stored: StoredFilm, index: int) -> Path:
    record = stored.records[index]
    path = stored.store.path(record["key"], index).with_suffix(".webp")
    if not path.is_file():
        raise BadClip(f"film {stored.name!r}: section {index + 1} has no preview; save the film and judge the MP4")
    return path


def _animation(path: Path, count: int) -> list[np.ndarray]:
    """Its pictures, each as often as it was put in: WebP keeps one of equal neighbours, with the time of all of them,
    and where all of `count` are equal a single one without a time."""
    try:
        with Image.open(path) as image:
            pictures, shown = [], []
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                pictures.append(np.asarray(image.convert("RGB")))
                shown.append(max(1.0, float(image.info.get("duration") or 1)))
            each = min(shown) if len(pictures) > 1 else shown[0] / max(1, count)
            return [picture for picture, time in zip(pictures, shown, strict=True) for _ in range(round(time / each))]
    except DAMAGE as error:
        raise BadClip(f"{path.name} cannot be read ({error}); delete it and render the film once more") from error


def _rate_and_size(path: Path) -> tuple[float, tuple[int, int]]:
    try:
        with av.open(str(path)) as container:
            stream: Any = next(iter(container.streams.video), None)
            frame: Any = None if stream is None else next(iter(container.decode(stream)), None)
            if stream is None or frame is None:
                raise BadClip(f"{path} has no pictures; give a video")
            width, height = frame.width * float(stream.sample_aspect_ratio or 1), float(frame.height)
            if frame.rotation % 180 == 90:
                width, height = height, width
            scale = min(1.0, MOST_PIXELS / max(width, height))
            return float(stream.average_rate or 25), (round(width * scale), round(height * scale))
    except FFmpegError as error:
        raise BadClip(f"{path} cannot be read as a video: {error.strerror or error}") from error


def _length(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return float(container.duration or 0) / av.time_base
