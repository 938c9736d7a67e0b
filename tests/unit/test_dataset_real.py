"""Real clips through every path of the dataset, where there are some: VIDEO_MEMORY_DATA, or ../shared/data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from demo.clip import data_folder
from memory_encoder.frames import frames_in
from memory_encoder.training.dataset.cache import build_cache
from memory_encoder.training.dataset.disk_space import DiskSpace
from memory_encoder.training.dataset.mixture import open_datasets
from memory_encoder.training.dataset.settings import CacheSettings
from memory_encoder.training.dataset.share import Share
from memory_encoder.training.dataset.text import TextEncoder
from tests.unit.dataset_clips import SPACE, CountingCodec, Words, rows_of

DATA = data_folder()
SETTINGS = CacheSettings(256, 144, 8, window_seconds=6, rates=("2x2x2",))
FILM, CUTS = "bbb_30s_1280x720.webm", (283 / 24, 376 / 24, 551 / 24)  # its first frames of other scenes
ORIGINALS = 3  # of the shortest real clips of another aspect each


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to the smallest clips, of as many aspects as there are."""
    manifest = DATA / "manifest.json"
    if not manifest.is_file():
        pytest.skip(f"no real clips in {DATA}; VIDEO_MEMORY_DATA names their folder")
    known = json.loads(manifest.read_text())["clips"]
    found: dict[float, Any] = {}
    for clip in sorted(known, key=lambda clip: clip["bytes"]):
        path = next(DATA.rglob(clip["name"]), None)
        if path is not None:
            found.setdefault(round(clip["width"] / clip["height"], 1), path)
    folder = tmp_path_factory.mktemp("real")
    for path in list(found.values())[:ORIGINALS]:
        (folder / path.name).symlink_to(path)
        (folder / path.name).with_suffix(".txt").write_text(f"a clip called {path.stem}")
    return folder


def test_real_clips_are_cached_by_two_shares_with_sizes_and_lengths_of_their_own_and_trained_on_together(
    clips: Path, tmp_path: Path
) -> None:
    said: list[DiskSpace] = []
    words = TextEncoder("words 1", Words)
    for number in range(2):
        report = build_cache(
            clips, tmp_path / "out", SETTINGS, SPACE, CountingCodec().codec, words,
            share=Share(number, 2), before=said.append,
        )  # fmt: skip
    assert report.missing is None and not report.skipped and report.clips == len(list(clips.glob("*.txt")))
    [(kept,)] = rows_of(tmp_path / "out", "SELECT min(kept) FROM clips")
    assert kept > 0.85
    written = sum(path.stat().st_size for path in (tmp_path / "out" / "shards").iterdir())
    assert 0.6 < said[0].latents / written < 1.4
    data = open_datasets([f"{tmp_path / 'out'}:0.5", str(tmp_path / "out")])
    shapes = set()
    for seed in range(12):
        samples = [data.sample(index) for index in data.draw(2, torch.Generator().manual_seed(seed))]
        shapes |= {sample.hr.shape for sample in samples}
        assert all(torch.isfinite(sample.hr).all() and sample.prompt.startswith("a clip called") for sample in samples)
    assert len(shapes) > 1


@pytest.mark.parametrize("cut", [True, False])
def test_windows_of_a_real_film_begin_at_its_cuts_and_reach_over_none(tmp_path: Path, cut: bool) -> None:
    """As PySceneDetect finds them; without it they do."""
    pytest.importorskip("scenedetect", reason="pip install 'scenedetect>=0.6.4,<0.7'")
    film = next(DATA.rglob(FILM), None)
    if film is None:
        pytest.skip(f"no {FILM} in {DATA}; VIDEO_MEMORY_DATA names the folder of real clips")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / FILM).symlink_to(film)
    settings = dataclasses.replace(SETTINGS, scene_cuts=cut, buckets=())
    build_cache(tmp_path / "clips", tmp_path / "out", settings, SPACE, CountingCodec().codec)
    windows = [
        (start, start + frames_in(latents) / settings.fps)
        for start, latents in rows_of(tmp_path / "out", "SELECT start, latents FROM windows")
    ]
    frame = 1 / settings.fps + 1e-6  # a cut is seen in the next picture
    begun = [any(0 <= start - at <= frame for start, _ in windows) for at in CUTS]
    crossed = [any(start < at - frame and end > at + frame for start, end in windows) for at in CUTS]
    assert (all(begun), any(crossed)) == (cut, not cut), windows
