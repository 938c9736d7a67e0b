"""A real ComfyUI as a server; the one in this process is in `tests/conftest.py`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.comfy_server import ComfyServer
from tools.environment import Environment


@pytest.fixture(scope="session")
def comfy_server(comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running headless ComfyUI with this pack as it is after an installation: no models, no files of a user."""
    with ComfyServer(tmp_path_factory.mktemp("comfy_server"), environment=comfy_environment) as server:
        yield server


@pytest.fixture(scope="module")
def made(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """`made(folder, **options)` lays a short training run there; those of the same options are trained once."""
    from .runs import run

    known: dict[str, Path] = {}

    def copied(folder: Path, **options: Any) -> None:
        key = repr(sorted(options.items()))
        if key not in known:
            known[key] = tmp_path_factory.mktemp("run")
            run(known[key], **options)
        shutil.copytree(known[key], folder, dirs_exist_ok=True)

    return copied
