"""Training material of the tiny family: procedural films and reels of real clips, as videos, then as a cached dataset.

    python -m demo.tiny_family.prepare videos --clips CLIPS --out VIDEOS
    python -m demo.tiny_family.prepare cache --videos VIDEOS --out DATASET [--rates 4x4x2,2x2x2,2x2x1]

A reel joins short pieces of real clips with cuts, each cropped, mirrored and tinted at random, so that a few minutes
of film show many pictures. `cache` makes what ``python -m memory_encoder cache`` makes, three times faster: one pass
of the tiny VAE over a whole window, in bfloat16. Both go on where they were stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import (
    latent_format_named,
    load_comfy,
    load_host_shape,
    load_text_encoder,
    load_vae,
)
from memory_encoder.pictures.codec import Codec
from memory_encoder.training.dataset.cache import build_cache
from memory_encoder.training.dataset.clips import Progress
from memory_encoder.training.dataset.settings import CacheSettings, latent_space, parse_rates
from memory_encoder.training.dataset.text import TextEncoder

from ..clip import write_frames
from .clips import HELD_OUT_SEED, Clip, add_clips, list_clips, read_frames
from .install import VAE_NAME, WEIGHTS
from .make_host import write_host
from .procedural import Film, make_film
from .wan_vae import build_vae, decode_clip, encode_clip

WIDTH, HEIGHT, FPS = 128, 96, 16
SHOTS = 5
SHORT_SHOT, LONG_SHOT = 16, 32  # frames of a shot: a window of 81 frames holds five short ones or two and a half long
REEL_FRAMES = 161  # two windows that touch
PIECE_FRAMES = (12, 49)  # shortest and longest piece of a reel
SOURCE_SHORT_SIDE = 144  # real clips are kept at this size while reels are cut from them
WINDOW_SECONDS, STRIDE_SECONDS = 81 / FPS, 80 / FPS
RATES = ("4x4x2", "2x2x2", "2x2x1")
TEXT_ENCODER = "demo.nodes.text_encoder:HashTextEncoder"
SOLO_SEED = 500_000  # films of one character, from here on


def cast_of(seed: int) -> int:
    """Characters of a film: two, but one from SOLO_SEED on, where whoever appears is the one the prompt means."""
    return 1 if seed % HELD_OUT_SEED >= SOLO_SEED else 2


def film_of(seed: int, long: bool) -> Film:
    """A training film of five shots, one second each, or two when `long`."""
    return make_film(seed, SHOTS, WIDTH, HEIGHT, LONG_SHOT if long else SHORT_SHOT, FPS, cast_of(seed))


def write_film(folder: Path, seed: int, long: bool) -> None:
    """The film as an MP4 and its storyboard beside it; nothing is done when they are there."""
    path = folder / f"film_{seed:07d}.mp4"
    if not path.exists():
        film = film_of(seed, long)
        shots = [{"start": entry["time"], "prompt": entry["prompt"]} for entry in film.storyboard()]
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps({"version": 1, "shots": shots}))
        write_whole(path, film.frames)


def write_whole(path: Path, frames: np.ndarray) -> None:
    """Writes an MP4 under another name first, so that a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{path.name}")
    write_frames(partial, frames, FPS)
    partial.replace(path)


class Reels:
    """Cuts reels from real clips; which ones follows from the reel's number alone."""

    def __init__(self, clips: list[Clip]) -> None:
        self.sources = [_resampled(clip) for clip in clips]
        lengths = np.array([len(source) for source in self.sources], dtype=np.float64)
        self.shares = lengths**0.5 / (lengths**0.5).sum()  # the longest clip is half of all the material

    def reel(self, number: int) -> np.ndarray:
        """Frames uint8 [161, 96, 128, 3]."""
        rng = np.random.default_rng((7, number))
        pieces: list[np.ndarray] = []
        while sum(map(len, pieces)) < REEL_FRAMES:
            source = self.sources[rng.choice(len(self.sources), p=self.shares)]
            length = min(int(rng.integers(*PIECE_FRAMES)), len(source))
            start = int(rng.integers(len(source) - length + 1))
            pieces.append(varied(source[start : start + length], rng))
        return np.concatenate(pieces)[:REEL_FRAMES]


