"""Pictures of a video at a constant frame rate and size, streamed; whatever is wrong with the file is named."""

from __future__ import annotations

import heapq
import logging
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from .hdr import TRANSFERS, ToneMapping, colours_of
from .settings import BadClip

EXTENSIONS = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".flv", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".3gp", ".wmv",
    ".gif",
)  # fmt: skip
MAX_GAP_SECONDS = 60.0  # between two frames; more is a broken clock, not a slow picture
MAX_BACKWARDS_SECONDS = 1.0
_EARLY_END_SECONDS = 0.25  # containers round the length that they declare
_EARLY_END_SHARED_SECONDS = 2.0  # where only the longest of several streams has declared it
_MIXED_UP_FRAMES = 8  # how far apart; more than B-frames ever are in practice
_MATRIX = struct.Struct("5i")  # of a display matrix: rows go along (a, b), columns along (c, d)
_TIME_TOLERANCE = 1e-4  # seconds; time stamps are rounded to milliseconds and worse

_LOG = logging.getLogger("video_memory")


@dataclass(frozen=True)
class Picture:
    """Frame `index` of the resampled clip: RGB uint8 [height, width, 3], shown from index / fps seconds."""

    index: int
    pixels: np.ndarray


class VideoReader:
    """Reads one clip as pictures of `width` x `height` at `fps`.

    Each picture is the last one that the video shows at that time, whatever its own frame rate and time stamps are.
    The first frame is at 0 s. Pictures are turned upright and mirrored as players do, scaled to cover the size and
    cropped around their centre; HDR is tone-mapped, wide gamuts are converted, transparent parts are black. After the
    last picture has been read, `seconds` is the length of the video, `uncropped` the share of its pictures that was not
    cropped, and `changed` says what else was done to them.
    """

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self.path, self.fps, self.size = path, fps, (width, height)
        self.seconds, self.uncropped = 0.0, 1.0
        self.changed: set[str] = set()
        self.declared: float | None = None  # length that the file says it has
        self._pixel_aspect = 1.0
        self._tones: ToneMapping | None = None

    def __iter__(self) -> Iterator[Picture]:
        """Raises BadClip for a file that is no video, is damaged or ends too early."""
        try:
            yield from self._pictures()
        except FFmpegError as error:
            where = f"after {self.seconds:.2f} s" if self.seconds else "at its beginning"
            raise BadClip(f"cannot be decoded {where}: {error.strerror or error}") from error

    def _pictures(self) -> Iterator[Picture]:
        index, shown = 0, None
        for start, end, frame in self._timed_frames():
            while shown is not None and index / self.fps < start - _TIME_TOLERANCE:
                yield Picture(index, self._fitted(shown))
                index += 1
            shown, self.seconds = frame, end
        while shown is not None and index / self.fps < self.seconds - _TIME_TOLERANCE:
            yield Picture(index, self._fitted(shown))
            index += 1

    def _timed_frames(self) -> Iterator[tuple[float, float, Any]]:
        """(start, end, frame) in seconds from the first frame; a later frame cuts the end short."""
        with av.open(str(self.path)) as container:
            if not container.streams.video:
                raise BadClip("has no video stream")
            stream = container.streams.video[0]
            usual = float(1 / (stream.average_rate or Fraction(25)))
            self._pixel_aspect = float(stream.sample_aspect_ratio or 1)
            self.declared, tolerance = _declared_length(container, stream)
            first, last, ignored = None, -1.0, 0
            for time, frame in _in_order(_decoded(container, stream), usual):
                first = time if first is None else first
                start = time - first
                if frame.is_corrupt:
                    raise BadClip(f"is damaged at {start:.2f} s")
                if getattr(frame, "interlaced_frame", False):  # not in older versions
                    self.changed.add("interlaced lines stay as they are, combed where something moves")
                if start < last - MAX_BACKWARDS_SECONDS or start > max(last, 0.0) + MAX_GAP_SECONDS:
                    raise BadClip(f"has broken time stamps: {last:.2f} s is followed by {start:.2f} s; remux the file")
                if start <= last:
                    ignored += 1
                    continue
                length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else usual
                yield start, start + max(length, _TIME_TOLERANCE), frame
                last = start
        if ignored:
            _LOG.warning("%s: %d frames share a time with another one and are left out", self.path.name, ignored)
        if first is None:
            raise BadClip("has no frame that can be decoded")
        if self.declared is not None and first + self.seconds < self.declared - max(tolerance, 3 * usual):
            raise BadClip(f"is truncated: it ends at {self.seconds:.2f} s of {self.declared:.2f} s")

    def _fitted(self, frame: Any) -> np.ndarray:
        """RGB uint8 [height, width, 3] of a decoded frame."""
        width, height = self.size
        turned = frame.rotation % 180 == 90
        inner_w, inner_h = (height, width) if turned else (width, height)
        frame_w = frame.width * self._pixel_aspect
        scale = max(inner_w / frame_w, inner_h / frame.height)
        large_w = max(inner_w, round(frame_w * scale))
        large_h = max(inner_h, round(frame.height * scale))
        method = "AREA" if scale < 1 else "BICUBIC"
        self.uncropped = inner_w * inner_h / (large_w * large_h)
        pixels = self._pixels(frame, {"width": large_w, "height": large_h, "interpolation": method})
        left, top = (large_w - inner_w) // 2, (large_h - inner_h) // 2
        pixels = pixels[top : top + inner_h, left : left + inner_w]
        if mirrored(frame):
            pixels = pixels[::-1]
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))

    def _pixels(self, frame: Any, scaled: dict[str, Any]) -> np.ndarray:
        """RGB uint8 of a whole frame, scaled, as an ordinary screen shows it."""
        if colours := colours_of(frame.color_trc, frame.color_primaries):
            hdr = colours in TRANSFERS.values()
            self.changed.add(f"HDR ({colours}) was tone-mapped" if hdr else f"colours of {colours} were converted")
            self._tones = self._tones or ToneMapping(colours, frame.color_primaries)
            return self._tones(frame.to_ndarray(format="rgb48le", **scaled))
        if _has_alpha(frame):
            whole = frame.to_ndarray(format="rgba")
            if whole[..., 3].min() < 255:
                self.changed.add("transparent parts became black")
                # Before it is scaled: hidden colours would come out at the edges.
                visible = whole[..., :3].astype(np.uint16) * whole[..., 3:] // 255
                frame = av.VideoFrame.from_ndarray(visible.astype(np.uint8), format="rgb24")
        return frame.to_ndarray(format="rgb24", **scaled)


