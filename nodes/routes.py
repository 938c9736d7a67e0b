"""The plan of a film for the storyboard editor, as one route of ComfyUI's server."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web

from ..memory_encoder.film.plan import PlanError, PlanRequest, film_plan
from ..memory_encoder.injection.hosts.encoder_file import read_config
from ..memory_encoder.phi.config import EncoderConfig
from ..memory_encoder.storyboard import StoryboardError
from .runtime.folders import ENCODERS

log = logging.getLogger("video_memory")
PLAN = "/video_memory/plan"
MAX_BODY = 2 * 1024 * 1024  # a storyboard of 256 KiB, escaped in the worst way


def prompt_server() -> Any:
    """ComfyUI's running server, or None: in tests and tools that import the pack there is none."""
    module = sys.modules.get("server")
    return getattr(getattr(module, "PromptServer", None), "instance", None)


def register_routes() -> None:
    """Adds the route to ComfyUI's server; does nothing without one."""
    server = prompt_server()
    if server is not None:
        server.routes.post(PLAN)(post_plan)


async def post_plan(request: web.Request) -> web.Response:
    """POST a `PlanRequest` as JSON: 200 with `film_plan`'s answer, else 400 with `error` and `field`."""
    if (request.content_length or 0) > MAX_BODY:
        return _refusal("the request is longer than 2 MiB; check that the text is a storyboard", "storyboard", 413)
    try:
        body = await request.read()
        if len(body) > MAX_BODY:
            return _refusal("the request is longer than 2 MiB; check that the text is a storyboard", "storyboard", 413)
        # In a thread, since a storyboard of thousands of shots would hold up the server's other answers.
        return web.json_response(await asyncio.to_thread(answer, body))
    except PlanError as error:
        return _refusal(str(error), error.field)
    except StoryboardError as error:
        return _refusal(str(error), "storyboard")


def answer(body: bytes) -> dict[str, Any]:
    """The answer to a request's body. Raises PlanError or StoryboardError for what cannot be answered."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PlanError("the request is no JSON; send an object with a storyboard", "request") from error
    request = PlanRequest.from_dict(data)
    return film_plan(request, [_config(name) for name in request.encoders])


def _config(name: str) -> EncoderConfig:
    """Configuration of a file in models/memory_encoders; only files that ComfyUI lists are opened."""
    path = folder_paths.get_full_path(ENCODERS, name) if name in folder_paths.get_filename_list(ENCODERS) else None
    if path is None:
        raise PlanError(f"encoder {name[:80]!r} is not in models/memory_encoders; choose one of the list", "encoders")
    try:
        return read_config(Path(path))
    except ValueError as error:
        raise PlanError(str(error), "encoders") from error


def _refusal(message: str, field: str, status: int = 400) -> web.Response:
    return web.json_response({"error": message, "field": field}, status=status)
