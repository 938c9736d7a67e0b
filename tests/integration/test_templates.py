"""The templates on a fresh installation: what opens, what runs at once, and what is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools.browser_server import WORKFLOWS
from tools.comfy_server import ComfyError, ComfyServer
from tools.workflows.__main__ import file_names

# Inputs that name a model: ComfyUI offers those that can be had, and its lists show where the others belong.
MODELS = {"unet_name", "vae_name", "clip_name", "clip_name1", "clip_name2", "encoder_name", "lora_name"}
AT_ONCE = ("first_film", "judged_film", "continue_memory", "another_ending", "tiny_demo")  # nothing is asked for
RUN = AT_ONCE[:4]  # `make demo` runs the last one


def template(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def shortened(prompt: dict[str, Any]) -> dict[str, Any]:
    """As a person in a hurry would: fewer steps, shorter shots. Nothing is put in the place of anything."""
    for entry in prompt.values():
        if entry["class_type"] == "BasicScheduler":
            entry["inputs"]["steps"] = 1
        if entry["class_type"] == "VideoMemoryStoryboard":
            story = json.loads(entry["inputs"]["storyboard"])
            for i, shot in enumerate(story["shots"]):
                shot |= {"start": i / 4, "end": (i + 1) / 4}
            entry["inputs"] |= {"storyboard": json.dumps(story), "section_seconds": 0.25}
    return prompt


@pytest.mark.parametrize("name", [name for name in file_names() if name not in AT_ONCE])
def test_a_template_opens_on_a_fresh_installation_and_lacks_models_alone(name: str, comfy_server: ComfyServer) -> None:
    with pytest.raises(ComfyError) as refused:
        comfy_server.queue(template(name))
    faults = [
        (node["class_type"], fault["extra_info"].get("input_name"), fault["message"])
        for node in refused.value.details["node_errors"].values()
        for fault in node["errors"]
    ]
    assert faults and [fault for fault in faults if fault[1] not in MODELS] == []


def test_templates_of_the_tiny_family_run_one_after_another_on_a_fresh_installation(comfy_server: ComfyServer) -> None:
    """The first film leaves what the next ones judge and go on from: its sections, and its memory."""
    for name in RUN:
        prompt = shortened(template(name))
        entry = comfy_server.run(prompt)
        if name == "judged_film":
            judged_in_full(comfy_server, prompt, entry)
            continue
        videos = [path for path in comfy_server.files(entry) if path.suffix == ".mp4"]
        assert len(videos) == 1 and videos[0].stat().st_size > 500, name


def judged_in_full(server: ComfyServer, prompt: dict[str, Any], entry: dict[str, Any]) -> None:
    """The report lies beside the film, with every shot of its storyboard measured, and its sheet is shown."""
    nodes = {one["class_type"]: (number, one["inputs"]) for number, one in prompt.items()}
    told = json.loads(nodes["VideoMemoryStoryboard"][1]["storyboard"])["shots"]
    number, inputs = nodes["VideoMemoryFilmReport"]
    beside = server.output_dir / "video_memory" / inputs["film"] / "film_report.json"
    shots = json.loads(beside.read_text(encoding="utf-8"))["shots"]
    assert [shot["prompt"] for shot in shots] == [shot["prompt"] for shot in told] and len(told) == 4
    assert all({"clarity", "dynamics"} <= shot["measures"].keys() for shot in shots)
    assert entry["outputs"][number]["images"] and "| shot" in entry["outputs"][number]["text"][0]


@pytest.mark.parametrize("name", AT_ONCE[4:])
def test_a_template_that_asks_for_nothing_opens_on_a_fresh_installation(name: str, comfy_server: ComfyServer) -> None:
    comfy_server.queue(template(name))  # refused if anything were missing
    comfy_server.post("/queue", {"clear": True})
    comfy_server.interrupt()
