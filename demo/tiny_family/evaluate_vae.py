"""Round trip of the tiny VAE on clips and films that it was never trained on.

    python -m demo.tiny_family.evaluate_vae --clips FOLDER --out FOLDER

Prints PSNR and SSIM per clip, for films also that of the frame after a cut and the PSNR of a linear code of as many
numbers, and writes ``vae_round_trip.png`` (original above reconstruction).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from memory_encoder.evaluation.metrics import psnr, ssim

from .clips import HELD_OUT_SEED, clip_windows, list_clips, resize_short_side
from .install import VAE_NAME, WEIGHTS
from .procedural import Film, make_film
from .wan_vae import LATENT_CHANNELS, add_comfyui_to_path, build_vae, decode_clip, encode_clip

WINDOWS = 3  # windows of 9 frames per clip, spread over it
FILMS = 4
CUT = 5  # frame after the cut in a window of nine around it
CODE_FILMS = 40  # of the training seeds, from which the linear code is


def held_out_windows(clips: Path | None, short_side: int) -> dict[str, np.ndarray]:
    """Named windows uint8 [N, 9, H, W, 3], sides multiples of 8. Films alone when ``clips`` is None."""
    found: dict[str, np.ndarray] = {}
    for clip in list_clips(clips, held_out=True) if clips else []:
        windows = clip_windows(clip, short_side)
        picks = np.linspace(0, len(windows) - 1, min(WINDOWS, len(windows))).round().astype(int)
        found[clip.name] = np.stack([[resize_short_side(f, short_side, 8) for f in windows[i]] for i in picks])
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + FILMS):
        found[f"film {seed}"] = film_windows(range(seed, seed + 1), short_side)
    return found


@torch.no_grad()
def round_trip(vae: torch.nn.Module, windows: np.ndarray) -> np.ndarray:
    """uint8 windows [N, T, H, W, 3] through encoder and decoder and back to uint8."""
    pixels = torch.from_numpy(windows).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    output = decode_clip(vae, encode_clip(vae, pixels)).clamp(-1, 1)
    return ((output + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()


def blocks(windows: np.ndarray) -> np.ndarray:
    """What one latent of time and place covers, four frames of 8x8 pixels after a window's first frame: [N, 768]."""
    n, _, height, width, colours = windows.shape
    cut = windows[:, 1:].reshape(n, -1, 4, height // 8, 8, width // 8, 8, colours)
    return cut.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, 4 * 8 * 8 * colours).astype(np.float32)


def linear_code(seen: np.ndarray, windows: np.ndarray, numbers: int = LATENT_CHANNELS) -> float:
    """PSNR in dB of `windows`, their first frames left out, through the best linear code (PCA) of `seen`.

    numbers: that a block of four frames is coded with, as many as the VAE has. Both uint8 [N, 1+4k, H, W, 3].
    """
    known, shown = blocks(seen), blocks(windows)
    mean = known.mean(0)
    axes = np.linalg.eigh(np.cov((known - mean).T))[1][:, -numbers:]
    error = (shown - mean) @ axes @ axes.T + mean - shown
    return float(-10 * np.log10(np.square(error).mean() / 255**2))


def films(seeds: range, short_side: int) -> Iterator[Film]:
    """Films of three shots."""
    return (make_film(seed, shots=3, width=short_side * 4 // 3 // 8 * 8, height=short_side) for seed in seeds)


def film_windows(seeds: range, short_side: int) -> np.ndarray:
    """A window of nine frames from within each shot of each film."""
    found = films(seeds, short_side)
    return np.stack([film.frames[shot.start + 12 : shot.start + 21] for film in found for shot in film.shots])


def cut_windows(seeds: range, short_side: int) -> np.ndarray:
    """A window around each cut of each film; the frame after the cut is number CUT, the first of the last latent."""
    found = films(seeds, short_side)
    return np.stack([film.frames[shot.start - CUT :][:9] for film in found for shot in film.shots[1:]])


def as_images(windows: np.ndarray) -> torch.Tensor:
    """[N, T, H, W, 3] uint8 to [N * T, H, W, 3] in 0..1."""
    return torch.from_numpy(windows.reshape(-1, *windows.shape[2:])).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="clips folder with its manifest.json beside it")
    parser.add_argument("--weights", type=Path, default=WEIGHTS / VAE_NAME)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--short-side", type=int, default=128)
    parser.add_argument("--comfyui", help="ComfyUI folder (default: COMFYUI_PATH)")
    args = parser.parse_args()
    add_comfyui_to_path(args.comfyui)
    state = load_file(args.weights)
    vae = build_vae(state["decoder.head.0.gamma"].shape[0])
    vae.load_state_dict({k: v.float() for k, v in state.items()})

    rows, scores = [], {"real": [], "film": []}
    for name, windows in held_out_windows(args.clips, args.short_side).items():
        output = round_trip(vae, windows)
        a, b = as_images(windows), as_images(output)
        result = (float(psnr(a, b).mean()), float(ssim(a, b).mean()))
        scores["film" if name.startswith("film") else "real"].append(result)
        print(f"{name:32s} PSNR {result[0]:.2f} dB  SSIM {result[1]:.3f}", flush=True)
        pair = np.concatenate([windows[-1, 4], output[-1, 4]], 0)
        rows.append(cv2.resize(pair, (192, 288), interpolation=cv2.INTER_AREA))
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + FILMS)
    cuts = cut_windows(seeds, args.short_side)
    first = slice(CUT, CUT + 1)
    after = psnr(as_images(cuts[:, first]), as_images(round_trip(vae, cuts)[:, first]))
    print(f"{'films, the frame after a cut':32s} PSNR {float(after.mean()):.2f} dB, of {len(cuts)} cuts")
    linear = linear_code(film_windows(range(CODE_FILMS), args.short_side), film_windows(seeds, args.short_side))
    print(f"{'films, linear code':32s} PSNR {linear:.2f} dB")
    for kind, values in scores.items():
        if values:
            mean = np.mean(values, axis=0)
            print(f"mean {kind:27s} PSNR {mean[0]:.2f} dB  SSIM {mean[1]:.3f}")
    args.out.mkdir(parents=True, exist_ok=True)
    sheet = np.concatenate(rows, 1)[:, :, ::-1]
    cv2.imwrite(str(args.out / "vae_round_trip.png"), np.ascontiguousarray(sheet))


if __name__ == "__main__":
    main()
