"""The shipped workflows, without a browser: what they declare, what comfy-cli says, and films on small models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.storyboard import Storyboard
from tools.browser_server import WORKFLOWS, browser_server
from tools.comfy_cli import find_comfy_cli, validate
from tools.comfy_server import ComfyServer
from tools.environment import ROOT, Environment
from tools.workflows.__main__ import ALL, file_names
from tools.workflows.graph import GROWS

from .films import write_models

FILES = file_names()
NAMES = tuple(FILES)
FILMS = ("wan22_5b_film", "wan22_14b_film", "hunyuan_film", "two_memories", "guided_film", "cached_cross_film",
         "image_to_film", "continue_video", "any_sampler")  # fmt: skip
# Files that a user makes and no one can download.
OWN = ("tiny_", "framepack_f1", "storymem_mi2v_", "my_memory", "my_film_memory", "host", "vae")
SMALL: dict[str, dict[str, Any]] = {
    "UNETLoader": {"unet_name": "host.safetensors", "weight_dtype": "default"},
    "VAELoader": {"vae_name": "vae.safetensors"},
    "VideoMemoryStoryboard": {"fps": 16.0, "section_seconds": 0.5},
    "VideoMemorySampler": {"width": 64, "height": 48},
    "ImageFromBatch": {"length": 9},
    "ImageScale": {"width": 64, "height": 48},
    "BasicScheduler": {"steps": 2},
    "KSampler": {"steps": 2},
    "VideoMemoryEncoderLoader": {"lora_name": "none"},
}
LANGUAGE_MODEL = ROOT / "tests" / "integration" / "language_model.py"
# What stands in for nodes that need a text encoder or the latents of Wan 2.2 5B.
STANDINS: dict[str, tuple[str, dict[str, Any]]] = {
    "CLIPLoader": ("VideoMemoryDemoTextEncoder", {}),
    "DualCLIPLoader": ("VideoMemoryDemoTextEncoder", {}),
    "Wan22ImageToVideoLatent": (
        "EmptyHunyuanLatentVideo", {"width": 64, "height": 48, "length": 9, "batch_size": 1},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(
    comfy: Any, comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """ComfyUI with what the workflows choose from, and models of two blocks."""
    work = tmp_path_factory.mktemp("workflows")
    write_models(work / "models")
    write_encoder(work / "models" / "memory_encoders" / "my_film_memory.safetensors")
    with browser_server(work, comfy_environment, [LANGUAGE_MODEL]) as running:
        yield running


def write_encoder(path: Path) -> None:
    """Stands for a trained encoder for the small host: cached, with a cross-attention that is not zero."""
    config = EncoderConfig("wan", 128, 16, memory_attention="cached", cross_blocks=2, head_dim=32)
    encoder = MemoryEncoder(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    weights = {
        name: 0.05 * torch.randn(value.shape, generator=generator) for name, value in encoder.state_dict().items()
    }
    path.parent.mkdir()
    save_file(weights, path, config.to_metadata())


def read(*path: str) -> dict[str, Any]:
    return json.loads(WORKFLOWS.joinpath(*path).read_text(encoding="utf-8"))


def test_every_file_among_the_templates_is_one_of_them() -> None:
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == sorted(FILES.values())
    assert sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) == sorted(NAMES)


def test_the_first_film_is_small_and_needs_nothing() -> None:
    """What a person opens first: no more nodes than one can take in, no file to get, nothing to choose."""
    workflow = read(f"{FILES['first_film']}.json")
    assert len(workflow["nodes"]) <= 12 and FILES["first_film"] == min(FILES.values())
    values = [value for node in workflow["nodes"] for value in node.get("widgets_values") or []]
    assert not [value for value in values if str(value).endswith((".safetensors", ".mp4", ".png"))]


def test_each_workflow_has_ui_form_api_form_thumbnail_and_a_note() -> None:
    assert len(NAMES) >= 15
    for name in NAMES:
        workflow = read(f"{FILES[name]}.json")
        assert workflow["extra"]["name"] == name
        assert workflow["version"] == 0.4 and workflow["groups"], name
        notes = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
        assert notes and all(len(node["widgets_values"][0]) > 80 for node in notes), name
        assert read("api", f"{name}.json"), name
        picture = (WORKFLOWS / f"{FILES[name]}.jpg").read_bytes()
        assert picture[:3] == b"\xff\xd8\xff" and len(picture) < 150_000, name


def test_a_node_that_grows_with_its_film_has_room_below_and_no_hole_before() -> None:
    for name in NAMES:
        workflow = read(f"{FILES[name]}.json")
        for node in (one for one in workflow["nodes"] if one["type"] in GROWS):
            (left, top), (width, height) = node["pos"], node["size"]
            bottom = top + height + GROWS[node["type"]]
            below = [other["pos"] for other in workflow["nodes"] if other is not node]
            assert not [at for at in below if left <= at[0] < left + width and top < at[1] < bottom], name
            assert height < 250, f"{name}: a hole under {node['type']}"
            frames = [group["bounding"] for group in workflow["groups"]]
            (frame,) = [one for one in frames if one[0] <= left < one[0] + one[2]]
            assert bottom <= frame[1] + frame[3], name


def test_every_downloadable_model_is_declared_on_its_loader_with_address_and_folder() -> None:
    for name in NAMES:
        for node in read(f"{FILES[name]}.json")["nodes"]:
            declared = {model["name"]: model for model in node["properties"].get("models", [])}
            values = [v for v in node.get("widgets_values") or [] if isinstance(v, str)]
            files = [v for v in values if v.endswith(".safetensors") and not v.startswith((*OWN, "first_film_"))]
            assert sorted(files) == sorted(declared), f"{name}, {node['type']}"
            for model in declared.values():
                assert model["url"].startswith("https://") and model["url"].endswith(f"/{model['name']}")
                assert model["directory"] in {"diffusion_models", "text_encoders", "vae", "loras", "clip_vision"}


def test_comfy_cli_finds_no_fault_in_any_workflow(server: ComfyServer, tmp_path: Path) -> None:
    cli = find_comfy_cli()
    if cli is None:
        pytest.skip("no comfy-cli; run `python -m tools.comfy_cli`")
    nodes = tmp_path / "object_info.json"
    definitions = server.get("/object_info")
    nodes.write_text(json.dumps(definitions))
    newer = definitions["SaveVideo"]["input"]["required"]["format"][0] == "COMFY_DYNAMICCOMBO_V3"

    def taken(fault: Any) -> bool:
        """From 0.33 on Save Video asks for the codec inside of the format; its server takes both forms (see below)."""
        return newer and "'format.codec' is missing" in str(fault)

    for name in NAMES:
        for path in (WORKFLOWS / f"{FILES[name]}.json", WORKFLOWS / "api" / f"{name}.json"):
            verdict = validate(cli, path, nodes)
            faults = [*verdict["errors"], *verdict["warnings"]]
            assert verdict["valid"] or faults
            assert not [fault for fault in faults if not taken(fault)], f"{path.relative_to(ROOT)}: {verdict}"


def test_values_that_a_workflow_does_not_set_are_the_defaults_of_the_nodes(server: ComfyServer) -> None:
    nodes = server.get("/object_info")
    described = {workflow.name: workflow for workflow in (make() for make in ALL)}
    assert set(described) == set(NAMES)
    for name, workflow in described.items():
        shipped = read("api", f"{name}.json")
        for node in workflow.nodes:
            spec = {**nodes[node.kind]["input"].get("required", {}), **nodes[node.kind]["input"].get("optional", {})}
            for key, value in shipped[str(node.id)]["inputs"].items():
                if key in node.inputs:
                    assert value == node.inputs[key], f"{name}, {node.kind}, {key}"
                elif "default" in (spec.get(key, [None, {}])[1:] or [{}])[0]:
                    assert value == spec[key][1]["default"], f"{name}, {node.kind}, {key}"


def small(name: str) -> dict[str, Any]:
    """A shipped film workflow with tiny models and sizes."""
    prompt = read("api", f"{name}.json")
    for entry in prompt.values():
        kind = entry["class_type"]
        if entry["inputs"].get("clip_name", "").startswith("qwen3.5"):
            entry["class_type"], entry["inputs"] = "TestLanguageModel", {}
        elif kind in STANDINS:
            entry["class_type"], entry["inputs"] = STANDINS[kind][0], dict(STANDINS[kind][1])
        unknown = set(SMALL.get(kind, {})) - set(entry["inputs"])
        assert not unknown, f"{name}: {kind} has no {unknown}"
        entry["inputs"] |= SMALL.get(kind, {})
        if kind == "VideoMemoryStoryboard" and isinstance(entry["inputs"]["storyboard"], str):
            entry["inputs"]["storyboard"] = short(entry["inputs"]["storyboard"])
    return prompt


def short(storyboard: str) -> str:
    """Two shots of half a second, which begin as the first two of a storyboard do."""
    shots = json.loads(storyboard)["shots"][:2]
    for i, shot in enumerate(shots):
        shot |= {"start": i / 2, "end": (i + 1) / 2}
    return json.dumps({"version": 1, "shots": shots})


def test_every_film_workflow_makes_its_film_on_small_models(server: ComfyServer) -> None:
    for name in FILMS:
        entry = server.run(small(name))
        videos = [path for path in server.files(entry) if path.suffix == ".mp4"]
        assert len(videos) == 1 and videos[0].stat().st_size > 500, name


def test_what_a_language_model_writes_becomes_a_film_with_the_persons_own_characters(server: ComfyServer) -> None:
    """The shipped template with core's Generate Text: what its answer says of Mira is not what the person wrote."""
    prompt = small("written_film")
    (board,) = (node for node, entry in prompt.items() if entry["class_type"] == "VideoMemoryStoryboard")
    entry = server.run(prompt)
    assert [path.suffix for path in server.files(entry)].count(".mp4") == 1
    shown = entry["outputs"][board]
    cast = {line["name"]: line["look"] for line in json.loads(shown["storyboard"][0])["cast"]}
    assert cast["Mira"] == "a young woman with short red hair and a yellow raincoat" and "a tall boy" not in str(shown)
    made = [shot.prompt for shot in Storyboard.from_json(shown["storyboard"][0]).expanded().shots]
    stove = f"Mira, {cast['Mira']}, lights the stove in the kitchen, green tiles"
    assert made == [stove, f"Tom, {cast['Tom']}, waves"]
    assert shown["read_as"][0]["remarks"] == ["left_out"]


