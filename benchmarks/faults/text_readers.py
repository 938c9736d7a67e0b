"""Every reader of a text that a person types or a program sends: a good text, and what reading it means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from memory_encoder.files import named_folder
from memory_encoder.film.plan import PlanError, PlanRequest, film_plan
from memory_encoder.film.takes import parse_locks, parse_pictures, parse_takes
from memory_encoder.frames import latent_ranges
from memory_encoder.phi.config import CompressionRate, parse_schedule
from memory_encoder.storyboard import StoryboardError, read_storyboard
from memory_encoder.training.dataset.settings import heldout_names, parse_buckets, parse_heldout, parse_rates

from .hostile import hostile_text
from .loaders import Loader
from .mutation import json_value
from .routes import GOOD_PLAN

SHOTS = "[0s: a cat on a roof] [2s: a dog, cut] [4s-6s: both of them]"
SECTIONS = 8
LATENTS = 40


def text_reader(name: str, good: str, read: Callable[[str], Any], *more: type[Exception]) -> Loader:
    """A reader of a text, as one of a file that holds it."""

    def make(folder: Path) -> Path:
        (folder / "text").write_text(good, encoding="utf-8")
        return folder / "text"

    def changed(content: bytes, random: Random) -> bytes:
        return hostile_text(content.decode(), random).encode("utf-8", "surrogatepass")

    def load(path: Path) -> Any:
        return read(path.read_bytes().decode("utf-8", "surrogatepass"))

    return Loader(name, make, load, changed, (ValueError, *more), of_file=False)


def _held(text: str) -> Any:
    return heldout_names(("a.mp4", "b/c.mp4"), parse_heldout(text))


def _contained(text: str) -> Path:
    """A film's folder; raises AssertionError for one that lies elsewhere."""
    root = Path("/films")
    path = named_folder(root, text, "film")
    assert path.parent == root and path.resolve().parent == root, path
    return path


def _plan(path: Path) -> Any:
    return film_plan(PlanRequest.from_dict(json.loads(path.read_bytes())))


def _plan_request(folder: Path) -> Path:
    (folder / "request.json").write_text(json.dumps(GOOD_PLAN))
    return folder / "request.json"


def _schedule(text: str) -> Any:
    return parse_schedule(text) if "@" in text else CompressionRate.parse(text)


TEXT_READERS = (
    Loader("plan request", _plan_request, _plan, json_value, (PlanError, StoryboardError), of_file=False),
    text_reader("storyboard's text", SHOTS, lambda text: read_storyboard(text, section_seconds=2, fps=16)),
    text_reader("frames", "0-16, 24-40", lambda text: latent_ranges(text, LATENTS)),
    text_reader("redo", '{"2": 1, "5": 2}', lambda text: parse_takes(text, SECTIONS)),
    text_reader("locks", "1, 3-5", lambda text: parse_locks(text, SECTIONS)),
    text_reader("pictures", "2:40, -3:16", parse_pictures),
    text_reader("rate", "4x4x2", _schedule),
    text_reader("schedule", "1@1x1x1+2@2x2x2+16@4x4x4", _schedule),
    text_reader("rates", "4x4x2, 2x2x2", lambda text: [CompressionRate.parse(one) for one in parse_rates(text)]),
    text_reader("held out", "a.mp4, c.mp4", _held),
    text_reader("buckets", "480x832,640x640", parse_buckets),
    text_reader("film's name", "my film", _contained),
)
