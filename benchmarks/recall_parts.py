"""What a memory brings back, in parts: the latents that one step from pure noise recalls.

    python tools/environment.py run -m benchmarks.recall_parts [--clips FOLDER] [--films 12] [--rates ...]
        [--weights FOLDER] [--encoder FILE --lora FILE] [--name NAME] [--note TEXT]

The error of a clip's latents is taken apart: the mean over a cell of 4x4x2 latents' neighbours (as large as a token of
2x2x2), between the host's own tokens in it, inside such a token, and over the cell's two moments. Beside them the
latents' own variance and the whole history read by the host alone. On clips that the memories were trained on, and
films that they were not. Rows of other names that the record holds stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import reduce, repeat
from torch import Tensor

from demo.tiny_family.clips import HELD_OUT_SEED, add_clips, list_clips
from demo.tiny_family.evaluate_family import Judge, add_sample_arguments, add_variant_arguments, pictures_of, variants
from demo.tiny_family.prepare import FPS
from memory_encoder.evaluation.recall import WINDOW, windows
from memory_encoder.files import write_bytes
from memory_encoder.training.module import TrainingModule
from tools.machine import processor

RESULTS = Path(__file__).resolve().parent / "results" / "recall_parts"
FRAMES, EVERY, NOISE = 49, 2, 0.999
CELL, TOKEN = (2, 4, 4), (1, 2, 2)
PARTS = {"total": "all", "cell": "mean of a cell", "tokens": "between its tokens", "inside": "inside a token",
         "time": "over its two moments"}  # fmt: skip
VARIANCE, WHOLE = "the latents' own variance", "the whole history, by the host alone"


def parts_of(error: Tensor) -> dict[str, float]:
    """Mean squares of latents [1,C,T,H,W] without the first; of whole cells the parts add up to `total`."""
    error = error[:, :, 1 : 1 + (error.shape[2] - 1) // CELL[0] * CELL[0]]
    in_time, in_token = _blurred(error, (CELL[0], 1, 1)), _blurred(error, (CELL[0], *TOKEN[1:]))
    in_cell = _blurred(error, CELL)
    parts = {"total": error, "cell": in_cell, "tokens": in_token - in_cell, "inside": in_time - in_token}
    return {name: float(part.square().mean()) for name, part in (parts | {"time": error - in_time}).items()}


def _blurred(latents: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Every block of `size` as its mean; what is left over at an edge stays out of the mean and as it is."""
    places = dict(zip("uvw", size, strict=True))
    whole = [count // one * one for count, one in zip(latents.shape[2:], size, strict=True)]
    inner = latents[:, :, : whole[0], : whole[1], : whole[2]]
    mean = reduce(inner, "b c (t u) (h v) (k w) -> b c t h k", "mean", **places)
    result = latents.clone()
    result[:, :, : whole[0], : whole[1], : whole[2]] = repeat(mean, "b c t h k -> b c (t u) (h v) (k w)", **places)
    return result


def recalled(module: TrainingModule, latents: Tensor, memory: Any, conditioning: dict[str, Any]) -> Tensor:
    """What one step from almost pure noise makes of all windows of `latents` [1,C,T,H,W]."""
    made, noise, t = [], torch.Generator().manual_seed(0), torch.tensor([NOISE])
    for first, dropped in windows(range(latents.shape[2]), latents.shape[2]):
        clean = latents[:, :, first : first + WINDOW]
        x = (1 - NOISE) * clean + NOISE * torch.randn(clean.shape, generator=noise)
        made.append((x - NOISE * module.predict(x, t, memory, first, conditioning))[:, :, dropped:])
    return torch.cat(made, dim=2)


def rows_of(judge: Judge, clips: Sequence[Tensor], name: str) -> dict[str, dict[str, float]]:
    """The memory's row, that of the variance and of the whole history; clips: pictures [T,H,W,3]."""
    empty = {"context": judge.text.encode("")}
    found: dict[str, list[dict[str, float]]] = {VARIANCE: [], name: [], WHOLE: []}
    for pictures in clips:
        hr = judge.codec.encode(pictures[None])
        memory = judge.module.compress(hr, judge.lr(pictures[None], hr.shape[2]))
        found[VARIANCE].append(parts_of(hr - hr.mean(dim=(2, 3, 4), keepdim=True)))
        found[name].append(parts_of(recalled(judge.module, hr, memory, empty) - hr))
        found[WHOLE].append(parts_of(recalled(judge.bare, hr, judge.bare.uncompressed(hr), empty) - hr))
    return {row: {part: sum(one[part] for one in of) / len(of) for part in of[0]} for row, of in found.items()}


def report(result: dict[str, Any]) -> str:
    """The record in Markdown."""
    lines = [
        "# What one step from pure noise recalls of the latents, in parts",
        "",
        "Mean squared error of latents in the model's space; lower is better. The parts add up to *all*.",
    ]
    for group, called in (("real", "real clips, trained on"), ("procedural", "films, not trained on")):
        lines += ["", f"{called} ({result['clips'][group]})", "", "| | " + " | ".join(PARTS.values()) + " |"]
        lines.append("|---" * (1 + len(PARTS)) + "|")
        for row, parts in result[group].items():
            lines.append(f"| {row} | " + " | ".join(f"{parts[p]:.3f}" for p in PARTS) + " |")
    return "\n".join(lines) + "\n"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_clips(parser)
    add_variant_arguments(parser)
    add_sample_arguments(parser, films=12, seeds=1)
    parser.add_argument("--note", default="", help="what is added to the names of the rows")
    args = parser.parse_args()
    chosen = [clip for clip in list_clips(args.clips) if clip.frames / clip.fps * FPS > FRAMES][::EVERY]
    groups = pictures_of(chosen, range(HELD_OUT_SEED, HELD_OUT_SEED + args.films), FRAMES)
    path = RESULTS.with_suffix(".json")
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    result: dict[str, Any] = {"clips": {group: len(found) for group, found in groups.items()}, "frames": FRAMES}
    result |= {"torch": torch.__version__, "machine": processor()}
    for variant in variants(parser, args):
        judge = Judge(variant, args.weights, args.comfy)
        for group, found in groups.items():
            rows = kept.get(group, {}) | rows_of(judge, list(found.values()), variant.name + args.note)
            last = {WHOLE: rows.pop(WHOLE)}
            kept[group] = result[group] = {VARIANCE: rows.pop(VARIANCE), **rows, **last}
        write_bytes(path, (json.dumps(result, indent=1) + "\n").encode())
        write_bytes(RESULTS.with_suffix(".md"), report(result).encode())


if __name__ == "__main__":
    main()
