"""Write `workflows/` anew: python tools/environment.py run -m tools.workflows [NAME...]"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.browser import find
from tools.browser_server import WORKFLOWS, browser_server, variables
from tools.environment import ROOT, prepare

from . import continued, films, storymem, tiny, trained, training, written
from .graph import Workflow

# In the order in which the template browser should show them.
ALL: tuple[Callable[[], Workflow], ...] = (
    tiny.FIRST, *films.ALL, *continued.ALL, *training.ALL, *tiny.ALL, *trained.ALL, *storymem.ALL, *written.ALL,
    tiny.judged_film,
)  # fmt: skip


def file_names() -> dict[str, str]:
    """Names of the files in `workflows/`, without ending, by workflow: ComfyUI shows them as titles."""
    return {workflow.name: f"{place:02} {workflow.label}" for place, workflow in enumerate((make() for make in ALL), 1)}


def packs() -> dict[str, dict[str, str]]:
    """Where nodes come from, in the words of ComfyUI's registry: the Manager offers a missing pack by this."""
    project = dict(re.findall(r'^(name|version) = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    return {"core": {"cnr_id": "comfy-core"}, "ours": {"cnr_id": project["name"], "ver": project["version"]}}


def stamp(name: str) -> dict[str, Any]:
    """What the frontend would make up anew each time."""
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-videomemory/{name}"))
    return {"id": identity, "revision": 0}


def main(names: list[str]) -> int:
    chosen = [workflow for make in ALL if (workflow := make()) and (not names or workflow.name in names)]
    if unknown := set(names) - {workflow.name for workflow in chosen}:
        sys.exit(f"no workflow {', '.join(sorted(unknown))}; there are {', '.join(make().name for make in ALL)}")
    tools, missing = find()
    if tools is None:
        sys.exit(f"{missing}; run python -m tools.browser")
    with tempfile.TemporaryDirectory() as temporary:
        work, out = Path(temporary) / "comfyui", Path(temporary) / "out"
        plans = Path(temporary) / "plans.json"
        plans.write_text(
            json.dumps(
                [
                    workflow.plan()
                    | {"file": file_names()[workflow.name], "stamp": stamp(workflow.name), "packs": packs()}
                    for workflow in chosen
                ]
            )
        )
        with browser_server(work, prepare()) as server:
            for script in ("convert.mjs", "thumbnails.mjs"):
                path = ROOT / "tools" / "workflows" / script
                command = [str(tools.node), str(path), str(plans), str(out)]
                subprocess.run(command, env=variables(server, tools), check=True)
        shutil.copytree(out, WORKFLOWS, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
