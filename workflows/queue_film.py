"""Make a film from a storyboard file through ComfyUI's HTTP API. Standard library only.

    python queue_film.py story.json                                  with the workflow for Wan 2.2 5B
    python queue_film.py story.txt --workflow api/wan22_14b_film.json --film lighthouse --seed 7 --save film.mp4

The storyboard is in any of the pack's formats. ComfyUI has to run (--server, default http://127.0.0.1:8188) and to have
the models that the workflow names. Queue the same film again after a change: sections before the change are reused.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class QueueError(RuntimeError):
    """The server refused or could not finish; the message says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storyboard", type=Path, help="text file with the shots")
    parser.add_argument("--workflow", type=Path, default=HERE / "api" / "wan22_5b_film.json", help="in API form")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of ComfyUI")
    parser.add_argument("--film", help="name of the film's folder in output/video_memory; default: of the file")
    parser.add_argument("--seed", type=int, help="default: the workflow's")
    parser.add_argument("--save", type=Path, help="copy the film to this file")
    parser.add_argument("--timeout", type=float, default=24 * 3600.0, help="seconds")
    args = parser.parse_args()
    try:
        server = Server(args.server)
        prompt = read_workflow(args.workflow)
        film = args.film or args.storyboard.stem
        prepare(prompt, read_text(args.storyboard, "storyboard"), film, args.seed)
        prompt_id = server.queue(prompt)
        print(f"queued {film} as {prompt_id}", flush=True)
        entry = server.wait(prompt_id, args.timeout)
        return show(server, entry, args.save)
    except KeyboardInterrupt:
        print("no longer waiting; the film goes on in ComfyUI", file=sys.stderr)
        return 130
    except (QueueError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def read_text(path: Path, what: str) -> str:
    """The text of a file; raises QueueError that names it when it is not there or is in another encoding."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise QueueError(
            f"{what} {path} is not UTF-8 text (byte {error.start + 1} is {error.object[error.start]:#04x}); "
            "save it as UTF-8 in your text editor"
        ) from error
    except OSError as error:
        raise QueueError(f"{what} {path} cannot be read: {error.strerror or error}") from error


def read_workflow(path: Path) -> dict[str, Any]:
    """A workflow in API form: nodes by their ids."""
    try:
        prompt = json.loads(read_text(path, "workflow"))
    except (ValueError, RecursionError) as error:
        raise QueueError(f"workflow {path} is not JSON ({error}); export it again") from error
    if not isinstance(prompt, dict) or not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
        for node in prompt.values()
    ):
        raise QueueError(f"workflow {path} is not in API form; use Workflow > Export (API), or a file of workflows/api")
    return prompt


def prepare(prompt: dict[str, Any], storyboard: str, film: str, seed: int | None) -> None:
    """Writes the story, the film's name and the seed into the nodes that take them; raises QueueError without them."""
    find(prompt, "VideoMemoryStoryboard")["storyboard"] = storyboard
    sampler = find(prompt, "VideoMemorySampler")
    sampler["film"] = film
    if seed is not None:
        sampler["seed"] = seed
    for node in prompt.values():
        if node["class_type"] in ("SaveVideo", "VideoMemorySaveFilm"):
            node["inputs"]["filename_prefix"] = f"video/{film}"


def find(prompt: dict[str, Any], class_type: str) -> dict[str, Any]:
    """Inputs of the only node of a class."""
    found = [node["inputs"] for node in prompt.values() if node.get("class_type") == class_type]
    if len(found) != 1:
        raise QueueError(f"the workflow has {len(found)} nodes {class_type}, one is needed; is it a film in API form?")
    return found[0]


def show(server: Server, entry: dict[str, Any], save: Path | None) -> int:
    """Prints the reports and where the film lies; copies it when asked to."""
    films: list[dict[str, Any]] = []
    for output in entry["outputs"].values():
        for text in output.get("text", []):
            print(text)
        items = [item for values in output.values() for item in values if isinstance(item, dict)]
        films += [item for item in items if str(item.get("filename", "")).endswith((".mp4", ".webm", ".mkv"))]
    if not films:
        raise QueueError("the workflow saved no video; add Save Film")
    for item in films:
        place = "/".join(part for part in (item.get("type", "output"), item.get("subfolder"), item["filename"]) if part)
        print(f"film: {place}, in ComfyUI's folder")
    if save is not None:
        query = {key: films[-1].get(key, "") for key in ("filename", "subfolder", "type")}
        content = server.get(f"/view?{urllib.parse.urlencode(query)}")
        try:
            save.write_bytes(content)
        except OSError as error:
            raise QueueError(f"cannot write {save}: {error.strerror or error}; the film is in ComfyUI") from error
        print(f"copied to {save}")
    return 0


class Server:
    """The few calls of ComfyUI's API that a script needs."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        # A proxy that the environment names has no business between this script and a ComfyUI at home.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        try:
            with self.opener.open(urllib.request.Request(self.address + path, body, headers), timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise QueueError(refusal(error.read()) or f"{path}: HTTP {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: of an address that is none
            raise QueueError(f"no ComfyUI at {self.address} ({error}); start it, or give --server") from error

    def ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The JSON object that the server answers."""
        try:
            answer = json.loads(self.get(path, body))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise QueueError(f"what answers at {self.address} is not ComfyUI; give its address as --server")
        return answer

    def queue(self, prompt: dict[str, Any]) -> str:
        """The id under which the prompt waits."""
        answer = self.ask("/prompt", json.dumps({"prompt": prompt}).encode())
        if answer.get("node_errors"):  # some outputs are queued, others refused
            raise QueueError(refusal(json.dumps(answer).encode()))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float) -> dict[str, Any]:
        """The history entry of a prompt that came to a good end."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            entry = self.ask(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return checked(entry)
            time.sleep(1.0)
        raise QueueError(f"not done after {timeout:g} s; the film goes on in ComfyUI")


def checked(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry itself; raises QueueError when a node failed or the prompt was cancelled."""
    for kind, data in entry["status"]["messages"]:
        if kind == "execution_error":
            raise QueueError(f"{data['node_type']} (node {data['node_id']}): {data['exception_message'].strip()}")
        if kind == "execution_interrupted":
            raise QueueError("cancelled; finished sections are kept, run this again to go on")
    return entry


def refusal(body: bytes) -> str:
    """What the server says of a prompt it does not take, the node at fault first."""
    try:
        answer = json.loads(body)
    except ValueError:
        return ""
    for node_id, node in (answer.get("node_errors") or {}).items():
        reasons = "; ".join(f"{error['message']}: {error.get('details', '')}" for error in node["errors"])
        return f"{node['class_type']} (node {node_id}): {reasons}"
    error = answer.get("error")
    return str(error.get("message") if isinstance(error, dict) else error or "")


if __name__ == "__main__":
    sys.exit(main())
