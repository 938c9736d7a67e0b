"""Captions of clips: a text or a storyboard beside each clip, or one file for the whole folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...storyboard import (
    MAX_TEXT_BYTES,
    Shot,
    Storyboard,
    StoryboardError,
    nearest_shot,
    parse_storyboard,
    read_storyboard,
)
from .clips import file_hash
from .scan import Looking, composed, files_below, readable
from .settings import BadClip, DatasetError

FOLDER_FILES = ("captions.json", "captions.jsonl")
MAX_FOLDER_BYTES = 256 * 1024 * 1024
_FILE_FIELDS = ("file", "file_name", "video", "path")
_TEXT_FIELDS = ("caption", "text", "prompt", "storyboard")
SUFFIXES = (".json", ".txt")
# Forms of which a .txt with several shots is read; one in JSON always, whatever stands around it.
_CLOCKED = ("brackets", "keyframes", "subtitles", "table", "list")
_JSON = ("json", "json_list", "storymem")
# Anything else in a .txt is one caption: also "[9:16] a dancer" and "[1950s photo] a street".
# What begins like this is a storyboard even where it is written wrongly.
_TIMED = re.compile(
    r"""\s*(?:(?!\[[\s\d.]+:[\s\d.]+\][^\[]*$)\[\s*[\d.]+\s*(?:ms|s|sec|secs|seconds?)?\s*[\]:,~–—-]"""
    r"""|\{\s*["'}]|"\s*[\d.]+\s?[a-z]*\s*"\s*:)"""
)


@dataclass(frozen=True)
class FolderCaptions:
    """What `captions.json` or `captions.jsonl` says of each clip, by its path below the folder or its file name; all
    names are `composed`.

    JSON: `{"clip.mp4": CAPTION, ...}`, or a list of `{"file": "clip.mp4", "caption": CAPTION}`. JSON lines: one such
    object per line. CAPTION is a text, a storyboard in any text format, or a storyboard as an object.
    """

    path: Path | None = None
    entries: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)  # by the path below the folder, without suffix

    def of(self, name: str) -> Any:
        """The raw caption of a clip, or None."""
        name = composed(name)
        return self.entries.get(name, self.entries.get(name.rsplit("/", 1)[-1]))

    def strangers(self, names: Iterable[str]) -> list[str]:
        """Entries that belong to none of the clips."""
        known = {part for name in map(composed, names) for part in (name, name.rsplit("/", 1)[-1])}
        return [name for name in self.entries if name not in known]

    def beside(self, name: str) -> tuple[Path, ...]:
        """The files of the same name as a clip."""
        return self.files.get(_stem(name), ())

    def digest(self, names: Iterable[str]) -> str:
        """A hash of all that these clips' captions are read from."""
        paths = [path for name in names for path in self.beside(name)]
        digest = hashlib.sha256()
        for path in (*paths, *([self.path] if self.path else [])):
            try:
                content = file_hash(path)
            except OSError:  # who reads it will say why
                content = ""
            digest.update(f"{path.name}\n{content}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def stray_files(self, names: Iterable[str]) -> list[str]:
        """Text files that are named like none of the clips."""
        known = {_stem(name) for name in names}
        return sorted(stem + path.suffix for stem, paths in self.files.items() if stem not in known for path in paths)


def read_folder_captions(folder: Path, out: Path | None = None, looking: Looking = lambda: None) -> FolderCaptions:
    """Finds the text files beside clips (see `files_below`), and reads the folder's caption file, if any.

    Raises DatasetError that names file and line when it cannot be read whole: nobody could say whose captions are lost.
    """
    found = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    files = _text_files(folder, out, looking)
    if not found:
        return FolderCaptions(files=files)
    if len(found) > 1:
        raise DatasetError(f"{folder} has both {' and '.join(FOLDER_FILES)}; keep one")
    path = found[0]
    try:
        text = _read_text(path, MAX_FOLDER_BYTES)
        data = _json_lines(text, path) if path.suffix == ".jsonl" else json.loads(text)
    except (BadClip, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); correct it") from error
    if isinstance(data, list):
        data = _by_name(data, path)
    if not isinstance(data, dict):
        raise DatasetError(f'{path} is no object and no list; write {{"clip.mp4": "what is seen", ...}}')
    entries: dict[str, Any] = {}
    for name, value in data.items():
        name = composed(name.replace("\\", "/").removeprefix("./"))
        if name in entries:
            raise DatasetError(f"{path}: {readable(name)} is named twice, in two ways of writing it; keep one")
        entries[name] = value
    return FolderCaptions(path, entries, files)


def captions_of(name: str, folder: FolderCaptions, section_seconds: float, fps: float) -> Storyboard | None:
    """Captions of one clip: the file of the same name with .json or .txt, else the folder's entry, else None.

    Times are seconds from the clip's beginning. Raises BadClip that names the file when it cannot be used.
    """
    beside = folder.beside(name)
    if len(beside) > 1:
        raise BadClip(f"captions are in both {beside[0].name} and {beside[1].name}; keep one")
    try:
        if beside:
            source, is_json = beside[0].name, beside[0].suffix.lower() == ".json"
            return _parse(_read_text(beside[0], MAX_TEXT_BYTES), is_json, section_seconds, fps)
        source = folder.path.name if folder.path else ""
        return _from_entry(folder.of(name), section_seconds, fps)
    except (StoryboardError, BadClip) as error:
        raise BadClip(f"captions in {source} cannot be used: {error}") from error


def within(captions: Storyboard, seconds: float) -> tuple[Storyboard | None, list[str]]:
    """The captions that begin before the clip's end at `seconds`, and one reason for each of the others."""
    kept = tuple(shot for shot in captions.shots if shot.start < seconds)
    reasons = [
        f"caption {number} starts at {shot.start:g} s, but the clip ends at {seconds:.2f} s"
        for number, shot in enumerate(captions.shots, 1)
        if shot.start >= seconds
    ]
    return (replace(captions, shots=kept) if kept else None), reasons


def prompt_at(captions: Storyboard | None, seconds: float) -> str:
    """The caption on at `seconds` of the clip, else the nearest in time (paper 4.1); "" when there is none."""
    return "" if captions is None else captions.expanded().shots[nearest_shot(captions, seconds)].prompt


def is_cut(captions: Storyboard | None, before: float, after: float) -> bool:
    """Whether the captions say that a shot begins with a cut between two times in seconds."""
    if captions is None:
        return False
    first, last = nearest_shot(captions, before), nearest_shot(captions, after)
    return any(shot.transition == "cut" for shot in captions.shots[first + 1 : last + 1])


def _text_files(folder: Path, out: Path | None, looking: Looking) -> dict[str, tuple[Path, ...]]:
    """Text files below a folder by their path without suffix, whichever way the suffix is written."""
    files: dict[str, tuple[Path, ...]] = {}
    for name, path in sorted(files_below(folder, out, looking)):
        if path.suffix.lower() in SUFFIXES and name not in FOLDER_FILES:
            files[_stem(name)] = (*files.get(_stem(name), ()), path)
    return files


def _stem(name: str) -> str:
    return composed(str(PurePosixPath(name).with_suffix("")))


def _parse(text: str, is_json: bool, section_seconds: float, fps: float) -> Storyboard:
    plain = Storyboard((Shot(text, 0.0),))
    if not is_json and not _TIMED.match(text):
        try:
            reading = read_storyboard(text, section_seconds=section_seconds, fps=fps)
        except StoryboardError:
            return plain
        several = reading.form in _CLOCKED and len(reading.storyboard.shots) > 1
        return reading.storyboard if several or reading.form in _JSON else plain
    storyboard = parse_storyboard(text, section_seconds=section_seconds, fps=fps)
    if is_json and storyboard == plain:  # the parser takes for a plain prompt what is in no format
        raise BadClip('it is no storyboard; write {"shots": [{"start": 0, "prompt": "what is seen"}]}, or use a .txt')
    return storyboard


def _from_entry(value: Any, section_seconds: float, fps: float) -> Storyboard | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _parse(value, False, section_seconds, fps)
    if isinstance(value, list):
        value = {"shots": value}
    if isinstance(value, dict):
        return parse_storyboard(json.dumps(value), section_seconds=section_seconds, fps=fps)
    raise BadClip(f"{str(value)[:40]} is neither a text nor a storyboard")


def _read_text(path: Path, most: int) -> str:
    if path.stat().st_size > most:
        raise BadClip(f"{path.name} is larger than {most // 1024} KiB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadClip(f"{path.name} is not UTF-8 text") from error


def _json_lines(text: str, path: Path) -> list[Any]:
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                lines.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{path}, line {number}: {error}; correct it") from error
    return lines


def _by_name(entries: list[Any], path: Path) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for number, entry in enumerate(entries, 1):
        fields = entry if isinstance(entry, dict) else {}
        name = next((fields[key] for key in _FILE_FIELDS if key in fields), None)
        caption = next((fields[key] for key in _TEXT_FIELDS if key in fields), None)
        if not isinstance(name, str) or caption is None:
            raise DatasetError(f'{path}, entry {number}: write {{"file": "clip.mp4", "caption": "what is seen"}}')
        if name in named:
            raise DatasetError(f"{path}, entry {number}: {name} is named twice; put its captions into one storyboard")
        named[name] = caption
    return named
