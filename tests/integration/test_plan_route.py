"""The plan route of a real ComfyUI: what the storyboard editor asks while a person types."""

from __future__ import annotations

import importlib
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from demo.tiny_family.install import install_models
from memory_encoder.film.plan import PlanRequest, film_plan
from tools.comfy_server import ComfyServer
from tools.environment import Environment

ROUTE = "/video_memory/plan"
TEXT = "[0s: a kitchen] [5s: a street] [10s-15s: the kitchen again]"


@pytest.fixture(scope="module")
def server(comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    work = tmp_path_factory.mktemp("plan_server")
    install_models(work / "models")
    (work / "models" / "memory_encoders" / "broken.safetensors").write_bytes(b"no encoder")
    with ComfyServer(work, environment=comfy_environment) as running:
        yield running


def ask(server: ComfyServer, body: Any, path: str = ROUTE, **headers: str) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json", **headers})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("path", [ROUTE, "/api" + ROUTE])
def test_the_route_answers_with_the_librarys_own_plan(server: ComfyServer, path: str) -> None:
    body = {"storyboard": TEXT, "fps": 24, "section_seconds": 2.5, "host": "wan-5b", "card_gib": 8}
    assert ask(server, body, path) == (200, json.loads(json.dumps(film_plan(PlanRequest.from_dict(body)))))


def test_the_budget_equals_the_nodes(server: ComfyServer) -> None:
    """The tiny encoder's file, asked by its name, against Memory Budget run on the loaded encoder."""
    name = "tiny_memory_2x2x2.safetensors"
    asked = {"width": 128, "height": 96, "section_seconds": 2.5}  # half of the sections go on
    status, answer = ask(server, {"storyboard": TEXT, "encoders": [name], **asked})
    assert status == 200 and answer["budget"]["rates"] == ["2x2x2"]
    inputs = {"fps": 16.0, "history_seconds": 15.0, **asked}
    prompt = {
        "1": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "tiny_wan_host.safetensors", "weight_dtype": "default"},
        },
        "2": {
            "class_type": "VideoMemoryEncoderLoader",
            "inputs": {"model": ["1", 0], "encoder_name": name, "lora_name": "none", "lora_strength": 1.0},
        },
        "3": {"class_type": "VideoMemoryBudget", "inputs": {"memory_encoder": ["2", 1], **inputs}},
    }
    [text] = server.run(prompt)["outputs"]["3"]["text"]
    report = answer["budget"]["report"]
    assert "sliding_window" in report and text.startswith(
        f"{report}\ntrained on history"
    )  # which the node says behind it


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"{", "request", "no JSON"),
        (b"\xff\xfe", "request", "no JSON"),
        (b"[" * 100_000, "request", "no JSON"),
        ([], "request", "no object"),
        ({"storyboard": TEXT, "fps": "16"}, "fps", "give a number"),
        (b'{"storyboard": "a", "fps": NaN}', "fps", "give a number"),
        ({"storyboard": ""}, "storyboard", "is empty"),
        ({"storyboard": "[0s: a"}, "storyboard", "the bracket is not closed"),
        ({"storyboard": '"\ud800"'}, "storyboard", "control character"),
        ({"storyboard": "a", "encoders": ["none.safetensors"]}, "encoders", "not in models/memory_encoders"),
        (
            {"storyboard": "a", "encoders": ["../vae/tiny_wan_vae.safetensors"]},
            "encoders",
            "not in models/memory_encoders",
        ),
        ({"storyboard": "a", "encoders": ["/etc/passwd"]}, "encoders", "not in models/memory_encoders"),
        ({"storyboard": "a", "encoders": ["broken.safetensors"]}, "encoders", "download the file again"),
    ],
)
def test_a_wrong_question_is_refused_with_its_field_and_cure(
    server: ComfyServer, body: Any, field: str, words: str
) -> None:
    status, answer = ask(server, body)
    assert status == (400 if field == "request" else 200), "a text that is being written is no error of the page"
    assert answer["field"] == field and words in answer["error"], answer


@pytest.mark.parametrize("path", [ROUTE, "/api" + ROUTE, "/video_memory/names", "/video_memory/film/a"])
def test_pages_of_another_site_and_in_a_sandbox_get_no_answer(server: ComfyServer, path: str) -> None:
    body = {"storyboard": "a"} if path.endswith(ROUTE) else None
    for headers in (
        {"Origin": "null"}, {"Sec-Fetch-Site": "same-site", "Origin": server.url}, {"Sec-Fetch-Site": "same-site"},
    ):  # fmt: skip
        assert ask(server, body, path, **headers) == (403, {"error": "a page of another site may not ask"})
    for headers in ({}, {"Sec-Fetch-Site": "same-origin", "Origin": server.url}, {"Sec-Fetch-Site": "none"}):
        assert ask(server, body, path, **headers)[0] == 200


def test_a_question_of_megabytes_is_refused_and_the_server_goes_on(server: ComfyServer) -> None:
    status, answer = ask(server, {"storyboard": "x" * 3_000_000})
    assert status == 413 and "2 MiB" in answer["error"]
    assert ask(server, {"storyboard": "a"})[0] == 200


def test_thousands_of_shots_are_answered(server: ComfyServer) -> None:
    text = json.dumps({"shots": [{"start": n, "end": n + 1, "prompt": "x"} for n in range(5000)]})
    status, answer = ask(server, {"storyboard": text})
    assert status == 200 and answer["section_count"] == 5000


def test_without_a_server_the_pack_loads_and_serves_nothing(comfy: Any, load_pack: Any) -> None:
    routes = importlib.import_module(f"{load_pack().__name__}.nodes.routes")
    assert routes.prompt_server() is None
    routes.register_routes()
