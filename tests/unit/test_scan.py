"""Which files are found below a folder, and that looking for them ends when it should."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memory_encoder.training.dataset.scan import files_below, folder_stamp


def test_hidden_files_the_cache_links_to_folders_and_pipes_are_left_out(tmp_path: Path) -> None:
    for name in ("a.mp4", "deep/b.mp4", ".hidden/c.mp4", "deep/.d.mp4", "cache/e.mp4", "cached/f.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "broken.mp4").symlink_to(tmp_path / "none")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mp4")
    found = sorted(name for name, _ in files_below(tmp_path, tmp_path / "cache"))
    assert found == ["a.mp4", "cached/f.mp4", "deep/b.mp4"]


def test_a_stamp_changes_with_what_is_used_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("x")
    before = folder_stamp(tmp_path)
    (tmp_path / ".b").write_text("x")
    assert folder_stamp(tmp_path) == before
    (tmp_path / "b").write_text("x")
    assert folder_stamp(tmp_path) != before


def test_a_search_can_be_stopped_in_every_folder(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / str(n)).mkdir()
    looked: list[int] = []

    def stop() -> None:
        looked.append(1)
        if len(looked) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        folder_stamp(tmp_path, stop)
    assert len(looked) == 3