def mirrored(frame: Any) -> bool:
    """Whether a decoded frame is shown in a mirror, as front cameras write it: upside down before it is rotated.

    `frame.rotation` follows from where the rows of the picture go; only the columns tell a mirror.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None or len(bytes(matrix)) < _MATRIX.size:
        return False
    a, b, _, c, d = _MATRIX.unpack_from(bytes(matrix))
    return a * d - b * c < 0


def first_look(path: Path) -> tuple[float | None, bool]:
    """Width to height of a file's pictures as they are shown, and whether they are `mirrored`; (None, False) for one
    that cannot be read: reading it says why."""
    try:
        with av.open(str(path)) as container:
            frame = next(iter(container.decode(video=0)), None)
            if frame is None:
                return None, False
            ratio = frame.width * float(container.streams.video[0].sample_aspect_ratio or 1) / frame.height
            return (1 / ratio if frame.rotation % 180 == 90 else ratio), mirrored(frame)
    except (FFmpegError, IndexError):
        return None, False


def declared_seconds(path: Path) -> float | None:
    """The length that a file's header declares for its video; None where it declares none, 0 for what is no video."""
    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.video), None)
            return 0.0 if stream is None else _declared_length(container, stream)[0]
    except FFmpegError:
        return 0.0


def treatment(path: Path) -> str:
    """What pictures of a file go through beside scaling, by its header: what `colours_of` gives, "alpha" or nothing."""
    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                return ""
            alpha = _alpha_decoder(stream) or any(part.is_alpha for part in stream.codec_context.format.components)
            context = stream.codec_context
            return colours_of(context.color_trc, context.color_primaries) or ("alpha" if alpha else "")
    except (FFmpegError, AttributeError):  # a stream that has no format yet: reading it says what is wrong
        return ""


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames of a stream, with their transparency where FFmpeg's own decoder would leave it out."""
    name = _alpha_decoder(stream)
    if not name:
        yield from container.decode(stream)
        return
    decoder: Any = av.CodecContext.create(name, "r")
    for packet in container.demux(stream):
        yield from decoder.decode(packet)


def _alpha_decoder(stream: Any) -> str:
    """Name of a decoder that is needed for the transparency of WebM, which lies beside its pictures."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name, "")
    return name if dict(stream.metadata).get("alpha_mode") == "1" and name in av.codecs_available else ""


def _has_alpha(frame: Any) -> bool:
    return any(part.is_alpha for part in frame.format.components)


def _in_order(frames: Iterable[Any], usual: float) -> Iterator[tuple[float, Any]]:
    """Frames with ascending times. The decoder gives them in the order in which they are shown, but in some files the
    time stamps of neighbours are mixed up; frames without one follow the frame before."""
    waiting: deque[Any] = deque()
    times: list[float] = []
    last = -usual
    for frame in frames:
        last = frame.time if frame.time is not None else last + usual
        waiting.append(frame)
        heapq.heappush(times, last)
        if len(waiting) > _MIXED_UP_FRAMES:
            yield heapq.heappop(times), waiting.popleft()
    while waiting:
        yield heapq.heappop(times), waiting.popleft()


def _declared_length(container: Any, stream: Any) -> tuple[float | None, float]:
    """Length in seconds that the file declares for its video, and how much earlier it may end."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base), _EARLY_END_SECONDS
    tag = dict(stream.metadata).get("DURATION", "")
    parts = tag.split(":")
    if len(parts) == 3:
        try:
            hours, minutes, seconds = (float(part) for part in parts)
            return 3600 * hours + 60 * minutes + seconds, _EARLY_END_SECONDS
        except ValueError:
            pass
    if container.duration is None:
        return None, 0.0
    alone = len(container.streams) == 1
    return container.duration / av.time_base, _EARLY_END_SECONDS if alone else _EARLY_END_SHARED_SECONDS
