"""Does a film use its memory? The last shot of held-out films, in which the first shot's character returns.

    python -m demo.tiny_family.evaluate_film --out FOLDER [--rates 4x4x2,2x2x2] [--films 8] [--seeds 3]

The history is four true shots; the model makes the fifth from its prompt, which gives the name alone. PSNR against the
true shot, over whole pictures and inside the character's box, with the memory, without it, and with the whole history
uncompressed. Writes ``film_RATE.json`` and ``film_RATE.jpg`` (true shot, with memory, without) and prints a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from memory_encoder.files import write_bytes
from memory_encoder.metrics import psnr
from memory_encoder.recall import draw_frames
from memory_encoder.training.windows import low_resolution_latents

from .evaluate_family import FIRST_FILM, Judge
from .install import WEIGHTS
from .prepare import SHORT_SHOT, film_of
from .procedural import Film

KINDS = ("memory", "none", "full")
SECTION, CONTEXT = 4, 3  # latents of a shot, and of the history that is decoded again before it
CFG, STEPS = 2.5, 12
COLUMNS = 4


def make_last_shot(judge: Judge, film: Film, kind: str, seed: int) -> np.ndarray:
    """The last shot [16,H,W,3] in 0..1, from the true shots before it."""
    pictures = torch.from_numpy(film.frames).float()[None] / 255
    before = pictures[:, :-SHORT_SHOT]
    history, module = judge.codec.encode(before), judge.module
    lr = low_resolution_latents(before, history.shape[2], module.encoder.config, judge.codec)
    memory = {
        "memory": lambda: module.compress(history, lr),
        "none": lambda: None,
        "full": lambda: module.uncompressed(history),
    }
    texts = [{"context": judge.text.encode(text)} for text in (film.shots[-1].prompt, "")]

    def predict(x: Tensor, t: Tensor, shown: Any, first: int) -> Tensor:
        prompted, plain = (module.predict(x, t, shown, first, text) for text in texts)
        return plain + CFG * (prompted - plain)

    noise = torch.randn(1, history.shape[1], SECTION, *history.shape[3:], generator=torch.Generator().manual_seed(seed))
    made = draw_frames(predict, memory[kind](), noise, history.shape[2], STEPS)
    frames = judge.codec.decode(torch.cat([history[:, :, -CONTEXT:], made], dim=2))[0, -SHORT_SHOT:]
    return frames.clamp(0, 1).numpy()


def in_box_psnr(film: Film, made: np.ndarray) -> float:
    """PSNR inside the box of the character who returns, over all frames of the shot."""
    shot, errors = film.shots[-1], []
    boxes = shot.boxes[shot.characters[0].name]["body"]
    height, width = made.shape[1:3]
    for true, frame, box in zip(film.frames[shot.start :], made, boxes, strict=True):
        x0, y0, x1, y1 = (int(v) for v in np.clip(np.round(box), 0, [width, height, width, height]))
        errors.append(np.square(true[y0:y1, x0:x1] / 255 - frame[y0:y1, x0:x1]).mean())
    return float(-10 * np.log10(np.mean(errors)))


def scores_of(
    judge: Judge, film: Film, seeds: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, np.ndarray]]:
    """For each kind (whole picture, box) of each seed, and the pictures of the first seed."""
    true = torch.from_numpy(film.frames[film.shots[-1].start :]).float() / 255
    found: dict[str, list[tuple[float, float]]] = {}
    shown = {"true": true.numpy()}
    for kind in KINDS:
        made = [make_last_shot(judge, film, kind, seed) for seed in range(seeds)]
        found[kind] = [(float(psnr(true, torch.from_numpy(m)).mean()), in_box_psnr(film, m)) for m in made]
        shown[kind] = made[0]
    return found, shown


def row_of(shown: dict[str, np.ndarray]) -> np.ndarray:
    """One line of pictures: true shot, with memory, without."""
    chosen = np.linspace(0, SHORT_SHOT - 1, COLUMNS).round().astype(int)
    strips = [np.concatenate(list(shown[kind][chosen]), axis=1) for kind in ("true", "memory", "none")]
    return (np.concatenate(strips, axis=1)[..., ::-1] * 255).round().astype(np.uint8)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", default="4x4x2,2x2x2")
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")
    args = parser.parse_args()
    for rate in args.rates.split(","):
        judge = Judge(rate, args.weights, args.comfy)
        values, rows = {kind: [] for kind in KINDS}, []
        for seed in range(FIRST_FILM, FIRST_FILM + args.films):
            found, shown = scores_of(judge, film_of(seed, long=False), args.seeds)
            rows.append(row_of(shown))
            for kind in KINDS:
                values[kind].append(found[kind])
        means = {kind: np.array(v).mean(0) for kind, v in values.items()}  # [seeds, (picture, box)]
        table = {
            kind: {
                name: {"mean": float(m[:, i].mean()), "standard_error": float(m[:, i].std(ddof=1) / len(m) ** 0.5)}
                for i, name in enumerate(("picture", "character"))
            }
            for kind, m in means.items()
        }
        write_bytes(
            args.out / f"film_{rate}.json",
            json.dumps({"films": args.films, "seeds": args.seeds, **table}, indent=1).encode(),
        )
        picture: Any = cv2.imencode(".jpg", np.concatenate(rows, axis=0))[1]
        write_bytes(args.out / f"film_{rate}.jpg", picture.tobytes())
        for kind in KINDS:
            cells = [
                f"{table[kind][n]['mean']:.2f} ± {table[kind][n]['standard_error']:.2f} dB"
                for n in ("picture", "character")
            ]
            print(f"| {rate} | {kind} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
