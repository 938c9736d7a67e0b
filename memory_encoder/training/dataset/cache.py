"""A folder of videos and captions becomes a dataset: shards, text conditioning, and an index that names them all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...digests import section_key
from ...files import remove_abandoned, write_bytes
from ...frames import frames_in
from ...pictures.codec import Codec
from ...storyboard import Storyboard
from .buckets import Buckets, plan_buckets
from .cache_report import CacheReport, notes_on, unseen
from .captions import FolderCaptions, captions_of, read_folder_captions, within
from .clips import RECORDS, SHARDS, ClipTask, Progress, Watch, clip_stamp
from .disk_space import DiskSpace, disk_space, probed_of
from .index import Findings
from .scan import Looking, files_below, is_text, readable
from .settings import INDEX, BadClip, CacheSettings, DatasetError, LatentSpace, heldout_names
from .share import WHOLE, Share
from .text import NO_ENCODER, TEXTS, TextEncoder, encode_prompts
from .video import EXTENSIONS
from .workers import records

WINDOWS = "index"
FORMAT = "video_memory_dataset"
SCHEMA_VERSION, PACKED_SCHEMA_VERSION = 2, 3  # 1: everything in index.json; packed: windows in large files


def build_cache(
    clips: Path,
    out: Path,
    settings: CacheSettings,
    space: LatentSpace,
    codec: Callable[[], Codec],
    text: TextEncoder | None = None,
    jobs: int = 1,
    watch: Watch = lambda progress: None,
    share: Share = WHOLE,
    before: Callable[[DiskSpace], None] | None = None,
    looking: Looking = lambda: None,
) -> CacheReport:
    """Caches every video below `clips` in `out` and writes the index; what is there already is not made again.

    codec: makes the codec; called at the first window to encode, and once in each process when `jobs` > 1, where it
    has to be picklable and `watch` hears of whole clips only. watch: may raise to stop; the next run goes on from
    there. share: which of several processes this is, on one machine or on several that see the same folders; the last
    one to end writes the index. One run at a time may write `out`. before: hears what it will take on disk, and may
    raise, before anything is encoded; without it, a disk that is too small is refused. looking: called while folders
    are searched; may raise to stop.

    Raises DatasetError when nothing can be used, and with on_bad "refuse" for the first clip that cannot.
    """
    plan = plan_buckets(settings, space)
    sources = find_clips(clips, out, looking)
    names = list(sources)
    heldout = heldout_names(names, settings.heldout)
    folder_captions = read_folder_captions(clips, out, looking)
    _remove_leftovers(out)
    share.begin(out)
    contents = _contents(sources, folder_captions) if share.count > 1 else ""  # before any of it is read
    findings = Findings()
    bad = _BadClips(settings, findings)
    strangers = folder_captions.strangers(sources) if share.number == 0 else []
    for stranger in strangers:
        bad.add(-1, stranger, f"is captioned in {folder_captions.path}, but is not among the clips")
    captions = _read_captions(share.of(names), folder_captions, settings, bad)

    def task_of(number: int) -> ClipTask:
        return ClipTask(names[number], sources[names[number]], number, len(names), out, settings, plan, space)

    tasks = {number: task_of(number) for number in captions}

    def probed() -> Iterator[ClipTask]:
        for number in probed_of(len(names)):
            looking()
            yield tasks.get(number) or task_of(number)  # what is learnt of it is not asked for again

    prompts = {shot.prompt for storyboard in captions.values() for shot in _shots(storyboard)} if text else set()
    needed = disk_space(probed(), len(names), prompts, out, share.count)
    before(needed) if before else needed.check(out)
    prompts = set()
    for task, record in records(list(tasks.values()), codec, jobs, watch):
        words = captions[task.number]
        kept = None if record.bad else _captions_within(task, words, record.seconds, bad)
        if record.bad or (words and kept is None):
            bad.add(task.number, task.name, record.bad or "no caption lies within the clip")
            continue
        prompts |= {shot.prompt for shot in _shots(kept)}
        side = "heldout" if task.name in heldout else "train"
        findings.clip(task.number, task.name, side, kept, record.seconds, record.kept, record.changed, record.encoded)
        for window in record.windows:
            shape = record.shape(window, space)
            findings.window(
                task.number, window["start_seconds"], shape, window["file"], window["sha256"], window["bytes"]
            )
    for found in encode_prompts(prompts, out, text, space, lambda prompt: watch(_text_progress(prompt, len(names)))):
        findings.text(found["prompt"], found["file"], found["sha256"], found["bytes"])
    head = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "settings": asdict(settings),
        "geometry": asdict(plan.sizes[0]),
        "space": asdict(space),
        "text_encoder": text.identity if text else NO_ENCODER,
    }
    with share.gathered(findings, out, {"names": names, "contents": contents, "head": head}) as missing:
        if missing is not None:
            done = _report(findings, out, plan, space)
            return replace(done, missing=missing, strange=share.of_other_runs(out, missing))
        strays = folder_captions.stray_files(sources)
        notes = (*unseen(clips, out, looking), *notes_on(findings, strays, text is not None, out))
        report = _report(findings, out, plan, space, notes)
        if not report.clips:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in report.skipped[:5])
            raise DatasetError(f"no clip in {readable(str(clips))} can be used: {reasons}")
        _write_index(findings, out, head, report)
    return report


def _write_index(findings: Findings, out: Path, head: dict[str, Any], report: CacheReport) -> None:
    """The windows into a file of their own, then the head, which names it; a crash between leaves the earlier one."""
    file = findings.write_index(out, WINDOWS)
    counts = {"clips": report.clips, "train": report.train, "heldout": report.heldout, "skipped": len(report.skipped)}
    head = head | {"windows": file, "counts": counts, "buckets": report.buckets, "notes": report.notes}
    write_bytes(out / INDEX, json.dumps(head, indent=1).encode())
    for path in out.glob(f"{WINDOWS}-*.sqlite"):
        if path.name != file:
            with contextlib.suppress(OSError):  # a program that trains on it reads it still (Windows)
                path.unlink()


def _report(
    findings: Findings,
    out: Path,
    plan: Buckets,
    space: LatentSpace,
    notes: tuple[str, ...] = (),
) -> CacheReport:
    [(clips, encoded)] = findings.rows("SELECT count(*), ifnull(sum(encoded), 0) FROM found_clips")
    windows = "SELECT {0}, count(*) FROM found_windows JOIN found_clips USING (clip) GROUP BY {0}"
    count = dict(findings.rows(windows.format("split")))
    shapes = "latents, height, width"
    buckets = tuple(
        f"{width * space.spatial}x{height * space.spatial}x{frames_in(latents, space.temporal)}: {number}"
        for latents, height, width, number in findings.rows(f"{windows.format(shapes)} ORDER BY 4 DESC, {shapes}")
    )
    skipped = tuple(findings.rows("SELECT source, reason FROM found_skipped ORDER BY clip, rowid"))
    return CacheReport(
        out, clips, count.get("train", 0), count.get("heldout", 0), encoded, plan.sizes[0], skipped, notes, buckets
    )


def find_clips(folder: Path, out: Path, looking: Looking = lambda: None) -> dict[str, Path]:
    """Videos below a folder, by their path below it with forward slashes, sorted; see `files_below`.

    Raises DatasetError when there is none.
    """
    if not folder.is_dir():
        raise DatasetError(f"clips folder {folder} does not exist; give a folder of videos")
    found = {n: path for n, path in files_below(folder, out, looking) if path.suffix.lower() in EXTENSIONS}
    if not found:
        others = "".join(f" ({note})" for note in unseen(folder, out, looking))
        raise DatasetError(f"clips folder {folder} holds no video{others}; known are {', '.join(EXTENSIONS)}")
    return dict(sorted(found.items()))


def _contents(sources: dict[str, Path], captions: FolderCaptions) -> str:
    """A hash of what clips and captions are now, by which shares of one dataset are told from those of another."""
    return section_key(
        "", {"clips": [clip_stamp(path) for path in sources.values()], "texts": captions.digest(sources)}
    )


class _BadClips:
    """Everything that cannot be used: listed, or refused at once."""

    def __init__(self, settings: CacheSettings, findings: Findings) -> None:
        self.refuse, self.findings = settings.on_bad == "refuse", findings

    def add(self, number: int, name: str, reason: str) -> None:
        if self.refuse:
            raise DatasetError(f"clip {readable(name)}: {readable(reason)}; repair or remove it, or set on_bad to skip")
        self.findings.skip(number, name, reason)


def _read_captions(
    names: Iterable[tuple[int, str]], folder: FolderCaptions, settings: CacheSettings, bad: _BadClips
) -> dict[int, Storyboard | None]:
    """Captions of each clip by its number; a clip whose captions cannot be read is left out."""
    captions: dict[int, Storyboard | None] = {}
    for number, name in names:
        try:
            if not is_text(name):
                raise BadClip("has a name that is not UTF-8 text, which no index holds; rename it")
            captions[number] = captions_of(name, folder, settings.window_seconds, settings.fps)
        except BadClip as error:
            bad.add(number, name, str(error))
    return captions


def _captions_within(task: ClipTask, captions: Storyboard | None, seconds: float, bad: _BadClips) -> Storyboard | None:
    if captions is None:
        return None
    kept, reasons = within(captions, seconds)
    for reason in reasons:
        bad.add(task.number, task.name, reason)
    return kept


def _text_progress(prompt: str, clips: int) -> Progress:
    return Progress(f"text: {prompt[:60]}", clips, clips)


def _remove_leftovers(out: Path) -> None:
    """Temporary files of a run that was killed."""
    for folder in (out, out / SHARDS, out / RECORDS, out / TEXTS):
        remove_abandoned(folder, ".*.tmp")


def _shots(captions: Storyboard | None) -> tuple[Any, ...]:
    return captions.shots if captions else ()
