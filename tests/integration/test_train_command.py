"""Training and evaluation by the command, from a cached clip to files that the loader nodes take."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import load_file, save_file

from memory_encoder.cli import main
from memory_encoder.evaluation.score import KINDS
from memory_encoder.injection.hosts.encoder_file import read_config, read_trained_on
from memory_encoder.training import evaluate_command
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.heldout import NOTHING, THIRDS, WITHOUT_MEMORY
from memory_encoder.training.listener import LOSS_PICTURE, RECALL_PICTURE
from memory_encoder.training.presets import PRESETS
from memory_encoder.training.run_files import (
    ENCODER,
    HELD_OUT,
    HOST,
    LORA,
    LOSSES,
    PACE,
    TRAINED,
    begun_with,
    encoder_name,
    read_losses,
)
from memory_encoder.training.source import DatasetBatches
from memory_encoder.training.train_command import Teller

from .commands import train

pytestmark = pytest.mark.usefixtures("usual_signals")


def test_all_three_stages_run_one_after_the_other_from_the_command_line(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert train(files, cached_clip, tmp_path / "host", "--stage", "host", "--train-host") == 0
    hosts = files | {"host": tmp_path / "host" / HOST}
    vae = ["--vae", str(files["vae"])]
    assert train(hosts, cached_clip, tmp_path / "one", "--stage", "retrieval", "--gradient-checkpointing", *vae) == 0
    encoder = ["--encoder", str(tmp_path / "one" / ENCODER)]
    assert train(hosts, cached_clip, tmp_path / "two", "--stage", "continuation", *encoder) == 0
    said = capsys.readouterr().out
    assert "LoRA rank 4" in said and "GiB" in said
    assert "no clip is held out" in said or "held out: " in said
    assert (tmp_path / "one" / HELD_OUT).is_file()
    # Windows of 6 latents, 21 frames at 16 a second; sections of 2 latents.
    assert "history up to 1.5 s; retrieval alone; shift 8" in said
    assert "history up to 1.2 s; sections up to 0.5 s, sliding window 3; shift 8" in said
    first, second = (read_trained_on(tmp_path / run / ENCODER) for run in ("one", "two"))
    assert first is not None and second is not None and read_trained_on(tmp_path / "host" / ENCODER) is None
    assert (first.history_seconds, first.section_seconds, first.window) == (1.5, 0.0, 0)
    assert (second.history_seconds, second.section_seconds, second.window) == (1.25, 0.5, 3)
    assert (second.fps, second.shift, second.steps, second.width, second.height, second.clips) == (16, 8, 3, 64, 48, 1)
    for run, made in (
        ("host", (HOST,)),
        ("one", (ENCODER, LORA, LOSS_PICTURE, RECALL_PICTURE)),
        ("two", (ENCODER, LORA)),
    ):
        assert all((tmp_path / run / name).is_file() for name in made), run
        assert len(read_losses(tmp_path / run / LOSSES)) == 3
    assert "the VAE is not the one" not in caplog.text
    # Run again: nothing is left to do; with another VAE.
    weights = load_file(files["vae"])
    save_file({name: value + 0.01 for name, value in weights.items()}, tmp_path / "other.safetensors")
    other = ["--vae", str(tmp_path / "other.safetensors")]
    assert train(hosts, cached_clip, tmp_path / "two", "--stage", "continuation", *encoder, *other) == 0
    assert len(read_losses(tmp_path / "two" / LOSSES)) == 3
    assert f"{other[1]}: the VAE is not the one that the dataset was cached with" in caplog.text


def test_evaluation_of_a_run_writes_numbers_and_pictures_and_names_what_it_left_out(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(files, cached_clip, tmp_path / "one", "--stage", "retrieval") == 0
    given = ["evaluate", "--clips", str(files["clips"]), "--host", str(files["host"]), "--vae", str(files["vae"])]
    given += ["--encoder", str(tmp_path / "one" / ENCODER), "--lora", str(tmp_path / "one" / LORA)]
    given += ["--width", "64", "--height", "48", "--frames", "21", "--steps", "2"]
    with torch.inference_mode():
        assert main([*given, "--out", str(tmp_path / "a")]) == 0
        assert main([*given, "--out", str(tmp_path / "b")]) == 0
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert all(set(report[metric]) == set(KINDS) for metric in ("psnr", "ssim", "edges", "identified", "numbers"))
    assert report["numbers"]["memory"] >= report["numbers"]["thumbnail_numbers"] > report["numbers"]["flat"]
    assert report["finished"] and report["clips_found"] == 2 and report["clips"][0]["frames"] == 20
    assert report["clips"][0]["left_out"] == {"flat": 1}  # its first frame is black
    assert report["chance"] >= 1 / 16 and report["clips"][0]["numbers_per_pixel"] > 0
    assert [clip["name"] for clip in report["clips"]] == ["clip.mp4"]
    assert report["skipped"][0]["name"] == "empty.mp4"
    assert len({report["psnr"][kind] for kind in ("memory", "none", "full")}) == 3
    assert (tmp_path / "a" / "report.json").read_bytes() == (tmp_path / "b" / "report.json").read_bytes()
    assert (tmp_path / "a" / "sheet.png").stat().st_size > 1000
    with torch.inference_mode():
        assert main([*given, "--out", str(tmp_path / "e"), "--history-guidance", "1"]) == 0
    plain = json.loads((tmp_path / "e" / "report.json").read_text())["psnr"]
    assert (
        report["history_guidance"] == 1.5 and plain["memory"] == report["psnr"]["unguided"] != report["psnr"]["memory"]
    )
    assert "unguided" not in plain and plain["none"] == report["psnr"]["none"]
    assert report["shift"] == 8  # as core samples Wan; stage I makes no film
    assert report["files"] == {
        "encoders": [ENCODER],
        "lora": LORA,
        "host": files["host"].name,
        "vae": files["vae"].name,
    }
    no_text, trained = report["remarks"]
    assert no_text.startswith("without --text-encoder") and f"note: {no_text}" in capsys.readouterr().out
    assert trained.startswith("1 of 2 clips have the names of clips that were trained on (clip.mp4)")
    for option, value, fault in (
        ("horizon", "-5", "horizon -5 must not be negative; 0 shows the whole memory"),
        ("history-guidance", "-1", "history_guidance -1.0 must be finite and not negative; 0 is off"),
        ("steps", "0", "--steps 0 must be above 0"),
        ("frames", "-1", "--frames -1 must be above 0"),
        ("shift", "-3", "--shift -3 must be above 0, or 0 for what the memory was trained for"),
        (
            "height",
            "50",
            "--width 64 --height 50 are no multiples of 8, the pixels of one latent; --width 64 --height 48",
        ),
    ):
        assert main([*given, "--out", str(tmp_path / "d"), f"--{option}", value]) == 2
        assert not (tmp_path / "d" / "report.json").exists() and fault in capsys.readouterr().err
    (tmp_path / "taken").write_text("a file where a folder is asked for")
    assert main([*given, "--out", str(tmp_path / "taken")]) == 2 and "taken" in capsys.readouterr().err
    assert main(["evaluate", "--clips", str(tmp_path / "a"), "--out", str(tmp_path / "c"), *given[3:]]) == 2
    assert "no video" in capsys.readouterr().err


def test_several_encoders_are_trained_and_evaluated_together_from_the_command_line(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One is gone on with, a new one comes beside it; then both go on."""
    one, two, three = tmp_path / "one", tmp_path / "two", tmp_path / "three"
    assert train(files, cached_clip, one, "--stage", "retrieval") == 0
    beside = ["--encoder", str(one / ENCODER), "--rate", "4x4x2", "--channels", "8,16", "--lora", str(one / LORA)]
    assert train(files, cached_clip, two, "--stage", "continuation", *beside) == 0
    both = ["--encoder", str(two / ENCODER), "--encoder", str(two / encoder_name(2)), "--lora", str(two / LORA)]
    assert train(files, cached_clip, three, "--stage", "continuation", *both) == 0
    assert [read_config(three / encoder_name(number)).rate for number in (1, 2)] == ["2x2x2", "4x4x2"]
    assert read_config(three / encoder_name(2)).channels == (8, 16)
    given = ["evaluate", "--clips", str(files["clips"]), "--host", str(files["host"]), "--vae", str(files["vae"])]
    given += ["--width", "64", "--height", "48", "--frames", "21", "--steps", "2", "--out", str(tmp_path / "report")]
    with torch.inference_mode():
        assert main([*given, *both]) == 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["rate"] == "2x2x2+4x4x2"
    capsys.readouterr()
    assert train(files, cached_clip, tmp_path / "no", "--stage", "retrieval", *beside[:3], "2x2x2") == 2
    assert "rate 2x2x2 asks for a new encoder beside one of the same rate" in capsys.readouterr().err


