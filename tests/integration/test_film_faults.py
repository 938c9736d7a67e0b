"""What goes wrong around a film, and who made its sections, through the real ComfyUI."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from memory_encoder.locks import alone
from tools.comfy_server import ComfyError, ComfyServer
from tools.environment import ROOT

from .films import PROMPTS, SAMPLER, changed, film, report, write_models
from .test_film_routes import ask, state, statuses

ODD = ROOT / "tests" / "integration" / "odd_nodes.py"
AGAIN = '{"1": 0}'  # says nothing new, so that only ComfyUI's own cache does not answer


@pytest.fixture(scope="module")
def server(comfy: Any, comfy_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    work = tmp_path_factory.mktemp("faults_server")
    write_models(work / "models")
    hosts = work / "models" / "diffusion_models"
    shutil.copy(hosts / "host.safetensors", hosts / "other.safetensors")
    (work / "models" / "loras").mkdir()
    layer = "diffusion_model.blocks.0.self_attn.q"
    lora = {f"{layer}.lora_A.weight": torch.zeros(1, 128), f"{layer}.lora_B.weight": torch.zeros(128, 1)}
    save_file(lora, str(work / "models" / "loras" / "lora.safetensors"))
    with ComfyServer(work, environment=comfy_environment, custom_nodes=[ROOT / "demo" / "nodes", ODD]) as running:
        yield running


def folder_of(server: ComfyServer, name: str) -> Path:
    return server.output_dir / "video_memory" / name


def inside(prompt: dict[str, Any], kind: str) -> dict[str, Any]:
    """The film's prompt with its sampler made while the graph runs."""
    names = ("model", "memory_encoder", "vae", "storyboard", "negative", "sampler", "sigmas", "film")
    given = prompt[SAMPLER]["inputs"]
    if kind == "TestLoopOfLinks":
        names += ("redo",)
    loop = {"class_type": kind, "inputs": {name: given[name] for name in names}}
    kept = {name: node for name, node in prompt.items() if name not in (SAMPLER, "latent")}
    return kept | {"loop": loop, "report": {"class_type": "PreviewAny", "inputs": {"source": ["loop", 0]}}}


def told(entry: dict[str, Any]) -> list[bool]:
    """Which sections were reused, from the report that PreviewAny shows."""
    lines = entry["outputs"]["report"]["text"][0].splitlines()
    assert not any("no section is reused" in line for line in lines)
    return ["reused" in line.split("memory")[0] for line in lines[:-1]]


@pytest.mark.parametrize("kind", ["TestLoop", "TestLoopOfLinks"])
def test_sampler_that_an_expanded_graph_made_reuses_sections_of_the_same_models_only(
    server: ComfyServer, kind: str
) -> None:
    prompt = film(f"inside_{kind}", PROMPTS[:2], redo="")
    again = changed(prompt, SAMPLER, redo=AGAIN)
    other = changed(prompt, "host", unet_name="other.safetensors")
    assert told(server.run(inside(prompt, kind))) == [False, False]
    assert told(server.run(inside(again, kind))) == [True, True]
    assert told(server.run(inside(other, kind))) == [False, False]
    assert told(server.run(inside(changed(prompt, "encoder", seed=1), kind))) == [False, False]


def controlled(name: str, strength: float = 1.0, colour: int = 0, **sampler: Any) -> dict[str, Any]:
    """A film whose negative prompt carries core's ControlNet object."""
    return film(name, PROMPTS[:1], **sampler) | {
        "net": {"class_type": "TestControlNet", "inputs": {}},
        "image": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": colour}},
        "control": {
            "class_type": "ControlNetApply",
            "inputs": {
                "conditioning": ["negative", 0], "control_net": ["net", 0], "image": ["image", 0], "strength": strength,
            },
        },
    }  # fmt: skip


def test_control_net_counts_with_its_image_and_strength(server: ComfyServer) -> None:
    negative: dict[str, Any] = {"negative": ["control", 0]}
    assert report(server.run(controlled("control", **negative))) == [False]
    assert report(server.run(controlled("control", redo=AGAIN, **negative))) == [True]
    assert report(server.run(controlled("control", strength=0.2, **negative))) == [False]
    assert report(server.run(controlled("control", colour=255, **negative))) == [False]


