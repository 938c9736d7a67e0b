"""A film through the HTTP API of the real ComfyUI: crash, change, cancel."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memory_encoder.files import save_tensors
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.phi.trained_on import TrainedOn
from tools.comfy_server import ComfyInterrupted, ComfyServer
from tools.environment import ROOT

from .films import HOLD_NODE, PROMPTS, SAMPLER, changed, film, held, hold, latent_bytes, report, write_models
from .models import trained_encoder, write_i2v

TRAINED = Path("models") / "memory_encoders" / "trained.safetensors"


@pytest.fixture(scope="module")
def server(comfy: Any, comfy_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """ComfyUI with the pack under a name with a space, the demo's text encoder and untrained models of two blocks."""
    work = tmp_path_factory.mktemp("film_server")
    write_models(work / "models")
    trained_encoder(SimpleNamespace(name="wan", width=128, latent_channels=16, patch=(1, 2, 2)), work / TRAINED)
    write_i2v(comfy, work / "models" / "diffusion_models" / "i2v.safetensors")
    running = ComfyServer(
        work,
        environment=comfy_environment,
        pack_name="video memory (test)",
        custom_nodes=[ROOT / "demo" / "nodes", HOLD_NODE],
    )
    with running:
        yield running


class Killed(Exception):
    """The process was killed on purpose."""


def at_step(message: dict[str, Any]) -> tuple[int, int] | None:
    """Section and step of the held film that a message tells of."""
    data = message["data"]
    return (data["section"], data["step"]) if message["type"] == "test.step" else None


def with_encoder(prompt: dict[str, Any], kind: str) -> dict[str, Any]:
    """A film with an encoder as it was trained for Helios, with a memory of pictures, or with the paper's."""
    if kind == "paper":
        return prompt
    if kind == "keyframes":
        host = {"class_type": "UNETLoader", "inputs": {"unet_name": "i2v.safetensors", "weight_dtype": "default"}}
        face = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 0xAA5533}}
        with_pictures = changed(prompt, "encoder", variant="keyframes") | {"host": host, "face": face}
        return changed(with_pictures, SAMPLER, references=["face", 0])
    loader = {"model": ["host", 0], "encoder_name": TRAINED.name, "lora_name": "none", "lora_strength": 1.0}
    loaded = prompt | {"encoder": {"class_type": "VideoMemoryEncoderLoader", "inputs": loader}}
    return changed(loaded, SAMPLER, model=["encoder", 0], memory_encoder=["encoder", 1])


@pytest.mark.parametrize("kind", ["paper", "helios", "keyframes"])
def test_film_killed_in_its_third_section_goes_on_to_the_same_bits(server: ComfyServer, kind: str) -> None:
    names = f"whole {kind}", f"cut {kind}"
    whole, cut = (held(with_encoder(film(name), kind)) for name in names)
    made = server.run(whole)
    assert report(made) == [False] * 5
    holding = hold(server, section=2, step=1)

    def kill(message: dict[str, Any]) -> None:
        if at_step(message) == (2, 1):
            server.kill()
            raise Killed

    with pytest.raises(Killed):
        server.wait(server.queue(cut), on_progress=kill)
    folder = server.output_dir / "video_memory" / names[1]
    stored = [record["prompt"] for record in json.loads((folder / "manifest.json").read_text())["sections"]]
    assert stored == list(PROMPTS[:2])

    holding.unlink()
    server.start()
    resumed = server.run(cut)
    assert report(resumed) == [True, True, False, False, False]
    assert latent_bytes(server, names[1]) == latent_bytes(server, names[0])
    assert not list(folder.glob("*.tmp")) and not list(folder.glob(".*"))


def test_changed_prompt_of_shot_four_reuses_the_first_three(server: ComfyServer) -> None:
    server.run(film("edited"))
    other = (*PROMPTS[:3], "a blue kitchen", PROMPTS[4])
    assert report(server.run(film("edited", other))) == [True, True, True, False, False]


@pytest.mark.parametrize("change", [{"seed": 8}, {"cfg": 3.0}, {"strength": 0.5}, {"history_timestep": "same"}])
def test_changed_setting_renders_the_film_anew(server: ComfyServer, change: dict[str, Any]) -> None:
    server.run(film("settings", PROMPTS[:2]))
    assert report(server.run(film("settings", PROMPTS[:2], **change))) == [False, False]


def test_other_model_file_of_the_same_name_renders_the_film_anew(server: ComfyServer) -> None:
    server.run(film("models", PROMPTS[:1]))
    host = server.models_dir / "diffusion_models" / "host.safetensors"
    # ComfyUI caches a node whose inputs are the same text, so the run after a restart is what counts.
    server.stop()
    server.start()
    assert report(server.run(film("models", PROMPTS[:1]))) == [True]
    later = host.stat().st_mtime_ns + 10**9
    os.utime(host, ns=(later, later))
    server.stop()
    server.start()
    assert report(server.run(film("models", PROMPTS[:1]))) == [False]


def test_interrupted_film_stops_within_a_step_and_the_next_one_runs(server: ComfyServer) -> None:
    holding, seen = hold(server, section=1, step=2), []
    prompt_id = server.queue(held(film("stopped", steps=20)))

    def stop(message: dict[str, Any]) -> None:
        if at := at_step(message):
            seen.append(at)
            if at == (1, 2):
                server.interrupt()

    with pytest.raises(ComfyInterrupted):
        server.wait(prompt_id, on_progress=stop)
    assert seen[-1] in ((1, 2), (1, 3)), "sampling went on after the interrupt"
    assert not list((server.output_dir / "video_memory").glob("stopped/section_0001*"))
    holding.unlink()
    assert report(server.run(film("after", PROMPTS[:1]))) == [False]


