"""A real ComfyUI as a server; the one in this process is in `tests/conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.comfy_server import ComfyServer
from tools.environment import Environment


@pytest.fixture(scope="session")
def comfy_server(comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running headless ComfyUI with this pack as it is after an installation: no models, no files of a user."""
    with ComfyServer(tmp_path_factory.mktemp("comfy_server"), environment=comfy_environment) as server:
        yield server
