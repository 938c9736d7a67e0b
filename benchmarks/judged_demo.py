"""One storyboard's film with its memory, without, and behind another film's, by the real ComfyUI, judged.

    python tools/environment.py run -m benchmarks.judged_demo [--report]

The tiny family makes all of them with one seed on the CPU; `python -m memory_encoder judge` stands the first beside the
others, and the node Film Report judges it too. `--report` writes table and sheet of the films that are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from memory_encoder.cli import main as library
from memory_encoder.evaluation.judge.footage import footage_of_movie
from memory_encoder.evaluation.judge.instruments import Instruments
from memory_encoder.evaluation.judge.judging import judge_film
from memory_encoder.evaluation.judge.report import REPORT_JSON
from memory_encoder.files import write_bytes
from memory_encoder.storyboard import read_storyboard
from tests.unit.judged_films import embed
from tools.comfy_server import ComfyServer
from tools.environment import ROOT, cache_folder, prepare

RESULTS = ROOT / "benchmarks" / "results" / "judged_demo"
WORKFLOW = ROOT / "workflows" / "api" / "judged_film.json"
SECONDS, STILLS = 1.5, 2  # of a shot; pictures of it on the sheet
STORY = (
    "Mira, a girl with long red hair and a green striped shirt, waves in the kitchen",
    "Mira talks in the garden",
    "Leo, a man with short black hair and a blue shirt, waves on the street",
    "Mira waves in the kitchen",
    "Leo talks in the garden",
    "Mira talks on the street",
)
ANOTHER = (
    "Mira, a girl with a blond ponytail and a purple dotted shirt, talks in the bedroom",
    "Mira waves on the beach",
)
FILMS = ("with_memory", "without_memory", "another_memory")
AGAIN = (1, 4)  # shots of the same person in the same place, described in the first of them alone
SAMPLER, STORYBOARD, REPORT, SAVE = "7", "3", "8", "9"


def story(prompts: tuple[str, ...]) -> str:
    shots = [{"start": SECONDS * i, "end": SECONDS * (i + 1), "prompt": prompt} for i, prompt in enumerate(prompts)]
    return json.dumps({"version": 1, "shots": shots, "negative": ""})


def prompt_of(name: str) -> dict[str, Any]:
    """The template with this storyboard, saved as a video; another story's film before it where its memory is given."""
    prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    prompt[STORYBOARD]["inputs"]["storyboard"] = story(STORY)
    sampler = prompt[SAMPLER]["inputs"] | {"film": name, "strength": 0.0 if name == "without_memory" else 1.0}
    prompt[REPORT]["inputs"]["film"] = name
    if name == "another_memory":
        told = {"inputs": prompt[STORYBOARD]["inputs"] | {"storyboard": story(ANOTHER)}}
        prompt["13"] = prompt[STORYBOARD] | told
        prompt["17"] = prompt[SAMPLER] | {"inputs": sampler | {"film": "another_story", "storyboard": ["13", 0]}}
        sampler["memory"] = ["17", 1]
    prompt[SAMPLER]["inputs"] = sampler
    saved = {"filename_prefix": name, "fps": 0, "crf": 10, "match_colours": False, "film": "", "vae": ["1", 2]}
    prompt[SAVE] = {"class_type": "VideoMemorySaveFilm", "inputs": saved | {"latent": [SAMPLER, 0]}}
    return prompt


def make_films(work: Path) -> dict[str, Any]:
    """The films as videos in `work`, and what the node says of the first."""
    shutil.rmtree(work / "comfy" / "output", ignore_errors=True)
    said = {}
    with ComfyServer(work / "comfy", environment=prepare()) as server:
        for name in FILMS:
            entry = server.run(prompt_of(name), timeout=3600)
            video = next(path for path in server.files(entry) if path.suffix == ".mp4")
            shutil.copyfile(video, work / f"{name}.mp4")
            beside = server.output_dir / "video_memory" / name / REPORT_JSON
            said[name] = json.loads(beside.read_text(encoding="utf-8"))
            print(f"{name}: {entry['outputs'][SAMPLER]['text']}", flush=True)
    return said["with_memory"]


