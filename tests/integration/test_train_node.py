"""Training by the node: what it takes, gives, tells the page and leaves."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from memory_encoder.training.heldout import NOTHING, THIRDS, WITHOUT_MEMORY
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.presets import preset_named
from memory_encoder.training.run_files import (
    ENCODER,
    begun_with,
    checkpoint_name,
    checkpoints_in,
    encoder_name,
)

from .commands import train

pytestmark = pytest.mark.usefixtures("usual_signals")

PACK = "video_memory_train_test"


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
    files: dict[str, Path],
    cached_clip: Path,
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
    return Studio(nodes, model, dataset.MemoryDataset.open(cached_clip))


def look_for_encoders(comfy: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    places = ([str(folder)], {".safetensors"})
    monkeypatch.setitem(comfy.folder_paths.folder_names_and_paths, "memory_encoders", places)


def test_node_trains_leaves_the_model_alone_and_gives_what_other_nodes_take(
    comfy: Any,
    files: dict[str, Path],
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


def test_the_node_tells_the_page_its_pace_and_what_its_held_out_loss_is_made_of(
    studio: Studio, cached_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def send(event: str, data: dict[str, Any]) -> None:
        assert event == "video_memory.training"
        sent.append(json.loads(json.dumps(data, allow_nan=False)))

    monkeypatch.setattr(sys.modules[f"{PACK}.nodes.events"], "send", send)
    studio.dataset = type(studio.dataset).open(cached_clips)
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
    files: dict[str, Path],
    cached_clip: Path,
    studio: Studio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    message = r"saving this run takes 0\.\d+ GiB in .*, where 9\.31e-07 GiB are free; free space on that disk"
    with pytest.raises(OSError, match=message):
        studio.train(studio.encoder("2x2x2"), "run", stage="retrieval", learning_rate=1e-3)
    assert train(files, cached_clip, tmp_path / "own", "--stage", "retrieval") == 2
    assert re.search(f"^error: .*{message}", capsys.readouterr().err, re.MULTILINE)
