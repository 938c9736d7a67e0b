"""A dataset of latents that are in memory already, such as core's dataset nodes make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...phi.config import Padding
from ...pictures.codec import Codec
from ...storyboard import Shot, Storyboard
from .dataset import MemoryDataset
from .index import Findings
from .settings import DatasetError, LatentSpace, heldout_names
from .text import EMPTY, Conditioning
from .windows import low_resolution_latents


def dataset_from_latents(
    latents: Sequence[Tensor],
    conditioning: Sequence[Sequence[Any]],
    space: LatentSpace,
    codec: Codec,
    rates: tuple[str, ...],
    fps: float,
    padding: Padding = "ceil",
    heldout: tuple[str, ...] | float = 0.0,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> MemoryDataset:
    """A dataset of normalised latents [B,C,T,H,W], each row a window, with core's CONDITIONING for each.

    Pictures for the LR latents are decoded, since the originals are not there; a folder of clips does better.
    conditioning: one for all, one for each latent, or for a batch one of as many entries as it has rows (core's
    Resolution Bucket). Windows are called "latent 0" and so on, also for `heldout`. watch: (done, total) rows; may
    raise to stop.

    Raises DatasetError that names the entry that does not fit.
    """
    if not latents:
        raise DatasetError("latents are empty; connect Make Training Dataset or Load Training Dataset")
    rows = list(_paired(latents, conditioning))
    names = [f"latent {number}" for number in range(len(rows))]
    out = heldout_names(names, heldout)
    findings, memory = Findings(), Memory({}, {EMPTY: Conditioning.nothing(space)})
    findings.text(EMPTY, EMPTY, "")
    for number, (name, (row, text)) in enumerate(zip(names, rows, strict=True)):
        watch(number, len(rows))
        if row.ndim != 5 or row.shape[1] != space.channels or row.shape[2] < 2:
            raise DatasetError(
                f"latents: entry {number} has shape {tuple(row.shape)}, not [1, {space.channels}, frames, height, "
                "width] with at least 2 frames; encode clips, not images, with the VAE that belongs to the model"
            )
        prompt = f"conditioning {number}"
        made = Conditioning.from_core(text, f"conditioning: entry {number}")
        made.check(space.host, space.text_width, space.pooled_width)
        memory.texts[prompt] = made
        findings.text(prompt, prompt, "")
        memory.windows[name] = _encoded(row, space, codec, rates, padding)
        findings.clip(number, name, "heldout" if name in out else "train", Storyboard((Shot(prompt, 0.0),)))
        findings.window(number, 0.0, (row.shape[2], row.shape[3], row.shape[4]), name, "")
    watch(len(rows), len(rows))
    index = findings.index()
    return MemoryDataset(index, memory, space, rates, padding, fps, index.buckets)


@dataclass(frozen=True)
class Memory:
    """Tensors of windows and encoded prompts by name, as a `Store`."""

    windows: dict[str, dict[str, Tensor]]
    texts: dict[str, Conditioning]

    def window(self, file: str, sha256: str) -> dict[str, Tensor]:
        return self.windows[file]

    def text(self, file: str, sha256: str) -> Conditioning:
        return self.texts[file]


def _encoded(
    row: Tensor, space: LatentSpace, codec: Codec, rates: tuple[str, ...], padding: Padding
) -> dict[str, Tensor]:
    tensors = {"hr": row[0]}
    with torch.no_grad():
        pictures = codec.decode(row)
        for rate in rates:
            config = space.encoder_config(rate, padding)
            tensors[f"lr.{rate}"] = low_resolution_latents(pictures, row.shape[2], config, codec)[0]
    with torch.inference_mode(False):  # copies that training may use
        return {name: tensor.detach().cpu().float().clone() for name, tensor in tensors.items()}


def _paired(latents: Sequence[Tensor], conditioning: Sequence[Sequence[Any]]) -> Iterable[tuple[Tensor, Sequence[Any]]]:
    """Rows [1,...] of the latents with their entry of a CONDITIONING."""
    if len(conditioning) not in (1, len(latents)):
        raise DatasetError(
            f"conditioning has {len(conditioning)} entries for {len(latents)} latents; give one for all or one for each"
        )
    for number, batch in enumerate(latents):
        texts = conditioning[number if len(conditioning) > 1 else 0]
        if len(texts) not in (1, batch.shape[0]):
            raise DatasetError(
                f"conditioning: entry {number} has {len(texts)} texts for {batch.shape[0]} latents; give one or as many"
            )
        for place in range(batch.shape[0]):
            yield batch[place : place + 1], texts[place if len(texts) > 1 else 0]
