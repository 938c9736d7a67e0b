"""Files that a widget or a storyboard names: changes are noticed, and nothing out of ComfyUI's folders is looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .test_film_routes import pack_module


def test_file_in_another_of_comfyuis_folders_is_told_from_its_successor(
    comfy: Any, load_pack: Callable[..., ModuleType]
) -> None:
    ours, folders = pack_module(load_pack, "runtime.folders"), comfy.module("folder_paths")
    for name, folder in (("a.png [output]", folders.get_output_directory()), ("a.png", folders.get_input_directory())):
        path = Path(folder) / "a.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"one")
        before = ours.file_stamp(name)
        path.write_bytes(b"other")
        assert before is not None and ours.file_stamp(name) != before
        path.unlink()


def test_any_of_several_files_of_one_name_is_told_from_its_successor(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, folders = pack_module(load_pack, "runtime.folders"), comfy.module("folder_paths")
    paths = [tmp_path / kind / "model.safetensors" for kind in ("loras", "vae")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"one")
    kinds = {path.parent.name: ([str(path.parent)], {".safetensors"}) for path in paths}
    monkeypatch.setattr(folders, "folder_names_and_paths", kinds)
    stamps = [ours.file_stamp("model.safetensors")]
    for path in paths:
        path.write_bytes(b"another")
        stamps.append(ours.file_stamp("model.safetensors"))
    assert len({str(stamp) for stamp in stamps}) == 3


@pytest.mark.parametrize(
    "name",
    [
        "//host/share/a.png",
        "\\\\host\\share\\a.png",
        "/a.png",
        "C:/a.png",
        "C:a.png",
        "b/../../a.png",
        "b\\..\\..\\a.png",
    ],
)
def test_names_of_other_places_are_looked_for_nowhere(
    comfy: Any, load_pack: Callable[..., ModuleType], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workflow may come from anywhere, and on Windows a look at such a name asks another machine."""
    folders, pictures = (pack_module(load_pack, one) for one in ("runtime.folders", "shot_pictures"))

    def looked(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"looked at {self}")

    root = Path(comfy.module("folder_paths").get_input_directory()).resolve()
    monkeypatch.setattr("os.path.isfile", looked)
    monkeypatch.setattr(Path, "is_file", looked)
    monkeypatch.setattr(Path, "resolve", lambda self, strict=False: self if self == root else looked(self))
    assert folders.file_stamp(name) is None and not pictures.is_there(name)