def test_film_continues_a_clip_and_a_saved_memory(server: ComfyServer) -> None:
    """The first film's latent opens the second; its saved memory carries the third, without its pictures."""
    first = film("first", PROMPTS[:1])
    first |= {
        "save": {
            "class_type": "VideoMemorySave", "inputs": {"memory": [SAMPLER, 1], "filename_prefix": "shelf"},
        },
        "sampler2": {
            "class_type": "VideoMemorySampler",
            "inputs": first[SAMPLER]["inputs"] | {"history": [SAMPLER, 0], "film": "second"},
        },
    }  # fmt: skip
    first["report2"] = {"class_type": "PreviewAny", "inputs": {"source": ["sampler2", 2]}}
    entry = server.run(first)
    alone, after = (entry["outputs"][node]["text"][0] for node in (SAMPLER, "sampler2"))
    # 9 frames are 3 latents of 4x3 tokens: 2 cells of 2x2; the second film begins with them and adds 2 latents.
    assert "memory 8 tokens" in alone and "memory 12 tokens" in after

    loaded = film("third", PROMPTS[:1], memory=["load", 0])
    loaded["load"] = {"class_type": "VideoMemoryLoad", "inputs": {"memory_name": "shelf_00001.safetensors"}}
    assert "memory 12 tokens" in server.run(loaded)["outputs"][SAMPLER]["text"][0]


def test_pack_loads_silently_from_a_folder_of_any_name(server: ComfyServer) -> None:
    log = server.log.read_text()
    assert "video memory (test)" in log
    start = log[: log.index("Import times for custom nodes")]
    lines = [line for line in start.splitlines() if "[Prompt Server]" not in line]
    ours = [line for line in lines if "video" in line.lower() or "Traceback" in line]
    assert ours == [], "a line while the pack is imported, or an error"
    assert "IMPORT FAILED" not in log
    ids = [name for name in server.object_info() if name.startswith("VideoMemory")]
    assert len(ids) >= 12


def test_what_most_films_do_without_is_shown_only_when_asked_for(server: ComfyServer) -> None:
    """What is left of the sampler fits a laptop's window; core hides the widgets that are marked so."""
    shown = {}
    for name in ("VideoMemorySampler", "VideoMemoryTrain", "VideoMemoryEncoderNew", "VideoMemoryDataset"):
        info = server.object_info(name)[name]["input"]
        specs = {**info["required"], **info.get("optional", {})}
        kinds = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
        widgets = {key: spec for key, spec in specs.items() if spec[0] in kinds}
        shown[name] = {key for key, spec in widgets.items() if not spec[1].get("advanced")}
    assert shown["VideoMemorySampler"] <= {"cfg", "seed", "width", "height", "film", "redo", "locks"}
    assert len(shown["VideoMemoryTrain"]) <= 8
    assert shown["VideoMemoryEncoderNew"] == {"rate", "seed"}
    assert len(shown["VideoMemoryDataset"]) <= 6


def test_every_input_and_output_of_every_node_has_a_tooltip(server: ComfyServer) -> None:
    for name, info in server.object_info().items():
        if not name.startswith("VideoMemory"):
            continue
        for group in ("required", "optional"):
            for key, spec in info["input"].get(group, {}).items():
                assert len(spec) > 1 and spec[1].get("tooltip"), f"{name}.{key}"
        assert all(info.get("output_tooltips") or []) or not info["output"], name
        assert info["description"] or name == "VideoMemoryDemoTextEncoder", name


def test_a_film_that_asks_beyond_what_its_encoder_was_trained_on_is_made_and_told_so_once(server: ComfyServer) -> None:
    encoder = MemoryEncoder(EncoderConfig("wan", 128, 16, rate="2x2x2", channels=(8, 8, 8, 8)), dtype=torch.float32)
    trained = TrainedOn("continuation", 1.0, 0.5, 16.0, 3, 8.0, steps=9, width=64, height=48, clips=2)
    path = server.models_dir / "memory_encoders" / "short.safetensors"
    save_tensors(encoder.state_dict(), path, encoder.config.to_metadata() | trained.to_metadata())

    def made(name: str, count: int) -> dict[str, Any]:
        prompt = film(name, PROMPTS[:count])
        loader = {"model": ["host", 0], "encoder_name": "short.safetensors", "lora_name": "none", "lora_strength": 1.0}
        prompt["encoder"] = {"class_type": "VideoMemoryEncoderLoader", "inputs": loader}
        return server.run(changed(prompt, SAMPLER, memory_encoder=["encoder", 1]))["outputs"]

    within, beyond = made("within", 2), made("beyond", 5)
    assert "trained on history up to 1.0 s; sections up to 0.5 s" in within["encoder"]["text"][0]
    assert "beyond its training" not in within[SAMPLER]["text"][0]
    told = [line for line in beyond[SAMPLER]["text"][0].splitlines() if "beyond its training" in line]
    assert len(told) == 1 and "history of 2.2 s, trained up to 1.0 s" in told[0]
