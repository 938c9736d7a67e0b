"""The index of a dataset: which windows there are, of which shape, and where. SQLite, so that it is read row by row."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, get_args

from ...damage import damage_named, shortened
from ...files import NotPlainError, check_plain, write_atomically
from ...storyboard import Storyboard
from .clips import file_hash
from .scan import readable
from .settings import DatasetError, Split

# What is found clip by clip, in any order and by any number of processes.
_FOUND = """
CREATE TABLE found_clips (clip INTEGER PRIMARY KEY, source TEXT, split TEXT, seconds REAL, captions TEXT, kept REAL,
    changed TEXT, encoded INTEGER);
CREATE TABLE found_windows (clip INTEGER, start REAL, latents INTEGER, height INTEGER, width INTEGER, file TEXT,
    sha256 BLOB, bytes INTEGER);
CREATE TABLE found_texts (prompt BLOB PRIMARY KEY, file TEXT, sha256 BLOB, bytes INTEGER) WITHOUT ROWID;
CREATE TABLE found_skipped (clip INTEGER, source TEXT, reason TEXT);
"""
_TABLES = ("found_clips", "found_windows", "found_texts", "found_skipped")
# What is read: windows of one shape lie together and are counted, so that any of them is found by its number.
_INDEX = """
CREATE TABLE {0}.clips (clip INTEGER PRIMARY KEY, source TEXT, split TEXT, seconds REAL, captions TEXT, kept REAL,
    changed TEXT);
INSERT INTO {0}.clips SELECT clip, source, split, seconds, captions, kept, changed FROM found_clips ORDER BY clip;
CREATE TABLE {0}.windows (split TEXT, latents INTEGER, height INTEGER, width INTEGER, place INTEGER, clip INTEGER,
    start REAL, file TEXT, sha256 BLOB, bytes INTEGER, PRIMARY KEY (split, latents, height, width, place)
    ) WITHOUT ROWID;
INSERT INTO {0}.windows SELECT split, latents, height, width,
    row_number() OVER (PARTITION BY split, latents, height, width ORDER BY clip, start) - 1 AS place,
    clip, start, file, found_windows.sha256, bytes FROM found_windows JOIN found_clips USING (clip)
    ORDER BY split, latents, height, width, place;
CREATE TABLE {0}.buckets (split TEXT, latents INTEGER, height INTEGER, width INTEGER, windows INTEGER);
INSERT INTO {0}.buckets SELECT split, latents, height, width, count(*) FROM {0}.windows
    GROUP BY split, latents, height, width ORDER BY split = 'heldout', latents DESC, height, width;
CREATE TABLE {0}.texts (prompt BLOB PRIMARY KEY, file TEXT, sha256 BLOB, bytes INTEGER) WITHOUT ROWID;
INSERT INTO {0}.texts SELECT * FROM found_texts ORDER BY prompt;
CREATE TABLE {0}.skipped (number INTEGER PRIMARY KEY, source TEXT, reason TEXT);
INSERT INTO {0}.skipped (source, reason) SELECT source, reason FROM found_skipped ORDER BY clip, rowid;
"""


@dataclass(frozen=True)
class Bucket:
    """Windows of one shape in one split: latents in time, height and width in latents."""

    split: Split
    latents: int
    height: int
    width: int
    windows: int


@dataclass(frozen=True)
class Window:
    """One window: its clip's path below the folder of clips, when it begins there, and its file below the dataset."""

    source: str
    start_seconds: float
    captions: Storyboard | None
    file: str
    sha256: str


