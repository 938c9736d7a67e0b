"""The front end's logic: each file of tests/js runs under `node --test`, without a browser."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tools.browser import NODE_MAJOR, find_node

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "tests" / "js").glob("*.test.mjs"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_logic_of_the_front_end(file: Path) -> None:
    node = find_node()
    if node is None:
        reason = f"no Node.js {NODE_MAJOR} or newer on PATH"
        if os.environ.get("VIDEO_MEMORY_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    command = [str(node), "--test", "--test-reporter=spec", str(file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1000, check=False)
    assert run.returncode == 0, f"{run.stdout[-6000:]}\n{run.stderr[-2000:]}"
    assert "tests 0" not in run.stdout, f"{file.name} holds no test"
