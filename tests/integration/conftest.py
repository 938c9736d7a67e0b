"""The real ComfyUI for the integration tests: in this process (`comfy`) and as a server (`comfy_server`)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from demo.comfy_server import ComfyServer
from demo.environment import Environment, find

HOW = "run `make test`, or `python demo/environment.py run -m pytest`"


@dataclass(frozen=True)
class Comfy:
    """ComfyUI's modules in this process, on the CPU, with a temporary base directory."""

    root: Path  # the ComfyUI tree
    base: Path  # base directory: models, input, output, user
    nodes: ModuleType  # ComfyUI's nodes.py; the only way tests should reach it
    folder_paths: ModuleType
    model_management: ModuleType

    def module(self, name: str) -> ModuleType:
        """A module of ComfyUI by its full name, e.g. `comfy.ldm.wan.model` or `comfy_extras.nodes_custom_sampler`."""
        return importlib.import_module(name)


def unavailable(reason: str) -> NoReturn:
    """Skip, or fail where a ComfyUI has to be there (`make test` and CI)."""
    if os.environ.get("VIDEO_MEMORY_REQUIRE_COMFY") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def comfy_environment() -> Environment:
    """The prepared Python and ComfyUI tree; nothing is installed here."""
    environment = find()
    if environment is None:
        unavailable(f"no ComfyUI: COMFYUI_PATH is not set and none is prepared; {HOW}")
    return environment


@pytest.fixture(scope="session")
def comfy(comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Comfy:
    """The real ComfyUI imported into this process, as `main.py --cpu` would, without starting the server.

    PyTorch's attention is chosen, since that is what runs on people's cards.
    """
    if missing := [name for name in ("torch", "aiohttp", "av", "torchsde") if importlib.util.find_spec(name) is None]:
        unavailable(f"this Python ({sys.executable}) lacks what ComfyUI needs ({', '.join(missing)}); {HOW}")
    root, base = comfy_environment.comfy, tmp_path_factory.mktemp("comfy_base")
    sys.path[:0] = [str(root)]  # before the checkout, whose own `nodes` folder must not be taken for ComfyUI's module
    for name in ("torchvision", "torchaudio"):
        if importlib.util.find_spec(name) is None:
            sys.path.append(str(Path(__file__).parents[2] / "demo" / "standins" / name))
    arguments, sys.argv = sys.argv, ["main.py", "--cpu", "--use-pytorch-cross-attention", "--base-directory", str(base)]
    try:
        options = importlib.import_module("comfy.options")
        options.enable_args_parsing()
        importlib.import_module("comfy.cli_args")
        options.enable_args_parsing(False)
    finally:
        sys.argv = arguments
    names = ("nodes", "folder_paths", "comfy.model_management")
    modules = [importlib.import_module(name) for name in names]
    for module in modules:
        assert root.resolve() in Path(module.__file__ or "").resolve().parents, f"{module} is not ComfyUI's"
    return Comfy(root, base, *modules)


@pytest.fixture(scope="module")
def comfy_server(comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running headless ComfyUI with this pack, one for each test module, in a temporary base directory."""
    with ComfyServer(tmp_path_factory.mktemp("comfy_server"), environment=comfy_environment) as server:
        yield server