class Index:
    """Reads an index; what it takes in RAM does not grow with the number of windows, and threads may share it."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        """name: of the file, for messages."""
        self.connection, self.name, self._lock = connection, name, threading.Lock()
        rows = self._rows("SELECT split, latents, height, width, windows FROM buckets")
        with self._named():
            self.buckets = tuple(_bucket(*row) for row in rows)

    @classmethod
    def open(cls, path: Path) -> Index:
        """Opens a file for reading alone, which needs no locks of a network folder. Raises DatasetError that names it
        when it is not there or no index."""
        try:
            check_plain(path)
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing; run the cache again") from error
        except (OSError, NotPlainError) as error:
            raise DatasetError(f"{path} cannot be read ({error}); run the cache again") from error
        try:
            connection = sqlite3.connect(address_of(path.absolute()), uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise DatasetError(f"{path} cannot be opened ({error}); copy the dataset to a local disk") from error
        return cls(connection, str(path))

    def window(self, bucket: Bucket, place: int) -> Window:
        """Window number `place` of a bucket, found in a time that hardly grows with their number."""
        where = (bucket.split, bucket.latents, bucket.height, bucket.width, place)
        rows = self._rows(
            "SELECT source, start, captions, file, sha256 FROM windows JOIN clips USING (clip) WHERE windows.split = ? "
            "AND latents = ? AND height = ? AND width = ? AND place = ?",
            where,
        )
        with self._named():
            [(source, start, captions, file, sha256)] = rows
            said = Storyboard.from_json(captions) if captions else None
            return Window(str(source), float(start), said, str(file), sha256.hex())

    def content(self, split: Split) -> str:
        """A hash of the windows of a split, their clips' captions and all encoded prompts."""
        digest = hashlib.sha256()
        for query, values in (
            ("SELECT sha256 FROM windows WHERE split = ? ORDER BY latents, height, width, place", (split,)),
            ("SELECT captions FROM clips WHERE split = ? ORDER BY clip", (split,)),
            ("SELECT sha256 FROM texts ORDER BY prompt", ()),
        ):
            for (value,) in self._rows(query, values):
                digest.update(value if isinstance(value, bytes) else repr(value).encode())
        return digest.hexdigest()[:16]

    def text(self, prompt: str) -> tuple[str, str] | None:
        """File and SHA-256 of an encoded prompt, or None."""
        found = self._rows("SELECT file, sha256 FROM texts WHERE prompt = ?", (_prompt_key(prompt),))
        with self._named():
            return (str(found[0][0]), found[0][1].hex()) if found else None

    def sources(self, split: Split | None = None) -> Iterator[str]:
        """Clips in their order, of one split or of both."""
        query = "SELECT source FROM clips WHERE ? IS NULL OR split = ? ORDER BY clip"
        return (source for (source,) in self._rows(query, (split, split)))

    def clips(self, split: Split) -> int:
        """How many clips a split has."""
        return self._rows("SELECT count(*) FROM clips WHERE split = ?", (split,))[0][0]

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of all that was left out."""
        return tuple(self._rows("SELECT source, reason FROM skipped ORDER BY number"))

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._named(), self._lock:
            return self.connection.execute(query, values).fetchall()

    def _named(self) -> contextlib.AbstractContextManager[None]:
        return damage_named(Path(self.name), "index", "run the cache again", DatasetError)

    def total(self) -> tuple[int, int]:
        """How many files there are, and their bytes, as far as they are known."""
        files = "SELECT DISTINCT file, bytes FROM windows UNION SELECT file, bytes FROM texts"
        return self._rows(f"SELECT count(*), ifnull(sum(bytes), 0) FROM ({files})")[0]

    def with_other_files(self, folder: Path, stem: str, name: Callable[[str, str], str]) -> str:
        """Writes this index with other names of its files; see `Findings.write_index`.

        name: says the other name of a file, by its name and SHA-256; called once for each, windows in their order.
        """

        def write(temporary: Path) -> None:
            self.connection.execute("VACUUM INTO ?", (str(temporary),))
            with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as made:
                made.executescript("PRAGMA journal_mode = OFF; CREATE TABLE names (old TEXT PRIMARY KEY, new TEXT);")
                for table in ("windows", "texts"):
                    for file, sha256 in self.connection.execute(f"SELECT file, sha256 FROM {table}"):
                        if not made.execute("SELECT 1 FROM names WHERE old = ?", (file,)).fetchone():
                            made.execute("INSERT INTO names VALUES (?, ?)", (file, name(file, sha256.hex())))
                    made.execute(f"UPDATE {table} SET file = (SELECT new FROM names WHERE old = file)")
                made.executescript("DROP TABLE names; VACUUM;")

        return _named_by_content(folder, stem, write)


def _bucket(split: Split, *counts: int) -> Bucket:
    if split not in get_args(Split) or not all(type(count) is int and 0 < count < 2**40 for count in counts):
        raise ValueError("it has windows of no possible shape")
    return Bucket(split, *counts)


class Findings:
    """What a cache has found so far, on disk where it is much; becomes an index when all is there."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file of its own
        self.connection.executescript(_FOUND)

    def clip(
        self,
        clip: int,
        source: str,
        split: Split,
        captions: Storyboard | None,
        seconds: float = 0.0,
        kept: float = 1.0,
        changed: Iterable[str] = (),
        encoded: int = 0,
    ) -> None:
        """Adds a clip that is used. clip: its number among all. encoded: windows made in this run."""
        values = (clip, source, split, seconds, captions.to_json() if captions else None, kept)
        self._insert("found_clips", (*values, json.dumps(sorted(changed)), encoded))

    def window(
        self, clip: int, start: float, shape: tuple[int, int, int], file: str, sha256: str, size: int = 0
    ) -> None:
        """Adds a window of a clip. shape: latents in time, height, width. size: of the file in bytes."""
        self._insert("found_windows", (clip, start, *shape, file, bytes.fromhex(sha256), size))

    def text(self, prompt: str, file: str, sha256: str, size: int = 0) -> None:
        """Adds an encoded prompt."""
        self._insert("found_texts", (_prompt_key(prompt), file, bytes.fromhex(sha256), size))

    def texts_as_they_are(self, folder: Path) -> None:
        """Takes digests and sizes of encoded prompts from their files: several processes may have made the same one,
        on cards that round otherwise, and the last one stands."""
        for (file,) in self.rows("SELECT DISTINCT file FROM found_texts"):
            values = (bytes.fromhex(file_hash(folder / file)), (folder / file).stat().st_size, file)
            self.connection.execute("UPDATE found_texts SET sha256 = ?, bytes = ? WHERE file = ?", values)

    def skip(self, clip: int, source: str, reason: str) -> None:
        """Adds what cannot be used. clip: the number of the clip it belongs to, -1 for none."""
        self._insert("found_skipped", (clip, readable(source), readable(reason)))

    def _insert(self, table: str, values: tuple[Any, ...]) -> None:
        places = ", ".join("?" * len(values))
        self.connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", values)

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return self.connection.execute(query, values).fetchall()

    def without_window(self, files: Iterable[str]) -> list[str]:
        """Those of some files, sorted, that no window is in."""
        self.connection.execute("CREATE TEMP TABLE files (file TEXT)")
        self.connection.executemany("INSERT INTO files VALUES (?)", ((file,) for file in files))
        found = self.rows("SELECT file FROM files WHERE file NOT IN (SELECT file FROM found_windows) ORDER BY file")
        self.connection.execute("DROP TABLE files")
        return [file for (file,) in found]

    def save(self, path: Path) -> None:
        """Writes what one of several processes has found, for `add`."""
        write_atomically(path, lambda temporary: self._into(temporary, "VACUUM INTO ?"))

    def add(self, path: Path) -> None:
        """Adds what another process has found."""
        self.connection.execute("ATTACH ? AS other", (str(path),))
        for table in _TABLES:
            self.connection.execute(f"INSERT OR REPLACE INTO main.{table} SELECT * FROM other.{table}")
        self.connection.execute("DETACH other")

    def index(self) -> Index:
        """The index of what has been found, in memory alone."""
        self.connection.executescript(_INDEX.format("main"))
        return Index(self.connection, "the dataset")

    def write_index(self, folder: Path, stem: str) -> str:
        """Writes the index into a file of its own, whose name follows from what it says; returns that name."""
        return _named_by_content(folder, stem, self._made_index)

    def _made_index(self, temporary: Path) -> None:
        self._into(temporary, "ATTACH ? AS made")
        self.connection.executescript("PRAGMA made.journal_mode = OFF;\n" + _INDEX.format("made"))
        self.connection.execute("DETACH made")

    def _into(self, path: Path, statement: str) -> None:
        try:
            self.connection.execute(statement, (str(path),))
        except sqlite3.OperationalError as error:
            raise OSError(None, f"cannot write {path}: {error}") from error


def inside(folder: Path, name: str) -> Path:
    """A file of the dataset; an index from elsewhere may not name files outside of its folder."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name:
        named = shortened(repr(name), 100)
        raise DatasetError(f"the index in {folder} names the file {named} outside of its folder; do not use it")
    return folder / parts


def _named_by_content(folder: Path, stem: str, write: Callable[[Path], None]) -> str:
    path = folder / f"{stem}.sqlite"
    write_atomically(path, write)
    with path.open("rb") as file:
        name = f"{stem}-{_digest(file)}.sqlite"
    made = folder / name  # its name is its content, and a reader may have it open, which Windows minds
    if made.is_file() and _same_content(path, made):
        path.unlink()
    else:
        path.replace(made)
    return name


def _same_content(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        return _digest(first) == _digest(second)


def address_of(path: PurePath) -> str:
    """How SQLite is told of a file that is only read; a Windows share has its server's name in the path there."""
    uri = path.as_uri()
    if not uri.startswith("file:///"):
        uri = "file:////" + uri.removeprefix("file://")
    return f"{uri}?mode=ro&immutable=1"


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()[:16]


def _prompt_key(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode("utf-8", "surrogateescape")).digest()[:16]