def test_command_that_does_not_fit_the_dataset_says_so(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(files, cached_clip, tmp_path, "--stage", "retrieval", "--rate", "2x2x8") == 2
    assert "no LR latents at rate 2x2x8" in capsys.readouterr().err
    assert train(files, cached_clip, tmp_path, "--stage", "continuation", "--section", "50", "--from-scratch") == 2
    assert "section of 50" in capsys.readouterr().err
    assert train(files, cached_clip, tmp_path / "new", "--stage", "continuation") == 2
    assert "add --encoder RUN/encoder.safetensors of that run, or --from-scratch" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert train(files, cached_clip, tmp_path, "--stage", "host") == 2
    assert "train_host" in capsys.readouterr().err


def test_an_interrupted_evaluation_keeps_the_clips_that_were_done(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a", "b"):
        (clips / f"{name}.mp4").write_bytes((files["clips"] / "clip.mp4").read_bytes())
    score = evaluate_command.Judge.score

    def interrupted(self: Any, name: str, path: Path) -> Any:
        if name.startswith("b"):
            raise KeyboardInterrupt
        return score(self, name, path)

    monkeypatch.setattr(evaluate_command.Judge, "score", interrupted)
    given = ["evaluate", "--clips", str(clips), "--out", str(tmp_path / "out"), "--frames", "9", "--steps", "1"]
    assert main(given) == 130
    assert "stopped; 1 of 2 clips" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [clip["name"] for clip in report["clips"]] == ["a.mp4"]
    assert not report["finished"] and report["clips_found"] == 2, "a part does not look whole"
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_a_lora_of_other_sizes_or_of_a_part_of_the_host_is_not_measured_in_silence(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Core leaves such layers as they are and says so in its log alone."""
    whole = load_file(evaluate_command.TINY_FAMILY / "tiny_memory_2x2x1_lora.safetensors")
    narrow = {
        name: value[:, :128] if "lora_down" in name or "lora_A" in name else value for name, value in whole.items()
    }
    part = {name: value for name, value in whole.items() if "blocks.0." in name}
    for name, tensors in (("narrow", narrow), ("part", part)):
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / f"{name}.safetensors")
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "clip.mp4").write_bytes((files["clips"] / "clip.mp4").read_bytes())
    encoder = str(evaluate_command.TINY_FAMILY / "tiny_memory_2x2x1.safetensors")
    given = ["evaluate", "--clips", str(clips), "--encoder", encoder, "--frames", "9", "--steps", "1"]
    given += ["--width", "64", "--height", "48", "--out", str(tmp_path / "out")]
    assert main([*given, "--lora", str(tmp_path / "narrow.safetensors")]) == 2
    assert "of the 40 layers that it names have another size in this host" in capsys.readouterr().err
    assert main([*given, "--lora", str(tmp_path / "part.safetensors")]) == 0
    remarks = json.loads((tmp_path / "out" / "report.json").read_text())["remarks"]
    assert any(remark.startswith("part.safetensors reaches 1 of the host's 4 blocks") for remark in remarks)


def test_a_run_of_an_earlier_version_goes_on_by_the_same_command_as_it_was(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    earlier = ["--shift", "3", "--clean-share", "0", "--window-share", "0", "--shorter-share", "0"]
    earlier += ["--no-gradient-checkpointing", "--mixed-precision", "no"]
    fixed = ("--stage", "continuation", "--from-scratch")
    assert train(files, cached_clip, tmp_path, *fixed, *earlier) == 0
    assert train(files, cached_clip, tmp_path, *fixed, "--steps", "4") == 0
    assert len(read_losses(tmp_path / LOSSES)) == 4 and begun_with(tmp_path)["window_share"] == 0.0
    assert train(files, cached_clip, tmp_path, *fixed, "--steps", "5", "--window-share", "0.5") == 2
    assert "other settings" in capsys.readouterr().err


def test_a_rate_that_is_asked_for_is_taken_though_the_preset_says_the_same(
    files: dict[str, Path], cached_clip: Path, tmp_path: Path
) -> None:
    """A run that began with another one, and meets NaN, is to go on with a lower one."""
    fixed = ["--stage", "continuation", "--from-scratch", "--preset", "tiny", "--mixed-precision", "no"]
    said = PRESETS["tiny"].options("continuation")["learning_rate"]
    for steps, rate in ((1, 2 * said), (2, said)):
        assert train(files, cached_clip, tmp_path, *fixed, "--steps", str(steps), "--learning-rate", str(rate)) == 0
        assert begun_with(tmp_path)["learning_rate"] == rate


def test_a_portrait_clip_has_its_own_bucket_and_is_trained_on_beside_a_landscape_one(
    files: dict[str, Path],
    cached_clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes = {sample.source: tuple(sample.hr.shape[2:]) for sample in MemoryDataset.open(cached_clips)}
    assert shapes == {"seen.mp4": (6, 8), "unseen.mp4": (6, 8), "tall.mp4": (8, 6)}
    rows, trained = DatasetBatches.rows, set()

    def noted(self: Any, *asked: Any) -> Any:
        batch = rows(self, *asked)
        trained.add(tuple(batch.hr.shape[3:]))
        return batch

    monkeypatch.setattr(DatasetBatches, "rows", noted)
    fixed = ("--stage", "retrieval", "--batch-size", "1", "--accumulate", "8", "--steps", "1")
    assert train(files, cached_clips, tmp_path, *fixed) == 0
    assert trained == {(6, 8), (8, 6)}
    assert [entry["step"] for entry in read_losses(tmp_path / LOSSES)] == [0]


def test_a_run_tells_its_pace_and_what_its_held_out_loss_is_made_of(
    files: dict[str, Path],
    cached_clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, run = cached_clips, tmp_path
    fixed = ["--stage", "continuation", "--from-scratch", "--heldout-every", "5", "--steps", "10", "--batch-size", "1"]
    assert train(files, data, run, *fixed, "--vae", str(files["vae"]), "--picture-every", "10") == 0
    said = capsys.readouterr().out
    assert "held out: 1 of 3 clips: unseen.mp4" in said and (run / HELD_OUT).read_text() == "unseen.mp4\n"
    assert re.search(r"step 10 loss [\d.]+, [\d.]+ s/step, [\d.]+ clips/s, .* left, lr 5e-06, norm [\d.e-]+\n", said)
    entries = read_losses(run / LOSSES)
    parts = [entry["parts"] for entry in entries if "parts" in entry]
    names = [f"retrieval {third}" for third in THIRDS] + ["continuation", WITHOUT_MEMORY, NOTHING]
    assert len(parts) == 2 and list(parts[0]) == names and f"step 5 held out: {names[0]} " in said
    assert parts[0][NOTHING] == parts[1][NOTHING] and parts[0][NOTHING] > 1  # about the variances of noise and clip
    paces = read_losses(run / PACE)
    assert [pace["step"] for pace in paces] == [9] and paces[0]["clips_a_second"] > 0
    picture = cv2.imread(str(run / RECALL_PICTURE))  # original, recalled, without memory, flat colour, thumbnail
    assert picture is not None and picture.shape[0] == 5 * (48 + 22)


def test_a_run_that_is_refused_leaves_the_lists_of_the_folders_own(
    files: dict[str, Path],
    cached_clip: Path,
    cached_clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fixed = ("--stage", "retrieval", "--batch-size", "1", "--steps", "1")
    assert train(files, cached_clips, tmp_path, *fixed) == 0
    before = {name: (tmp_path / name).read_text() for name in (HELD_OUT, TRAINED)}
    assert before[HELD_OUT] == "unseen.mp4\n" and before[TRAINED]
    assert train(files, cached_clip, tmp_path, *fixed) == 2
    assert "other settings: dataset" in capsys.readouterr().err
    assert {name: (tmp_path / name).read_text() for name in before} == before


def test_a_run_that_a_smaller_card_has_cut_goes_on_as_it_was_cut_on_a_larger_one(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ("--card-gib", "0.5")
    plans = []
    for run, steps, card in (("whole", 4, small), ("on", 2, small), ("on", 4, ())):
        fixed = ("--stage", "retrieval", "--mixed-precision", "no", "--steps", str(steps))
        assert train(files, cached_clip, tmp_path / run, *fixed, *card) == 0
        plans.append(re.search(r"clips an update in steps of \d", capsys.readouterr().out)[0][-1])  # type: ignore[index]
    assert plans == ["1", "1", "1"]  # of the two that are asked for
    whole, on = (read_losses(tmp_path / run / LOSSES) for run in ("whole", "on"))
    assert whole == on and len(on) == 4


def test_compiled_blocks_are_trained_on_to_the_losses_of_plain_ones(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the compiler that traces alone: what it makes of the code is core's and PyTorch's."""
    compiled = []
    real = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: (compiled.append(self), real(self, backend="eager")))
    for run, more in (("plain", ()), ("compiled", ("--compile-blocks",))):
        fixed = ("--stage", "retrieval", "--mixed-precision", "no", "--steps", "2")
        assert train(files, cached_clip, tmp_path / run, *fixed, *more) == 0
    assert len(compiled) > 0
    plain, other = ([one["loss"] for one in read_losses(tmp_path / run / LOSSES)] for run in ("plain", "compiled"))
    assert other == pytest.approx(plain, rel=1e-4)


def test_ctrl_c_on_the_command_says_where_it_stopped_and_how_to_go_on(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = Teller.step

    def step(self: Teller, number: int, loss: float) -> None:
        real(self, number, loss)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Teller, "step", step)
    assert train(files, cached_clip, tmp_path, "--stage", "retrieval") == 130
    assert "stopped at step 1; run the same command again to go on\n" in capsys.readouterr().out
    monkeypatch.undo()
    assert train(files, cached_clip, tmp_path, "--stage", "retrieval") == 0
    assert "steps 1 to 3" in capsys.readouterr().out and len(read_losses(tmp_path / LOSSES)) == 3


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_and_goes_on_to_the_steps_that_are_asked_for(
    files: dict[str, Path],
    cached_clip: Path,
    tmp_path: Path,
    preset: str,
) -> None:
    fixed = ["--stage", "continuation", "--from-scratch", "--preset", preset, "--mixed-precision", "no"]
    for steps in (1, 2):  # the second goes on where the first one was stopped
        assert train(files, cached_clip, tmp_path, *fixed, "--steps", str(steps)) == 0
        assert len(read_losses(tmp_path / LOSSES)) == steps