def hooked(name: str, strength: float, **sampler: Any) -> dict[str, Any]:
    """A film whose negative prompt carries core's hooks."""
    hook = {"lora_name": "lora.safetensors", "strength_model": strength, "strength_clip": 0.0}
    setting = {"cond_NEW": ["negative", 0], "strength": 1.0, "set_cond_area": "default", "hooks": ["hook", 0]}
    return film(name, PROMPTS[:1], negative=["set", 0], **sampler) | {
        "hook": {"class_type": "CreateHookLora", "inputs": hook},
        "set": {"class_type": "ConditioningSetProperties", "inputs": setting},
    }


def test_hooks_count_with_their_strength(server: ComfyServer) -> None:
    assert report(server.run(hooked("hooks", 0.5))) == [False]
    assert report(server.run(hooked("hooks", 0.5, redo=AGAIN))) == [True]
    assert report(server.run(hooked("hooks", 0.7))) == [False]


def test_model_that_gives_nan_once_stops_the_film_there_and_the_next_run_goes_on(server: ComfyServer) -> None:
    server.run(film("glitch", PROMPTS[:3]))
    glitch = {"glitch": {"class_type": "TestGlitch", "inputs": {"model": ["host", 0], "call": 6}}}
    prompt = film("glitch", ("a", "b", "c"), model=["glitch", 0]) | glitch
    with pytest.raises(ComfyError, match=r"section 2 \('b'\): the model gave NaN.*--use-sage-attention"):
        server.run(prompt)
    assert statuses(server, "glitch") == ["stored", "stale", "stale"]
    assert report(server.run(prompt)) == [True, False, False]
    assert statuses(server, "glitch") == ["reused", "stored", "stored"]


def test_deleted_files_of_a_film_are_made_again_in_the_same_session_and_kept_ones_are_not_touched(
    server: ComfyServer,
) -> None:
    prompt, folder = film("deleted", PROMPTS[:2]), folder_of(server, "deleted")

    def runs() -> bool:
        before = (folder / "manifest.json").stat().st_mtime_ns if folder.exists() else None
        server.run(prompt)
        return (folder / "manifest.json").stat().st_mtime_ns != before

    assert runs() and not runs()
    shutil.rmtree(folder)
    assert runs() and len(list(folder.glob("section_*.safetensors"))) == 2 and not runs()
    next(folder.glob("section_0001_*.safetensors")).unlink()
    assert runs() and statuses(server, "deleted") == ["reused", "stored"] and not runs()


def test_film_that_another_process_makes_is_refused_with_that_process(server: ComfyServer) -> None:
    folder = folder_of(server, "busy")
    folder.mkdir(parents=True)
    with (
        alone(folder / ".lock"),
        pytest.raises(ComfyError, match=rf"film 'busy' is being made by process {os.getpid()}"),
    ):
        server.run(film("busy", PROMPTS[:1]))
    assert report(server.run(film("busy", PROMPTS[:1]))) == [False]
    assert not (folder / ".lock").exists()


def test_asking_changes_no_file_and_leads_to_none_outside(server: ComfyServer) -> None:
    server.run(film("asked", PROMPTS[:1]))
    folder = folder_of(server, "asked")
    (record,) = state(server, "asked")["sections"]
    clip = folder / f"section_0000_{record['key'][:16]}.webp"
    clip.unlink()
    clip.symlink_to(server.models_dir / "vae" / "vae.safetensors")
    assert state(server, "asked")["sections"][0]["clip"] is False
    assert ask(server, "/video_memory/film/asked/clip/0")[0] == 404
    clip.unlink()
    os.mkfifo(clip)
    assert ask(server, f"/video_memory/film/asked/clip/0?key={record['key']}")[0] == 404
    manifest = folder / "manifest.json"
    good = json.loads(manifest.read_text())
    for content, status in ((b"[]", 200), (json.dumps(good | {"version": 9}).encode(), 400)):
        manifest.write_bytes(content)
        before = sorted(folder.iterdir())
        assert ask(server, "/video_memory/film/asked")[0] == status
        assert ask(server, "/video_memory/film/asked/clip/0")[0] in (400, 404)
        assert sorted(folder.iterdir()) == before and manifest.read_bytes() == content
