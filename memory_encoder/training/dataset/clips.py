"""One clip of the cache: decoded, cut and encoded once, each window in a file that is found again by its key."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...damage import DAMAGE
from ...digests import section_key
from ...files import load_tensors, read_plain, save_tensors, write_bytes
from ...frames import latents_in
from ...pictures.codec import Codec
from .buckets import Buckets
from .settings import BadClip, CacheSettings, Geometry, LatentSpace
from .tiles import TilesWatched
from .video import VideoReader, first_look, treatment
from .windows import Window, cut_windows, encode_window, scene_cuts

SHARD_FORMAT = "video_memory_window"
SHARD_SCHEMA_VERSION = 1
SHARDS, RECORDS = "shards", "clips"

Watch = Callable[["Progress"], None]


@dataclass(frozen=True)
class Progress:
    """How far the cache is; told before each window is encoded and when a clip is done. A callback may raise to stop.

    clip, clips: number of the clip, from 0, and of all. seconds: how much of it is done, of `length` if that is known.
    windows: those of this clip so far, of which `encoded` were made now.
    """

    name: str
    clip: int
    clips: int
    seconds: float = 0.0
    length: float | None = None
    windows: int = 0
    encoded: int = 0
    done: bool = False


@dataclass(frozen=True)
class ClipTask:
    """One clip and all that its latents depend on; may travel to another process."""

    name: str
    path: Path
    number: int
    total: int
    out: Path
    settings: CacheSettings
    buckets: Buckets
    space: LatentSpace

    @cached_property
    def geometry(self) -> Geometry:
        """That of the bucket which keeps most of the clip's pictures."""
        return self.buckets.for_ratio(self.look[0])

    @cached_property
    def look(self) -> tuple[float | None, bool]:
        """See `first_look`."""
        return first_look(self.path)

    @cached_property
    def decisive(self) -> dict[str, Any]:
        """All that decides on the latents beside the clip itself; captions and the text encoder do not."""
        settings, space = self.settings, asdict(self.space)
        for name in ("host", "text_width", "pooled_width"):
            del space[name]
        ingredients = {
            "schema": SHARD_SCHEMA_VERSION,
            "geometry": asdict(self.geometry),
            "fps": float(settings.fps),
            "rates": sorted(settings.rates),
            "padding": settings.padding,
            "scene_cuts": settings.scene_cuts,
            "space": space,
        }
        if pixels := treatment(self.path):  # other clips keep the keys of before
            ingredients["pixels"] = pixels
        if self.look[1]:
            ingredients["mirrored"] = True
        return ingredients

    @property
    def seen(self) -> tuple[str, int, int]:
        """What a record may be found to be of without reading the clip: all that is decisive, size and time."""
        return section_key("", self.decisive), *clip_stamp(self.path)


