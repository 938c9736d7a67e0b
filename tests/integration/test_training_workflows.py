"""The shipped workflows that train and evaluate, queued one after the other on models of two blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from demo.clip import write_frames
from demo.tiny_family.procedural import make_film
from tools.comfy_server import ComfyServer
from tools.environment import ROOT

from .films import write_models

SMALL: dict[str, dict[str, Any]] = {
    "UNETLoader": {"unet_name": "host.safetensors", "weight_dtype": "default"},
    "VAELoader": {"vae_name": "vae.safetensors"},
    "VideoMemoryDataset": {"width": 64, "height": 48, "fps": 16.0, "window_seconds": 1.1, "heldout": "0.5"},
    "VideoMemoryTrain": {"steps": 3, "batch_size": 2, "rank": 4, "section": 2, "mixed_precision": "no"},
    "ImageFromBatch": {"length": 17},
    "ImageScale": {"width": 64, "height": 48},
    "BasicScheduler": {"steps": 2},
    "VideoMemoryRetrieve": {"frame_indices": "0-16"},
}


@pytest.fixture(scope="module")
def server(comfy: Any, comfy_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """ComfyUI with the pack, untrained models and two short clips, one of them the clip to evaluate."""
    work = tmp_path_factory.mktemp("training_server")
    write_models(work / "models")
    running = ComfyServer(work, environment=comfy_environment, custom_nodes=[ROOT / "demo" / "nodes"])
    clips = running.input_dir / "training_clips"
    clips.mkdir(parents=True)
    for seed in range(2):
        film = make_film(seed, shots=2, width=64, height=48, frames_per_shot=16)
        write_frames(clips / f"{seed}.mp4", film.frames, 16)
        (clips / f"{seed}.txt").write_text(film.shots[0].prompt)
    write_frames(running.input_dir / "clip.mp4", film.frames, 16)
    with running:
        yield running


def small(name: str) -> dict[str, Any]:
    """A shipped workflow with tiny models and sizes; the demo's words stand in for the text encoder."""
    prompt = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text())
    for entry in prompt.values():
        unknown = set(SMALL.get(entry["class_type"], {})) - set(entry["inputs"])
        assert not unknown, f"{name}: {entry['class_type']} has no {unknown}"
        entry["inputs"] |= SMALL.get(entry["class_type"], {})
        if entry["class_type"] == "CLIPLoader":
            entry |= {"class_type": "VideoMemoryDemoTextEncoder", "inputs": {}}
    return prompt


def test_pretrain_finetune_and_retrieval_check_follow_each_other(server: ComfyServer) -> None:
    for name, run in (("pretrain", "my_memory"), ("finetune", "my_film_memory")):
        entry = server.run(small(name))
        assert "last loss" in entry["outputs"]["7"]["text"][0], entry["outputs"]["7"]
        assert (server.output_dir / "memory_encoders" / f"{run}.safetensors").is_file()
        assert (server.output_dir / "loras" / f"{run}.safetensors").is_file()
        assert "windows" in entry["outputs"]["6"]["text"][0] and entry["outputs"]["8"]["images"]
    entry = server.run(small("retrieval_check"))
    reports = [entry["outputs"][node]["text"][0] for node in ("15", "19")]
    assert all("PSNR" in report for report in reports) and reports[0] != reports[1]
    assert all(entry["outputs"][node]["images"] for node in ("16", "20"))
