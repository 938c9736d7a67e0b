"""Does a film use its memory? The last shot of held-out films, in which the first shot's character returns.

    python -m demo.tiny_family.evaluate_film --out FOLDER [--rates 4x4x2,2x2x2] [--films 8] [--seeds 3]
        [--guidance 1.5] [--window 0] [--encoder FILE [--encoder FILE ...] --lora FILE [--name NAME]]

The history is four true shots; the model makes the fifth from its prompt, which gives the name alone: films of one
character, and of two. Measured against the true shot: PSNR over whole pictures and inside the character's box, how
far off the mean colour of the clothes is, and how many frames after the cut still show the shot before. With the
memory, with that of another film and without one, all through the memory's LoRA; and by the host alone, without
memory and with the whole history uncompressed, which it has learned to read. With `--window` the film's last latents
stand uncompressed beside the memory, beside that of the other film, and alone in place of none. Writes
``film_NAME.json`` and ``film_NAME.jpg`` (history, true shot, then those in turn) and prints a table; memories and NAME
are those of `evaluate_family`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from memory_encoder.evaluation.metrics import psnr
from memory_encoder.evaluation.recall import draw_frames
from memory_encoder.files import write_bytes
from memory_encoder.frames import TEMPORAL
from tools.machine import processor

from .evaluate_family import FIRST_FILM, Judge, add_sample_arguments, add_variant_arguments, over_seeds, variants
from .prepare import SHORT_SHOT, SOLO_SEED, film_of
from .procedural import Film

KINDS = ("memory", "other", "none", "host", "full")
ALONE = ("host", "full")  # made by the host without the memory's LoRA
SECTION, CONTEXT = 4, 3  # latents of a shot, and of the history that is decoded again before it
CFG, STEPS = 2.5, 16
MEASURES = {"picture": "dB", "character": "dB", "clothes": "of 255", "lingering": "%"}


@dataclass(frozen=True)
class Past:
    """A film's true shots before the last: latents of both branches, LR by rate."""

    history: Tensor
    lr: dict[str, Tensor]

    @classmethod
    def of(cls, judge: Judge, film: Film) -> Past:
        before = torch.from_numpy(film.frames[:-SHORT_SHOT]).float()[None] / 255
        history = judge.codec.encode(before)
        return cls(history, judge.lr(before, history.shape[2]))

    def memory(self, judge: Judge, kind: str, other: Past, window: int) -> Any:
        """What the model sees; `window` latents of this film uncompressed beside it, unless all of them are."""
        module, count = judge.module, self.history.shape[2]
        if kind == "full":
            return module.uncompressed(self.history)
        if kind in ("none", "host"):
            return module.uncompressed(self.history[:, :, -window:], max(count - window, 0)) if window else None
        past = self if kind == "memory" else other
        memory = module.compress(past.history, past.lr)
        return module.with_window(memory, self.history, window) if window else memory


def make_last_shot(
    judge: Judge, film: Film, past: Past, memory: Any, seed: int, guidance: float, alone: bool = False
) -> np.ndarray:
    """The last shot [16,H,W,3] in 0..1; guidance and alone as in `draw_last_shot`."""
    return decoded(judge, past, draw_last_shot(judge, film, past, memory, seed, guidance, alone))[-SHORT_SHOT:]


def decoded(judge: Judge, past: Past, made: Tensor) -> np.ndarray:
    """Pictures of the last latents of the history and of those made after them."""
    return judge.codec.decode(torch.cat([past.history[:, :, -CONTEXT:], made], dim=2))[0].clamp(0, 1).numpy()


def draw_last_shot(
    judge: Judge, film: Film, past: Past, memory: Any, seed: int, guidance: float, alone: bool = False
) -> Tensor:
    """Its latents, with history guidance as in `memory_encoder.injection.guidance`; 0 is for none. alone: by the host
    without the memory's LoRA."""
    module, history = judge.bare if alone else judge.module, past.history
    prompt, empty = ({"context": judge.text.encode(text)} for text in (film.shots[-1].prompt, ""))

    def predict(x: Tensor, t: Tensor, shown: Any, first: int) -> Tensor:
        seen = module.predict(x, t, shown, first, prompt)
        if guidance == 0 or shown is None:
            plain = module.predict(x, t, shown, first, empty)
            return plain + CFG * (seen - plain)
        plain = module.predict(x, t, None, first, empty)
        if guidance == 1:
            return plain + CFG * (seen - plain)
        blind = module.predict(x, t, None, first, prompt)
        return plain + CFG * (blind - plain + guidance * (seen - blind))

    noise = torch.randn(1, history.shape[1], SECTION, *history.shape[3:], generator=torch.Generator().manual_seed(seed))
    return draw_frames(predict, memory, noise, history.shape[2], STEPS)


