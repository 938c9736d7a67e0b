"""A folder of videos and captions becomes a dataset: shards, text conditioning, and an index that names them all."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...files import remove_abandoned, write_bytes
from ...pictures.codec import Codec
from ...storyboard import Storyboard
from .captions import FolderCaptions, captions_of, read_folder_captions, within
from .clips import RECORDS, SHARDS, ClipRecord, ClipTask, Progress, Watch, cache_clip
from .settings import BadClip, CacheSettings, DatasetError, Geometry, LatentSpace, heldout_names, plan_geometry
from .text import NO_ENCODER, TEXTS, TextEncoder, encode_prompts
from .video import EXTENSIONS

INDEX = "index.json"
FORMAT = "video_memory_dataset"
SCHEMA_VERSION = 1
CROPPED = 0.9  # of a picture: clips of which less is kept are named in the report
NAMED = 5  # clips that one line of the report names


@dataclass(frozen=True)
class CacheReport:
    """What came out: counts of clips and windows, `(name, reason)` of everything that was left out, and notes on what
    is used, but perhaps not as meant."""

    folder: Path
    clips: int
    train: int
    heldout: int
    encoded: int
    geometry: Geometry
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        g = self.geometry
        lines = [
            f"{self.train + self.heldout} windows of {self.clips} clips ({self.train} to train, {self.heldout} held "
            f"out), {self.encoded} encoded now",
            f"{g.width}x{g.height}, {g.frames} frames = {g.latents} latents each, in {self.folder}",
        ]
        return "\n".join([*lines, *self.notes, *(f"left out: {name}: {reason}" for name, reason in self.skipped)])


def build_cache(
    clips: Path,
    out: Path,
    settings: CacheSettings,
    space: LatentSpace,
    codec: Callable[[], Codec],
    text: TextEncoder | None = None,
    jobs: int = 1,
    watch: Watch = lambda progress: None,
) -> CacheReport:
    """Caches every video below `clips` in `out` and writes the index; what is there already is not made again.

    codec: makes the codec; called at the first window to encode, and once in each process when `jobs` > 1, where it
    has to be picklable and `watch` hears of whole clips only. watch: may raise to stop; the next run goes on from
    there. One run at a time may write `out`.

    Raises DatasetError when nothing can be used, and with on_bad "refuse" for the first clip that cannot.
    """
    geometry = plan_geometry(settings, space)
    sources = find_clips(clips, out)
    heldout = heldout_names(sources, settings.heldout)
    folder_captions = read_folder_captions(clips, out)
    _remove_leftovers(out)
    bad = _BadClips(settings)
    for stranger in folder_captions.strangers(sources):
        bad.add(stranger, f"is captioned in {folder_captions.path}, but is not among the clips")
    captions = _read_captions(sources, folder_captions, settings, bad)
    tasks = [
        ClipTask(name, sources[name], number, len(captions), out, settings, geometry, space)
        for number, name in enumerate(captions)
    ]
    used: dict[str, ClipRecord] = {}
    encoded = 0
    for task, record in _records(tasks, codec, jobs, watch):
        encoded += record.encoded
        kept = None if record.bad else _captions_within(task.name, captions[task.name], record.seconds, bad)
        if record.bad or (captions[task.name] and kept is None):
            bad.add(task.name, record.bad or "no caption lies within the clip")
            continue
        used[task.name], captions[task.name] = record, kept
    if not used:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in bad.clips[:5])
        raise DatasetError(f"no clip in {clips} can be used: {reasons}")
    notes = _notes(used, captions, folder_captions.stray_files(sources), text is not None)
    prompts = {shot.prompt for name in used for shot in _shots(captions[name])}
    texts = encode_prompts(prompts, out, text, space, lambda prompt: watch(_text_progress(prompt, len(tasks))))
    index = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "settings": asdict(settings),
        "geometry": asdict(geometry),
        "space": asdict(space),
        "text_encoder": text.identity if text else NO_ENCODER,
        "clips": [_clip_entry(name, used[name], captions[name], name in heldout) for name in used],
        "texts": texts,
        "skipped": [{"source": name, "reason": reason} for name, reason in bad.clips],
        "notes": notes,
    }
    write_bytes(out / INDEX, json.dumps(index, indent=1).encode())
    count = {side: sum(len(used[n].windows) for n in used if (n in heldout) == side) for side in (False, True)}
    return CacheReport(out, len(used), count[False], count[True], encoded, geometry, tuple(bad.clips), tuple(notes))


def find_clips(folder: Path, out: Path) -> dict[str, Path]:
    """Videos below a folder, by their path below it with forward slashes, sorted; hidden ones and `out` are left out.

    Raises DatasetError when there is none.
    """
    if not folder.is_dir():
        raise DatasetError(f"clips folder {folder} does not exist; give a folder of videos")
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        inside = out.absolute() in path.absolute().parents
        if path.suffix.lower() in EXTENSIONS and not hidden and not inside and path.is_file():
            found[name] = path
    if not found:
        raise DatasetError(f"clips folder {folder} holds no video; known are {', '.join(EXTENSIONS)}")
    return dict(sorted(found.items()))


def folder_stamp(folder: Path) -> str:
    """A hash of names, sizes and times of the files below a folder: the same as long as nothing has changed."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            digest.update(
                f"{path.relative_to(folder).as_posix()} {status.st_size} {status.st_mtime_ns}\n".encode(
                    "utf-8", "replace"
                )
            )
    return digest.hexdigest()


