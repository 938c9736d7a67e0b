"""Hostile texts in every text input of every node, through the real ComfyUI: `python -m benchmarks.faults widgets`.

Each is refused on its node in words that name the input, or is used. Nothing outside of the output folder may change,
no temporary file may stay, and nothing from outside may be shown.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from .hostile import OUTSIDE, SECRET, holds, hostile_text
from .record import add_result

MOST_CHARACTERS = 1500
RAW_KINDS = (
    "TypeError", "KeyError", "AttributeError", "IndexError", "RuntimeError", "AssertionError", "UnicodeEncodeError",
    "UnicodeDecodeError", "RecursionError", "OverflowError", "ZeroDivisionError", "MemoryError", "NotADirectoryError",
    "IsADirectoryError", "JSONDecodeError", "SafetensorError",
)  # fmt: skip
# What Python says where nobody has thought of a case.
RAW = re.compile(
    r"embedded null|\[Errno|\[WinError|invalid literal|codec can't|could not convert|unhashable|not subscriptable"
    r"|object has no|list index|recursion|Expecting value|surrogates"
)
Prompt = dict[str, Any]


def nodes() -> Prompt:
    """A film of one section and every node of the pack that takes a text, joined so that each can be asked for."""
    from demo.tiny_family.install import HOST_NAME, VAE_NAME
    from tests.integration.films import SAMPLER, changed, film

    base = film("kept", ("one shot",), steps=1)
    base = changed(changed(base, "host", unet_name=HOST_NAME), "vae", vae_name=VAE_NAME)
    base = changed(base, SAMPLER, redo="", locks="", branch_film="", pictures="")
    del base["latent"]
    more = {
        "instruction": ("VideoMemoryStoryboardPrompt", {"idea": "an idea", "characters": "Mira: red hair"}),
        "said": ("PreviewAny", {"source": ["instruction", 0]}),
        "save": ("VideoMemorySave", {"memory": [SAMPLER, 1], "filename_prefix": "film"}),
        "load": ("VideoMemoryLoad", {"memory_name": "film_00001.safetensors"}),
        "loaded": ("PreviewAny", {"source": ["load", 0]}),
        "movie": (
            "VideoMemorySaveFilm",
            {
                "latent": [SAMPLER, 0], "vae": ["vae", 0], "filename_prefix": "video/film", "fps": 0.0, "crf": 18.0,
                "film": "",
            },
        ),
        "judge": ("VideoMemoryFilmReport", {"film": "kept"}),
        "judged": ("PreviewAny", {"source": ["judge", 1]}),
        "retrieve": (
            "VideoMemoryRetrieve",
            {
                "model": ["host", 0], "memory": [SAMPLER, 1], "sampler": ["euler", 0], "sigmas": ["sigmas", 0],
                "frame_indices": "0",
            },
        ),
        "shown": ("PreviewAny", {"source": ["retrieve", 0]}),
        "dataset": (
            "VideoMemoryDataset",
            {
                "model": ["host", 0], "vae": ["vae", 0], "clip": ["clip", 0], "folder": "clips", "name": "clips",
                "rates": "2x2x2", "width": 64, "height": 48, "fps": 16.0, "window_seconds": 1.1, "heldout": "0.5",
                "buckets": "auto",
            },
        ),
        "train": (
            "VideoMemoryTrain",
            {
                "model": ["host", 0], "memory_encoder": ["encoder", 0], "dataset": ["dataset", 0], "run": "run",
                "steps": 1, "batch_size": 1, "rank": 2, "section": 2, "mixed_precision": "no",
            },
        ),
        "trained": ("PreviewAny", {"source": ["train", 2]}),
    }  # fmt: skip
    return base | {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in more.items()}


def with_defaults(prompt: Prompt, definitions: dict[str, Any]) -> Prompt:
    """Required inputs that are not said get the values that a node begins with."""
    filled = {}
    for node, entry in prompt.items():
        specs = definitions[entry["class_type"]]["input"].get("required", {})
        first = {name: value for name, spec in specs.items() if (value := begins(spec)) is not None}
        filled[node] = {**entry, "inputs": first | entry["inputs"]}
    return filled


def begins(spec: list[Any]) -> Any:
    """The value of an input that nobody has changed; None for what is connected."""
    options = spec[1] if len(spec) > 1 else {}
    choices = spec[0] if isinstance(spec[0], list) else options.get("options")
    return options.get("default", choices[0] if choices else None)


@dataclass(frozen=True)
class Place:
    """A text input, and the output node that asks for it."""

    node: str
    name: str
    output: str


PLACES = tuple(
    Place(node, name, output)
    for node, output, names in (
        ("storyboard", "report", ("storyboard", "characters")),
        ("instruction", "said", ("idea", "characters")),
        ("encoder", "report", ("rate",)),
        ("sampler", "report", ("film", "redo", "locks", "branch_film", "pictures")),
        ("save", "save", ("filename_prefix",)),
        ("load", "loaded", ("memory_name",)),
        ("movie", "movie", ("filename_prefix", "film")),
        ("judge", "judged", ("film",)),
        ("retrieve", "shown", ("frame_indices",)),
        ("dataset", "trained", ("folder", "name", "rates", "heldout", "buckets")),
        ("train", "trained", ("run",)),
    )
    for name in names
)


def text_inputs(definitions: dict[str, Any]) -> set[tuple[str, str]]:
    """(class, input) of every text that a node of the pack takes, as the server says."""
    return {
        (kind, name)
        for kind, node in definitions.items()
        if kind.startswith("VideoMemory") and not kind.startswith("VideoMemoryDemo")
        for group in ("required", "optional")
        for name, spec in node["input"].get(group, {}).items()
        if spec[0] == "STRING"
    }


def prompt_for(place: Place, complete: Prompt, text: str | None = None) -> Prompt:
    """What `place.output` needs, with a text in the place."""
    wanted, found = [place.output], {}
    while wanted:
        node = wanted.pop()
        if node not in found:
            found[node] = complete[node]
            wanted += [value[0] for value in complete[node]["inputs"].values() if isinstance(value, list)]
    if text is None:
        return found
    entry = found[place.node]
    return found | {place.node: {**entry, "inputs": entry["inputs"] | {place.name: text}}}


def judged(kind: str, said: str, name: str) -> str:
    """ "" for a refusal in words, or what is wrong with it. kind: the exception's, "" for validation."""
    if kind.rsplit(".", 1)[-1] in RAW_KINDS:
        return f"raw {kind}"
    if RAW.search(said) and name not in said:
        return "raw words"
    return "too long a message" if len(said) > MOST_CHARACTERS else ""


