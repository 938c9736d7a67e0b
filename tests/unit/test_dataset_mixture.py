"""Several datasets in one run, and batches that are made ahead of their step."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from memory_encoder.training.dataset.cache import build_cache
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.dataset.mixture import Mixture, mixed, open_datasets, parse_share
from memory_encoder.training.dataset.settings import DatasetError
from memory_encoder.training.prefetch import Prefetch, pinned
from memory_encoder.training.source import DatasetBatches
from tests.unit.dataset_clips import SETTINGS, SPACE, CountingCodec, Words, cache, counting


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Datasets of 3 windows and of 1."""
    counting(tmp_path / "a" / "long.mp4", 51)
    counting(tmp_path / "b" / "short.mp4", 17)
    (tmp_path / "a" / "long.txt").write_text("of a")
    for name in "ab":
        cache(tmp_path / name, tmp_path / f"data {name}", words=Words())
    return [str(tmp_path / "data a"), str(tmp_path / "data b")]


def sources(data: Any, batches: int = 400) -> Counter[str]:
    drawn = [data.draw(2, torch.Generator().manual_seed(seed)) for seed in range(batches)]
    found = [{data.sample(index).source for index in batch} for batch in drawn[:40]]
    assert all(len(names) == 1 for names in found)  # a batch is of one dataset
    limit = len(data.parts[0])
    return Counter("a" if batch[0] < limit else "b" for batch in drawn)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [(["", ""], 0.75), (["", ":0.6"], 0.4), ([":1", ":3"], 0.25), ([":0.5", ""], 0.5)],
)
def test_each_dataset_gives_its_share_of_the_batches(folders: list[str], shares: list[str], expected: float) -> None:
    data = open_datasets([folder + share for folder, share in zip(folders, shares, strict=True)])
    assert isinstance(data, Mixture) and data.shares[0] == pytest.approx(expected) and len(data) == 4
    assert abs(sources(data)["a"] / 400 - expected) < 0.08
    assert f"data a: {expected:.1%} of the batches, 3 windows" in str(data)


def test_one_dataset_is_drawn_from_as_it_always_was(folders: list[str]) -> None:
    alone, own = open_datasets(folders[:1]), MemoryDataset.open(Path(folders[0]))
    assert isinstance(alone, MemoryDataset)
    assert [alone.draw(2, torch.Generator().manual_seed(k)) for k in range(9)] == [
        own.draw(2, torch.Generator().manual_seed(k)) for k in range(9)
    ]


def test_each_row_has_the_text_of_its_own_dataset_and_mixtures_mix_on(folders: list[str], tmp_path: Path) -> None:
    data = open_datasets(folders)
    assert [s.text(s.prompt).cross_attn.mean().item() for s in map(data.sample, range(4))] == [4, 4, 4, 0]
    again = mixed([(data, None), (MemoryDataset.open(Path(folders[1])), 0.5)])
    assert isinstance(again, Mixture) and again.shares == pytest.approx((0.375, 0.125, 0.5))
    assert again.identity != data.identity and "data a 0.75 of 3 windows" in data.identity


def test_the_held_out_part_of_a_mixture_is_that_of_the_datasets_which_have_one(
    folders: list[str], tmp_path: Path
) -> None:
    cache(tmp_path / "a", tmp_path / "data a", words=Words(), heldout=("long.mp4",))
    data = open_datasets([folders[0] + ":0.3", folders[1]])
    assert [part.name for part in data.split("heldout").parts] == ["data a"]  # type: ignore[union-attr]
    assert data.split("heldout").shares == (1.0,) and len(data.split("train")) == 1  # type: ignore[union-attr]


