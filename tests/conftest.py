"""What all tests share: the pack as a package under a name of its own, the real ComfyUI in this process (`comfy`), and
the order of the files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from tools.environment import Environment, add_standins, find

# Before torch is imported, and for all processes that tests start: the models are too small for more, and threads that
# wait for each other are what makes a busy machine slow. Workers of pytest-xdist take the other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
INTEGRATION, CARD = ROOT / "tests" / "integration", ROOT / "tests" / "card"
HOW = "run `make test`, or `python tools/environment.py run -m pytest`"
# Files of more than ten seconds, the longest first.
LONGEST = (
    "test_browser", "test_card_sampling", "test_card_training", "test_reproduction", "test_training",
    "test_training_sharded", "test_card_memory", "test_film", "test_tiny_family", "test_workflows",
    "test_branching", "test_parity", "test_film_routes", "test_train_command", "test_saving", "test_training_workflows",
    "test_nodes", "test_storyboard", "test_comfy_starts",
)  # fmt: skip


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """Signals as a person's terminal gives them: a shell's background job ignores SIGINT, and nohup SIGHUP."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    usual |= {signal.SIGHUP: signal.SIG_DFL} if hasattr(signal, "SIGHUP") else {}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def import_pack(name: str = "video_memory_pack") -> ModuleType:
    """Import the repository root as the package `name`, as ComfyUI does with a custom node folder of any name.

    A module of the pack is then `importlib.import_module(f"{name}.nodes.sampler")`. Nothing is put on sys.path.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for loaded in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise
    return module


@pytest.fixture(scope="session")
def load_pack() -> Callable[..., ModuleType]:
    """The function `load_pack(name="video_memory_pack")`, see `import_pack`."""
    return import_pack


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
    from memory_encoder.injection.hosts.comfy_models import PYTORCH_ATTENTION, load_comfy

    add_standins()
    load_comfy(str(root), ("--cpu", *PYTORCH_ATTENTION, "--base-directory", str(base)))
    names = ("nodes", "folder_paths", "comfy.model_management")
    modules = [importlib.import_module(name) for name in names]
    for module in modules:
        assert root.resolve() in Path(module.__file__ or "").resolve().parents, f"{module} is not ComfyUI's"
    return Comfy(root, base, *modules)


class RootIsNoPackage:
    """Keeps pytest from importing the root's `__init__.py`, ComfyUI's entry point, as a package around the tests.

    Registered as a plugin of its own, since pytest asks a conftest's hooks only about folders below it.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RootIsNoPackage())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the suites that bring the real ComfyUI's modules and order the files.

    In one process the quick unit tests come first. Workers of pytest-xdist get the longest files first, so that they
    end together.
    """
    marks = {INTEGRATION: pytest.mark.integration, CARD: pytest.mark.card}
    for item in items:
        for folder in item.path.parents:
            if folder in marks:
                item.add_marker(marks[folder])
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    else:
        items.sort(key=lambda item: any(folder in item.path.parents for folder in marks))
