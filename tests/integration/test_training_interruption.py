"""A run that is interrupted or runs out of disk, alone and by `accelerate launch`."""

from __future__ import annotations

import errno
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.locks import BusyError
from memory_encoder.training.interruption import Stopped
from memory_encoder.training.listener import Listener
from memory_encoder.training.run_files import BEST, LOSSES, alone_in, checkpoint_name, checkpoints_in, read_losses
from tests.launching import launched

from .runs import run, same, trainer_of, weights
from .test_training import variables
from .training import OneClip

pytestmark = pytest.mark.usefixtures("usual_signals")


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


class Signals(Listener):
    """Sends signals to its own process after a step."""

    def __init__(self, at: int, *numbers: int) -> None:
        self.at, self.numbers, self.texts = at, numbers, list[str]()

    def step(self, step: int, loss: float) -> None:
        if step == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def stopped(self, text: str) -> None:
        self.texts.append(text)


def test_a_folder_in_which_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(BusyError, match=r"the run in .* is being trained by process \d+"):
        run(tmp_path, steps=1)
    assert not checkpoints_in(tmp_path) and not (tmp_path / LOSSES).exists()
    run(tmp_path, steps=1)  # a lock that has been let go holds nothing
    assert checkpoints_in(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(made: Any, tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    made(tmp_path / "whole", steps=7)
    listener = Signals(4, number)
    with pytest.raises(Stopped) as stopped:
        run(tmp_path / "cut", listener, steps=7)
    assert listener.texts == ["stopped at step 5; run the same command again to go on"]
    assert stopped.value.code == 128 + number and signal.getsignal(number) is before
    assert run(tmp_path / "cut", steps=7).first_step == 5
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_what_a_listener_raises_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    class Cancelled(Exception):
        pass

    class Ear(Listener):
        def step(self, step: int, loss: float) -> None:
            if step == 4:
                raise Cancelled

    with pytest.raises(Cancelled):
        run(tmp_path, Ear(), steps=7)
    assert checkpoints_in(tmp_path)[0].name == checkpoint_name(5)


def test_a_signal_that_is_ignored_as_after_nohup_stays_so(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(tmp_path, Signals(1, signal.SIGHUP), steps=3).done == 3
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_error_in_a_step_finds_the_steps_before_it_saved(made: Any, tmp_path: Path) -> None:
    class Torn(OneClip):
        def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Any:
            if step == 3:
                raise RuntimeError("the card is full")
            return super().rows(step, first, last, kind, target)

    made(tmp_path / "whole", steps=5)
    with pytest.raises(RuntimeError, match="the card is full"):
        run(tmp_path / "cut", steps=5, clips=Torn(8))
    assert checkpoints_in(tmp_path / "cut")[0].name == checkpoint_name(3)
    run(tmp_path / "cut", steps=5)
    assert same(tmp_path / "whole", tmp_path / "cut")


def script(environment: Any, folder: Path, steps: int, *more: str, processes: int = 0) -> subprocess.Popen[str]:
    """The training script, alone or with as many processes by `accelerate launch`."""
    launch = [*launched("--multi_gpu", processes=processes), "--module"] if processes else ["-m"]
    return subprocess.Popen(
        [sys.executable, *launch, "tests.integration.training", str(folder), str(steps), "retrieval", *more],
        env=variables(environment) | {"ACCELERATE_USE_CPU": "true"} if processes else variables(environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_second_signal_ends_the_run_at_once_and_damages_nothing(comfy_environment: Any, tmp_path: Path) -> None:
    process = script(comfy_environment, tmp_path, 24, "signals", "13")
    said = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGINT, said
    assert "once more ends it at once" in said[1]
    assert [path.name for path in checkpoints_in(tmp_path)] == [checkpoint_name(10)]
    assert len(read_losses(tmp_path / LOSSES)) == 14


def test_kills_in_the_middle_of_writing_lose_no_step_that_was_saved(comfy_environment: Any, tmp_path: Path) -> None:
    """kill -9 before one of the moves into place, a few times over, and then to the end: weights equal to the bit."""
    whole = script(comfy_environment, tmp_path / "whole", 24)
    for moment in (4, 5, 1, 6):  # the checkpoint of step 10, the encoder of step 20, the log, the last LoRA
        process = script(comfy_environment, tmp_path / "cut", 24, "killed", str(moment))
        said = process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL, said
    assert checkpoints_in(tmp_path / "cut")[0].name == checkpoint_name(20)
    for process in (whole, script(comfy_environment, tmp_path / "cut", 24)):
        said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert not list((tmp_path / "cut").glob(".*tmp*"))


def test_ctrl_c_on_the_launcher_ends_all_processes_after_one_step_that_is_saved(
    comfy_environment: Any, tmp_path: Path
) -> None:
    process = script(comfy_environment, tmp_path, 100_000, "launcher", "3", processes=2)
    out, err = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "2 processes" in out and "stopped at step" in out, (out, err)
    step = len(read_losses(tmp_path / LOSSES))
    assert f"stopped at step {step};" in out and step >= 4
    assert checkpoints_in(tmp_path)[0].name == checkpoint_name(step)


def test_a_clip_of_one_process_that_gives_nan_leaves_the_step_out_in_all_as_in_one_process(
    comfy_environment: Any, tmp_path: Path
) -> None:
    """Two processes by `accelerate launch`, of which the second has the clip; and the same run in one."""
    for processes in (0, 2):
        process = script(comfy_environment, tmp_path / str(processes), 6, "spoilt", "3", processes=processes)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0 and f"{processes or 1} processes" in out, err
        assert err.count("step 4 left out: its loss is nan (1 in a row of at most 5, 1 in this run)") == 1
    one, two = ([e for e in read_losses(tmp_path / str(n) / LOSSES) if "loss" in e] for n in (0, 2))
    assert [e["step"] for e in one] == [e["step"] for e in two] == [0, 1, 2, 4, 5]
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True)) < 2e-4
    first, second = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-3


# Disk


def no_room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room(monkeypatch, 1000)
    with pytest.raises(OSError, match=r"saving this run takes 0\.\d+ GiB in .*, where 9\.31e-07 GiB are free") as error:
        run(tmp_path, steps=2)
    assert error.value.errno == errno.ENOSPC and not checkpoints_in(tmp_path)
    assert not read_losses(tmp_path / LOSSES)


def test_older_checkpoints_are_given_for_the_next_one_and_the_newest_is_not(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, steps=4)
    no_room(monkeypatch, 1000)
    with pytest.raises(OSError, match=r"checkpoint-000004\.pt is as it was, and the same run goes on from it"):
        run(tmp_path, steps=6)
    assert [path.name for path in checkpoints_in(tmp_path)] == [checkpoint_name(4)]
    assert "checkpoint-000002.pt is given up" in caplog.text


def test_a_disk_without_room_for_the_best_files_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its steps since the last checkpoint would be lost; the next save sees for itself."""
    trainer = trainer_of(tmp_path, steps=4, heldout_every=1, checkpoint_every=4)
    real = trainer._write_files

    def write(folder: Path, **more: Any) -> None:
        if folder.name == BEST:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(folder, **more)

    monkeypatch.setattr(trainer, "_write_files", write)
    assert [entry["step"] for entry in trainer.run() if "loss" in entry] == [0, 1, 2, 3]
    assert "the files of the lowest held-out loss were not written: " in caplog.text and trainer.best == math.inf


def test_a_full_disk_takes_a_damaged_checkpoint_and_leaves_the_sound_one(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, steps=4)
    damaged = tmp_path / checkpoint_name(4)
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    no_room(monkeypatch, 1000)
    with pytest.raises(OSError, match=r"checkpoint-000002\.pt is as it was, and the same run goes on from it"):
        run(tmp_path, steps=6)
    assert [path.name for path in checkpoints_in(tmp_path)] == [checkpoint_name(2)]


def test_an_old_checkpoint_that_is_open_elsewhere_ends_no_run(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a file that a scanner reads cannot be removed."""
    made(tmp_path, steps=4)
    unlink = Path.unlink

    def held(self: Path, missing_ok: bool = False) -> None:
        if self.name == checkpoint_name(2):
            raise PermissionError("in use")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    run(tmp_path, steps=6)
    assert [path.name for path in checkpoints_in(tmp_path)] == [checkpoint_name(n) for n in (6, 4, 2)]
    monkeypatch.undo()
    run(tmp_path, steps=8)
    assert [path.name for path in checkpoints_in(tmp_path)] == [checkpoint_name(n) for n in (8, 6)]


@pytest.mark.parametrize("after", [0, 5000])
def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_says_how_much_it_takes(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The disk had room when it was asked, as with quotas."""
    made(tmp_path, steps=2)
    before = {path: path.read_bytes() for path in checkpoints_in(tmp_path)}
    real = torch.save

    class Full:
        def __init__(self, file: Any) -> None:
            self.file, self.left = file, after

        def write(self, data: Any) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def flush(self) -> None:
            self.file.flush()

    monkeypatch.setattr(torch, "save", lambda state, file: real(state, cast(Any, Full(file))))
    with pytest.raises(OSError, match=r"saving this run takes .* GiB in .*; free space .*checkpoint-000002\.pt is as"):
        run(tmp_path, steps=4)
    assert {path: path.read_bytes() for path in checkpoints_in(tmp_path)} == before
    assert not list(tmp_path.glob(".*tmp"))
    monkeypatch.undo()
    assert run(tmp_path, steps=4).first_step == 2
