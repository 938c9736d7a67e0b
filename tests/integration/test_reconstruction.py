"""The beginning of the HR branch: tokens learn to hold the latents of their cells, without the host."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.locks import BusyError
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training import run
from memory_encoder.training.interruption import Stopped
from memory_encoder.training.listener import PictureListener
from memory_encoder.training.reconstruction import cells_of, check_teacher, coarser, reconstruct
from memory_encoder.training.run_files import ENCODER, LOSSES, alone_in, checkpoints_in, read_losses
from memory_encoder.training.trainer import NotFinite

from .training import FRAMES, HEIGHT, WIDTH, OneClip, Spoilt, tiny_encoder, tiny_host, tiny_module, tiny_options

CPU = torch.device("cpu")
ANY = EncoderConfig("wan", 64, 16, channels=(16, 32), variant="without_lr")


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["1x1x1", "2x2x1", "2x2x2", "4x4x2", "2x2x8"]), st.integers(1, 20), st.integers(2, 19))
def test_each_token_is_asked_for_the_latents_of_its_own_cell_at_every_size(rate: str, frames: int, size: int) -> None:
    config = replace(ANY, rate=rate)
    latents = torch.randn(1, 16, frames, size, size + 1)
    encoder = MemoryEncoder(config)
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    cells = cells_of(latents, config)
    assert cells.shape[:2] == encoder(latents).shape[:2]
    first = cells[0, 0].view(16, *config.stride)
    high, wide = min(config.stride[1], size), min(config.stride[2], size + 1)
    shown = latents[0, :, :1, :high, :wide].expand(-1, config.stride[0], -1, -1)
    assert torch.equal(first[..., :high, :wide], shown)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["2x2x2", "4x4x2", "2x2x8"]), st.integers(1, 20), st.integers(1, 3))
def test_the_mean_of_finer_tokens_is_that_of_what_they_cover(rate: str, frames: int, size: int) -> None:
    """A teacher whose tokens are the mean of its cells: the coarser mean is the mean of the coarser cells."""
    fine, config = replace(ANY, rate="1x1x1"), replace(ANY, rate=rate)
    latents = torch.randn(1, 16, frames, 8 * size, 16)  # whole cells: those at an edge repeat latents or tokens
    tokens = cells_of(latents, fine).mean(dim=3)
    expected = cells_of(latents, config).mean(dim=3)
    torch.testing.assert_close(coarser(tokens, fine, config, latents), expected, atol=1e-5, rtol=1e-4)


def test_tokens_come_to_hold_their_cells_and_the_host_is_not_touched() -> None:
    options = tiny_options(reconstruction=60, batch_size=2)
    module = tiny_module(options)
    host = {name: value.clone() for name, value in module.diffusion_model.state_dict().items()}
    told: list[int] = []
    losses = reconstruct(module, module.encoders, OneClip(8), options, CPU, lambda step, result: told.append(step))
    assert told == list(range(60)) and losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(host[name], value) for name, value in module.diffusion_model.state_dict().items())
    assert module.encoder.out.weight.abs().sum() > 0
    again = tiny_module(options)
    assert reconstruct(again, again.encoders, OneClip(8), options, CPU) == losses
    assert torch.equal(again.encoder.out.weight, module.encoder.out.weight)


def test_a_batch_that_was_cut_has_as_many_clips_a_step() -> None:
    options = tiny_options(reconstruction=2, batch_size=1, accumulate=4)
    asked: list[tuple[int, int, int]] = []

    class Noted(OneClip):
        def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Any:
            asked.append((step, first, last))
            return super().rows(step, first, last, kind, target)

    module = tiny_module(options)
    told: list[int] = []
    losses = reconstruct(module, module.encoders, Noted(8), options, CPU, lambda step, result: told.append(step))
    assert told == [0, 1] and len(losses) == 2
    assert asked == [(-1 - index, 0, 1) for index in range(8)]


def test_a_coarser_encoder_learns_to_give_the_mean_of_a_finer_ones_tokens() -> None:
    options = tiny_options(reconstruction=60, batch_size=2)
    module, teacher = tiny_module(options), tiny_encoder(rate="2x2x1")
    torch.nn.init.normal_(teacher.out.weight, std=0.2)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    clips = OneClip(8)
    clips.lr["2x2x1"] = clips.lr["2x2x2"].repeat_interleave(2, dim=2)[:, :, 1:]
    losses = reconstruct(module, module.encoders, clips, options, CPU, teacher=teacher)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("wrong", [{"rate": "4x4x2"}, {"rate": "2x2x1", "width": 32}, {"variant": "only_lr"}])
def test_a_teacher_that_is_not_finer_or_not_of_the_host_is_refused_by_name(wrong: dict[str, Any]) -> None:
    own = replace(ANY, rate="2x2x2", variant="proposed")
    check_teacher(replace(own, rate="2x2x1"), [own])
    with pytest.raises(ValueError, match=r"teacher of rate .* cannot begin an encoder of rate 2x2x2"):
        check_teacher(replace(own, **wrong), [own])


# What protects a run protects its beginning


class Windows(Spoilt):
    """A dataset's batches, of which some steps hold a NaN; those of the reconstruction have numbers from -1 down."""

    has_heldout, identity = False, None

    class Split(list[int]):
        shapes: Any = ((16, FRAMES, HEIGHT, WIDTH),)

    def __init__(self, *steps: int) -> None:
        super().__init__(*steps)
        self.splits = {"train": self.Split(range(8))}


