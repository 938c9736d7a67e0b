"""What a cache has made, for people: counts, what was left out, and what is used but perhaps not as meant."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .captions import FOLDER_FILES, SUFFIXES
from .clips import SHARDS
from .disk_space import GB
from .index import Findings
from .scan import Looking, all_below, readable
from .settings import Geometry
from .video import EXTENSIONS

CROPPED = 0.9  # of a picture: clips of which less is kept are named in the report
NAMED = 5  # clips that one line of the report names


@dataclass(frozen=True)
class CacheReport:
    """What came out: counts of clips and windows, `(name, reason)` of everything that was left out, and notes on what
    is used, but perhaps not as meant.

    buckets: the shapes that windows have. missing: numbers of the shares that other processes have not finished; as
    long as there are some, there is no index. strange: those of them that are there, but of other clips, captions or
    settings.
    """

    folder: Path
    clips: int
    train: int
    heldout: int
    encoded: int
    geometry: Geometry
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()
    missing: tuple[int, ...] | None = None
    strange: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.missing is not None:
            said = (
                f"this process's share is done: {self.clips} clips, {self.encoded} windows encoded now; the last "
                f"process to end writes the index in {self.folder} (not done yet: {_numbered(self.missing)})"
            )
            if self.strange:
                said += (
                    f"\nnot put together with this one: what process {_numbered(self.strange)} has found, which is of "
                    "other clips, captions or settings; leave the folder of clips as it is, and start all processes "
                    "again with the same options"
                )
            return readable(said)
        g = self.geometry
        lines = [
            f"{self.train + self.heldout} windows of {self.clips} clips ({self.train} to train, {self.heldout} held "
            f"out), {self.encoded} encoded now",
            f"{g.width}x{g.height}, {g.frames} frames = {g.latents} latents each, in {self.folder}",
        ]
        if len(self.buckets) > 1:
            lines[1] = f"sizes and lengths: {'; '.join(self.buckets)}; in {self.folder}"
        lines += [*self.notes, *(f"left out: {name}: {reason}" for name, reason in self.skipped)]
        return readable("\n".join(lines))


def unseen(folder: Path, out: Path, looking: Looking) -> tuple[str, ...]:
    """What lies among the clips and is neither clip nor caption: a line each for its kinds."""
    known = (*EXTENSIONS, *SUFFIXES)
    kinds = {
        "file": ("file", "of another kind than clips and captions"),
        "link": ("linked folder", "not followed, whose clips are not seen"),
        "barred": ("path", "that cannot be looked at"),
    }
    found: dict[str, list[str]] = {kind: [] for kind in kinds}
    for kind, name, path in all_below(folder, out, looking):
        if kind != "file" or (path.suffix.lower() not in known and name not in FOLDER_FILES):
            found[kind].append(name)
    return tuple(_counted(len(names), sorted(names), *kinds[kind]) for kind, names in found.items() if names)


def notes_on(findings: Findings, strays: list[str], encoder: bool, out: Path) -> tuple[str, ...]:
    """What a person may have meant otherwise: one line each, with how many clips and which."""
    notes = []
    if strays:
        notes.append(_counted(len(strays), strays, "text file", "that belong{s} to no clip"))

    def note(what: str, where: str, *values: object) -> None:
        [(count,)] = findings.rows(f"SELECT count(*) FROM found_clips WHERE {where}", values)
        if count:
            order = "kept, source" if "kept" in where else "clip"
            named = f"SELECT source FROM found_clips WHERE {where} ORDER BY {order} LIMIT {NAMED}"
            notes.append(_counted(count, [name for (name,) in findings.rows(named, values)], "clip", what))

    if not encoder:
        note("whose captions are lost, since no text encoder was given", "captions IS NOT NULL")
    note("without a caption", "captions IS NULL")
    changes = {
        change for (row,) in findings.rows("SELECT DISTINCT changed FROM found_clips") for change in json.loads(row)
    }
    for change in sorted(changes):
        note(f"whose {change}", "instr(changed, ?)", json.dumps(change))
    [(least,)] = findings.rows("SELECT ifnull(min(kept), 1.0) FROM found_clips")
    note(f"cropped to less than {CROPPED:.0%} of the picture (least {least:.0%})", "kept < ?", CROPPED)
    if unread := _unread(findings, out):
        size = sum((out / SHARDS / name).stat().st_size for name in unread)
        what = f"in {out / SHARDS} that this dataset does not read, {size / GB:.1f} GB, of other settings or clips"
        notes.append(_counted(len(unread), unread, "file", what))
    return tuple(notes)


def _unread(findings: Findings, out: Path) -> list[str]:
    """Files among the shards that belong to no window that was found."""
    if not (out / SHARDS).is_dir():
        return []
    with os.scandir(out / SHARDS) as entries:
        found = findings.without_window(f"{SHARDS}/{entry.name}" for entry in entries if entry.name[0] != ".")
    return [name.removeprefix(f"{SHARDS}/") for name in found]


def _numbered(numbers: Iterable[int]) -> str:
    """Numbers of shares as people count them."""
    return ", ".join(str(number + 1) for number in numbers)


def _counted(count: int, names: list[str], noun: str, what: str) -> str:
    """ "2 clips without a caption: a.mp4, b.mp4", with some of the names."""
    one = count == 1
    shown = ", ".join(names[:NAMED]) + (f" and {count - NAMED} more" if count > NAMED else "")
    return readable(f"{count} {noun}{'' if one else 's'} {what.replace('{s}', 's' if one else '')}: {shown}")
