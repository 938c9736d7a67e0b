"""Little videos and stand-ins for VAE and text encoder, for the tests of the dataset cache."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from einops import rearrange, repeat
from safetensors import safe_open

from memory_encoder.pictures.codec import Codec
from memory_encoder.training.dataset.cache import CacheReport, build_cache
from memory_encoder.training.dataset.settings import CacheSettings, LatentSpace
from memory_encoder.training.dataset.text import TextEncoder
from memory_encoder.training.dataset.video import VideoReader

SPATIAL, TEXT = 8, 5
SPACE = LatentSpace("wan", "Wan21", "vae 1", 3, 4, SPATIAL, (1, 2, 2), TEXT, None)
SETTINGS = CacheSettings(
    width=64,
    height=48,
    fps=8,
    window_seconds=2.2,
    rates=("2x2x2", "2x2x1"),
    on_bad="skip",
    buckets=(),
    min_window_seconds=0.0,
)
FRAMES, LATENTS = 17, 5  # of a window with these settings
STEP = 5  # brightness from one frame of a test video to the next


class CountingCodec:
    """A causal VAE in miniature that counts its work: latent 0 is frame 0, latent k the last of frames 4k-3 .. 4k."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        self.encoded += 1
        x = rearrange(pictures, "b t h w c -> b c t h w")[:, :, ::4]
        return torch.nn.functional.avg_pool3d(x, (1, SPATIAL, SPATIAL)) * 255 / STEP

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        large = repeat(latents * STEP / 255, "b c t h w -> b t (h a) (w d) c", a=SPATIAL, d=SPATIAL)
        return torch.cat([large[:, :1], large[:, 1:].repeat_interleave(4, dim=1)], dim=1)

    def codec(self) -> Codec:
        return Codec(encode=self.encode, decode=self.decode, embed=lambda latents: latents, temporal=4, spatial=SPATIAL)


class Words:
    """A text encoder that counts what it encodes."""

    def __init__(self, width: int = TEXT) -> None:
        self.encoded: list[str] = []
        self.width = width

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list[list[Any]]:
        self.encoded.append(tokens)
        return [[torch.full((1, 4, self.width), float(len(tokens))), {"pooled_output": None, "hooks": object()}]]


def write_video(path: Path, levels: Iterable[int], times: Iterable[float] | None = None, **options: Any) -> Path:
    """Grey pictures of these levels at 8 frames per second, or at these times; lossless enough to read levels back."""
    levels = list(levels)
    width, height = options.get("size", (64, 48))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as out:
        stream = out.add_stream("libx264", rate=8, options={"qp": "1", "g": "8"} | options.get("codec", {"bf": "0"}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation := options.get("rotation"):
            stream.set_display_rotation(rotation)
        if matrix := options.get("matrix"):
            stream.set_display_matrix(matrix)
        moments = list(times) if times is not None else [i / 8 for i in range(len(levels))]
        for level, moment, following in zip(levels, moments, [*moments[1:], moments[-1] + 1 / 8], strict=True):
            picture = np.full((height, width, 3), level, np.uint8)
            if options.get("marked"):
                picture[:8, :8] = 255  # top left
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round(moment * 1000), Fraction(1, 1000)
            frame.duration = round((following - moment) * 1000)
            _mux(out, stream.encode(frame), options)
        _mux(out, stream.encode(), options)
    return path


def _mux(out: Any, packets: Iterable[Any], options: dict[str, Any]) -> None:
    for packet in packets:
        if options.get("mixed_up"):
            packet.pts = packet.dts = packet.dts + 1000  # below 0 the muxer would cut them off
        out.mux(packet)


def counting(path: Path, frames: int = 17, **options: Any) -> Path:
    """A video whose frame i is about STEP * i + 20 bright."""
    return write_video(path, [20 + STEP * i % 230 for i in range(frames)], **options)


def cache(
    clips: Path, out: Path, codec: CountingCodec | None = None, words: Words | None = None, **changes: Any
) -> CacheReport:
    watch = changes.pop("watch", lambda progress: None)
    settings = dataclasses.replace(SETTINGS, **changes)
    encoder = TextEncoder("words 1", lambda: words) if words else None
    return build_cache(clips, out, settings, SPACE, (codec or CountingCodec()).codec, encoder, watch=watch)


def levels(path: Path, fps: float = 8, size: tuple[int, int] = (64, 48)) -> list[float]:
    return [float(picture.pixels.mean()) for picture in VideoReader(path, fps, *size)]


def index_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "index.json").read_text())


def rows_of(out: Path, query: str, *values: Any) -> list[Any]:
    """Rows of a dataset's tables; a query may change them too."""
    with contextlib.closing(sqlite3.connect(out / index_of(out)["windows"])) as connection, connection:
        return connection.execute(query, values).fetchall()


def as_version_1(out: Path) -> None:
    """Makes a dataset what an earlier version of this pack would have left."""
    head = index_of(out)
    clips = []
    for number, source, split, seconds, captions in rows_of(
        out, "SELECT clip, source, split, seconds, captions FROM clips ORDER BY clip"
    ):
        query = "SELECT file, sha256, bytes, start FROM windows WHERE clip = ? ORDER BY start"
        windows = [
            {"file": file, "sha256": sha256.hex(), "bytes": size, "start_seconds": start}
            for file, sha256, size, start in rows_of(out, query, number)
        ]
        captions = json.loads(captions) if captions else None
        clips.append({"source": source, "split": split, "seconds": seconds, "captions": captions, "windows": windows})
    texts = {file: (sha256, size) for file, sha256, size in rows_of(out, "SELECT file, sha256, bytes FROM texts")}
    named = []
    for file, (sha256, size) in texts.items():
        with safe_open(str(out / file), framework="pt") as content:
            prompt = json.loads(content.metadata()["video_memory_text"])["prompt"]
        named.append({"prompt": prompt, "file": file, "sha256": sha256.hex(), "bytes": size})
    skipped = rows_of(out, "SELECT source, reason FROM skipped ORDER BY number")
    for name in ("windows", "counts", "buckets"):
        (out / head.pop(name)).unlink() if name == "windows" else head.pop(name)
    for name in ("buckets", "min_window_seconds"):
        del head["settings"][name]
    skips = [{"source": source, "reason": reason} for source, reason in skipped]
    head |= {"schema_version": 1, "clips": clips, "texts": named, "skipped": skips}
    (out / "index.json").write_text(json.dumps(head, indent=1))


def picklable_codec() -> Codec:
    return CountingCodec().codec()


def write_patches(path: Path, codec: str, frames: Iterable[Any], color: tuple[int, int, int] | None = None) -> Path:
    """A video of ready frames. color: primaries, transfer and matrix, as in H.273."""
    frames = list(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        lossless = {"x265-params": "lossless=1:log-level=none"} if codec == "libx265" else {}
        stream: Any = out.add_stream(codec, rate=8, options=lossless)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        if color:
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace = color
        for number, frame in enumerate(frames):
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
