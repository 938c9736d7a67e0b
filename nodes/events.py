"""Messages from running nodes to the page; silent where there is no server, as in tests and scripts."""

from __future__ import annotations

import sys
from typing import Any


def running_node() -> str | None:
    """Id of the node that runs in this thread, None outside of an execution."""
    utils = sys.modules.get("comfy_execution.utils")
    context = utils.get_executing_context() if hasattr(utils, "get_executing_context") else None  # type: ignore[union-attr]
    return None if context is None else context.node_id


def prompt_server() -> Any:
    """ComfyUI's running server, None where there is none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def send(event: str, data: dict[str, Any]) -> None:
    """Sends `data` to the page that queued the running prompt, as core does with progress; to none when none did."""
    server = prompt_server()
    if server is not None and (client := getattr(server, "client_id", None)) is not None:
        server.send_sync(event, data, client)
