"""Training by the command and by the node, from a cached clip to files that the loader nodes take."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.clip import write_frames
from demo.tiny_family.procedural import make_film
from memory_encoder.cli import main
from memory_encoder.evaluation.score import KINDS
from memory_encoder.injection.hosts.encoder_file import read_config, read_trained_on
from memory_encoder.training import evaluate_command
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.heldout import NOTHING, THIRDS, WITHOUT_MEMORY
from memory_encoder.training.listener import LOSS_PICTURE, RECALL_PICTURE
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.presets import PRESETS, preset_named
from memory_encoder.training.run_files import (
    ENCODER,
    HELD_OUT,
    HOST,
    LORA,
    LOSSES,
    PACE,
    TRAINED,
    begun_with,
    checkpoint_name,
    checkpoints_in,
    encoder_name,
    read_losses,
)
from memory_encoder.training.source import DatasetBatches
from memory_encoder.training.train_command import Teller

from .test_dataset import FPS, arguments, files, words  # noqa: F401 - fixtures

pytestmark = pytest.mark.usefixtures("usual_signals")

PACK = "video_memory_train_test"


@pytest.fixture(scope="module")
def cached(files: dict[str, Path], words: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    out = tmp_path_factory.mktemp("cached")
    assert main(arguments(files, out)) == 0
    return out


def train(files: dict[str, Path], cached: Path, out: Path, *more: str) -> int:  # noqa: F811
    fixed = ["train", "--dataset", str(cached), "--host", str(files["host"]), "--out", str(out)]
    fixed += [] if "--encoder" in more else ["--rate", "2x2x2"]
    small = ["--steps", "3", "--batch-size", "2", "--rank", "4", "--section", "2", "--checkpoint-every", "2"]
    return main([*fixed, *small, *more])


def test_all_three_stages_run_one_after_the_other_from_the_command_line(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert train(files, cached, tmp_path / "host", "--stage", "host", "--train-host") == 0
    hosts = files | {"host": tmp_path / "host" / HOST}
    vae = ["--vae", str(files["vae"])]
    assert train(hosts, cached, tmp_path / "one", "--stage", "retrieval", "--gradient-checkpointing", *vae) == 0
    encoder = ["--encoder", str(tmp_path / "one" / ENCODER)]
    assert train(hosts, cached, tmp_path / "two", "--stage", "continuation", *encoder) == 0
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
    assert train(hosts, cached, tmp_path / "two", "--stage", "continuation", *encoder, *other) == 0
    assert len(read_losses(tmp_path / "two" / LOSSES)) == 3
    assert f"{other[1]}: the VAE is not the one that the dataset was cached with" in caplog.text


def test_evaluation_of_a_run_writes_numbers_and_pictures_and_names_what_it_left_out(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(files, cached, tmp_path / "one", "--stage", "retrieval") == 0
    given = ["evaluate", "--clips", str(files["clips"]), "--host", str(files["host"]), "--vae", str(files["vae"])]
    given += ["--encoder", str(tmp_path / "one" / ENCODER), "--lora", str(tmp_path / "one" / LORA)]
    given += ["--width", "64", "--height", "48", "--frames", "21", "--steps", "2"]
    with torch.inference_mode():
        assert main([*given, "--out", str(tmp_path / "a")]) == 0
        assert main([*given, "--out", str(tmp_path / "b")]) == 0
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert all(set(report[metric]) == set(KINDS) for metric in ("psnr", "ssim", "edges", "identified"))
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
        report["history_guidance"] == 2.5 and plain["memory"] == report["psnr"]["unguided"] != report["psnr"]["memory"]
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
    ):
        assert main([*given, "--out", str(tmp_path / "d"), f"--{option}", value]) == 2 and not (tmp_path / "d").exists()
        assert fault in capsys.readouterr().err
    assert main(["evaluate", "--clips", str(tmp_path / "a"), "--out", str(tmp_path / "c"), *given[3:]]) == 2
    assert "no video" in capsys.readouterr().err


def test_several_encoders_are_trained_and_evaluated_together_from_the_command_line(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One is gone on with, a new one comes beside it; then both go on."""
    one, two, three = tmp_path / "one", tmp_path / "two", tmp_path / "three"
    assert train(files, cached, one, "--stage", "retrieval") == 0
    beside = ["--encoder", str(one / ENCODER), "--rate", "4x4x2", "--channels", "8,16", "--lora", str(one / LORA)]
    assert train(files, cached, two, "--stage", "continuation", *beside) == 0
    both = ["--encoder", str(two / ENCODER), "--encoder", str(two / encoder_name(2)), "--lora", str(two / LORA)]
    assert train(files, cached, three, "--stage", "continuation", *both) == 0
    assert [read_config(three / encoder_name(number)).rate for number in (1, 2)] == ["2x2x2", "4x4x2"]
    assert read_config(three / encoder_name(2)).channels == (8, 16)
    given = ["evaluate", "--clips", str(files["clips"]), "--host", str(files["host"]), "--vae", str(files["vae"])]
    given += ["--width", "64", "--height", "48", "--frames", "21", "--steps", "2", "--out", str(tmp_path / "report")]
    with torch.inference_mode():
        assert main([*given, *both]) == 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["rate"] == "2x2x2+4x4x2"
    capsys.readouterr()
    assert train(files, cached, tmp_path / "no", "--stage", "retrieval", *beside[:3], "2x2x2") == 2
    assert "rate 2x2x2 asks for a new encoder beside one of the same rate" in capsys.readouterr().err


