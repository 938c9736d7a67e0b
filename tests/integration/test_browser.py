"""The pack in a real browser on one real ComfyUI: each file of tests/browser runs under `node --test`.

One file alone: `python -m tools.browser_server node --test tests/browser/NAME.test.mjs`. VIDEO_MEMORY_SCREENSHOTS names
a folder for pictures of what the tests see.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.browser import BrowserTools, find
from tools.browser_server import TEST_NODES, browser_server, variables
from tools.comfy_server import ComfyServer
from tools.environment import ROOT, Environment

FILES = sorted((ROOT / "tests" / "browser").glob("*.test.mjs"))
LIMIT = 1800  # seconds for one file; only what hangs is given up


@pytest.fixture(scope="module")
def tools() -> BrowserTools:
    """Node, Chromium and playwright-core; nothing is installed here."""
    found, missing = find()
    if found is not None:
        return found
    reason = f"no browser tests, {missing}; run `python -m tools.browser`"
    if os.environ.get("VIDEO_MEMORY_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def server(
    tools: BrowserTools, comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """One ComfyUI for all files; it has a moment of start-up that none of them should pay twice."""
    with browser_server(tmp_path_factory.mktemp("browser"), comfy_environment, [TEST_NODES]) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_in_the_browser(file: Path, tools: BrowserTools, server: ComfyServer) -> None:
    command = [str(tools.node), "--test", "--test-reporter=spec", str(file)]
    run = subprocess.run(
        command, cwd=ROOT, env=variables(server, tools), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert run.returncode == 0, f"{run.stdout[-6000:]}\n{run.stderr[-2000:]}\nserver: {server.log_tail(20)}"
    assert "tests 0" not in run.stdout, f"{file.name} holds no test"
