"""comfy-cli in an environment of its own, to check workflow files without a running ComfyUI. Standard library only.

python -m tools.comfy_cli     install it into the cache folder of tools/environment.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.environment import SetupError, cache_folder, locked, say

VERSION = "1.23.0"
# It must neither ask a question nor report to anyone.
QUIET = {"DO_NOT_TRACK": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def comfy_cli_folder() -> Path:
    return cache_folder() / f"comfy-cli-{VERSION}"


def find_comfy_cli() -> Path | None:
    """The program, or None; installs nothing."""
    path = comfy_cli_folder() / ("Scripts/comfy.exe" if os.name == "nt" else "bin/comfy")
    return path if path.is_file() and (comfy_cli_folder() / "complete").is_file() else None


def prepare() -> Path | None:
    """The program, installed when needed; None, with a message, where that fails."""
    if (found := find_comfy_cli()) is not None:
        return found
    folder = comfy_cli_folder()
    cache_folder().mkdir(parents=True, exist_ok=True)
    with locked(cache_folder() / "comfy-cli.lock"):
        if (found := find_comfy_cli()) is not None:
            return found
        say(f"installing comfy-cli {VERSION} ...")
        shutil.rmtree(folder, ignore_errors=True)
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", str(folder)], [*install, f"comfy-cli=={VERSION}"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                say(f"failed, workflows will not be checked by it: {done.stderr.strip()[-500:]}")
                return None
        (folder / "complete").touch()
    return find_comfy_cli()


def validate(cli: Path, workflow: Path, object_info: Path) -> dict[str, Any]:
    """What comfy-cli says of a workflow in UI or API form: `valid`, `errors`, `warnings`.

    Raises RuntimeError when it gives no verdict.
    """
    command = [str(cli), "--json", "workflow", "validate", "--input", str(object_info), "--workflow", str(workflow)]
    # Its settings go to a folder of this run, never to the user's.
    home = {"HOME": str(object_info.parent), "XDG_CONFIG_HOME": str(object_info.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ | QUIET | home, check=False
    )
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            answer = json.loads(line)
            return answer.get("data") or {"valid": False, "errors": [answer.get("error")], "warnings": []}
    raise RuntimeError(f"comfy-cli gave no verdict on {workflow.name}: {done.stdout[-500:]} {done.stderr[-500:]}")


if __name__ == "__main__":
    try:
        sys.exit(0 if prepare() else 1)
    except (SetupError, OSError) as error:
        say(f"error: {error}")
        sys.exit(1)