def test_command_that_does_not_fit_the_dataset_says_so(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(files, cached, tmp_path, "--stage", "retrieval", "--rate", "2x2x8") == 2
    assert "no LR latents at rate 2x2x8" in capsys.readouterr().err
    assert train(files, cached, tmp_path, "--stage", "continuation", "--section", "50", "--from-scratch") == 2
    assert "section of 50" in capsys.readouterr().err
    assert train(files, cached, tmp_path / "new", "--stage", "continuation") == 2
    assert "add --encoder RUN/encoder.safetensors of that run, or --from-scratch" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert train(files, cached, tmp_path, "--stage", "host") == 2
    assert "train_host" in capsys.readouterr().err


@dataclass
class Studio:
    """The pack's nodes by name, and the model and the dataset that they take."""

    nodes: dict[str, Any]
    model: Any
    dataset: Any

    def call(self, node: str, *args: Any, **values: Any) -> Any:
        with torch.inference_mode():  # as ComfyUI runs nodes
            return self.nodes[node].execute(*args, **values)

    def encoder(self, rate: str) -> Any:
        return self.call("VideoMemoryEncoderNew", self.model, rate, "proposed", "frame", False, 0).result[0]

    def train(self, encoder: Any, run: str, **values: Any) -> Any:
        fixed = {"steps": 2, "batch_size": 2, "rank": 4, "seed": 1}
        return self.call("VideoMemoryTrain", self.model, encoder, self.dataset, **fixed, **values, run=run)


@pytest.fixture
def studio(
    comfy: Any,
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    load_pack: Callable[..., ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Studio:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    pack = load_pack(PACK)
    extension = asyncio.run(pack.comfy_entrypoint())
    nodes = {node.__name__: node for node in asyncio.run(extension.get_node_list())}
    with torch.inference_mode():
        model = comfy.module("comfy.sd").load_diffusion_model(str(files["host"]))
    dataset = importlib.import_module(f"{pack.__name__}.memory_encoder.training.dataset.dataset")  # the pack's own
    return Studio(nodes, model, dataset.MemoryDataset.open(cached))


def look_for_encoders(comfy: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    places = ([str(folder)], {".safetensors"})
    monkeypatch.setitem(comfy.folder_paths.folder_names_and_paths, "memory_encoders", places)


def test_node_trains_leaves_the_model_alone_and_gives_what_other_nodes_take(
    comfy: Any,
    files: dict[str, Path],  # noqa: F811
    studio: Studio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = studio.model.model.diffusion_model.state_dict
    with torch.inference_mode():
        vae = comfy.module("comfy.sd").VAE(comfy.module("comfy.utils").load_torch_file(str(files["vae"])))
        before = {name: tensor.clone() for name, tensor in weights().items()}
    encoder = studio.encoder("2x2x2")
    result = studio.train(encoder, "run", stage="retrieval", learning_rate=1e-3, picture_every=1, vae=vae)
    trained, lora, losses, plot = result.result
    after = weights()
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert not comfy.model_management.in_training
    assert trained.identity != encoder.identity and len(losses["loss"]) == 2 and plot.shape[-1] == 3
    assert len(result.ui["text"]) == 1
    with torch.inference_mode():
        patched, _ = comfy.module("comfy.sd").load_lora_for_models(studio.model, None, lora, 1.0, 0.0)
    assert len(patched.patches) == len(lora) // 2 > 0
    look_for_encoders(comfy, monkeypatch, tmp_path / "video_memory_training" / "run")
    loaded = studio.call("VideoMemoryEncoderLoader", studio.model, ENCODER, "none", 1.0).result[1]
    assert loaded.config == trained.config
    # What it was trained on is in the file and on the encoder, and no part of what it is.
    assert loaded.trained_on == trained.trained_on is not None and loaded.identity == trained.identity


def test_node_trains_combined_encoders_that_the_loaders_give_back(
    comfy: Any, studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def combine(first: Any, second: Any) -> Any:
        return studio.call("VideoMemoryEncoderCombine", first, second).result[0]

    first, second = studio.encoder("2x2x2"), studio.encoder("4x4x2")
    trained = studio.train(
        combine(first, second), "both", stage="continuation", learning_rate=1e-2, section=2, history_dropout=0.0,
        retrieval_share=0.5,
    ).result[0]  # fmt: skip
    assert [part.config.rate for part in trained.parts] == ["2x2x2", "4x4x2"]
    assert trained.identity != first.identity and trained.parts[1].identity != second.identity
    for folder, names in (
        (tmp_path / "video_memory_training" / "both", (ENCODER, encoder_name(2))),
        (tmp_path / "memory_encoders", ("both.safetensors", "both_2.safetensors")),
    ):
        look_for_encoders(comfy, monkeypatch, folder)
        loaded = [studio.call("VideoMemoryEncoderLoader", studio.model, name, "none", 1.0).result[1] for name in names]
        # The identity is a hash of configuration and weights: what is loaded compresses as what was trained.
        assert [part.identity for part in combine(*loaded).parts] == [part.identity for part in trained.parts]


def test_an_interrupted_evaluation_keeps_the_clips_that_were_done(
    files: dict[str, Path],  # noqa: F811
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
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_the_inputs_of_the_node_begin_where_the_options_of_the_command_do(studio: Studio) -> None:
    schema, options = studio.nodes["VideoMemoryTrain"].define_schema(), asdict(TrainOptions())
    del options["preset"]  # there "none", and given by its name alone
    defaults = {entry.id: entry.default for entry in schema.inputs if entry.id in options}
    shared = {"clean_share", "encoder_rate", "cooldown", "window_share", "ema", "shift", "caption_dropout"}
    assert shared <= set(defaults)
    assert defaults == {name: options[name] for name in defaults}


def test_a_preset_of_the_node_stands_for_its_values_and_an_old_workflow_needs_none(
    studio: Studio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    encoder = studio.encoder("2x2x2")
    studio.train(encoder, "old", stage="continuation", learning_rate=1e-3, accumulate=1, section=2)
    own = {"learning_rate": 1e-3, "section": 2, "corruption": 0.5, "min_t": 0.5}
    studio.train(encoder, "new", stage="continuation", preset="tiny", **own)
    old, new = (begun_with(tmp_path / "video_memory_training" / run) for run in ("old", "new"))
    assert (old["shift"], old["rank"], old["window_share"]) == (8.0, 4, 0.25)  # as core samples Wan
    chosen = preset_named("tiny").options("continuation", 2)
    assert chosen.items() - new.items() == {("steps", 2), ("cooldown", 0)}  # which a run may change
    assert (new["corruption"], new["min_t"]) == (0.0, 0.0)  # what the recipe does not name is as by default
    assert "preset tiny: " in caplog.text and "rank 64" in caplog.text


def test_a_run_of_an_earlier_version_goes_on_by_the_same_command_as_it_was(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    earlier = ["--shift", "3", "--clean-share", "0", "--window-share", "0", "--shorter-share", "0"]
    earlier += ["--no-gradient-checkpointing", "--mixed-precision", "no"]
    fixed = ("--stage", "continuation", "--from-scratch")
    assert train(files, cached, tmp_path, *fixed, *earlier) == 0
    assert train(files, cached, tmp_path, *fixed, "--steps", "4") == 0
    assert len(read_losses(tmp_path / LOSSES)) == 4 and begun_with(tmp_path)["window_share"] == 0.0
    assert train(files, cached, tmp_path, *fixed, "--steps", "5", "--window-share", "0.5") == 2
    assert "other settings" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shared(
    files: dict[str, Path],  # noqa: F811
    words: ModuleType,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A dataset of a landscape and a 9:16 clip to train on, and a landscape one that is held out."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "clips").mkdir()
    for name in ("seen", "unseen"):
        (folder / "clips" / f"{name}.mp4").write_bytes((files["clips"] / "clip.mp4").read_bytes())
    tall = make_film(0, shots=2, width=64, height=96).frames[:21, :, :54]  # 9:16
    write_frames(folder / "clips" / "tall.mp4", tall, FPS)
    given = arguments(files | {"clips": folder / "clips"}, folder / "data")
    assert main([*given, "--heldout", "unseen.mp4"]) == 0
    return folder / "data"


def test_a_portrait_clip_has_its_own_bucket_and_is_trained_on_beside_a_landscape_one(
    files: dict[str, Path],  # noqa: F811
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes = {sample.source: tuple(sample.hr.shape[2:]) for sample in MemoryDataset.open(shared)}
    assert shapes == {"seen.mp4": (6, 8), "unseen.mp4": (6, 8), "tall.mp4": (8, 6)}
    rows, trained = DatasetBatches.rows, set()

    def noted(self: Any, *asked: Any) -> Any:
        batch = rows(self, *asked)
        trained.add(tuple(batch.hr.shape[3:]))
        return batch

    monkeypatch.setattr(DatasetBatches, "rows", noted)
    assert (
        train(files, shared, tmp_path, "--stage", "retrieval", "--batch-size", "1", "--accumulate", "8", "--steps", "1")
        == 0
    )
    assert trained == {(6, 8), (8, 6)}
    assert [entry["step"] for entry in read_losses(tmp_path / LOSSES)] == [0]


def test_a_run_tells_its_pace_and_what_its_held_out_loss_is_made_of(
    files: dict[str, Path],  # noqa: F811
    shared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, run = shared, tmp_path
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


def test_the_node_tells_the_page_its_pace_and_what_its_held_out_loss_is_made_of(
    studio: Studio, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def send(event: str, data: dict[str, Any]) -> None:
        assert event == "video_memory.training"
        sent.append(json.loads(json.dumps(data, allow_nan=False)))

    monkeypatch.setattr(sys.modules[f"{PACK}.nodes.events"], "send", send)
    studio.dataset = type(studio.dataset).open(shared)
    studio.train(studio.encoder("2x2x2"), "run", stage="continuation", section=2, learning_rate=1e-3, heldout_every=2)
    assert [data["state"] for data in sent].count("started") == 1
    (last,) = (data for data in sent if data["state"] == "losses" and data["losses"][-1][0] == 1)
    assert last["pace"]["learning_rate"] > 0 and last["pace"]["gradient_norm"] > 0
    assert last["pace"]["seconds_a_step"] > 0 and last["pace"]["clips_a_second"] > 0
    (told,) = (data for data in sent if data["state"] == "parts")
    names = [f"retrieval {third}" for third in THIRDS] + ["continuation", WITHOUT_MEMORY, NOTHING]
    assert list(told["parts"]) == names
    assert told["without_memory"] == [[1, told["parts"][WITHOUT_MEMORY]]] and told["nothing"] == told["parts"][NOTHING]
    assert [data["heldout"][0][0] for data in sent if data["state"] == "heldout"] == [1]


def test_a_run_that_is_refused_leaves_the_lists_of_the_folders_own(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    shared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fixed = ("--stage", "retrieval", "--batch-size", "1", "--steps", "1")
    assert train(files, shared, tmp_path, *fixed) == 0
    before = {name: (tmp_path / name).read_text() for name in (HELD_OUT, TRAINED)}
    assert before[HELD_OUT] == "unseen.mp4\n" and before[TRAINED]
    assert train(files, cached, tmp_path, *fixed) == 2
    assert "other settings: dataset" in capsys.readouterr().err
    assert {name: (tmp_path / name).read_text() for name in before} == before


def test_a_run_that_a_smaller_card_has_cut_goes_on_as_it_was_cut_on_a_larger_one(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ("--card-gib", "0.5")
    plans = []
    for run, steps, card in (("whole", 4, small), ("on", 2, small), ("on", 4, ())):
        fixed = ("--stage", "retrieval", "--mixed-precision", "no", "--steps", str(steps))
        assert train(files, cached, tmp_path / run, *fixed, *card) == 0
        plans.append(re.search(r"clips an update in steps of \d", capsys.readouterr().out)[0][-1])  # type: ignore[index]
    assert plans == ["1", "1", "1"]  # of the two that are asked for
    whole, on = (read_losses(tmp_path / run / LOSSES) for run in ("whole", "on"))
    assert whole == on and len(on) == 4


def test_compiled_blocks_are_trained_on_to_the_losses_of_plain_ones(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the compiler that traces alone: what it makes of the code is core's and PyTorch's."""
    compiled = []
    real = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: (compiled.append(self), real(self, backend="eager")))
    for run, more in (("plain", ()), ("compiled", ("--compile-blocks",))):
        fixed = ("--stage", "retrieval", "--mixed-precision", "no", "--steps", "2")
        assert train(files, cached, tmp_path / run, *fixed, *more) == 0
    assert len(compiled) > 0
    plain, other = ([one["loss"] for one in read_losses(tmp_path / run / LOSSES)] for run in ("plain", "compiled"))
    assert other == pytest.approx(plain, rel=1e-4)


def test_a_cancelled_node_saves_the_step_that_ran_and_goes_on_when_it_is_queued_again(
    comfy: Any, studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mm, encoder = comfy.model_management, studio.encoder("2x2x2")
    folder = tmp_path / "video_memory_training" / "run"
    listener = sys.modules[studio.nodes["VideoMemoryTrain"].__module__].NodeListener
    real = listener.step

    def step(self: Any, number: int, loss: float) -> None:
        if number == 0:
            mm.interrupt_current_processing(True)
        real(self, number, loss)

    monkeypatch.setattr(listener, "step", step)
    with pytest.raises(mm.InterruptProcessingException):
        studio.train(encoder, "run", stage="retrieval", learning_rate=1e-3)
    assert [path.name for path in checkpoints_in(folder)] == [checkpoint_name(1)]
    losses = studio.train(encoder, "run", stage="retrieval", learning_rate=1e-3).result[2]
    assert len(losses["loss"]) == 2 and checkpoints_in(folder)[0].name == checkpoint_name(2)


def test_a_full_disk_is_told_in_the_same_words_by_command_and_node(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    studio: Studio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    message = r"saving this run takes 0\.\d+ GiB in .*, where 9\.31e-07 GiB are free; free space on that disk"
    with pytest.raises(OSError, match=message):
        studio.train(studio.encoder("2x2x2"), "run", stage="retrieval", learning_rate=1e-3)
    assert train(files, cached, tmp_path / "own", "--stage", "retrieval") == 2
    assert re.search(f"^error: .*{message}", capsys.readouterr().err, re.MULTILINE)


def test_ctrl_c_on_the_command_says_where_it_stopped_and_how_to_go_on(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = Teller.step

    def step(self: Teller, number: int, loss: float) -> None:
        real(self, number, loss)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Teller, "step", step)
    assert train(files, cached, tmp_path, "--stage", "retrieval") == 130
    assert "stopped at step 1; run the same command again to go on\n" in capsys.readouterr().out
    monkeypatch.undo()
    assert train(files, cached, tmp_path, "--stage", "retrieval") == 0
    assert "steps 1 to 3" in capsys.readouterr().out and len(read_losses(tmp_path / LOSSES)) == 3


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_and_goes_on_to_the_steps_that_are_asked_for(
    files: dict[str, Path],  # noqa: F811
    cached: Path,
    tmp_path: Path,
    preset: str,
) -> None:
    fixed = ["--stage", "continuation", "--from-scratch", "--preset", preset, "--mixed-precision", "no"]
    for steps in (1, 2):  # the second goes on where the first one was stopped
        assert train(files, cached, tmp_path, *fixed, "--steps", str(steps)) == 0
        assert len(read_losses(tmp_path / LOSSES)) == steps
