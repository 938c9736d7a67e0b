"""What the sliding window does at a seam: the second half of a shot, made after its true first half.

    python -m demo.tiny_family.evaluate_seams --out FOLDER [--rates 4x4x2,2x2x2] [--windows 0,1,3] [--films 6]

Held-out films of one character with shots of two seconds. For each window (latents that stand uncompressed beside the
memory): the jump, the mean difference between the last frame before the seam and the first one after it, of 255, beside
that of the true film through the VAE, and the PSNR of the first quarter of a second and of the whole second. Writes
``seams_NAME.json`` and ``seams_NAME.jpg``: for each film a line for the truth and one for each window, with two frames
before the seam and four after it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from memory_encoder.evaluation.metrics import psnr
from memory_encoder.files import write_bytes
from tools.machine import processor

from .evaluate_family import FIRST_FILM, Judge, add_variant_arguments, variants
from .evaluate_film import Past, decoded, draw_last_shot
from .prepare import SHORT_SHOT, SOLO_SEED, film_of
from .procedural import Film

SHOWN = (-3, -1, 0, 2, 6, 15)  # frames of the picture, counted from the seam
FIRST = 4  # frames of the first latent after it


def measured(film: Film, frames: np.ndarray) -> dict[str, float]:
    """frames: those before the seam and 16 after it; the true ones stand in `film`."""
    true = torch.from_numpy(film.frames[-SHORT_SHOT:]).float() / 255
    made = torch.from_numpy(frames[-SHORT_SHOT:])
    before, after = frames[-SHORT_SHOT - 1], frames[-SHORT_SHOT]
    return {
        "jump": float(255 * np.abs(after - before).mean()),
        "first": float(psnr(true[:FIRST], made[:FIRST]).mean()),
        "section": float(psnr(true, made).mean()),
    }


def evaluate(judge: Judge, film: Film, windows: list[int], guidance: float) -> dict[str, Any]:
    """Numbers and frames for each window, and for the true film through the VAE."""
    past = Past.of(judge, film)
    truth = judge.codec.encode(torch.from_numpy(film.frames).float()[None] / 255)[:, :, past.history.shape[2] :]
    shown = {"true": decoded(judge, past, truth)}
    for window in windows:
        memory = past.memory(judge, "memory", past, window)
        shown[str(window)] = decoded(judge, past, draw_last_shot(judge, film, past, memory, 0, guidance))
    return {kind: (measured(film, frames), frames) for kind, frames in shown.items()}


def sheet(films: list[dict[str, Any]]) -> np.ndarray:
    rows = []
    for film in films:
        for _, frames in film.values():
            rows.append(np.concatenate([frames[len(frames) - SHORT_SHOT + i] for i in SHOWN], axis=1))
    return (np.concatenate(rows)[..., ::-1] * 255).round().astype(np.uint8)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_variant_arguments(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--windows", default="0,1,3", help="latents beside the memory")
    parser.add_argument("--films", type=int, default=6)
    parser.add_argument("--guidance", type=float, default=0.0, help="history guidance; 0 for none")
    parser.add_argument("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")
    args = parser.parse_args()
    windows = [int(window) for window in args.windows.split(",")]
    seeds = range(FIRST_FILM + SOLO_SEED, FIRST_FILM + SOLO_SEED + args.films)
    for variant in variants(parser, args):
        judge = Judge(variant, args.weights, args.comfy)
        found = [evaluate(judge, film_of(seed, long=True), windows, args.guidance) for seed in seeds]
        table = {}
        for kind in found[0]:
            values = {name: np.array([film[kind][0][name] for film in found]) for name in found[0][kind][0]}
            table[kind] = {
                name: {"mean": float(v.mean()), "standard_error": float(v.std(ddof=1) / len(v) ** 0.5)}
                for name, v in values.items()
            }
            cells = [f"{v['mean']:.2f} ± {v['standard_error']:.2f}" for v in table[kind].values()]
            print(f"| {variant.name} | {kind} | " + " | ".join(cells) + " |", flush=True)
        facts = {"films": args.films, "guidance": args.guidance, "torch": torch.__version__}
        facts |= {"machine": processor(), "windows": table}
        write_bytes(args.out / f"seams_{variant.name}.json", json.dumps(facts, indent=1).encode())
        picture: Any = cv2.imencode(".jpg", sheet(found[:4]))[1]
        write_bytes(args.out / f"seams_{variant.name}.jpg", picture.tobytes())


if __name__ == "__main__":
    main()
