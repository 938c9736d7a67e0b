"""What the page asks about training runs: losses and recalled frames. Reading only, by name only."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from aiohttp import web

from ..memory_encoder.film.sections import film_folder
from ..memory_encoder.training.listener import RECALL_PICTURE
from ..memory_encoder.training.run_files import LOSSES, read_losses
from .events import prompt_server
from .film_routes import answering, as_json
from .runtime import folders

MAX_POINTS = 1500  # of a loss curve; more than a node has pixels


def register_routes() -> None:
    """Adds the routes to the running server, if there is one."""
    if (server := prompt_server()) is not None:
        table = server.routes
        table.get("/video_memory/training/{run}")(answering(_training))
        table.get("/video_memory/training/{run}/recalled")(answering(_recalled))


def training_state(run: str) -> dict[str, Any]:
    """Losses of a run, thinned out to what a curve can show, and when its recalled frames were drawn."""
    folder = film_folder(folders.training_root(), run)
    entries = read_losses(folder / LOSSES)
    picture = folder / RECALL_PICTURE
    return {
        "run": run,
        "losses": thinned(points_of(entries, "loss")),
        "heldout": thinned(points_of(entries, "heldout")),
        "recalled": picture.stat().st_mtime if picture.is_file() else None,
    }


def points_of(entries: list[Any], name: str) -> list[list[float]]:
    """Points [step, value] of the entries that have `name`; what is not a finite number has no place on a curve."""
    points = [[entry.get("step"), entry[name]] for entry in entries if isinstance(entry, dict) and name in entry]
    return [point for point in points if all(isinstance(n, (int, float)) and math.isfinite(n) for n in point)]


def thinned(points: list[list[float]], most: int = MAX_POINTS) -> list[list[float]]:
    """At most `most` points [step, value]: means over equal stretches, each at its last step."""
    size = -(-len(points) // most) if points else 1
    if size == 1:
        return points
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [[group[-1][0], sum(value for _, value in group) / len(group)] for group in groups]


async def _training(request: web.Request) -> web.StreamResponse:
    return as_json(await asyncio.to_thread(training_state, request.match_info["run"]))


async def _recalled(request: web.Request) -> web.StreamResponse:
    path = film_folder(folders.training_root(), request.match_info["run"]) / RECALL_PICTURE
    if not path.is_file():
        raise FileNotFoundError("the run has drawn no recalled frames yet")
    return web.FileResponse(path, headers={"Cache-Control": "no-cache"})