def judged(work: Path) -> dict[str, Any]:
    """The command's report of the first film against the others, and how alike the shots AGAIN are by colours."""
    (work / "story.json").write_text(story(STORY), encoding="utf-8")
    against = [part for name in FILMS[1:] for part in ("--against", f"{name}={work / name}.mp4")]
    film = [str(work / f"{FILMS[0]}.mp4"), "--storyboard", str(work / "story.json"), "--out", str(work / "report")]
    if library(["judge", *film, *against]):
        raise RuntimeError("the films could not be judged")
    report = json.loads((work / "report" / REPORT_JSON).read_text(encoding="utf-8"))
    return {name: report[name] for name in ("measures", "means", "against", "missing")} | {
        "falls_out": [one["said"] for shot in report["shots"] for one in shot["falls_out"]],
        "again": {name: again(work / f"{name}.mp4") for name in FILMS},
    }


def again(film: Path) -> dict[str, float]:
    """Of the shots AGAIN, and the mean of all other pairs: the cosine of colours, with no model."""
    told = read_storyboard(story(STORY), section_seconds=SECONDS).storyboard
    report = judge_film(footage_of_movie(film, told), Instruments(embed=embed))
    values = {pair.shots: pair.values["objects"] for pair in report.pairs}
    others = [value for shots, value in values.items() if shots != AGAIN]
    return {"returning": round(values[AGAIN], 4), "others": round(float(np.mean(others)), 4)}


def sheet(work: Path) -> np.ndarray:
    """A row for each film, STILLS pictures of each shot, BGR."""
    rows = []
    for name in FILMS:
        with av.open(str(work / f"{name}.mp4")) as container:
            frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        ends = np.linspace(0, len(frames), len(STORY) * STILLS + 1)
        strip = np.concatenate([frames[int((a + b) / 2)] for a, b in itertools.pairwise(ends)], axis=1)
        band = np.full((20, strip.shape[1], 3), 30, np.uint8)
        cv2.putText(band, name.replace("_", " "), (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,) * 3, 1, cv2.LINE_AA)
        rows += [band, strip]
    return np.concatenate(rows)


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    found, others = result["command"], result["command"]["against"]
    titles = " | ".join(name.replace("_", " ") for name in FILMS)
    first, last = AGAIN
    alike = ", ".join(f"{one['returning']:.2f} {name.replace('_', ' ')}" for name, one in found["again"].items())
    others_alike = ", ".join(f"{one['others']:.2f}" for one in found["again"].values())
    missing = dict.fromkeys(one["measure"] for one in found["missing"] if one["measure"] not in found["means"])
    lines = [
        "# The demo's story, judged",
        "",
        f"{len(STORY)} shots of {SECONDS:g} s, 128x96, made by the tiny family with one seed: with memory, with "
        "strength 0, and behind the memory of another story in which Mira looks otherwise. Means over shots with 95 % "
        "intervals; differences are with memory minus the other, shot by shot.",
        "",
        f"| measure | better | {titles} | minus without | minus another |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, measure in found["measures"].items():
        if name in others[0]["own"]:
            values = [others[0]["own"][name], *(one["values"][name] for one in others)]
            gaps = [one["differences"].get(name) for one in others]
            better = "higher" if measure["higher_is_better"] else "lower"
            cells = [_cell(value) for value in [*values, *gaps]]
            lines.append(f"| {measure['label']} ({measure['with']}) | {better} | {' | '.join(cells)} |")
    lines += [
        "",
        f"By colours alone, shots {first} and {last} (the same girl in the same kitchen, described in shot {first} "
        f"only), cosine: {alike}; all other pairs on average: {others_alike}.",
        "",
        f"Not measured: {', '.join(missing)}.",
        f"Falls out: {'; '.join(found['falls_out']) or 'nothing'}.",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: dict[str, float] | None) -> str:
    return "" if value is None else f"{value['mean']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="make no film")
    args = parser.parse_args()
    work = cache_folder() / "judged_demo"  # outside the checkout, since ComfyUI's folder links back to it
    kept = work / "node.json"
    if not args.report:
        write_bytes(kept, json.dumps(make_films(work)).encode())
    node = json.loads(kept.read_text(encoding="utf-8"))
    shown = {"shots": len(node["shots"]), "source": node["source"], "means": node["means"]}
    result = {"story": STORY, "another": ANOTHER, "torch": torch.__version__, "command": judged(work), "node": shown}
    write_bytes(RESULTS.with_suffix(".json"), (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    RESULTS.with_suffix(".md").write_text(report(result), encoding="utf-8")
    cv2.imwrite(str(RESULTS.with_suffix(".jpg")), sheet(work), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
