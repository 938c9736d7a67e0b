"""A dataset of latents that are in memory already, such as core's dataset nodes make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ...phi.config import Padding
from ...pictures.codec import Codec
from ...storyboard import Shot, Storyboard
from .dataset import Entry, MemoryDataset
from .settings import DatasetError, LatentSpace, heldout_names
from .text import EMPTY, Conditioning
from .windows import low_resolution_latents

T = TypeVar("T")


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
    texts: dict[str, _Constant[Conditioning]] = {EMPTY: _Constant(Conditioning.nothing(space))}
    entries = []
    for number, (name, (row, text)) in enumerate(zip(names, rows, strict=True)):
        watch(number, len(rows))
        if row.ndim != 5 or row.shape[1] != space.channels or row.shape[2] < 2:
            raise DatasetError(
                f"latents: entry {number} has shape {tuple(row.shape)}, not [1, {space.channels}, frames, height, "
                "width] with at least 2 frames; encode clips, not images, with the VAE that belongs to the model"
            )
        prompt = f"conditioning {number}"
        made = Conditioning.from_core(text, f"conditioning: entry {number}")
        made.check(space)
        texts[prompt] = _Constant(made)
        tensors = _encoded(row, space, codec, rates, padding)
        captions = Storyboard((Shot(prompt, 0.0),))
        split = "heldout" if name in out else "train"
        entries.append(Entry(name, split, 0.0, tuple(row.shape[1:]), captions, _Constant(tensors)))
    watch(len(rows), len(rows))
    return MemoryDataset(tuple(entries), space, rates, padding, fps, texts)


@dataclass(frozen=True)
class _Constant(Generic[T]):
    value: T

    def __call__(self) -> T:
        return self.value


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