def test_datasets_that_do_not_fit_are_refused_with_what_differs(folders: list[str], tmp_path: Path) -> None:
    space = dataclasses.replace(SPACE, vae="vae 2")
    build_cache(tmp_path / "b", tmp_path / "other", SETTINGS, space, CountingCodec().codec)
    with pytest.raises(DatasetError, match="data a and other do not fit together: vae vae 1 and vae 2"):
        open_datasets([folders[0], str(tmp_path / "other")])
    for shares, message in (((None, 1.0), "leave nothing"), ((0.0, 1.0), "above 0"), ((-1.0, None), "above 0")):
        with pytest.raises(DatasetError, match=message):
            mixed([(MemoryDataset.open(Path(f)), share) for f, share in zip(folders, shares, strict=True)])
    with pytest.raises(DatasetError, match="data a: dataset has no LR latents at rate 4x4x2"):
        open_datasets(folders).check_encoder(SPACE.encoder_config("4x4x2", "ceil"))


@pytest.mark.parametrize("fps", [12.0, 7.992])
def test_datasets_of_different_frame_rates_are_refused_with_both_and_the_cure(
    folders: list[str], tmp_path: Path, fps: float
) -> None:
    """One encoder is trained for one clock: what a second is, how long a section, what its file says of it."""
    counting(tmp_path / "c" / "clip.mp4", 40)
    cache(tmp_path / "c", tmp_path / "fast", fps=fps)
    with pytest.raises(
        DatasetError, match=rf"data a and fast do not fit together: fps 8\.0 and {fps}; cache both.* fps$"
    ):
        open_datasets([folders[0], str(tmp_path / "fast")])


def test_a_share_is_read_behind_the_folder_and_drives_and_odd_names_stay_folders(tmp_path: Path) -> None:
    (tmp_path / "clips:0.5").mkdir()
    assert parse_share("data/b:0.3") == ("data/b", 0.3)
    assert parse_share("C:\\data") == ("C:\\data", None) and parse_share("data") == ("data", None)
    assert parse_share(str(tmp_path / "clips:0.5")) == (str(tmp_path / "clips:0.5"), None)


def options(**changes: Any) -> Any:
    from memory_encoder.training.options import TrainOptions

    return TrainOptions(**{"stage": "retrieval", "batch_size": 2, "caption_dropout": 0.5} | changes)


def test_batches_of_a_mixture_made_ahead_are_those_made_in_turn(folders: list[str]) -> None:
    source = DatasetBatches(open_datasets(folders), SPACE.encoder_config("2x2x2", "ceil"), options())

    def batch(step: int) -> Any:
        return source.rows(step, 0, 2, "train", lambda frames, row: (0, frames))

    ahead = Prefetch(batch, 12)
    for step in [*range(12), 3, 4, 30]:  # also back, as a run that goes on, and past the end
        made, alone = ahead(step), batch(step)
        assert torch.equal(made.hr, alone.hr) and torch.equal(made.lr["2x2x2"], alone.lr["2x2x2"])
        assert all(torch.equal(made.conditioning[n], alone.conditioning[n]) for n in alone.conditioning)
    ahead.close()


def test_the_next_batches_are_made_while_a_step_runs_and_none_past_the_last() -> None:
    made, lock, ready = [], threading.Lock(), threading.Event()

    def make(number: int) -> int:
        with lock:
            made.append((number, threading.current_thread() is threading.main_thread()))
            if len(made) == 3:
                ready.set()
        return 10 * number

    ahead = Prefetch(make, 5)
    assert ahead(0) == 0
    assert ready.wait(60)  # 1 and 2 are made though nobody has asked for them
    assert [ahead(number) for number in range(1, 5)] == [10, 20, 30, 40]
    ahead.close()
    assert sorted(made) == [(number, False) for number in range(5)]


def test_an_error_of_a_batch_comes_at_its_own_step() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise DatasetError("corrupt")
        return number

    ahead = Prefetch(make, 9)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(DatasetError, match="corrupt"):
        ahead(2)
    assert ahead(3) == 3
    ahead.close()


def test_all_tensors_of_a_batch_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    from memory_encoder.training.module import Batch

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    rows = (torch.zeros(1), None)
    batch, (first, number) = pinned((Batch(torch.zeros(2), {"a": torch.zeros(1)}, {"c": rows}), [torch.zeros(1), 3]))
    assert batch.hr.tolist() == [1, 1] and batch.lr["a"] == 1 and batch.conditioning["c"][0] == 1
    assert batch.conditioning["c"][1] is None and first == 1 and number == 3