def _notes(
    used: dict[str, ClipRecord], captions: dict[str, Storyboard | None], strays: list[str], encoder: bool
) -> list[str]:
    """What a person may have meant otherwise: one line each, with how many clips and which."""
    notes = []
    if strays:
        notes.append(_counted(strays, "text file", "that belong{s} to no clip"))
    captioned = [name for name in used if captions[name]]
    if captioned and not encoder:
        notes.append(_counted(captioned, "clip", "whose captions are lost, since no text encoder was given"))
    if bare := [name for name in used if not captions[name]]:
        notes.append(_counted(bare, "clip", "without a caption"))
    for change in sorted({change for record in used.values() for change in record.changed}):
        notes.append(_counted([name for name in used if change in used[name].changed], "clip", f"whose {change}"))
    if cropped := sorted((record.kept, name) for name, record in used.items() if record.kept < CROPPED):
        what = f"cropped to less than {CROPPED:.0%} of the picture (least {cropped[0][0]:.0%})"
        notes.append(_counted([name for _, name in cropped], "clip", what))
    return notes


def _counted(names: list[str], noun: str, what: str) -> str:
    """ "2 clips without a caption: a.mp4, b.mp4", with some of the names."""
    one = len(names) == 1
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"{len(names)} {noun}{'' if one else 's'} {what.replace('{s}', 's' if one else '')}: {shown}"


class _BadClips:
    """Everything that cannot be used: listed, or refused at once."""

    def __init__(self, settings: CacheSettings) -> None:
        self.refuse = settings.on_bad == "refuse"
        self.clips: list[tuple[str, str]] = []

    def add(self, name: str, reason: str) -> None:
        if self.refuse:
            raise DatasetError(f"clip {name}: {reason}; repair or remove it, or set on_bad to skip")
        self.clips.append((name, reason))


def _read_captions(
    sources: dict[str, Path], folder: FolderCaptions, settings: CacheSettings, bad: _BadClips
) -> dict[str, Storyboard | None]:
    """Captions of each clip; a clip whose captions cannot be read is left out."""
    captions: dict[str, Storyboard | None] = {}
    for name in sources:
        try:
            captions[name] = captions_of(name, folder, settings.window_seconds, settings.fps)
        except BadClip as error:
            bad.add(name, str(error))
    return captions


def _captions_within(name: str, captions: Storyboard | None, seconds: float, bad: _BadClips) -> Storyboard | None:
    if captions is None:
        return None
    kept, reasons = within(captions, seconds)
    for reason in reasons:
        bad.add(name, reason)
    return kept


def _records(
    tasks: list[ClipTask], codec: Callable[[], Codec], jobs: int, watch: Watch
) -> Iterator[tuple[ClipTask, ClipRecord]]:
    """Goes through the clips, in their order whatever the number of processes is."""
    if jobs <= 1:
        once = _Once(codec)
        for task in tasks:
            watch(Progress(task.name, task.number, task.total))
            record = cache_clip(task, once, watch)
            watch(_done(task, record))
            yield task, record
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the accelerator's and the VAE's locks
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (codec, jobs))
    try:
        for task, record in zip(tasks, pool.map(_work, tasks), strict=True):
            watch(_done(task, record))
            yield task, record
    except BrokenProcessPool as error:
        raise DatasetError(
            f"one of the {jobs} processes ended early, most likely for want of memory; start again with fewer jobs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Once:
    """Makes the codec at the first call and keeps it."""

    def __init__(self, make: Callable[[], Codec]) -> None:
        self.make, self.made = make, None

    def __call__(self) -> Codec:
        self.made = self.made or self.make()
        return self.made


_worker_codec: _Once | None = None  # of a worker process: the way the standard library's pools hand something to it


def _start_worker(codec: Callable[[], Codec], jobs: int) -> None:
    global _worker_codec
    _worker_codec = _Once(codec)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback; shards are written whole
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent leaves no worker behind
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(task: ClipTask) -> ClipRecord:
    assert _worker_codec is not None  # set by _start_worker
    return cache_clip(task, _worker_codec, lambda progress: None)


def _done(task: ClipTask, record: ClipRecord) -> Progress:
    return Progress(
        task.name, task.number, task.total, record.seconds, record.seconds, len(record.windows), record.encoded, True
    )


def _text_progress(prompt: str, clips: int) -> Progress:
    return Progress(f"text: {prompt[:60]}", clips, clips)


def _remove_leftovers(out: Path) -> None:
    """Temporary files of a run that was killed."""
    for folder in (out, out / SHARDS, out / RECORDS, out / TEXTS):
        remove_abandoned(folder, ".*.tmp")


def _shots(captions: Storyboard | None) -> tuple[Any, ...]:
    return captions.shots if captions else ()


def _clip_entry(name: str, record: ClipRecord, captions: Storyboard | None, heldout: bool) -> dict[str, Any]:
    return {
        "source": name,
        "split": "heldout" if heldout else "train",
        "seconds": record.seconds,
        "captions": json.loads(captions.to_json()) if captions else None,
        "windows": list(record.windows),
    }
