"""What is measured on: latents of clips and films that nothing is trained on, made once and kept in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demo.tiny_family.clips import list_clips
from demo.tiny_family.evaluate_family import FIRST_FILM
from demo.tiny_family.prepare import FPS, HEIGHT, WIDTH, TinyCodec, film_of
from memory_encoder.files import write_atomically
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.pictures.codec import Codec
from memory_encoder.training.dataset.video import VideoReader
from memory_encoder.training.dataset.windows import low_resolution_latents

from .returns import make_return
from .settings import RATES, SECOND_RATE, SECONDS, Protocol

RETRIEVED = 49  # frames of a retrieval clip
FIRST_PIECE, OTHER_PIECE, GIVEN, MADE = 33, 12, 4, 16  # frames of a real clip that returns


@dataclass(frozen=True)
class Clips:
    """Clips of one length: latents [N,C,T,H,W], LR latents by rate, true pictures uint8 [N,F,H,W,3]."""

    names: tuple[str, ...]
    hr: Tensor
    lr: dict[str, Tensor]
    pictures: Tensor


def make_material(protocol: Protocol, clips: Path, path: Path) -> None:
    """Writes the material of all three measures; nothing is done when it is there."""
    if path.exists():
        return
    codec = TinyCodec(None)()
    real = real_windows(clips)
    names = [(name, part) for name, parts in real.items() for part in parts][: protocol.real_windows]
    retrieval = {f"{name} {part}": real[name][part][:RETRIEVED] for name, part in names}
    first = range(FIRST_FILM, FIRST_FILM + protocol.retrieval_films)
    retrieval |= {f"film {seed}": film_of(seed, False).frames[:RETRIEVED] for seed in first}
    films = [make_return(seed) for seed in range(FIRST_FILM, FIRST_FILM + protocol.use_films)]
    material: dict[str, Any] = {
        "retrieval": encode(codec, retrieval),
        "films": films,
        "histories": encode(codec, {film.name: film.frames[: 1 + 16 * max(SECONDS)] for film in films}),
        "reels": encode_reels(codec, real, names),
    }
    write_atomically(path, lambda temporary: torch.save(material, temporary))


def load_material(path: Path) -> dict[str, Any]:
    """The file holds objects of this package; it is made on the same machine."""
    return torch.load(path, weights_only=False)


def real_windows(clips: Path) -> dict[str, dict[str, np.ndarray]]:
    """Windows of each held-out real clip that do not overlap, evenly spread; clips shorter than one are left out."""
    length = FIRST_PIECE + GIVEN + MADE
    found: dict[str, dict[str, np.ndarray]] = {}
    for clip in list_clips(clips, held_out=True):
        frames = np.stack([picture.pixels for picture in VideoReader(clip.path, FPS, WIDTH, HEIGHT)])
        starts = np.linspace(0, len(frames) - length, len(frames) // length).astype(int)
        if len(starts):
            found[clip.name] = {f"from {start}": frames[start : start + length] for start in starts}
    return found


def encode(codec: Codec, clips: dict[str, np.ndarray]) -> Clips:
    """Latents at all rates of clips of one length."""
    hr, lr, pictures = [], {rate: [] for rate in (*RATES, SECOND_RATE)}, []
    for frames in clips.values():
        shown = torch.from_numpy(frames).float()[None] / 255
        hr.append(codec.encode(shown))
        for rate in lr:
            config = EncoderConfig("wan", 1, hr[0].shape[1], rate=rate, variant="only_lr")
            lr[rate].append(low_resolution_latents(shown, hr[-1].shape[2], config, codec))
        pictures.append(torch.from_numpy(frames))
    joined = {rate: torch.cat(values) for rate, values in lr.items()}
    return Clips(tuple(clips), torch.cat(hr), joined, torch.stack(pictures))


def encode_reels(codec: Codec, real: dict[str, dict[str, np.ndarray]], names: list[tuple[str, str]]) -> Clips:
    """A piece of a clip, a piece of another, then the first goes on. `pictures` hold the return's made frames too."""
    reels = {}
    for name, part in names:
        other = real[next(key for key in real if key != name)]
        frames, between = real[name][part], next(iter(other.values()))
        reels[f"{name} {part}"] = np.concatenate([frames[:FIRST_PIECE], between[:OTHER_PIECE], frames[FIRST_PIECE:]])
    seen = encode(codec, {name: frames[:-MADE] for name, frames in reels.items()})
    return Clips(seen.names, seen.hr, seen.lr, torch.stack([torch.from_numpy(frames) for frames in reels.values()]))
