"""A beginning for the HR branch: tokens learn to hold the latents of their cell, with no host in the loop.

Not from the paper. A step of Stage I passes through the whole host, and as long as the LoRA cannot read a token yet its
gradient hardly says what to keep. Here a linear layer reads each cell's latents from its token, which takes a hundredth
of the time; the layer is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..phi.config import EncoderConfig
from ..phi.encoder import MemoryEncoder
from ..phi.positions import grid_for
from ..phi.trunk import reset_linear, whole_cells
from .draws import generator_for
from .module import TrainingModule
from .options import TrainOptions
from .source import BatchSource

LEARNING_RATE, WARMUP = 2e-3, 20


def cells_of(latents_BCTHW: Tensor, config: EncoderConfig) -> Tensor:
    """The latents [B,M,N] that each token covers; the first cell, which has one latent, has it in all its places."""
    grid = grid_for(latents_BCTHW.shape[3], latents_BCTHW.shape[4], config)
    clip, (time, height, width) = whole_cells(latents_BCTHW, grid, config), config.stride
    clip = torch.cat([clip[:, :, :1].expand(-1, -1, time - 1, -1, -1), clip], dim=2)
    return rearrange(clip, "b c (t st) (h sh) (w sw) -> b (t h w) (c st sh sw)", st=time, sh=height, sw=width)


def reconstruct(
    module: TrainingModule,
    source: BatchSource,
    options: TrainOptions,
    device: torch.device,
    tell: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> list[float]:
    """Trains the encoders of `module` that have an HR branch for `options.reconstruction` steps; returns the losses.

    tell: (step, steps, loss) after each; may raise to stop. The same options give the same weights.
    """
    encoders = [encoder for encoder in module.encoders if encoder.attention is not None]
    if not encoders:
        return []
    generator = generator_for(options.seed, "reconstruction")
    module.encoder.to(device), module.others.to(device)
    readers = [reader_for(encoder, generator).to(device) for encoder in encoders]
    trained = [p for part in (*encoders, *readers) for p in part.requires_grad_(True).parameters()]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, betas=(0.9, 0.99))
    losses: list[float] = []
    for step in range(options.reconstruction):
        up, down = (step + 1) / WARMUP, 2 * (options.reconstruction - step) / options.reconstruction
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, up, down)
        batch = source.rows(-1 - step, 0, options.batch_size, "train", lambda frames, row: (0, frames)).to(device)
        with torch.autocast(device.type, torch.bfloat16, options.mixed_precision == "bf16"):
            read: list[Any] = [
                nn.functional.mse_loss(
                    reader(module.tokens_of(encoder, batch)).float(), cells_of(batch.hr, encoder.config)
                )
                for encoder, reader in zip(encoders, readers, strict=True)
            ]
        loss = torch.stack(read).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, options.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
        tell(step, options.reconstruction, losses[-1])
    optimizer.zero_grad()
    return losses


def reader_for(encoder: MemoryEncoder, generator: torch.Generator) -> nn.Linear:
    """From a token to all latents of its cell."""
    time, height, width = encoder.config.stride
    reader = nn.Linear(encoder.config.width, encoder.config.latent_channels * time * height * width)
    reset_linear(reader, generator)
    return reader
