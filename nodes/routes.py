"""What the page asks the server: a film's plan, its finished sections and their clips, losses of training runs.

Reading only, by name only, and for no page of another site. Every error is JSON, {"error": message} and, where one is
at fault, the "field"; a storyboard that cannot be planned is answered so with 200.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web
from comfy.cli_args import args

from ..memory_encoder.damage import DAMAGE, parsed_object
from ..memory_encoder.evaluation.judge.marks import read_marks
from ..memory_encoder.files import is_plain, named_folder, read_plain
from ..memory_encoder.film.opening import unbroken
from ..memory_encoder.film.plan import PlanError, PlanRequest, film_plan
from ..memory_encoder.film.sections import SectionStore
from ..memory_encoder.film.versions import comes_by_take, versions
from ..memory_encoder.injection.hosts.encoder_file import read_config
from ..memory_encoder.phi.config import EncoderConfig
from ..memory_encoder.storyboard import StoryboardError
from ..memory_encoder.training.heldout import baselines_in
from ..memory_encoder.training.run_files import LOSSES, RECALL_PICTURE, points_of, read_losses
from .events import prompt_server
from .film_events import PLAN, PLAN_VERSION, RAN, RUNNING, clip_path
from .film_queue import queue_state
from .picture_strip import stored_pictures
from .preview_clips import poster
from .runtime import folders
from .shot_pictures import is_there

log = logging.getLogger("video_memory")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY = 2 * 1024 * 1024  # a storyboard of 256 KiB, escaped in the worst way
PLACE = len("section_0000")  # of a file's name: where in the film it is
MAX_NAMES = 500  # offered in a list
MEMORY = ".safetensors"
MAX_POINTS = 1500  # of a loss curve; more than a node has pixels


class TooLongError(PlanError):
    """A question that is not read to its end."""


def register_routes() -> None:
    """Adds the routes to ComfyUI's running server; does nothing without one."""
    if (server := prompt_server()) is not None:
        server.routes.post("/video_memory/plan")(answering(_film_plan))
        server.routes.get("/video_memory/names")(answering(_names))
        server.routes.get("/video_memory/film/{film}")(answering(_film))
        server.routes.get("/video_memory/film/{film}/clip/{index}")(answering(_clip))
        server.routes.get("/video_memory/film/{film}/takes/{index}")(answering(_takes))
        server.routes.get("/video_memory/training/{run}")(answering(_training))
        server.routes.get("/video_memory/training/{run}/recalled")(answering(_recalled))


def answering(handler: Handler) -> Handler:
    """Errors as JSON: 400 for a bad name or question, 403 for another site's page, 404 for what is not there, 413 for
    too much, 500 for the disk."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if of_another_site(request.headers):
            return web.json_response({"error": "a page of another site may not ask"}, status=403)
        try:
            return await handler(request)
        except FileNotFoundError as error:
            return web.json_response({"error": str(error)}, status=404)
        except PlanError as error:
            status = 413 if isinstance(error, TooLongError) else 400
            return web.json_response({"error": str(error), "field": error.field}, status=status)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        except OSError as error:
            log.warning("%s: %s", request.path, error)
            return web.json_response({"error": "the file cannot be read; see the server's log"}, status=500)

    return answer


def of_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another site, or one in a sandbox, asks. Core refuses some of these itself;
    with --enable-cors-header the server's owner allows all."""
    if args.enable_cors_header:
        return False
    return headers.get("Origin") == "null" or headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")


def as_json(data: dict[str, Any]) -> web.Response:
    """An answer that is never kept by the browser."""
    return web.json_response(data, headers={"Cache-Control": "no-store"})