def varied(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random crop of 4:3, mirrored half of the time, with other brightness and colours; size 128x96."""
    height, width = frames.shape[1:3]
    side = min(height, width * HEIGHT / WIDTH) * rng.uniform(0.65, 1.0)
    high, wide = int(side), int(side * WIDTH / HEIGHT)
    top, left = int(rng.integers(height - high + 1)), int(rng.integers(max(width - wide, 0) + 1))
    crop = frames[:, top : top + high, left : left + wide]
    crop = crop[:, :, ::-1] if rng.random() < 0.5 else crop
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.85, 1.15, size=3)
    small = [cv2.resize(np.ascontiguousarray(f), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for f in crop]
    return np.clip(np.stack(small) * gain, 0, 255).astype(np.uint8)


def _resampled(clip: Clip) -> np.ndarray:
    """A clip at about 16 frames per second with a short side of 144, uint8 [T,H,W,3]."""
    step = max(1, round(clip.fps / FPS))
    scale = None
    frames = []
    for frame in read_frames(clip.path, step):
        scale = scale or SOURCE_SHORT_SIDE / min(frame.shape[:2])
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        frames.append(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    return np.stack(frames)


@dataclass(frozen=True)
class TinyCodec:
    """Makes the codec of the tiny VAE in whichever process asks: whole clips in one pass, in bfloat16, on the CPU."""

    comfy: str | None

    def __call__(self) -> Codec:
        load_comfy(self.comfy)
        state = load_file(WEIGHTS / VAE_NAME)
        vae = build_vae(state["decoder.head.0.gamma"].shape[0])
        vae.load_state_dict({name: value.float() for name, value in state.items()})
        for parameter in vae.requires_grad_(False).parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        latent_format = latent_format_named("Wan21")

        @torch.no_grad()
        def encode(pictures: Tensor) -> Tensor:
            pixels = pictures.movedim(-1, 1).contiguous(memory_format=torch.channels_last_3d) * 2 - 1
            with torch.autocast("cpu", torch.bfloat16):
                latents = encode_clip(vae, pixels)
            return latent_format.process_in(latents.float())

        @torch.no_grad()
        def decode(latents: Tensor) -> Tensor:
            latents = latent_format.process_out(latents).contiguous(memory_format=torch.channels_last_3d)
            with torch.autocast("cpu", torch.bfloat16):
                pixels = decode_clip(vae, latents)
            return pixels.float().movedim(1, -1) / 2 + 0.5

        return Codec(encode=encode, decode=decode, embed=_no_host)


def _no_host(latents: Tensor) -> Tensor:
    raise ValueError("this codec was made without a host; it cannot embed")


def make_videos(args: argparse.Namespace) -> None:
    """Films and reels to train on, and below `heldout` films and clips that are not."""
    jobs: list[tuple[Path, int, bool]] = [(args.out, seed, seed % 5 == 0) for seed in range(args.films)]
    jobs += [(args.out, SOLO_SEED + seed, False) for seed in range(args.solo_films)]
    jobs += [(args.out / "heldout", HELD_OUT_SEED + seed, False) for seed in range(args.heldout_films)]
    with ProcessPoolExecutor(args.jobs) as pool:
        list(pool.map(write_film, *zip(*jobs, strict=True)))
    print(f"{len(jobs)} films", flush=True)
    for split, clips, count in (
        (args.out, list_clips(args.clips), args.reels),
        (args.out / "heldout", list_clips(args.clips, held_out=True), args.heldout_reels),
    ):
        missing = [n for n in range(count) if not (split / f"reel_{n:04d}.mp4").exists()]
        reels = Reels(clips) if missing else None
        for number in missing:
            assert reels is not None
            write_whole(split / f"reel_{number:04d}.mp4", reels.reel(number))
        print(f"{count} reels of {len(clips)} clips", flush=True)


def make_cache(args: argparse.Namespace) -> None:
    load_comfy(args.comfy)
    model = load_host_shape(write_host(args.out / "shape.safetensors"))
    heldout = tuple(path.relative_to(args.videos).as_posix() for path in sorted(args.videos.glob("heldout/*.mp4")))
    rates = parse_rates(args.rates)
    settings = CacheSettings(
        WIDTH, HEIGHT, FPS, WINDOW_SECONDS, STRIDE_SECONDS, rates=rates, heldout=heldout, on_bad="refuse",
        buckets=(), min_window_seconds=0.0,
    )  # fmt: skip
    space = latent_space(find_host(model.diffusion_model), model.latent_format, load_vae(WEIGHTS / VAE_NAME))
    text = TextEncoder(TEXT_ENCODER, lambda: load_text_encoder([TEXT_ENCODER], "wan"))
    codec = TinyCodec(args.comfy)
    print(build_cache(args.videos, args.out, settings, space, codec, text, args.jobs, _tell))


def _tell(progress: Progress) -> None:
    if progress.done and progress.clip % 20 == 0:
        sys.stderr.write(f"{progress.clip + 1} of {progress.clips}: {progress.name}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands: Any = parser.add_subparsers(dest="command", required=True)
    videos, cache = commands.add_parser("videos"), commands.add_parser("cache")
    add_clips(videos)
    videos.add_argument("--films", type=int, default=250)
    videos.add_argument("--solo-films", type=int, default=350)
    videos.add_argument("--reels", type=int, default=130)
    videos.add_argument("--heldout-films", type=int, default=8)
    videos.add_argument("--heldout-reels", type=int, default=4)
    cache.add_argument("--videos", type=Path, required=True)
    cache.add_argument("--rates", default=",".join(RATES), help="compression rates of the encoders to train")
    cache.add_argument("--comfy", help="ComfyUI's folder; by default the environment variable COMFYUI_PATH")
    for command in (videos, cache):
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    make_videos(args) if args.command == "videos" else make_cache(args)


if __name__ == "__main__":
    main()