@dataclass(frozen=True)
class ClipRecord:
    """What is known of a clip that has been gone through: its windows, or the reason why it cannot be used.

    windows: `{"file", "sha256", "bytes", "start_seconds", "frames"}` each. seconds: length of the clip. kept: share of
    its pictures that was not cropped. changed: what else was done to them, such as tone mapping. lengths: of windows in
    frames that were tried. seen: `ClipTask.seen` then; empty in earlier records.
    """

    key: str
    seconds: float = 0.0
    windows: tuple[dict[str, Any], ...] = ()
    bad: str = ""
    kept: float = 1.0
    changed: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    seen: tuple[str | int, ...] = ()
    encoded: int = 0  # now, not stored
    geometry: Geometry | None = None  # not stored either: the key speaks for it

    def shape(self, window: dict[str, Any], space: LatentSpace) -> tuple[int, int, int]:
        """Latents in time, height and width of one of its windows."""
        assert self.geometry is not None  # set by cache_clip
        frames = window.get("frames", self.geometry.frames)  # in earlier records all are whole
        size = self.geometry.height // space.spatial, self.geometry.width // space.spatial
        return latents_in(frames, space.temporal), *size

    def tried(self, lengths: tuple[int, ...], cuts: bool) -> bool:
        """Whether windows of these lengths would be found to be the same ones: whole ones in one piece are."""
        whole = all("frames" not in w or w["frames"] == lengths[0] for w in self.windows)
        return self.lengths == lengths or (bool(self.windows) and whole and not cuts)

    def save(self, path: Path) -> None:
        values = {name: value for name, value in asdict(self).items() if name not in ("encoded", "geometry")}
        write_bytes(path, json.dumps(values | {"digest": section_key("", values)}, indent=1).encode())

    @classmethod
    def load(cls, path: Path, key: str) -> ClipRecord | None:
        """The record with this key, or None when there is none, it is damaged or has no checksum, as in 0.1.0: then the
        clip is gone through again, and windows that are there stay."""
        try:
            values = json.loads(read_plain(path))
            if values.pop("digest") != section_key("", values):
                return None
            lists = {name: tuple(values[name]) for name in ("windows", "changed", "lengths", "seen") if name in values}
            record = cls(**values | lists)
        except (OSError, *DAMAGE):
            return None
        return record if record.key == key else None


def cache_clip(task: ClipTask, codec: Callable[[], Codec], watch: Watch) -> ClipRecord:
    """Encodes the windows of a clip that are not in the cache yet; a clip that is complete is not even decoded.

    codec: called only when something has to be encoded. Never raises for a bad clip: the record says why.
    """
    path = record_path(task)
    try:
        if not task.path.stat().st_size:
            raise BadClip("is empty (0 bytes)")
        key = clip_key(task)
    except BadClip as error:
        return ClipRecord(key="", bad=str(error))
    except OSError as error:  # it may be read another time: nothing of this is kept
        return ClipRecord(key="", bad=f"cannot be read: {error.strerror or error}")
    record = ClipRecord.load(path, key)
    known = record is not None and record.tried(task.buckets.lengths, task.settings.scene_cuts)
    if record is None or not known or not all(_intact(task.out, window) for window in record.windows):
        record = replace(_go_through(task, key, codec, watch), lengths=task.buckets.lengths, seen=task.seen)
        record.save(path)
    elif record.seen != task.seen:
        replace(record, seen=task.seen).save(path)
    return replace(record, geometry=task.geometry)


def record_path(task: ClipTask) -> Path:
    """Where the record of a clip is kept."""
    return task.out / RECORDS / f"{_slug(task.name)}.json"


def clip_key(task: ClipTask) -> str:
    """Hash of the file's bytes and of everything else that decides on its latents."""
    return section_key("", task.decisive | {"clip": file_hash(task.path)})


def bytes_there(task: ClipTask) -> int:
    """Bytes of the clip's windows that an earlier run has made with these settings, and that are still there."""
    try:
        values: Any = json.loads(read_plain(record_path(task)))
        known = values.get("seen") or task.seen[:1]  # an earlier record: the key alone can tell
        if known[0] != task.seen[0] or (tuple(known) != task.seen and values["key"] != clip_key(task)):
            return 0
        files = {str(window["file"]) for window in values["windows"]}
        return sum((task.out / file).stat().st_size for file in files if (task.out / file).is_file())
    except (OSError, *DAMAGE):
        return 0


