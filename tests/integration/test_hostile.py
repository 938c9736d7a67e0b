"""Hostile input through the real ComfyUI: a clear message on the node, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from tools.comfy_server import ComfyError, ComfyServer
from tools.environment import ROOT

from .films import SAMPLER, changed, film, write_models


def write_encoders(folder: Path) -> None:
    """Encoder files that should not load: damaged, foreign, too new, for another width, with missing weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = EncoderConfig("wan", 128, 16, channels=(8, 8, 8, 8))
    weights = MemoryEncoder(config).state_dict()
    save_file(weights, str(folder / "good.safetensors"), config.to_metadata())
    (folder / "damaged.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:1000])
    save_file({"x": torch.zeros(1)}, str(folder / "foreign.safetensors"))
    save_file(weights, str(folder / "newer.safetensors"), config.to_metadata() | {"schema_version": "9"})
    save_file({}, str(folder / "empty.safetensors"), config.to_metadata())
    wide = EncoderConfig("wan", 256, 16, channels=(8, 8, 8, 8))
    save_file(MemoryEncoder(wide).state_dict(), str(folder / "wide.safetensors"), wide.to_metadata())


@pytest.fixture(scope="module")
def server(comfy: Any, comfy_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    work = tmp_path_factory.mktemp("hostile_server")
    write_models(work / "models")
    write_encoders(work / "models" / "memory_encoders")
    with ComfyServer(work, environment=comfy_environment, custom_nodes=[ROOT / "demo" / "nodes"]) as running:
        yield running


def refused(server: ComfyServer, prompt: dict[str, Any], node: str) -> str:
    """Runs a prompt that must fail on `node`; returns the message. Nothing may be written."""
    before = sorted(server.output_dir.rglob("*"))
    with pytest.raises(ComfyError) as failure:
        server.run(prompt)
    assert failure.value.class_type == prompt[node]["class_type"], failure.value
    assert sorted(server.output_dir.rglob("*")) == before
    return failure.value.reason


@pytest.mark.parametrize(("name", "words"), [
    ("damaged", "is damaged"), ("foreign", "not a memory encoder"), ("newer", "update ComfyUI-VideoMemory"),
    ("empty", "do not fit"), ("wide", "width 256"),
])  # fmt: skip
def test_encoder_file_that_does_not_fit(server: ComfyServer, name: str, words: str) -> None:
    prompt = film("hostile")
    prompt["encoder"] = {
        "class_type": "VideoMemoryEncoderLoader",
        "inputs": {
            "model": ["host", 0], "encoder_name": f"{name}.safetensors", "lora_name": "none", "lora_strength": 1.0,
        },
    }  # fmt: skip
    prompt = changed(prompt, SAMPLER, memory_encoder=["encoder", 1])
    assert words in refused(server, prompt, "encoder")


def test_good_encoder_file_loads(server: ComfyServer) -> None:
    prompt = film("good", ("one shot",))
    prompt["encoder"] = {
        "class_type": "VideoMemoryEncoderLoader",
        "inputs": {"model": ["host", 0], "encoder_name": "good.safetensors", "lora_name": "none", "lora_strength": 1.0},
    }
    prompt = changed(prompt, SAMPLER, memory_encoder=["encoder", 1], model=["encoder", 0])
    server.run(prompt)


@pytest.mark.parametrize(("text", "words"), [
    ("", "empty"), ("   \n ", "empty"), ("noise " * 200_000, "long"), ("\x00\x01", "control"),
    ('{"version": 1, "shots": []}', "shot"), ('{"version": 99, "shots": [{"prompt": "a"}]}', "version"),
    ('{"version": 1, "shots": [{"start": -1, "prompt": "a"}]}', "start"),
    ("[5s: b] [1s: a]", "order"), ("[5s-2s: a]", "end"),
])  # fmt: skip
def test_storyboard_that_cannot_be_used(server: ComfyServer, text: str, words: str) -> None:
    message = refused(server, changed(film("hostile"), "storyboard", storyboard=text), "storyboard")
    assert len(message) < 600
    assert words in message.lower()


def test_storyboard_with_a_time_past_the_films_end(server: ComfyServer) -> None:
    prompt = changed(film("hostile"), "storyboard", storyboard="[0s: a] [90s: b]", total_seconds=10.0)
    message = refused(server, prompt, "storyboard")
    assert "shot 2" in message and "90" in message and "10" in message


@pytest.mark.parametrize(("change", "words"), [
    ({"width": 72}, "multiple of 16"), ({"height": 40}, "multiple of 16"), ({"film": "../escape"}, "folder"),
    ({"film": "/etc/film"}, "folder"), ({"film": ""}, "empty"), ({"film": "con"}, "reserved"),
])  # fmt: skip
def test_sampler_setting_that_cannot_be_used(server: ComfyServer, change: dict[str, Any], words: str) -> None:
    assert words in refused(server, film("hostile") | changed(film("hostile"), SAMPLER, **change), SAMPLER)


def test_latent_of_another_model_as_history(server: ComfyServer) -> None:
    prompt = film("hostile", history=["wrong", 0])
    prompt["wrong"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}}
    message = refused(server, prompt, SAMPLER)
    assert "history" in message and "16" in message


def test_history_of_another_size(server: ComfyServer) -> None:
    prompt = film("hostile", history=["wrong", 0])
    sizes = {"width": 96, "height": 48, "length": 5, "batch_size": 1}
    prompt["wrong"] = {"class_type": "EmptyHunyuanLatentVideo", "inputs": sizes}
    assert "width and height" in refused(server, prompt, SAMPLER)


def test_cores_causal_wan_is_refused_by_name(server: ComfyServer) -> None:
    prompt = changed(film("hostile"), "host", unet_name="causal.safetensors")
    message = refused(server, prompt, "encoder")
    assert "causal" in message and "Wan" in message


def test_memory_of_another_model_is_refused(server: ComfyServer) -> None:
    prompt = film("kept", ("one shot",))
    prompt |= {
        "wide": {"class_type": "UNETLoader", "inputs": {"unet_name": "wide.safetensors", "weight_dtype": "default"}},
        "apply": {
            "class_type": "VideoMemoryApply",
            "inputs": {
                "model": ["wide", 0], "memory": [SAMPLER, 1], "strength": 1.0, "history_timestep": "zero",
                "sliding_window": 0, "attention_mode": "joint",
            },
        },
        "use": {
            "class_type": "BasicScheduler",
            "inputs": {"model": ["apply", 0], "scheduler": "simple", "steps": 1, "denoise": 1.0},
        },
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["use", 0]}},
    }  # fmt: skip
    with pytest.raises(ComfyError) as failure:
        server.run(prompt)
    assert failure.value.class_type == "VideoMemoryApply"
    assert "128" in failure.value.reason and "256" in failure.value.reason


@pytest.mark.parametrize("name", ["../memory", "a/b", ""])
def test_memory_is_not_saved_outside_of_its_folder(server: ComfyServer, name: str) -> None:
    prompt = film("kept", ("one shot",))
    prompt["save"] = {
        "class_type": "VideoMemorySave", "inputs": {"memory": [SAMPLER, 1], "filename_prefix": name},
    }  # fmt: skip
    with pytest.raises(ComfyError) as failure:
        server.run(prompt)
    assert "filename_prefix" in failure.value.reason
    assert not (server.output_dir / "video_memories").exists()
    assert json.loads((server.output_dir / "video_memory" / "kept" / "manifest.json").read_text())["film"] == "kept"
