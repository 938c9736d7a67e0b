"""Encoder and host as one module whose forward is a loss, so that Accelerate can prepare it for many processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..cached import KeyValueCache
from ..continuation import Context, ContinuationDraw, continuation_loss
from ..cross_attention import CrossMemory
from ..encoder import MemoryEncoder
from ..hosts import find_host
from ..hosts.base import HistoryTimestep
from ..injection import DIFFUSION_MODEL, KEY, DiffusionModelWrapper
from ..positions import cell_coordinates, cells_for, grid_for, lattice_coordinates
from ..retrieval import RetrievalDraw, retrieval_loss
from ..selection import InjectedMemory

TIMESTEP_SCALE = 1000.0  # core hands flow models t * 1000


@dataclass(frozen=True)
class Batch:
    """Clips of one training step.

    hr: normalised latents [B,C,T,H,W]. lr: normalised LR latents [B,C,t,h,w] or None. conditioning: arguments of the
    host's forward by name, such as context [B,N,D]. rate: of the LR latents where it is not the encoder's.
    """

    hr: Tensor
    lr: Tensor | None
    conditioning: dict[str, Tensor]
    rate: str | None = None

    def rows(self, start: int, stop: int) -> Batch:
        """The clips of one process."""
        conditioning = {name: value[start:stop] for name, value in self.conditioning.items()}
        lr = None if self.lr is None else self.lr[start:stop]
        return replace(self, hr=self.hr[start:stop], lr=lr, conditioning=conditioning)

    def to(self, device: torch.device) -> Batch:
        conditioning = {name: value.to(device) for name, value in self.conditioning.items()}
        lr = None if self.lr is None else self.lr.to(device)
        return replace(self, hr=self.hr.to(device), lr=lr, conditioning=conditioning)


class TrainingModule(nn.Module):
    """phi and G of the two equations; only the encoder and the host's LoRA have gradients."""

    def __init__(
        self,
        encoder: MemoryEncoder,
        diffusion_model: nn.Module,
        history_timestep: HistoryTimestep = "zero",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.diffusion_model = encoder, diffusion_model
        self.history_timestep: HistoryTimestep = history_timestep
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, batch: Batch, drawn: RetrievalDraw | ContinuationDraw) -> Tensor:
        """The loss of Eq. 3 or Eq. 4, by the kind of `drawn`."""

        def predict(x_t: Tensor, t: Tensor, memory: InjectedMemory | None, first: int) -> Tensor:
            return self.predict(x_t, t, memory, first, batch.conditioning)

        if isinstance(drawn, RetrievalDraw):
            stride = self.encoder.config.stride[0]
            return retrieval_loss(batch.hr, batch.lr, stride, drawn, self.compress, predict)
        if drawn.context is not None:
            shown = self.context(batch, drawn.context)
            return continuation_loss(batch.hr, None, drawn, lambda hr, lr: shown, predict)
        lr = batch.lr
        if lr is not None:
            lr = lr[:, :, : cells_for(drawn.history, self.encoder.config.stride[0])[0]]

        def compress(hr: Tensor, lr: Tensor | None) -> InjectedMemory:
            memory = self.compress(hr, lr)
            return self.with_window(memory, hr, drawn.window) if drawn.window else memory

        return continuation_loss(batch.hr, lr, drawn, compress, predict)

    def compress(self, hr: Tensor, lr: Tensor | None) -> InjectedMemory:
        """phi(H) with the coordinates of its tokens, times counted from the clip's first latent."""
        config = self.encoder.config
        weight = next(self.encoder.parameters(), hr)
        embedded = None
        if lr is not None and config.has_lr:
            embedded = find_host(self.diffusion_model).embed(lr).to(weight.dtype)
        encoded = self.encoder.append(hr.to(weight.dtype), embedded)
        coordinates = torch.cat([encoded.coordinates, encoded.tail_coordinates])
        hidden, cross = encoded.all_hidden(), ()
        if hidden is not None and self.encoder.cross is not None:
            cross = (CrossMemory(self.encoder.cross, hidden, coordinates),)
        cache = KeyValueCache() if config.memory_attention == "cached" else None
        return InjectedMemory(encoded.all_tokens(), coordinates, self.history_timestep, cache, cross)

    def with_window(self, memory: InjectedMemory, hr: Tensor, count: int) -> InjectedMemory:
        """The memory with the last `count` latents of its clip beside it, uncompressed (paper section 4.5)."""
        last = self.uncompressed(hr[:, :, -count:], max(hr.shape[2] - count, 0))
        tokens = torch.cat([memory.tokens, last.tokens.to(memory.tokens)], dim=1)
        return replace(memory, tokens=tokens, coordinates=torch.cat([memory.coordinates, last.coordinates]))

    def context(self, batch: Batch, context: Context) -> InjectedMemory:
        """What a host that is pretrained sees beside its section."""
        if not context.coarse or batch.lr is None:
            return self.uncompressed(batch.hr[:, :, context.start : context.stop], context.start)
        config = replace(self.encoder.config, rate=batch.rate or self.encoder.config.rate)
        cells = cells_for(context.stop, config.stride[0])[0]
        tokens = find_host(self.diffusion_model).embed(batch.lr[:, :, :cells]).flatten(2).transpose(1, 2)
        grid = grid_for(batch.hr.shape[3], batch.hr.shape[4], config)
        coordinates = cell_coordinates(0, cells, grid, config, batch.hr.shape[2])
        return InjectedMemory(tokens.to(batch.hr), coordinates, self.history_timestep)

    def uncompressed(self, hr: Tensor, first: int = 0) -> InjectedMemory:
        """Clean latents [B,C,T,H,W] of a clip, from its latent `first` on, as tokens of the host's own patchifier."""
        tokens = find_host(self.diffusion_model).embed(hr)
        coordinates = lattice_coordinates(*tokens.shape[2:], start=first)
        return InjectedMemory(tokens.flatten(2).transpose(1, 2).to(hr), coordinates, self.history_timestep)

    def predict(
        self, x_t: Tensor, t: Tensor, memory: InjectedMemory | None, first: int, conditioning: dict[str, Tensor]
    ) -> Tensor:
        """The host's velocity for latents x_t [B,C,T,H,W] whose first frame has the true time `first`."""
        if memory is None:
            width = find_host(self.diffusion_model).width
            memory = InjectedMemory(x_t.new_zeros(1, 0, width), torch.zeros(0, 3), self.history_timestep)
        wrapper = DiffusionModelWrapper(memory.shifted(-float(first)), self.gradient_checkpointing)
        options: dict[str, Any] = {"wrappers": {DIFFUSION_MODEL: {KEY: [wrapper]}}}
        arguments = {name: value.to(x_t.dtype) for name, value in conditioning.items()}
        return self.diffusion_model(x_t, t * TIMESTEP_SCALE, transformer_options=options, **arguments)