def in_box(film: Film, made: np.ndarray, part: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """True and made pixels inside the box of the character who returns, for each frame; the box may be cut off."""
    shot, found = film.shots[-1], []
    height, width = made.shape[1:3]
    boxes = shot.boxes[shot.characters[0].name][part]
    for true, frame, box in zip(film.frames[shot.start :] / 255, made, boxes, strict=True):
        x0, y0, x1, y1 = (int(v) for v in np.clip(np.round(box), 0, [width, height, width, height]))
        if x1 > x0 and y1 > y0:
            found.append((true[y0:y1, x0:x1], frame[y0:y1, x0:x1]))
    return found


def measured(film: Film, made: np.ndarray) -> dict[str, float]:
    """PSNR over the pictures and in the character's box, the distance of the clothes' mean colour, of 255, and of how
    many of 100 frames in the first latent the shot before the cut is nearer than their own."""
    true = torch.from_numpy(film.frames[film.shots[-1].start :]).float() / 255
    body = np.mean([np.square(a - b).mean() for a, b in in_box(film, made, "body")])
    clothes = [np.abs(a.mean((0, 1)) - b.mean((0, 1))).mean() for a, b in in_box(film, made, "torso")]
    return {
        "picture": float(psnr(true, torch.from_numpy(made)).mean()),
        "character": float(-10 * np.log10(body)),
        "clothes": float(255 * np.mean(clothes)),
        "lingering": 100 * lingering(film.frames[film.shots[-1].start - 1] / 255, true.numpy(), made),
    }


def lingering(before: np.ndarray, true: np.ndarray, made: np.ndarray) -> float:
    """Share of the made frames in the first latent after a cut that are nearer to the last picture before it, [H,W,3],
    than to their own; true, made [T,H,W,3] in 0..1."""
    pairs = zip(true[:TEMPORAL], made[:TEMPORAL], strict=True)
    return float(np.mean([np.square(frame - before).mean() < np.square(frame - own).mean() for own, frame in pairs]))


def row_of(film: Film, shown: dict[str, np.ndarray]) -> np.ndarray:
    """One line of pictures: the first two shots, the true last one, and what was made of it."""
    middle = SHORT_SHOT // 2
    cells = [film.frames[shot.start + middle] / 255 for shot in (film.shots[0], film.shots[1], film.shots[-1])]
    cells += [shown[kind][middle] for kind in KINDS]
    return (np.concatenate(cells, axis=1)[..., ::-1] * 255).round().clip(0, 255).astype(np.uint8)


def evaluate(
    judge: Judge, films: list[Film], seeds: int, guidance: float, window: int = 0
) -> tuple[dict[str, Any], np.ndarray]:
    """The table of `film_table`, and a picture with a row for each film."""
    pasts = [Past.of(judge, film) for film in films]
    values: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    rows = []
    for number, (film, past) in enumerate(zip(films, pasts, strict=True)):
        shown = {}
        for kind in KINDS:
            memory = past.memory(judge, kind, pasts[number - 1], window)
            made = [make_last_shot(judge, film, past, memory, seed, guidance, kind in ALONE) for seed in range(seeds)]
            found = [measured(film, one) for one in made]
            values[kind].append({name: float(np.mean([one[name] for one in found])) for name in MEASURES})
            shown[kind] = made[0]
        rows.append(row_of(film, shown))
    return film_table(values), np.concatenate(rows, axis=0)


def film_table(values: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """For each kind and measure mean and standard error over films, and each film's own value; under `above` by how
    much the memory has more than each other kind, paired by film. values: by kind, of each film."""
    table: dict[str, Any] = {}
    columns = {
        kind: {name: np.array([one[name] for one in found]) for name in MEASURES} for kind, found in values.items()
    }
    for kind, of_kind in columns.items():
        table[kind] = {name: over_seeds(v) | {"films": v.tolist()} for name, v in of_kind.items()}
    table["above"] = {
        kind: {name: over_seeds(columns["memory"][name] - v) for name, v in of_kind.items()}
        for kind, of_kind in columns.items()
        if kind != "memory"
    }
    return table


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_variant_arguments(parser)
    parser.add_argument("--out", type=Path, required=True)
    add_sample_arguments(parser, films=8, seeds=3)
    parser.add_argument("--guidance", type=float, default=1.5, help="history guidance; 0 for none")
    parser.add_argument("--window", type=int, default=0, help="last latents that stand uncompressed beside the memory")
    args = parser.parse_args()
    if args.films < 2:
        parser.error(f"--films {args.films} leaves no other film whose memory could be shown; give at least 2")
    if args.window < 0:
        parser.error(f"--window {args.window} is below 0; 0 is for none")
    groups = {"one character": FIRST_FILM + SOLO_SEED, "two characters": FIRST_FILM}
    for variant in variants(parser, args):
        judge = Judge(variant, args.weights, args.comfy)
        tables, sheets = {}, []
        for group, first in groups.items():
            films = [film_of(seed, long=False) for seed in range(first, first + args.films)]
            tables[group], sheet = evaluate(judge, films, args.seeds, args.guidance, args.window)
            sheets.append(sheet)
            for kind in KINDS:
                cells = [f"{v['mean']:.2f} ± {v['standard_error']:.2f}" for v in tables[group][kind].values()]
                print(f"| {variant.name} | {group} | {kind} | " + " | ".join(cells) + " |", flush=True)
        facts = {"films": args.films, "seeds": args.seeds, "cfg": CFG, "guidance": args.guidance, "steps": STEPS}
        facts |= {"torch": torch.__version__, "machine": processor()}
        if args.window:
            facts["window"] = args.window
        write_bytes(args.out / f"film_{variant.name}.json", json.dumps(facts | tables, indent=1).encode())
        picture: Any = cv2.imencode(".jpg", np.concatenate(sheets, axis=0))[1]
        write_bytes(args.out / f"film_{variant.name}.jpg", picture.tobytes())


if __name__ == "__main__":
    main()
