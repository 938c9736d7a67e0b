"""What a section of a film computes at full size, on the fake card: FLOPs of its steps and of what is beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from memory_encoder.pictures.codec import CONTEXT

from .film_pictures import small_vae_of, vae_of
from .film_step import Cell, grid_of, measured_step, model_of
from .films import film, pack
from .hosts import FullModel


@dataclass(frozen=True)
class Computed:
    """FLOPs (a multiplication and an addition are two).

    step: one look of the model at a section beside its memory. decode: the section becomes pictures, behind the latents
    that lead the VAE in; small: the same by a small VAE. shrink: they become latents of the low-resolution branch. phi:
    the memory encoder, with the host's first projection. film: the section's share of Save Film.
    """

    step: int
    decode: int
    small: int
    shrink: int
    phi: int
    film: int


def computed(card: Any, host: str, width: int, height: int) -> Computed:
    """All blocks, core's own VAEs, a section of 5 s behind another one, and a memory of 20 s at 4x4x2."""
    cell = Cell(host, "joint", width, height, layers=None)
    card.free = 2**60
    with FlopCounterMode(display=False) as step:
        measured_step(card, cell)
    model = model_of(card, replace(cell, layers=1))
    large, small = (_appended(model, cell, vae) for vae in (vae_of(card, model), small_vae_of(card, model)))
    piece = _piece(model, cell, vae_of(card, model))
    shrink, phi = (large[name] for name in ("encode", "phi"))
    return Computed(step.get_total_flops(), large["decode"], small["decode"], shrink, phi, piece)


def _latents(model: FullModel, cell: Cell, count: int) -> Tensor:
    return torch.zeros(1, model.latent[0], count, *grid_of(cell))


def _appended(model: FullModel, cell: Cell, vae: Any) -> dict[str, int]:
    """FLOPs of each part of a section joining the memory of a film; `vae` decodes and encodes."""
    compress = pack("nodes.runtime.compress")
    vae.first_stage_model.to("cuda")
    counts: dict[str, int] = {}

    def counted(name: str, call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(value: Tensor) -> Tensor:
            with FlopCounterMode(display=False) as counter:
                result = call(value)
            counts[name] = counts.get(name, 0) + counter.get_total_flops()
            return result

        return run

    codec = compress.codec_for(model.patcher, vae)
    codec = replace(codec, decode=counted("decode", codec.decode), encode=counted("encode", codec.encode))
    encoder = film(model, pieces=(CONTEXT + 1,)).encoder
    latents = _latents(model, cell, cell.plan().latents(cell.section))
    with torch.no_grad():
        memory = compress.compress(encoder, codec, encoder.empty_memory(1), latents)
        counts.clear()
        with FlopCounterMode(display=False) as whole:
            compress.compress(encoder, codec, memory, latents)
    return counts | {"phi": whole.get_total_flops() - sum(counts.values())}


def _piece(model: FullModel, cell: Cell, vae: Any) -> int:
    """FLOPs of Save Film for a section: of a piece as it decodes it, the latents in front of it included."""
    codec = pack("nodes.runtime.compress").codec_for(model.patcher, vae)
    length = codec.chunk_length(*grid_of(cell))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        codec.decode_after(_latents(model, cell, CONTEXT), _latents(model, cell, length))
    return counter.get_total_flops() * cell.plan().latents(cell.section) // length