class Told(PictureListener):
    """Keeps what it is told of the reconstruction; sends itself a signal, or raises, at its second step."""

    def __init__(self, folder: Path, number: int = 0, error: BaseException | None = None) -> None:
        super().__init__(folder)
        self.number, self.error, self.steps, self.texts = number, error, list[int](), list[str]()
        self.plans: list[str] = []

    def reconstruction(self, step: int, steps: int, loss: float) -> None:
        self.steps.append(step)
        if step == 1 and self.number:
            os.kill(os.getpid(), self.number)
        if step == 1 and self.error:
            raise self.error

    def stopped(self, text: str) -> None:
        self.texts.append(text)

    def plan(self, text: str) -> None:
        self.plans.append(text)


def begin(folder: Path, patch: pytest.MonkeyPatch, *spoilt: int, listener: Told | None = None, **more: Any) -> Told:
    """A run of two steps after six of reconstruction."""
    options = tiny_options(**({"steps": 2, "reconstruction": 6, "batch_size": 2, "rank": 4, "warmup": 1} | more))
    windows, listener = Windows(*spoilt), listener or Told(folder)
    patch.setattr(run, "DatasetBatches", lambda *_: windows)
    space = SimpleNamespace(temporal=4, spatial=8)
    split = SimpleNamespace(largest=Windows.Split.shapes[0], longest=FRAMES, clips=8, sources=())
    dataset: Any = SimpleNamespace(fps=16, space=space, longest=FRAMES, split=lambda name: split)
    run.train(tiny_host(), tiny_encoder(), dataset, options, folder, listener, cpu=True)
    return listener


def test_a_run_is_planned_for_the_windows_of_most_tokens_whatever_their_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a section full tokens count, in a history few: long windows of a small picture have the larger volume."""
    long, wide = (16, 200, 4, 4), (16, 12, 16, 16)
    found = {}
    for name, shapes in (("long", [long]), ("wide", [wide]), ("both", [long, wide]), ("turned", [wide, long])):
        monkeypatch.setattr(Windows.Split, "shapes", shapes)
        told = begin(tmp_path / name, monkeypatch, stage="continuation", section=4, reconstruction=0)
        found[name] = re.findall(r"(\d+) tokens a clip|estimated memory (\S+)", told.plans[0])
    assert found["wide"] != found["long"] and found["both"] == found["turned"] == found["wide"]


def test_a_step_of_the_reconstruction_that_is_not_finite_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = begin(tmp_path, monkeypatch, -3)
    assert told.steps == [0, 1, 3, 4, 5]
    assert "step of the reconstruction 3 left out: its loss is nan (1 in a row of at most 5, 1 in this" in caplog.text
    assert [entry["step"] for entry in read_losses(tmp_path / LOSSES)] == [0, 1]
    assert all(bool(value.isfinite().all()) for value in load_file(tmp_path / ENCODER).values())


def test_a_reconstruction_with_nothing_finite_ends_the_run_and_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFinite, match=r"last 3 steps, up to step of the reconstruction 5, .* loss is nan. Nothing"):
        begin(tmp_path, monkeypatch, -3, -4, -5, -6, max_skipped=3)
    assert not checkpoints_in(tmp_path) and not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_reconstruction_after_its_step_and_the_next_run_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped before the first step; run the same command again") as stopped:
        begin(tmp_path, monkeypatch, listener=(told := Told(tmp_path, number)))
    assert told.steps == [0, 1] and told.texts == [str(stopped.value)] and stopped.value.code == 128 + number
    assert signal.getsignal(number) == before and not checkpoints_in(tmp_path)
    assert begin(tmp_path, monkeypatch).steps == list(range(6))
    assert begin(tmp_path, monkeypatch, steps=3).steps == []  # it goes on


def test_a_node_that_is_cancelled_in_the_reconstruction_ends_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyError, match="cancelled"):
        begin(tmp_path, monkeypatch, listener=Told(tmp_path, error=KeyError("cancelled")))
    assert not checkpoints_in(tmp_path)


def test_a_folder_in_which_another_process_trains_is_left_before_the_reconstruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone_in(tmp_path), pytest.raises(BusyError, match="is being trained by process"):
        begin(tmp_path, monkeypatch, listener=(told := Told(tmp_path)))
    assert told.steps == []


def test_a_disk_without_room_is_refused_before_the_reconstruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(tmp_path)
    with monkeypatch.context() as full, pytest.raises(OSError, match=r"saving this run takes .* GiB in .*, where"):
        full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        begin(tmp_path, full, listener=told)
    assert told.steps == []
