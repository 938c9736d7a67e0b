"""The real ComfyUI starts on the CPU, answers, and tells of failures in the words our tests rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools.comfy_server import ComfyError, ComfyInterrupted, ComfyServer

CORE_NODES = ["UNETLoader", "SamplerCustomAdvanced", "SaveVideo", "CreateVideo", "VAELoader", "LoraLoaderModelOnly"]

# A node pack written into the test's folder: one node that fails, one that reports progress until it is cancelled.
NODES = """
import time
import comfy.model_management as mm
from comfy.utils import ProgressBar
from server import PromptServer

class Fail:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "run", (), True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {})}}
    def run(self, text):
        raise ValueError(text)

class Wait:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "run", (), True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"steps": ("INT", {"default": 1, "max": 9999})}, "hidden": {"id": "UNIQUE_ID"}}
    def run(self, steps, id):
        bar = ProgressBar(steps)
        for step in range(steps):
            PromptServer.instance.send_progress_text(f"step {step + 1} of {steps}", id)
            bar.update(1)
            time.sleep(0.02)
            mm.throw_exception_if_processing_interrupted()
        return {"ui": {"text": ["done"]}}

NODE_CLASS_MAPPINGS = {"TestFail": Fail, "TestWait": Wait}
"""


@pytest.fixture(scope="module")
def server(comfy_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("server")
    extra = folder / "test_only_nodes.py"
    extra.write_text(NODES)
    with ComfyServer(folder / "base", environment=comfy_environment, custom_nodes=[extra], pack=None) as running:
        yield running


def test_it_offers_the_core_nodes_the_pack_is_used_with(server: ComfyServer) -> None:
    offered = server.object_info()
    assert [name for name in CORE_NODES if name not in offered] == []
    assert list(server.object_info("UNETLoader")) == ["UNETLoader"]


def test_no_core_node_module_fails_to_import(server: ComfyServer) -> None:
    assert "IMPORT FAILED" not in server.log.read_text()


def test_it_keeps_to_its_base_directory(server: ComfyServer, comfy_environment: Any) -> None:
    picture = server.upload(Path(__file__).parent / "conftest.py", "a.png")
    assert picture in server.object_info("LoadImage")["LoadImage"]["input"]["required"]["image"][0]
    assert not (comfy_environment.comfy / "user").exists()


def test_a_prompt_runs_and_reports_steps_and_text(server: ComfyServer) -> None:
    seen: list[dict[str, Any]] = []
    prompt = {"7": {"class_type": "TestWait", "inputs": {"steps": 20}}}
    entry = server.wait(server.queue(prompt), on_progress=seen.append)
    assert entry["outputs"]["7"]["text"] == ["done"]
    assert {"node": "7", "text": "step 20 of 20"} in [m["data"] for m in seen if m["type"] == "progress_text"]
    states = [m["data"]["nodes"]["7"] for m in seen if m["type"] == "progress_state" and "7" in m["data"]["nodes"]]
    assert states and all(state["max"] in (1, 20) for state in states)


def test_a_failing_node_is_named_with_its_message(server: ComfyServer) -> None:
    with pytest.raises(ComfyError, match="ValueError: no such film") as caught:
        server.run({"3": {"class_type": "TestFail", "inputs": {"text": "no such film"}}})
    assert (caught.value.node_id, caught.value.class_type) == ("3", "TestFail")


def test_a_refused_prompt_names_the_node_and_the_input(server: ComfyServer) -> None:
    with pytest.raises(ComfyError, match="steps") as caught:
        server.queue({"4": {"class_type": "TestWait", "inputs": {}}})
    assert (caught.value.node_id, caught.value.class_type) == ("4", "TestWait")


def test_an_unknown_node_is_refused(server: ComfyServer) -> None:
    with pytest.raises(ComfyError, match="NoSuchNode"):
        server.queue({"5": {"class_type": "NoSuchNode", "inputs": {}}})


def test_interrupt_ends_the_running_prompt_and_the_next_one_works(server: ComfyServer) -> None:
    def cancel(message: dict[str, Any]) -> None:
        if message["type"] == "progress_text":
            server.interrupt(prompt_id)

    prompt_id = server.queue({"8": {"class_type": "TestWait", "inputs": {"steps": 2000}}})
    with pytest.raises(ComfyInterrupted):
        server.wait(prompt_id, on_progress=cancel)
    server.run({"9": {"class_type": "TestWait", "inputs": {"steps": 2}}})


def test_a_killed_server_is_reported_and_can_be_started_again(server: ComfyServer) -> None:
    prompt_id = server.queue({"10": {"class_type": "TestWait", "inputs": {"steps": 3000}}})
    server.kill()
    assert server.pid is None
    with pytest.raises(ComfyError, match="the server has ended"):
        server.wait(prompt_id)
    server.start()
    server.run({"11": {"class_type": "TestWait", "inputs": {"steps": 3}}})


def test_comfyui_is_imported_into_this_process_on_the_cpu(comfy: Any) -> None:
    assert comfy.model_management.get_torch_device().type == "cpu"
    assert comfy.nodes.NODE_CLASS_MAPPINGS["VAELoader"].__name__ == "VAELoader"
    assert Path(comfy.folder_paths.get_output_directory()).parent == comfy.base
    assert comfy.module("comfy_extras.nodes_custom_sampler").SamplerCustomAdvanced
