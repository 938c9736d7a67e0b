"""What all tests share: the pack as a package under a name of its own, and the order of the files."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# Before torch is imported, and for all processes that tests start: the models are too small for more, and threads that
# wait for each other are what makes a busy machine slow. Workers of pytest-xdist take the other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
INTEGRATION = ROOT / "tests" / "integration"
# Files of more than ten seconds, the longest first.
LONGEST = (
    "test_browser", "test_card_sampling", "test_card_training", "test_reproduction", "test_training",
    "test_training_sharded", "test_card_memory", "test_film", "test_tiny_family", "test_workflows",
    "test_branching", "test_parity", "test_film_routes", "test_train_node", "test_saving", "test_training_workflows",
    "test_nodes", "test_storyboard", "test_comfy_starts",
)  # fmt: skip


def import_pack(name: str = "video_memory_pack") -> ModuleType:
    """Import the repository root as the package `name`, as ComfyUI does with a custom node folder of any name.

    A module of the pack is then `importlib.import_module(f"{name}.nodes.runtime")`. Nothing is put on sys.path.
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
    """Mark the integration tests and order the files.

    In one process the quick unit tests come first. Workers of pytest-xdist get the longest files first, so that they
    end together.
    """
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.integration)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    else:
        items.sort(key=lambda item: INTEGRATION in item.path.parents)
