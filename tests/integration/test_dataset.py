"""Clips become a dataset through the real ComfyUI: command line and node, with tiny random models in core's formats."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from memory_encoder.cli import main
from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import (
    CheckpointError,
    codec,
    load_host,
    load_host_shape,
    load_text_encoder,
    load_vae,
    text_encoder_identity,
)
from memory_encoder.training.dataset.dataset import MemoryDataset

from .commands import FPS, HEIGHT, TEXT_ENCODER, WIDTH, cache_arguments


def test_the_command_caches_a_clip_once_with_cores_vae_and_the_demos_text(
    files: dict[str, Path], words: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.inference_mode():
        assert main(cache_arguments(files, tmp_path)) == 0
    said = capsys.readouterr().out
    assert "2 windows of 1 clips" in said and "left out: empty.mp4: is empty (0 bytes)" in said
    dataset = MemoryDataset.open(tmp_path)
    assert [(s.start_seconds, s.prompt) for s in dataset] == [(0, "Mira waves"), (21 / FPS, "rain")]
    assert dataset[0].hr.shape == (16, 6, 6, 8) and dataset[0].lr["2x2x2"].shape == (16, 4, 4, 4)
    assert torch.allclose(dataset.conditioning("rain").cross_attn, words.encode_words(["rain"]), atol=2e-3)

    model, vae = load_host(files["host"]), load_vae(files["vae"])
    pictures = torch.full((1, 1, HEIGHT, WIDTH, 3), 0.0)
    with torch.inference_mode():
        expected = codec(model, vae).encode(pictures)
    assert (dataset[0].hr[:, 0] - expected[0, :, 0]).abs().max() < 0.05  # frame 0 alone, as good as black

    with torch.inference_mode():
        assert main(cache_arguments(files, tmp_path)) == 0
    assert "0 encoded now" in capsys.readouterr().out


def test_a_command_that_cannot_work_says_why(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*cache_arguments(files, tmp_path), "--on-bad", "refuse"]) == 2
    assert "clip empty.mp4: is empty (0 bytes); repair or remove it" in capsys.readouterr().err
    assert main([*cache_arguments(files, tmp_path), "--vae", str(files["host"])]) == 2
    assert "vae" in capsys.readouterr().err
    assert main([*cache_arguments(files, tmp_path), "--host", "nowhere.safetensors"]) == 2
    assert "host nowhere.safetensors does not exist" in capsys.readouterr().err


def test_a_host_without_weights_tells_the_same_as_the_loaded_one(files: dict[str, Path]) -> None:
    shape, loaded = load_host_shape(files["host"]), load_host(files["host"])
    bare, full = find_host(shape.diffusion_model), find_host(loaded.get_model_object("diffusion_model"))
    assert all(p.is_meta for p in shape.diffusion_model.parameters())
    for name in ("name", "width", "latent_channels", "patch", "text_width", "pooled_width"):
        assert getattr(bare, name) == getattr(full, name)
    assert type(shape.latent_format) is type(loaded.get_model_object("latent_format"))


def test_a_text_encoder_can_be_named_as_module_and_attribute(words: ModuleType) -> None:
    assert isinstance(load_text_encoder([TEXT_ENCODER], "wan"), words.HashTextEncoder)
    assert text_encoder_identity([TEXT_ENCODER], "wan") == TEXT_ENCODER
    for wrong, message in (("demo.nodes.nothing:X", "neither a file nor"), ("no.safetensors", "does not exist")):
        with pytest.raises(CheckpointError, match=message):
            load_text_encoder([wrong], "wan")


@pytest.fixture(scope="module")
def node(comfy: Any, load_pack: Callable[..., ModuleType]) -> Any:
    load_pack()
    return importlib.import_module("video_memory_pack.nodes.cache_clips").VideoMemoryDataset


@pytest.fixture(autouse=True)
def allowed(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEO_MEMORY_CLIP_FOLDERS", str(files["clips"]))


def run(node: Any, files: dict[str, Path], **changes: Any) -> Any:
    values = {
        "vae": load_vae(files["vae"]), "model": load_host(files["host"]), "folder": str(files["clips"]),
        "name": "clips", "rates": "2x2x2", "width": WIDTH, "height": HEIGHT, "fps": float(FPS), "window_seconds": 1.5,
        "stride_seconds": 0.0, "heldout": "0", "on_bad": "skip", "scene_cuts": False,
        "clip": load_text_encoder([TEXT_ENCODER], "wan"),
    }  # fmt: skip
    with torch.inference_mode():
        return node.execute(**{name: [value] for name, value in values.items()} | changes)


def test_the_node_gives_the_dataset_that_the_command_makes(
    node: Any, comfy: Any, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    output = run(node, files)
    dataset, report = output.args
    assert len(dataset) == 2 and "2 encoded now" in report and "empty.mp4" in report
    assert dataset.conditioning("Mira waves").cross_attn.shape == (1, 32, 64)
    main([*cache_arguments(files, tmp_path / "command"), "--rates", "2x2x2"])
    other = MemoryDataset.open(tmp_path / "command")
    assert all(torch.equal(ours.hr, theirs.hr) for ours, theirs in zip(dataset, other, strict=True))
    index = tmp_path / "video_memory_datasets" / "clips" / "index.json"
    assert json.loads(index.read_text())["space"]["latent_format"] == "Wan21"


def test_the_node_stops_when_the_user_cancels_and_goes_on_later(
    node: Any, comfy: Any, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(node, files)
    assert len(run(node, files).args[0]) == 2


def test_the_node_takes_what_cores_dataset_node_makes(
    node: Any, comfy: Any, words: ModuleType, files: dict[str, Path]
) -> None:
    make = comfy.module("comfy_extras.nodes_dataset").MakeTrainingDataset
    clips = [torch.rand(9, HEIGHT, WIDTH, 3), torch.rand(9, HEIGHT, WIDTH, 3)]
    with torch.inference_mode():
        made = make.execute(clips, [load_vae(files["vae"])], [words.HashTextEncoder()], ["Mira waves", "rain"])
    given = {"folder": [""], "latents": made.args[0], "conditioning": made.args[1]}
    dataset, report = run(node, files, **given, clip=None).args
    assert [s.hr.shape for s in dataset] == [(16, 3, 6, 8)] * 2 and "2 windows in memory" in report
    assert torch.equal(dataset.conditioning(dataset[1].prompt).cross_attn, words.encode_words(["rain"]))
    assert not dataset[0].hr.is_inference()
    for unused, inputs in (("clip", given), ("conditioning", {"conditioning": made.args[1]})):
        with pytest.raises(ValueError, match=f"^{unused} is "):
            run(node, files, **inputs)


def test_a_node_combines_two_datasets_and_says_their_shares(
    node: Any, comfy: Any, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    combine = importlib.import_module("video_memory_pack.nodes.cache_clips").VideoMemoryDatasetCombine
    first, second = (run(node, files, name=[name]).args[0] for name in ("one", "two"))
    both, report = combine.execute(first, second, 0.25).args
    assert report == "one: 75.0% of the batches, 2 windows, two: 25.0% of the batches, 2 windows"
    assert len(both) == 4 and both.clips == 2 and all(value.tooltip for value in combine.GET_SCHEMA().inputs)


def test_core_builds_the_nodes_schema(node: Any) -> None:
    schema = node.GET_SCHEMA()
    assert schema.node_id == "VideoMemoryDataset" and all(value.tooltip for value in schema.inputs)
    assert [output.io_type for output in schema.outputs] == ["MEMORY_DATASET", "STRING"]


def test_the_node_notices_new_clips(node: Any, files: dict[str, Path]) -> None:
    before = node.fingerprint_inputs(folder=str(files["clips"]), name="x")
    assert before == node.fingerprint_inputs(folder=[str(files["clips"])])
    (files["clips"] / "another.txt").write_text("x")
    assert before != node.fingerprint_inputs(folder=str(files["clips"]))
    with pytest.raises(ValueError, match="not below ComfyUI's input folder"):
        node.fingerprint_inputs(folder="../elsewhere")


def test_the_node_runs_again_when_its_dataset_was_deleted_or_damaged_and_not_otherwise(
    node: Any, comfy: Any, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    out = tmp_path / "video_memory_datasets" / "clips"

    def fingerprint(name: Any = "clips") -> str:
        return node.fingerprint_inputs(folder=[str(files["clips"])], name=[name])

    before = fingerprint()
    run(node, files)
    assert before == fingerprint() == fingerprint()  # the first run need not be checked by a second one
    seen, others = {before}, (fingerprint("other"), fingerprint(None))

    def cut_short() -> None:
        next((out / "shards").iterdir()).write_bytes(b"")

    for harm in (lambda: shutil.rmtree(out), cut_short, (out / "index.json").unlink):
        harm()
        assert fingerprint() not in seen and fingerprint() == fingerprint()
        seen.add(fingerprint())
        assert len(run(node, files).args[0]) == 2 and fingerprint() in seen
    assert fingerprint("other") == others[0] and fingerprint(None) != others[1]  # one through a link may be any
    assert fingerprint("no/name")


def test_clips_are_read_below_input_and_where_the_owner_allows_and_nowhere_else(
    node: Any, comfy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = importlib.import_module("video_memory_pack.nodes.runtime.folders")
    inputs, allowed, other, named = (tmp_path / name for name in ("input", "allowed", "allowed_not", "named"))
    for folder in (inputs / "clips", allowed / "deep", other, named):
        folder.mkdir(parents=True)
    (inputs / "out").symlink_to(other)
    (inputs / "over").symlink_to(allowed)
    monkeypatch.setattr(comfy.folder_paths, "input_directory", str(inputs))
    monkeypatch.setenv("VIDEO_MEMORY_CLIP_FOLDERS", os.pathsep.join([str(allowed), "relative", ""]))
    monkeypatch.setitem(comfy.folder_paths.folder_names_and_paths, "video_memory_clips", ([str(named)], set()))
    for name, path in {
        "clips": inputs / "clips", str(inputs / "clips"): inputs / "clips", "over": allowed, str(allowed): allowed,
        str(allowed / "deep"): allowed / "deep", str(named): named,
    }.items():  # fmt: skip
        assert folders.clips_folder(name) == path.resolve()
    for name in (str(other), "out", "/", "/etc", "..", "../allowed_not", str(allowed / ".." / "allowed_not"), " ", "."):
        with pytest.raises(ValueError, match=r"VIDEO_MEMORY_CLIP_FOLDERS .*SECURITY\.md"):
            folders.clips_folder(name)
    for name in ("\\\\host\\share", "//host/share", "\\\\?\\UNC\\host\\share", "/\\host\\share"):
        with pytest.raises(ValueError, match="another machine"):
            folders.clips_folder(name)
    for name in ("a\0b", "x" * 300, "clips/" + "字" * 100):
        with pytest.raises(ValueError, match="no path"):
            folders.clips_folder(name)


def test_a_search_for_clips_stops_when_the_user_cancels(
    node: Any, comfy: Any, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    monkeypatch.setattr(comfy.model_management, "interrupt_processing", True)
    assert node.fingerprint_inputs(folder=str(files["clips"])) == ""
    assert comfy.model_management.processing_interrupted(), "the run that follows has to see it"
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(node, files)
    assert not (tmp_path / "video_memory_datasets").exists()
