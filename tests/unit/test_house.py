"""The set-up of demo and tests, as far as it can be told without the network, and the lists that must agree."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest

from tools.environment import SetupError, requirement_name, unpack

ROOT = Path(__file__).resolve().parents[2]


def archive(folder: Path, members: dict[str, bytes | None]) -> Path:
    """A source archive; a member without content is a symbolic link to /etc/passwd."""
    path = folder / "some-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return path


def test_only_the_inner_folder_is_unpacked_and_no_links(tmp_path: Path) -> None:
    members = {
        "some-1.0/setup.py": b"",
        "some-1.0/vendor/ComfyUI/main.py": b"main",
        "some-1.0/vendor/ComfyUI/a/b.txt": b"b",
        "some-1.0/vendor/ComfyUI/link": None,
        "some-1.0/vendor/ComfyUIother/x": b"x",
    }
    target = tmp_path / "ComfyUI"
    unpack(archive(tmp_path, members), "vendor/ComfyUI", target)
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*")) == ["a", str(Path("a/b.txt")), "main.py"]
    assert (target / "main.py").read_bytes() == b"main"


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    members: dict[str, bytes | None] = {"some-1.0/vendor/ComfyUI/../../../../evil": b"x"}
    with pytest.raises(SetupError, match="unsafe path"):
        unpack(archive(tmp_path, members), "vendor/ComfyUI", tmp_path / "deep" / "down" / "ComfyUI")
    assert not list(tmp_path.rglob("evil"))


def test_an_archive_without_comfyui_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"main\.py"):
        unpack(archive(tmp_path, {"some-1.0/setup.py": b""}), "vendor/ComfyUI", tmp_path / "ComfyUI")


@pytest.mark.parametrize(
    ("line", "name"),
    [("torch", "torch"), ("av>=16.0.0", "av"), ("pydantic~=2.0 # why", "pydantic"), ("#a", ""), ("A_b[x]==1", "a-b")],
)
def test_requirement_lines_are_read_by_name(line: str, name: str) -> None:
    assert requirement_name(line) == name


def test_pyproject_and_requirements_name_the_same_packages() -> None:
    listed = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if requirement_name(line)]
    found = re.search(r"^dependencies = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found and re.findall(r'"([^"]+)"', found[1]) == listed


def test_the_pack_never_asks_for_another_torch_or_opencv() -> None:
    names = {requirement_name(line) for line in (ROOT / "requirements.txt").read_text().splitlines()}
    assert not {n for n in names if n.startswith(("torch", "opencv"))}
