"""A blind comparison as a folder to send around: a page, the films under names that tell nothing, and a key to keep.

study/index.html      two films side by side, keys 1 and 2 (0: no difference); votes are downloaded as a CSV
study/films/*.mp4     the films, under random names
study/key.json        which film is whose: not for those who vote
"""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ...files import write_bytes
from .elo import DRAW, LOSS, WIN, Vote

PAGE, FILMS, KEY, VERSION = "index.html", "films", "key.json", 1
KINDS = (".mp4", ".webm", ".mov", ".m4v")
COLUMNS = ("rater", "left", "right", "choice")
CHOICES = {"1": WIN, "2": LOSS, "0": DRAW}
_TEMPLATE = Path(__file__).with_name("side_by_side.html")
_SLOT = "/*STUDY*/null"


@dataclass(frozen=True)
class Film:
    """A file of a method; films of one story are compared with each other."""

    method: str
    story: str
    path: Path


def films_of(sources: Sequence[Path]) -> list[Film]:
    """Folders are methods whose files of one name tell one story; files are methods of one story.

    Raises ValueError for what is no film, and for names that stand twice; OSError for a folder that cannot be read.
    """
    found: list[Film] = []
    for source in sources:
        if source.is_dir():
            files = sorted(path for path in source.iterdir() if path.suffix.lower() in KINDS)
            if not files:
                raise ValueError(
                    f"{source} holds no film ({', '.join(KINDS)}); save films of ours with Save Film first"
                )
            found += [Film(source.resolve().name, path.stem, path) for path in files]
        elif source.suffix.lower() in KINDS and source.is_file():
            found.append(Film(source.stem, "", source))
        else:
            raise ValueError(f"{source} is neither a folder of films nor a film ({', '.join(KINDS)})")
    seen: set[tuple[str, str]] = set()
    for film in found:
        if (film.method, film.story) in seen:
            raise ValueError(f"two sources are called {film.method!r}; rename one, votes are counted by this name")
        seen.add((film.method, film.story))
    return found


def write_study(sources: Sequence[Path], out: Path, question: str, *, most: int = 0, seed: int | None = None) -> int:
    """Writes the folder of a study and returns how many pairs it asks for, at most `most` (0: all there are).

    Raises ValueError when nothing can be compared, FileExistsError for a folder that holds a study already: its key
    belongs to votes that may have been given.
    """
    films = films_of(sources)
    pairs = [(a, b) for a, b in combinations(films, 2) if a.story == b.story and a.method != b.method]
    if not pairs:
        raise ValueError("no two films tell the same story; give folders whose files have the same names, or two films")
    if (out / KEY).exists():
        raise FileExistsError(f"{out} holds a study already; choose another --out, or delete it with its votes")
    generator = random.Random(seed) if seed is not None else random.SystemRandom()
    if most:
        pairs = _balanced(pairs, most, generator)
    used = [film for film in films if any(film in pair for pair in pairs)]
    numbers = generator.sample(range(16**6), len(used))
    names = {film: f"{number:06x}{film.path.suffix.lower()}" for film, number in zip(used, numbers, strict=True)}
    (out / FILMS).mkdir(parents=True, exist_ok=True)
    for film, name in names.items():
        shutil.copyfile(film.path, out / FILMS / name)
    key = {name: {"method": film.method, "story": film.story} for film, name in names.items()}
    asked = [[names[a], names[b]] for a, b in pairs]
    generator.shuffle(asked)
    study = {"study": f"{generator.randrange(16**8):08x}", "question": question, "folder": FILMS, "pairs": asked}
    text = _TEMPLATE.read_text(encoding="utf-8").replace(_SLOT, json.dumps(study).replace("<", "\\u003c"))
    write_bytes(out / KEY, json.dumps({"version": VERSION, "films": key}, indent=1, ensure_ascii=False).encode())
    write_bytes(out / PAGE, text.encode())
    return len(asked)


def _balanced(pairs: list[tuple[Film, Film]], most: int, generator: random.Random) -> list[tuple[Film, Film]]:
    """As many pairs, of which each pair of methods has about as many as any other."""
    generator.shuffle(pairs)
    rank: dict[tuple[str, str], int] = {}
    ranked = []
    for number, (a, b) in enumerate(pairs):
        methods = (min(a.method, b.method), max(a.method, b.method))
        rank[methods] = rank.get(methods, 0) + 1
        ranked.append((rank[methods], number))
    return [pairs[number] for _, number in sorted(ranked)[:most]]


def read_key(study: Path) -> dict[str, str]:
    """The method of each film's name. Raises ValueError for a key that is not one, OSError where there is none."""
    path = study / KEY
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(film["method"]) for name, film in data["films"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no key of a study ({error}); take the one that was written with the page"
        ) from error


def read_votes(paths: Sequence[Path], key: dict[str, str]) -> list[Vote]:
    """The votes of CSV files as the page downloads them. Raises ValueError that names the file and the line."""
    votes = []
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            lacking = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if lacking:
                raise ValueError(f"{path}: the column {lacking[0]!r} is missing; it needs {', '.join(COLUMNS)}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                for side in ("left", "right"):
                    if row[side] not in key:
                        raise ValueError(f"{where}: {row[side]!r} is no film of this study; give the votes of its page")
                if row["choice"] not in CHOICES:
                    raise ValueError(f"{where}: the choice is {row['choice']!r}; it can be 1, 2 or 0")
                votes.append(Vote(key[row["left"]], key[row["right"]], CHOICES[row["choice"]]))
    return votes