def left(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed outside of the folders that nodes write into, and temporary files."""
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return sorted(
        name for name in changed
        if not name.startswith(("output/", "temp/", "user/")) or Path(name).name.startswith(".") or "\0" in name
    )  # fmt: skip


def add_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("widgets", help=__doc__)
    parser.add_argument("--count", type=int, default=30, help="texts for each input")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from demo.tiny_family.install import install_models
    from tests.unit.dataset_clips import counting
    from tools.comfy_server import ComfyServer
    from tools.environment import ROOT

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / OUTSIDE).write_text(SECRET)
        install_models(work / "models")
        for name in "ab":
            counting(work / "input" / "clips" / f"{name}.mp4", 33)
        with ComfyServer(work, custom_nodes=[ROOT / "demo" / "nodes"]) as server:
            definitions = server.object_info()
            complete = with_defaults(nodes(), definitions)
            known = {(complete[place.node]["class_type"], place.name) for place in PLACES}
            if known != (there := text_inputs(definitions)):
                raise AssertionError(f"inputs that are not tried: {there - known}; that are gone: {known - there}")
            server.run(prompt_for(Place("save", "", "save"), complete))  # what is loaded below
            server.run(complete)
            counts, examples = _try_all(server, complete, args, work)
    result = {"tried": args.count * len(PLACES), "inputs": len(PLACES), "seed": args.seed, **counts}
    add_result("strangers", "texts in nodes", result | {"wrong": counts["wrong"], "examples": examples[:5]})


def _try_all(server: Any, complete: Prompt, args: argparse.Namespace, work: Path) -> tuple[Counter[str], list[str]]:
    counts, examples, before = Counter[str](), list[str](), holds(work)
    for place, text in _texts(complete, args):
        fault, kind = _outcome(server, place.name, prompt_for(place, complete, text))
        counts[kind] += 1
        after = holds(work)
        if not fault and (odd := left(before, after)):
            fault = f"changed or left: {odd[:5]}"
        before = after
        if fault:
            counts["wrong"] += 1
            examples.append(f"{place.node}.{place.name} = {text[:60]!r}: {fault}")
            add_result("strangers", "texts in nodes", {"so far": dict(counts), "examples": examples[-5:]})
    return counts, examples


def _texts(complete: Prompt, args: argparse.Namespace) -> Iterator[tuple[Place, str]]:
    for place in PLACES:
        random = Random(f"{args.seed} {place}")
        good = str(complete[place.node]["inputs"].get(place.name, ""))
        for _ in range(args.count):
            yield place, hostile_text(good, random)


def _outcome(server: Any, name: str, prompt: Prompt) -> tuple[str, str]:
    """(what is wrong, or ""; "used" or "refused")."""
    from tools.comfy_server import ComfyError

    try:
        entry = server.run(prompt)
    except ComfyError as error:
        if server.pid is None:
            raise
        said = error.reason
        fault = judged(error.details.get("exception_type", ""), said, name)
        return (f"{fault}: {said[:300]}" if fault else ("a leak" if SECRET in said else "")), "refused"
    return "a leak" if SECRET in json.dumps(entry["outputs"]) else "", "used"