async def _film_plan(request: web.Request) -> web.StreamResponse:
    """POST a `PlanRequest` as JSON."""
    body = b"" if (request.content_length or 0) > MAX_BODY else await request.read()
    if (request.content_length or len(body)) > MAX_BODY:
        raise TooLongError("the request is longer than 2 MiB; check that the text is a storyboard", "storyboard")
    try:
        # In a thread, since a storyboard of thousands of shots would hold up the server's other answers.
        return as_json(await asyncio.to_thread(plan_of, body))
    except PlanError as error:
        if error.field == "request":
            raise
        # A text that is being written is an ordinary question, and browsers log every other status as an error.
        return as_json({"error": str(error), "field": error.field})


def plan_of(body: bytes) -> dict[str, Any]:
    """The plan that a request's body asks for. Raises PlanError for what cannot be answered."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PlanError("the request is no JSON; send an object with a storyboard", "request") from error
    try:
        request = PlanRequest.from_dict(data)
        return film_plan(request, [_config(name) for name in request.encoders], is_there)
    except StoryboardError as error:
        raise PlanError(str(error), "storyboard") from error


def _config(name: str) -> EncoderConfig:
    """Configuration of a file in models/memory_encoders; only files that ComfyUI lists are opened."""
    known = name in folder_paths.get_filename_list(folders.ENCODERS)
    path = folder_paths.get_full_path(folders.ENCODERS, name) if known else None
    if path is None:
        raise PlanError(f"encoder {name[:80]!r} is not in models/memory_encoders; choose one of the list", "encoders")
    try:
        return read_config(Path(path))
    except ValueError as error:
        raise PlanError(str(error), "encoders") from error


def names() -> dict[str, list[str]]:
    """Films, training runs, datasets and saved memories that exist, each kind with the newest first."""
    roots = {"films": folders.film_root(), "runs": folders.training_root(), "datasets": folders.dataset_root()}
    found = {kind: _newest(root) for kind, root in roots.items()}
    return found | {"memories": _newest(folders.memory_folder(), MEMORY)}


def _newest(root: Path, ending: str = "") -> list[str]:
    """Names of the folders in `root`, or of the plain files that end so."""

    def shown(entry: os.DirEntry[str]) -> bool:
        kind = entry.is_file if ending else entry.is_dir
        return kind(follow_symlinks=False) and entry.name[0] != "." and entry.name.endswith(ending)

    try:
        with os.scandir(root) as entries:
            found = [entry for entry in entries if shown(entry)]
            found.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    except OSError:
        return []  # nothing has been made yet
    return [entry.name for entry in found[:MAX_NAMES]]


async def _names(request: web.Request) -> web.StreamResponse:
    return as_json(await asyncio.to_thread(names))


def film_state(film: str) -> dict[str, Any]:
    """Plan and finished sections of a film; both lists are empty for a film that was never begun.

    run: the last message of the run that is making the film, None when none is. queue: see `queue_state`.
    pictures: those of a memory of pictures, for films that have one.
    versions: how often a section is on disk, see `takes`.
    Sections that do not follow the ones before them, since they are of an earlier run, have the status "stale"; those
    that fall out, by a report which judged them as they are, `falls_out`. One whose file is gone is not finished.
    """
    store = _reader(film)
    records = store.manifest()
    following = unbroken(records)
    clips = Counter(path.name[:PLACE] for path in store.folder.glob("section_*.webp"))
    marks = read_marks(store.folder, {int(record["index"]) + 1: record["key"] for record in records})
    sections = []
    for number, record in enumerate(records):
        if not is_plain(store.path(record["key"], record["index"])):
            continue
        stale = {"status": "stale"} if number >= following else {}
        path = clip_path(store, record)
        sections.append(record | stale | {"clip": is_plain(path), "versions": clips[path.name[:PLACE]]})
        if odd := marks.get(int(record["index"]) + 1):
            sections[-1]["falls_out"] = odd
    running = RUNNING.get(film)
    run = None if running is None else running.last
    queue = queue_state(film, RAN.get(film))
    plan = _plan(store.folder / PLAN)
    answer = {"film": film, **plan, "sections": sections, "run": run, "queue": queue}
    return answer | _pictures(store.folder)


def _pictures(folder: Path) -> dict[str, Any]:
    """For a film with a memory of pictures: those that it has chosen, see `picture_strip`."""
    pictures = stored_pictures(folder)
    return {"pictures": pictures} if pictures else {}


def _reader(film: str) -> SectionStore:
    return SectionStore(folders.film_root(), film, move_aside=False)


def _plan(path: Path) -> dict[str, Any]:
    """`plan`: the sections that the film is to have. before: how many others it goes on from."""
    try:
        data = parsed_object(read_plain(path))
    except (OSError, *DAMAGE):
        data = {}
    known = data.get("version") == PLAN_VERSION and isinstance(data.get("sections"), list)
    plan = [record for record in data["sections"] if isinstance(record, dict)] if known else []
    before = data.get("before") if known else 0
    return {"plan": plan, "before": before if type(before) is int and before > 0 else 0}


async def _film(request: web.Request) -> web.StreamResponse:
    return as_json(await asyncio.to_thread(film_state, request.match_info["film"]))


async def _clip(request: web.Request) -> web.StreamResponse:
    film, index = request.match_info["film"], _whole_number(request.match_info["index"])
    key, still = request.query.get("key"), request.query.get("still") == "1"
    content = await asyncio.to_thread(_clip_content, film, index, key, still)
    # With the section's key in the address the answer never changes.
    cache = "no-cache" if key is None else "private, max-age=86400"
    return web.Response(body=content, content_type="image/webp", headers={"Cache-Control": cache})


def takes(film: str, index: int) -> dict[str, Any]:
    """What is on disk of a section and has a preview, oldest first: its key, take (null: unknown) and time, and whether
    the film takes it from disk (`kept`) when its take is chosen."""
    store = _reader(film)
    among = versions(store, index)
    record = next((record for record in store.manifest() if record["index"] == index), None)
    found = [
        {
            "key": version.key,
            "take": version.take,
            "made": version.made,
            "kept": record is not None and comes_by_take(version, record, among),
        }
        for version in among
        if is_plain(clip_path(store, {"index": index, "key": version.key}))
    ]
    return {"film": film, "index": index, "takes": found}


async def _takes(request: web.Request) -> web.StreamResponse:
    index = _whole_number(request.match_info["index"])
    return as_json(await asyncio.to_thread(takes, request.match_info["film"], index))


def _clip_content(film: str, index: int, key: str | None, still: bool) -> bytes:
    store = _reader(film)
    # Earlier takes stay on disk, so that a page that has not heard of the newest one yet still finds its own.
    record = {"index": index, "key": key} if key is not None else None
    record = record or next((record for record in store.manifest() if record.get("index") == index), None)
    if record is None:
        raise FileNotFoundError(f"film {film!r} has no section {index + 1}")
    path = clip_path(store, record)
    if not is_plain(path):
        raise FileNotFoundError(f"section {index + 1} of film {film!r} has no preview; render the film once more")
    content = read_plain(path)
    return poster(content) if still else content


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise ValueError(f"section index {text[:20]!r} is not a whole number from 0 on")
    return int(text)


def training_state(run: str) -> dict[str, Any]:
    """Losses of a run, thinned out to what a curve can show, and when its recalled frames were drawn."""
    folder = named_folder(folders.training_root(), run, "run")
    entries = read_losses(folder / LOSSES)
    lines = baselines_in(entries)
    picture = folder / RECALL_PICTURE
    return {
        "run": run,
        "losses": thinned(points_of(entries, "loss")),
        "heldout": thinned(points_of(entries, "heldout")),
        "without_memory": thinned(lines["without_memory"]),
        "nothing": lines["nothing"],
        "recalled": picture.stat().st_mtime if is_plain(picture) else None,
    }


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
    path = named_folder(folders.training_root(), request.match_info["run"], "run") / RECALL_PICTURE
    if not is_plain(path):
        raise FileNotFoundError("the run has drawn no recalled frames yet")
    return web.FileResponse(path, headers={"Cache-Control": "no-cache"})
