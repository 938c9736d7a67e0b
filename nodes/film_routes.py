"""What the page asks about films: plan, finished sections and their preview clips. Reading only, by name only."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from ..memory_encoder.files import NotPlainError, check_plain, read_plain
from ..memory_encoder.film.opening import unbroken
from ..memory_encoder.film.sections import FilmNameError, SectionStore
from . import preview_clips
from .events import prompt_server
from .film_events import PLAN, PLAN_VERSION, clip_path
from .runtime import folders

log = logging.getLogger("video_memory")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def register_routes() -> None:
    """Adds the routes to the running server, if there is one."""
    if (server := prompt_server()) is not None:
        table = server.routes
        table.get("/video_memory/film/{film}")(answering(_film))
        table.get("/video_memory/film/{film}/clip/{index}")(answering(_clip))


def film_state(film: str) -> dict[str, Any]:
    """Plan and finished sections of a film; both lists are empty for a film that was never begun.

    Sections that do not follow the ones before them, since they are of an earlier run, have the status "stale".
    """
    store = _reader(film)
    records = store.manifest()
    following = unbroken(records)
    sections = []
    for number, record in enumerate(records):
        stale = {"status": "stale"} if number >= following else {}
        sections.append(record | stale | {"clip": _is_there(clip_path(store, record))})
    return {"film": film, "plan": _plan(store.folder / PLAN), "sections": sections}


def _reader(film: str) -> SectionStore:
    return SectionStore(folders.film_root(), film, move_aside=False)


def _is_there(path: Path) -> bool:
    try:
        check_plain(path)
    except (OSError, NotPlainError):
        return False
    return True


def _plan(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return []
    known = isinstance(data, dict) and data.get("version") == PLAN_VERSION and isinstance(data.get("sections"), list)
    return [record for record in data["sections"] if isinstance(record, dict)] if known else []


async def _film(request: web.Request) -> web.StreamResponse:
    return as_json(await asyncio.to_thread(film_state, request.match_info["film"]))


async def _clip(request: web.Request) -> web.StreamResponse:
    film, index = request.match_info["film"], _whole_number(request.match_info["index"])
    key, still = request.query.get("key"), request.query.get("still") == "1"
    content = await asyncio.to_thread(_clip_content, film, index, key, still)
    # With the section's key in the address the answer never changes.
    cache = "no-cache" if key is None else "private, max-age=86400"
    return web.Response(body=content, content_type="image/webp", headers={"Cache-Control": cache})


def _clip_content(film: str, index: int, key: str | None, still: bool) -> bytes:
    store = _reader(film)
    # Earlier takes stay on disk, so that a page that has not heard of the newest one yet still finds its own.
    record = {"index": index, "key": key} if key is not None else None
    record = record or next((record for record in store.manifest() if record.get("index") == index), None)
    if record is None:
        raise FileNotFoundError(f"film {film!r} has no section {index + 1}")
    path = clip_path(store, record)
    if not _is_there(path):
        raise FileNotFoundError(f"section {index + 1} of film {film!r} has no preview; render the film once more")
    content = read_plain(path)
    return preview_clips.poster(content) if still else content


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise ValueError(f"section index {text[:20]!r} is not a whole number from 0 on")
    return int(text)


def as_json(data: dict[str, Any]) -> web.Response:
    """An answer that is never kept by the browser."""
    return web.json_response(data, headers={"Cache-Control": "no-store"})


def answering(handler: Handler) -> Handler:
    """Errors as JSON {"error": message}: 400 for a bad name, 404 for what is not there, 500 for the disk."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except FileNotFoundError as error:
            return web.json_response({"error": str(error)}, status=404)
        except (FilmNameError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        except OSError as error:
            log.warning("%s: %s", request.path, error)
            return web.json_response({"error": "the file cannot be read; see the server's log"}, status=500)

    return answer
