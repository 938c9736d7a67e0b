"""Where a film stands in ComfyUI's queue before its sampler has begun, when no message tells of it yet."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

from .events import prompt_server

SAMPLER = "VideoMemorySampler"
Place = Literal["", "waiting", "loading"]


def queue_state(film: str, ran: str | None = None) -> dict[str, Any]:
    """`own`: "loading" while the running prompt has yet to come to the film's sampler, "waiting" while only a prompt
    behind it has one, else empty. `pending`: prompts that wait, of whatever film.

    ran: id of the last prompt whose sampler has begun with the film.
    """
    server = prompt_server()
    queue = getattr(server, "prompt_queue", None)
    if queue is None:
        return {"own": "", "pending": 0}
    running, pending = queue.get_current_queue_volatile()
    node = getattr(server, "last_node_id", None)
    own: Place = "waiting" if any(samplers_of(item[2], film) for item in pending) else ""
    if any(item[1] != ran and comes_to(item[2], film, node) for item in running):
        own = "loading"
    return {"own": own, "pending": len(pending)}


def samplers_of(prompt: Mapping[str, Any], film: str) -> list[str]:
    """Ids of the samplers in a prompt that make a film."""
    return [
        name
        for name, node in prompt.items()
        if node.get("class_type") == SAMPLER and _names(prompt, node.get("inputs", {}).get("film"), film)
    ]


def comes_to(prompt: Mapping[str, Any], film: str, node: str | None) -> bool:
    """Whether a prompt that runs `node`, or nothing yet, has still to come to a sampler of the film."""
    samplers = samplers_of(prompt, film)
    return bool(samplers) and (node is None or any(node in _before(prompt, sampler) for sampler in samplers))


def _before(prompt: Mapping[str, Any], sampler: str) -> set[str]:
    """The sampler and all that feeds it."""
    found, open_ = {sampler}, [sampler]
    while open_:
        for value in prompt.get(open_.pop(), {}).get("inputs", {}).values():
            if isinstance(value, list) and value and value[0] not in found and value[0] in prompt:
                found.add(value[0])
                open_.append(value[0])
    return found


def _names(prompt: Mapping[str, Any], value: Any, film: str) -> bool:
    """Whether an input says the film's name, itself or by the text of the node that it comes from."""
    linked = isinstance(value, list) and value
    texts = prompt.get(value[0], {}).get("inputs", {}).values() if linked else [value]
    return any(isinstance(text, str) and _same(text, film) for text in texts)


def _same(one: str, other: str) -> bool:
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
