"""What the page is told and can ask about films and training runs, through the real ComfyUI's server."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from benchmarks.faults.mutation import json_text
from memory_encoder.evaluation.judge.judge_command import write_report
from memory_encoder.evaluation.judge.report import FallsOut, FilmReport, ShotReport
from tools.comfy_server import ComfyError, ComfyServer
from tools.environment import ROOT

from .films import PROMPTS, SAMPLER, film, latent_bytes, write_models

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
BAD_NAMES = ["..", "a/b", "a\\b", "%00", " ", "con", ".hidden", "x" * 300, "a:b"]


@pytest.fixture(scope="module")
def server(comfy: Any, comfy_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """ComfyUI with the pack and untrained models of two blocks."""
    work = tmp_path_factory.mktemp("routes_server")
    write_models(work / "models")
    with ComfyServer(work, environment=comfy_environment, custom_nodes=[ROOT / "demo" / "nodes"]) as running:
        yield running


def ask(server: ComfyServer, path: str) -> tuple[int, bytes, str]:
    """Status, body and type of an answer, also of a refusal."""
    try:
        with OPENER.open(server.url + path, timeout=300) as answer:
            return answer.status, answer.read(), answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers.get_content_type()


def state(server: ComfyServer, name: str) -> dict[str, Any]:
    status, body, _ = ask(server, f"/video_memory/film/{urllib.parse.quote(name)}")
    assert status == 200
    return json.loads(body)


def statuses(server: ComfyServer, name: str) -> list[str]:
    return [record["status"] for record in state(server, name)["sections"]]


@pytest.fixture(scope="module")
def told(server: ComfyServer) -> list[dict[str, Any]]:
    """What the page is told while the film "told" of two sections is made."""
    messages: list[dict[str, Any]] = []

    def listen(message: dict[str, Any]) -> None:
        if message["type"] == "video_memory.section":
            messages.append(message["data"])

    prompt = film("told", PROMPTS[:2], steps=20)
    server.wait(server.queue(prompt), on_progress=listen)
    return messages


def test_a_report_beside_the_film_marks_the_section_that_it_judged(server: ComfyServer, told: list[Any]) -> None:
    folder = server.output_dir / "video_memory" / "told"
    keys = {record["index"] + 1: record["key"] for record in state(server, "told")["sections"]}
    odd = FallsOut("identity", "shot 2: the face differs from shot 1", 0.3, 0.7)
    shot = ShotReport(2, 0.5, 0.5, sections=(2,), falls_out=[odd])
    report = FilmReport("told", 16, 1, (64, 48), shots=[shot], stills={2: np.zeros((24, 32, 3), np.uint8)})
    write_report(report, folder, keys=keys)
    assert [record.get("falls_out") for record in state(server, "told")["sections"]] == [None, [odd.to_dict()]]
    write_report(report, folder, keys=keys | {2: "another take"})
    assert [record.get("falls_out") for record in state(server, "told")["sections"]] == [None, None]


def test_page_is_told_of_the_plan_every_section_and_every_end(told: list[dict[str, Any]]) -> None:
    assert all(message["film"] == "told" and message["node"] == SAMPLER and message["count"] == 2 for message in told)
    order = [(m["state"], m.get("index")) for m in told if m["state"] not in ("step", "preview")]
    assert order == [("started", None), ("sampling", 0), ("done", 0), ("sampling", 1), ("done", 1)]
    assert [entry["prompt"] for entry in told[0]["sections"]] == list(PROMPTS[:2])
    steps = [message for message in told if message["state"] == "step"]
    assert {message["index"] for message in steps} == {0, 1}
    assert all(0 < message["step"] <= 20 == message["steps"] and message["left"] >= 0 for message in steps)


def test_live_preview_is_a_small_moving_picture(told: list[dict[str, Any]]) -> None:
    previews = [message["image"] for message in told if message["state"] == "preview"]
    assert previews
    for image in previews:
        kind, data = image.split(",")
        assert kind == "data:image/webp;base64" and len(data) < 100_000
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.n_frames > 1 and picture.width <= 256  # type: ignore[attr-defined]


def test_finished_film_is_read_from_disk_after_a_restart(server: ComfyServer, told: list[dict[str, Any]]) -> None:
    before = state(server, "told")
    server.stop()
    server.start()
    after = state(server, "told")
    assert after == before
    assert [record["clip"] for record in after["sections"]] == [True, True]
    assert [record["take"] for record in after["sections"]] == [0, 0]
    assert [entry["seconds"] for entry in after["plan"]] == [record["seconds"] for record in after["sections"]]


def test_clip_moves_and_its_still_is_one_picture(server: ComfyServer, told: list[dict[str, Any]]) -> None:
    key = state(server, "told")["sections"][1]["key"]
    for query, moves in (("", True), (f"?key={key}", True), (f"?key={key}&still=1", False)):
        status, body, kind = ask(server, f"/video_memory/film/told/clip/1{query}")
        assert (status, kind) == (200, "image/webp")
        with Image.open(io.BytesIO(body)) as picture:
            assert picture.size == (64, 48) and (getattr(picture, "n_frames", 1) > 1) is moves
    assert ask(server, f"/video_memory/film/told/clip/1?key={'0' * 64}")[0] == 404, "a take that never was"
    assert ask(server, "/video_memory/film/told/clip/1?key=../../secret")[0] == 400


def test_unknown_film_is_empty_and_what_is_not_there_is_404(server: ComfyServer) -> None:
    nothing = {"plan": [], "before": 0, "sections": [], "run": None, "queue": {"own": "", "pending": 0}}
    assert state(server, "never made") == {"film": "never made", **nothing}
    assert not (server.output_dir / "video_memory" / "never made").exists(), "asking creates nothing"
    for path in ("film/never%20made/clip/0", "training/never%20made/recalled"):
        assert ask(server, f"/video_memory/{path}")[0] == 404


@pytest.mark.parametrize("name", BAD_NAMES)
def test_name_that_is_not_one_folder_is_refused_with_its_reason(server: ComfyServer, name: str) -> None:
    quoted = name if name == "%00" else urllib.parse.quote(name, safe="")
    named = [path for _, path in every_route() if "told" in path or "a%20run" in path]
    for path in (path.replace("told", quoted).replace("a%20run", quoted)[len("/video_memory/") :] for path in named):
        status, body, _ = ask(server, f"/video_memory/{path}")
        # ".." never arrives: HTTP resolves it, or the server knows no such route.
        assert status == 400 or (name == ".." and status in (404, 405)), (path, status)
        if status == 400:
            assert json.loads(body)["error"]


def every_route() -> list[tuple[str, str]]:
    """Method and path of each route that the pack has, as its source says, with a name that is there."""
    source = (ROOT / "nodes" / "routes.py").read_text(encoding="utf-8")
    found = re.findall(r'routes\.(get|post)\("([^"]+)"\)', source)
    names = {"{film}": "told", "{index}": "0", "{run}": "a%20run"}
    return [(method.upper(), re.sub(r"\{\w+\}", lambda m: names[m[0]], path)) for method, path in found]


def asked(server: ComfyServer, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> int:
    request = urllib.request.Request(server.url + path, body, headers, method=method)
    try:
        with OPENER.open(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file's time and content, hidden ones too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# What a browser sends for a page of another site, in a sandbox, of another port, or under another name (rebinding).
FOREIGN = (
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
)
REBOUND = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}


def test_no_route_answers_another_site_and_none_changes_a_file_whoever_asks_and_how(
    server: ComfyServer, told: list[dict[str, Any]]
) -> None:
    """Under a name of its own (DNS rebinding) a page gets what core gives it: answers, see SECURITY.md."""
    broken = server.output_dir / "video_memory" / "told"
    shutil.copytree(broken, broken.with_name("broken"), dirs_exist_ok=True)
    (broken.with_name("broken") / "manifest.json").write_bytes(b"{half")
    before, routes = tree(server.output_dir), every_route()
    assert len(routes) >= 7
    for method, path in [*routes, *((m, p.replace("told", "broken")) for m, p in routes if "told" in p)]:
        body = b'{"storyboard": "a"}' if method == "POST" else None
        for headers in FOREIGN:
            assert asked(server, method, path, headers, body) == 403, (path, headers)
        for headers in ({}, REBOUND, {"Content-Type": "text/plain"}):
            assert asked(server, method, path, headers, body) in (200, 404), (path, headers)
        for other in {"POST", "PUT", "DELETE", "PATCH"} - {method}:
            assert asked(server, other, path, {}, b"{}") == 405, (path, other)
    assert tree(server.output_dir) == before


def test_links_out_of_a_training_run_are_not_followed(server: ComfyServer) -> None:
    folder = server.output_dir / "video_memory_training" / "linked"
    folder.mkdir(parents=True)
    (server.output_dir / "secret").write_text('{"step": 0, "loss": 1.5}')
    for name in ("recalled.png", "losses.jsonl"):
        (folder / name).symlink_to(server.output_dir / "secret")
    answer = json.loads(ask(server, "/video_memory/training/linked")[1])
    assert answer["losses"] == [] and answer["recalled"] is None
    assert ask(server, "/video_memory/training/linked/recalled")[0] == 404


@pytest.mark.parametrize("index", ["-1", "1.0", "x", "99999999", "%D9%A1"])
def test_section_that_is_no_number_is_refused(server: ComfyServer, index: str) -> None:
    assert ask(server, f"/video_memory/film/told/clip/{index}")[0] == 400


def test_manifest_that_names_another_file_leads_nowhere(server: ComfyServer) -> None:
    folder = server.output_dir / "video_memory" / "foreign"
    folder.mkdir(parents=True)
    (server.output_dir / "secret.webp").write_bytes(b"secret")
    good = {"index": 0, "key": "a" * 64, "status": "stored", "file": "../../secret.webp"}
    bad = [good | {"key": "../../secret"}, good | {"index": "0/../../.."}, good | {"index": True}, good | {"key": None}]
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "film": "foreign", "sections": [good, *bad]}))
    (folder / "plan.json").write_text("[" * 100_000)
    (folder / f"section_0000_{'a' * 16}.safetensors").touch()
    assert [record["key"] for record in state(server, "foreign")["sections"]] == ["a" * 64]
    assert ask(server, "/video_memory/film/foreign/clip/0")[0] == 404


def test_redo_makes_one_section_anew_and_its_first_take_comes_back_from_disk(server: ComfyServer) -> None:
    prompts = PROMPTS[:3]
    server.run(film("takes", prompts))
    first = latent_bytes(server, "takes")
    server.run(film("takes", prompts, redo='{"2": 1}', locks="3"))
    assert statuses(server, "takes") == ["reused", "stored", "locked"]
    assert [record["take"] for record in state(server, "takes")["sections"]] == [0, 1, 0]
    assert latent_bytes(server, "takes") != first
    assert [record["versions"] for record in state(server, "takes")["sections"]] == [1, 2, 1]
    kept = json.loads(ask(server, "/video_memory/film/takes/takes/1")[1])["takes"]
    assert [version["take"] for version in kept] == [0, 1]
    assert kept[1]["key"] == state(server, "takes")["sections"][1]["key"]
    clips = [ask(server, f"/video_memory/film/takes/clip/1?key={version['key']}")[1] for version in kept]
    assert clips[0] != clips[1] and all(clips)
    assert json.loads(ask(server, "/video_memory/film/takes/takes/7")[1])["takes"] == []
    server.run(film("takes", prompts, redo='{"2": 0}'))
    assert statuses(server, "takes") == ["reused"] * 3
    assert latent_bytes(server, "takes") == first


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [({"redo": "2"}, "no object"), ({"redo": '{"9": 1}'}, "the film has 2"), ({"locks": "0"}, "counted from 1")],
)
def test_redo_and_locks_that_make_no_sense_are_refused(
    server: ComfyServer, inputs: dict[str, str], reason: str
) -> None:
    with pytest.raises(ComfyError, match=reason):
        server.run(film("told", PROMPTS[:2], steps=20, **inputs))


def test_a_section_whose_file_is_gone_is_not_finished_and_the_next_run_makes_it(server: ComfyServer) -> None:
    prompt = film("gone", PROMPTS[:3], steps=1)
    server.run(prompt)
    (path,) = (server.output_dir / "video_memory" / "gone").glob("section_0001_*.safetensors")
    content = load_file(path)["latents"]
    path.unlink()
    assert [record["index"] for record in state(server, "gone")["sections"]] == [0, 2]
    server.run(prompt)
    assert torch.equal(load_file(path)["latents"], content)
    assert statuses(server, "gone") == ["reused", "stored", "reused"]


def test_clip_that_was_deleted_is_made_again_without_sampling(server: ComfyServer, told: list[dict[str, Any]]) -> None:
    clips = sorted((server.output_dir / "video_memory" / "told").glob("*.webp"))
    assert len(clips) == 2
    content = clips[0].read_bytes()
    clips[0].unlink()
    server.run(film("told", PROMPTS[:2], steps=20, locks="1"))
    assert clips[0].read_bytes() == content


def test_run_of_a_training_is_read_without_what_is_no_number(server: ComfyServer) -> None:
    folder = server.output_dir / "video_memory_training" / "a run"
    folder.mkdir(parents=True)
    lines = [
        '{"step": 0, "loss": 1.5}',
        '{"step": 1, "loss": NaN}',
        '{"step": 1, "heldout": 2.0}',
        '{"step": 1, "parts": {"without memory": 2.5, "predicting nothing": 3.0}}',
        '{"step": 2, "parts": {"without memory": NaN, "predicting nothing": "none"}}',
        '{"step": 3, "parts": []}',
        "[1]",
        '{"step": 2, "lo',
    ]
    (folder / "losses.jsonl").write_text("\n".join(lines))
    Image.new("RGB", (8, 8)).save(folder / "recalled.png")
    answer = json.loads(ask(server, "/video_memory/training/a%20run")[1])
    assert (answer["losses"], answer["heldout"]) == ([[0, 1.5]], [[1, 2.0]]) and answer["recalled"] > 0
    assert (answer["without_memory"], answer["nothing"]) == ([[1, 2.5]], 3.0)
    status, _, kind = ask(server, "/video_memory/training/a%20run/recalled")
    assert (status, kind) == (200, "image/png")


def test_preview_that_cannot_be_drawn_does_not_fail_the_film(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = pack_module(load_pack, "film_events")
    store = pack_module(load_pack, "film_events").SectionStore(tmp_path, "film")
    (tmp_path / "film").write_text("a file in the folder's place")
    told = events.FilmEvents(store, [], object(), 4, [], ())
    told.started([])
    told.started([])
    assert sum("render view is not told" in record.message for record in caplog.records) == 1, "one warning is enough"


def test_a_page_that_asks_is_told_of_the_run_while_it_goes_on_and_not_after(
    comfy: Any, load_pack: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events, routes = pack_module(load_pack, "film_events"), pack_module(load_pack, "routes")
    monkeypatch.setattr(routes.folders, "film_root", lambda: tmp_path)
    told = events.FilmEvents(events.SectionStore(tmp_path, "film"), [], object(), 4, [], ())
    with pytest.raises(InterruptedError), told.going_on():
        assert routes.film_state("film")["run"] is None, "nothing has been said yet"
        told._send("step", index=1, step=2, steps=4, left=3.0)
        told._send("preview", index=1, image="a large picture")
        run = routes.film_state("film")["run"]
        assert (run["state"], run["index"], run["step"]) == ("step", 1, 2)
        assert routes.film_state("other")["run"] is None
        raise InterruptedError
    assert routes.film_state("film")["run"] is None


def test_a_page_that_asks_is_told_of_a_run_whose_sampler_has_not_begun(
    comfy: Any, load_pack: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = pack_module(load_pack, "film_queue")
    prompt = {
        "1": {"class_type": "UNETLoader", "inputs": {}},
        "2": {"class_type": "VideoMemorySampler", "inputs": {"model": ["1", 0], "film": "caf\u00e9"}},
        "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0]}},
        "4": {"class_type": "PrimitiveString", "inputs": {"value": "linked"}},
        "5": {"class_type": "VideoMemorySampler", "inputs": {"film": ["4", 0]}},
    }
    other = {"1": {"class_type": "KSampler", "inputs": {"film": "linked"}}}
    queue = SimpleNamespace(
        get_current_queue_volatile=lambda: ([(0, "a", prompt)], [(1, "b", other), (2, "c", prompt)])
    )
    page = SimpleNamespace(prompt_queue=queue, last_node_id=None)
    monkeypatch.setattr(queues, "prompt_server", lambda: page)
    own = lambda film, ran=None: queues.queue_state(film, ran)["own"]  # noqa: E731
    assert queues.queue_state("linked") == {"own": "loading", "pending": 2}
    assert own("cafe\u0301") == "loading" and own("another") == ""
    for node, expected in [("1", "loading"), ("2", "loading"), ("3", "waiting"), ("4", "waiting")]:
        page.last_node_id = node
        assert own("caf\u00e9") == expected, f"while node {node} runs"
    page.last_node_id = None
    assert own("caf\u00e9", "a") == "waiting", "its run is over, that of the prompt behind it is to come"


def test_names_of_films_runs_and_datasets_are_offered_with_the_newest_first(
    comfy: Any, load_pack: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    routes = pack_module(load_pack, "routes")
    monkeypatch.setattr(routes.folders, "film_root", lambda: tmp_path / "films")
    assert routes.names()["films"] == [], "nothing has been made yet"
    for age, name in enumerate(("new", "ålter", ".hidden", "oldest")):
        (tmp_path / "films" / name).mkdir(parents=True)
        os.utime(tmp_path / "films" / name, (1000 - age, 1000 - age))
    (tmp_path / "films" / "a file").touch()
    (tmp_path / "films" / "a link").symlink_to(tmp_path)
    assert routes.names()["films"] == ["new", "ålter", "oldest"]
    assert set(routes.names()) == {"films", "runs", "datasets", "memories"}


def test_inspector_gets_psnr_of_every_frame_and_pictures_of_a_bounded_number(
    comfy: Any, load_pack: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(comfy.folder_paths, "temp_directory", str(tmp_path))
    inspection = pack_module(load_pack, "inspection")
    original = torch.rand(200, 12, 16, 3, generator=torch.Generator().manual_seed(0))
    recalled = original.clone()
    recalled[5:] = (recalled[5:] + 0.1).clamp(0, 1)
    (shown,) = inspection.recall_ui(original, recalled)["video_memory_recall"]
    assert shown["psnr"][:5] == [None] * 5 and all(20 <= value < 25 for value in shown["psnr"][5:])
    frames = [pair["frame"] for pair in shown["pairs"]]
    assert (
        len(frames) == inspection.MAX_PAIRS and frames[0] == 0 and frames[-1] == 199 and frames == sorted(set(frames))
    )
    for pair in (shown["pairs"][0], shown["pairs"][-1]):
        with Image.open(tmp_path / shown["subfolder"] / pair["recalled"]) as picture:
            assert picture.size == (16, 12)
    json.dumps(shown, allow_nan=False)


def test_timeline_counts_frames_as_the_causal_vae_does(comfy: Any, load_pack: Callable[..., ModuleType]) -> None:
    inspection = pack_module(load_pack, "inspection")
    assert [inspection.first_frame(k, 4) for k in (0, 1, 2)] == [0, 1, 5]
    assert [inspection.last_frame(k, 4) for k in (0, 1, 2)] == [0, 4, 8]


@pytest.mark.parametrize("client", ["page", None])
def test_messages_go_to_the_page_that_queued_and_to_none_where_none_did(
    comfy: Any, load_pack: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, client: str | None
) -> None:
    events, sent = pack_module(load_pack, "events"), []
    server = SimpleNamespace(client_id=client, send_sync=lambda *message: sent.append(message))
    monkeypatch.setattr(events, "prompt_server", lambda: server)
    events.send("video_memory.section", {"film": "f"})
    assert sent == ([] if client is None else [("video_memory.section", {"film": "f"}, client)])


def pack_module(load_pack: Callable[..., ModuleType], name: str) -> ModuleType:
    import importlib

    pack = load_pack("video_memory_pack")
    return importlib.import_module(f"{pack.__name__}.nodes.{name}")


@settings(max_examples=int(os.environ.get("VIDEO_MEMORY_FUZZ", "60")), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(random=st.randoms(use_true_random=False), name=st.sampled_from(["manifest.json", "plan.json", "pictures.json"]))
def test_whatever_a_films_folder_holds_its_state_is_json_or_one_error(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, random: Any, name: str
) -> None:
    """What a page is answered about a film from elsewhere; no file of it is moved or changed."""
    routes = pack_module(load_pack, "routes")
    facts = {"status": "stored", "latents": 2, "frames": 5, "fps": 16.0, "width": 32, "height": 32, "chain": "b"}
    records = [{"index": i, "key": "a" * 64, "prompt": "a cat", "previous": "b" * i, **facts} for i in range(2)]
    pictures = [{"id": "2:40", "section": 1, "frame": 40, "kept": True, "image": "data:image/webp;base64,"}]
    good = {
        "manifest.json": {"version": 1, "film": "film", "sections": records},
        "plan.json": {"version": 1, "film": "film", "sections": records},
        "pictures.json": {"version": 1, "film": "film", "pictures": pictures},
    }
    folder = tmp_path / "film"
    folder.mkdir(exist_ok=True)
    for other, values in good.items():
        (folder / other).write_text(json.dumps(values))
    content = json_text((folder / name).read_bytes(), random)
    (folder / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes.folders, "film_root", lambda: tmp_path)
        for question in (lambda: routes.film_state("film"), lambda: routes.takes("film", 0)):
            try:
                text = routes.as_json(question()).text
            except (ValueError, OSError) as error:  # which `answering` makes an answer of
                assert 0 < len(str(error)) < 1500
            else:
                json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(good) and (folder / name).read_bytes() == content
