"""The tiny family's table: retrieval on clips and films that it was never trained on, over several seeds.

    python -m demo.tiny_family.evaluate_family --clips CLIPS --out FOLDER [--rates 4x4x2,2x2x2] [--seeds 3]

Measures what ``python -m memory_encoder evaluate`` measures, with a faster pass through the VAE, and writes for each
rate ``retrieval_RATE.json`` (means with standard errors over seeds, and every clip), a sheet of pictures for the real
clips and one for the films, and at the end prints a table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from memory_encoder.encoder_file import load_encoder
from memory_encoder.evaluation import KINDS, ClipScore, score_clip
from memory_encoder.files import write_bytes
from memory_encoder.hosts.checkpoint import PYTORCH_ATTENTION, load_comfy, load_host, load_lora, load_text_encoder
from memory_encoder.training.evaluate_command import sheet
from memory_encoder.training.module import TrainingModule
from memory_encoder.training.video import VideoReader
from memory_encoder.training.windows import low_resolution_latents

from .clips import HELD_OUT_SEED, list_clips
from .install import HOST_NAME, WEIGHTS
from .prepare import FPS, HEIGHT, TEXT_ENCODER, WIDTH, TinyCodec, film_of

FIRST_FILM = HELD_OUT_SEED + 100  # after those that watched the training
LABELS = {"memory": "memory", "none": "no memory", "full": "whole history", "vae": "VAE alone"}


def held_out(clips: Path, films: int, count: int) -> dict[str, dict[str, Tensor]]:
    """Pictures [T,H,W,3] in 0..1 of the held-out clips (`real`) and films (`procedural`), 1 + 4k frames each."""
    real = {}
    for clip in list_clips(clips, held_out=True):
        frames = [picture.pixels for picture in VideoReader(clip.path, FPS, WIDTH, HEIGHT)]
        real[clip.name] = _whole(np.stack(frames[:count]))
    made = {
        f"film {seed}": _whole(film_of(seed, False).frames[:count]) for seed in range(FIRST_FILM, FIRST_FILM + films)
    }
    return {"real": real, "procedural": made}


def _whole(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames[: 1 + (len(frames) - 1) // 4 * 4]).float() / 255


class Judge:
    """Host with LoRA, encoder and VAE of one rate."""

    def __init__(self, rate: str, folder: Path, comfy: str | None) -> None:
        load_comfy(comfy, PYTORCH_ATTENTION)
        patcher = load_lora(load_host(folder / HOST_NAME), folder / f"tiny_memory_{rate}_lora.safetensors")
        encoder = load_encoder(folder / f"tiny_memory_{rate}.safetensors").requires_grad_(False)
        self.module = TrainingModule(encoder, patcher.model.diffusion_model)
        self.codec = TinyCodec(comfy)()
        self.text = load_text_encoder([TEXT_ENCODER], "wan")

    def scores(self, name: str, pictures: Tensor, seeds: Sequence[int]) -> list[ClipScore]:
        """One score for each seed."""
        hr = self.codec.encode(pictures[None])
        lr = low_resolution_latents(pictures[None], hr.shape[2], self.module.encoder.config, self.codec)
        arguments = (name, pictures, hr, lr, self.module, {"context": self.text.encode("")}, self.codec.decode)
        return [score_clip(*arguments, seed) for seed in seeds]


def table(scores: dict[str, list[list[ClipScore]]]) -> dict[str, Any]:
    """For `real` and `procedural`: mean and standard error over seeds of the mean over clips, and each clip's mean."""
    result: dict[str, Any] = {}
    for group, clips in scores.items():
        result[group] = {"clips": {}}
        for metric in ("psnr", "ssim"):
            values = {kind: np.array([[getattr(s, metric)[kind] for s in clip] for clip in clips]) for kind in KINDS}
            means = {kind: value.mean(0) for kind, value in values.items()}
            result[group][metric] = {
                kind: {"mean": float(m.mean()), "standard_error": float(m.std(ddof=1) / len(m) ** 0.5)}
                for kind, m in means.items()
            }
            for number, clip in enumerate(clips):
                found = {kind: float(value[number].mean()) for kind, value in values.items()}
                result[group]["clips"].setdefault(clip[0].name, {})[metric] = found
    return result


def markdown(tables: dict[str, dict[str, Any]]) -> str:
    """The numbers of all rates as a table."""
    lines = ["| rate | clips | " + " | ".join(LABELS.values()) + " |", "|---" * (2 + len(LABELS)) + "|"]
    for rate, groups in tables.items():
        for group, values in groups.items():
            cells = []
            for kind in LABELS:
                psnr, ssim = values["psnr"][kind], values["ssim"][kind]
                cells.append(f"{psnr['mean']:.2f} ± {psnr['standard_error']:.2f} dB, {ssim['mean']:.3f}")
            lines.append(f"| {rate} | {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    clips = Path(__file__).resolve().parents[3] / "shared" / "data" / "clips"
    parser.add_argument("--clips", type=Path, default=clips, help="folder with a manifest.json beside it")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", default="4x4x2,2x2x2")
    parser.add_argument("--films", type=int, default=6)
    parser.add_argument("--frames", type=int, default=81, help="of each clip, from its beginning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")
    args = parser.parse_args()
    groups, tables = held_out(args.clips, args.films, args.frames), {}
    for rate in args.rates.split(","):
        judge, scores = Judge(rate, args.weights, args.comfy), {}
        for group, found in groups.items():
            scores[group] = []
            for name, pictures in found.items():
                scores[group].append(judge.scores(name, pictures, range(args.seeds)))
                first = scores[group][-1][0]
                print(f"{rate} {name}: " + "  ".join(f"{k} {first.psnr[k]:.2f} dB" for k in KINDS), flush=True)
            picture: Any = cv2.imencode(".jpg", sheet([clip[0] for clip in scores[group]]))[1]
            write_bytes(args.out / f"retrieval_{rate}_{group}.jpg", picture.tobytes())
        tables[rate] = table(scores)
        facts = {
            "rate": rate,
            "seeds": args.seeds,
            "frames": args.frames,
            "steps": 12,
            "torch": torch.__version__,
            **tables[rate],
        }
        write_bytes(args.out / f"retrieval_{rate}.json", json.dumps(facts, indent=1).encode())
    print(markdown(tables))


if __name__ == "__main__":
    main()