def queue_film(server: ComfyServer, folder: Path, story: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The shipped script with a small workflow and a storyboard file."""
    (folder / "story.txt").write_text(story)
    (folder / "small.json").write_text(json.dumps(small("wan22_5b_film")))
    command = [
        sys.executable,
        "-I",
        str(WORKFLOWS / "queue_film.py"),
        str(folder / "story.txt"),
        "--server",
        server.url,
    ]
    command += ["--workflow", str(folder / "small.json"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=1000, check=False)


def test_the_script_makes_the_film_of_a_storyboard_file_and_saves_it(server: ComfyServer, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    done = queue_film(server, tmp_path, "a blue cup | a green hat", "--film", "by_script", "--save", str(film))
    assert done.returncode == 0, done.stderr
    assert "a green hat" in done.stdout and "output/video/by_script" in done.stdout
    assert film.read_bytes()[4:8] == b"ftyp"
    assert (server.output_dir / "video_memory" / "by_script").is_dir()
    again = queue_film(server, tmp_path, "a blue cup | a red hat", "--film", "by_script")
    assert "2 sections, 1 reused" in again.stdout, again.stdout


def test_the_script_says_what_is_wrong_in_one_line(server: ComfyServer, tmp_path: Path) -> None:
    refused = queue_film(server, tmp_path, '{"version": 1, "shots": []}')
    assert refused.returncode == 1 and refused.stderr.startswith("error: VideoMemoryStoryboard (node")
    alone = queue_film(server, tmp_path, "a cup", "--server", "http://127.0.0.1:9")
    assert alone.returncode == 1 and "no ComfyUI at http://127.0.0.1:9" in alone.stderr
    assert "Traceback" not in refused.stderr + alone.stderr
