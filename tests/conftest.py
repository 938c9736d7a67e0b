"""What all tests share: the pack as a package under a name of its own, and the order of the two suites."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
INTEGRATION = ROOT / "tests" / "integration"


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the integration tests and run them last: they are slow and bring the real ComfyUI's modules."""
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.integration)
    items.sort(key=lambda item: INTEGRATION in item.path.parents)