def _go_through(task: ClipTask, key: str, codec: Callable[[], Codec], watch: Watch) -> ClipRecord:
    geometry, fps, (_, *shorter) = task.geometry, task.settings.fps, task.buckets.lengths
    is_cut = scene_cuts() if task.settings.scene_cuts else None
    reader = VideoReader(task.path, fps, geometry.width, geometry.height)
    windows: list[dict[str, Any]] = []
    encoded = 0
    try:
        for window in cut_windows(reader, geometry.frames, geometry.stride, is_cut, shorter):
            watch(
                Progress(task.name, task.number, task.total, window.start / fps, reader.declared, len(windows), encoded)
            )
            path = task.out / SHARDS / f"{_slug(task.name)}_{key[:16]}_{_place(window, geometry)}.safetensors"
            shard_key = _shard_key(key, window, geometry)
            if not _is_shard(path, shard_key):
                with TilesWatched() as tiles:
                    _write_shard(path, shard_key, window, task, codec())
                reader.changed |= tiles.found
                encoded += 1
            windows.append(_entry(task.out, path, window, fps))
        if not windows:
            least = task.buckets.lengths[-1] / fps
            scene = "; or none of its scenes is" if is_cut else ""
            raise BadClip(f"is too short: {reader.seconds:.2f} s are less than {least:.2f} s{scene}")
    except BadClip as error:
        for window in windows:
            (task.out / window["file"]).unlink(missing_ok=True)
        return ClipRecord(key=key, seconds=reader.seconds, bad=str(error), encoded=encoded)
    changed = tuple(sorted(reader.changed))
    return ClipRecord(key, reader.seconds, tuple(windows), kept=reader.uncropped, changed=changed, encoded=encoded)


def _place(window: Window, geometry: Geometry) -> str:
    """What a window is called within its clip; whole ones are called as they always were."""
    frames = len(window.pixels)
    return f"{window.start:07d}" + ("" if frames == geometry.frames else f"_{frames}")


def _shard_key(key: str, window: Window, geometry: Geometry) -> str:
    frames = len(window.pixels)
    return key if frames == geometry.frames else section_key(key, {"frames": frames})


def _write_shard(path: Path, key: str, window: Window, task: ClipTask, codec: Codec) -> None:
    geometry, settings = task.geometry, task.settings
    with torch.no_grad():
        tensors = encode_window(window, codec, settings, geometry, task.space)
    window_of = {
        "schema_version": SHARD_SCHEMA_VERSION,
        "key": key,
        "digest": digest_of(tensors),
        "source": task.name,
        "start_seconds": window.start / settings.fps,
        "fps": settings.fps,
        "frames": len(window.pixels),
        "width": geometry.width,
        "height": geometry.height,
    }
    save_tensors(tensors, path, {SHARD_FORMAT: json.dumps(window_of)})  # one entry: safetensors shuffles several


def _is_shard(path: Path, key: str) -> bool:
    """Whether a file left by an interrupted run is whole and has this key."""
    try:
        return is_whole(path.read_bytes(), SHARD_FORMAT, key)
    except OSError:
        return False


def is_whole(content: bytes, name: str, key: str) -> bool:
    """Whether these are the bytes of a safetensors file with this key whose tensors have not changed.

    name: of the metadata entry, JSON with "key" and "digest".
    """
    try:
        tensors, entries = load_tensors(content)
        metadata = json.loads(entries[name])
        return metadata["key"] == key and metadata["digest"] == digest_of(tensors)
    except DAMAGE:
        return False


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and bytes."""
    return section_key("", {"tensors": tensors})


def _entry(out: Path, path: Path, window: Window, fps: float) -> dict[str, Any]:
    return {
        "file": path.relative_to(out).as_posix(),
        "sha256": file_hash(path),
        "bytes": path.stat().st_size,
        "start_seconds": window.start / fps,
        "frames": len(window.pixels),
    }


def _intact(out: Path, entry: dict[str, Any]) -> bool:
    try:
        return file_hash(out / entry["file"]) == entry["sha256"]
    except (OSError, KeyError, TypeError):
        return False


def clip_stamp(path: Path) -> tuple[int, int]:
    """Size and time of a clip: other ones, another clip. Seconds alone, which all machines see alike: what a network
    folder says of their fractions differs. (-1, 0) for a file that cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return -1, 0
    return status.st_size, int(status.st_mtime)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _slug(name: str) -> str:
    """A file name for a clip: readable, and its own even where names differ only in what had to be replaced."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", name)[-60:]
    return f"{readable}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
