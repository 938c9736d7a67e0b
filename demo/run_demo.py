"""The main job on a machine with nothing installed: a film with memory from the real ComfyUI, on the CPU.

Starts ComfyUI headless, queues `workflows/api/tiny_demo.json` through the HTTP API and leaves in `demo/out` the film, a
contact sheet, frames of the opening recalled from the memory of the whole film, and frames of a real clip recalled
from its own. The film opens with two drawn shots that introduce a character; the model makes the four after them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo.clip import find_clip, read_frames, write_frames
from demo.tiny_family.example_clips import drawn
from tools.comfy_server import ComfyError, ComfyServer
from tools.environment import ROOT, cache_folder, prepare

WORKFLOW = ROOT / "workflows" / "api" / "tiny_demo.json"
SIZE, FPS = (128, 96), 16
REAL_FRAMES, REAL_START = 33, 4.5  # a cyclist, then a street
SAMPLER_NODE, CLIP_NODE, CLIP_FRAMES_NODE = "14", "32", "33"
ARGUMENTS = ["--use-pytorch-cross-attention"]  # what runs on cards; on the CPU it is the fastest too


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "demo" / "out", help="where film, contact sheet and report go"
    )
    args = parser.parse_args()
    started = time.monotonic()
    environment = prepare()
    say(f"ComfyUI: {environment.comfy}")
    work = cache_folder() / "demo"  # outside the checkout, since ComfyUI's folder links back to it
    args.out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "output", ignore_errors=True)
    server = ComfyServer(work, environment=environment, extra_args=ARGUMENTS)
    try:
        server.input_dir.mkdir(parents=True, exist_ok=True)
        clip = find_clip(environment.python)
        say(f"real clip: {clip.name}")
        write_frames(server.input_dir / "real.mp4", read_frames(clip, FPS, REAL_FRAMES, SIZE, REAL_START), FPS)
        with server:
            say(f"ComfyUI answers on port {server.port}; {import_time(server)}")
            prompt = with_real_clip(json.loads(WORKFLOW.read_text()), "real.mp4")
            entry = server.wait(server.queue(prompt), timeout=1800, on_progress=Progress(prompt))
    except (ComfyError, ValueError, TimeoutError) as error:
        say(f"failed: {error}")
        return 1
    collect(server, entry, prompt, args.out)
    say(f"done in {time.monotonic() - started:.0f} s")
    return 0


def with_real_clip(prompt: dict[str, Any], name: str) -> dict[str, Any]:
    """The workflow with a clip of `input` in the place of its second drawn one."""
    prompt[CLIP_NODE] |= {"class_type": "LoadVideo", "inputs": {"file": name}}
    prompt[CLIP_FRAMES_NODE]["inputs"]["video"] = [CLIP_NODE, 0]
    return prompt


class Progress:
    """Prints one line per node and one for every few steps of the film."""

    def __init__(self, prompt: dict[str, Any]) -> None:
        self.prompt, self.seen, self.last = prompt, set(), -1

    def __call__(self, message: dict[str, Any]) -> None:
        data = message.get("data", {})
        if message["type"] == "executing" and data.get("node") and data["node"] not in self.seen:
            self.seen.add(data["node"])
            say(f"node {data['node']:>3}  {self.prompt[data['node']]['_meta']['title']}")
        elif message["type"] == "progress" and data.get("node") == SAMPLER_NODE:
            share = 10 * int(data["value"]) // int(data["max"])
            if share != self.last:
                self.last = share
                say(f"          film {data['value']}/{data['max']} steps")


def collect(server: ComfyServer, entry: dict[str, Any], prompt: dict[str, Any], out: Path) -> None:
    """Copies the results to `out` under plain names, draws the contact sheet and prints the reports."""
    files = server.files(entry)
    film = next(path for path in files if path.suffix == ".mp4")
    shutil.copyfile(film, out / "film.mp4")
    pictures = {"retrieval": "retrieval_report.png", "real_clip": "real_clip_recall.png"}
    for part, name in pictures.items():
        shutil.copyfile(next(path for path in files if part in path.name), out / name)
    shots = [(f"opening (drawn): {shot.prompt}", shot.frames) for shot in drawn("Max").shots]
    storyboard = json.loads(prompt["10"]["inputs"]["storyboard"])["shots"]
    shots += [(shot["prompt"], round((shot["end"] - shot["start"]) * FPS)) for shot in storyboard]
    count = sum(frames for _, frames in shots)
    cv2.imwrite(str(out / "contact_sheet.png"), contact_sheet(read_frames(film, FPS, count, SIZE), shots)[..., ::-1])
    for node in (SAMPLER_NODE, "21", "38"):
        for text in entry["outputs"].get(node, {}).get("text", []):
            say(f"{prompt[node]['_meta']['title']}:\n{text}")
    for name in ("film.mp4", "contact_sheet.png", *pictures.values()):
        say(f"{out / name}")


def contact_sheet(frames: np.ndarray, shots: list[tuple[str, int]], columns: int = 6, scale: int = 2) -> np.ndarray:
    """One row per shot, `columns` frames evenly chosen, its prompt above."""
    rows, start = [], 0
    for title, count in shots:
        chosen = start + np.linspace(0, count - 1, columns).round().astype(int)
        strip = np.concatenate([frames[i] for i in chosen], axis=1)
        strip = cv2.resize(strip, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        band = np.full((24, strip.shape[1], 3), 30, np.uint8)
        cv2.putText(band, title[:150], (8, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        rows += [band, strip]
        start += count
    return np.concatenate(rows, axis=0)


def import_time(server: ComfyServer) -> str:
    """What ComfyUI says of the time that importing the pack took."""
    line = next(line for line in server.log_tail(80).splitlines() if "seconds: " in line and server.pack_name in line)
    return f"the pack was imported in {line.split('seconds')[0].split()[-1]} s"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
