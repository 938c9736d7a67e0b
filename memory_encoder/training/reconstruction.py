"""A beginning for the HR branch: tokens learn to hold the latents of their cell, with no host in the loop.

Not from the paper. A step of Stage I passes through the whole host, and as long as the LoRA cannot read a token yet its
gradient hardly says what to keep. Here a linear layer reads each cell's latents from its token, which takes a hundredth
of the time; the layer is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from ..phi.config import EncoderConfig
from ..phi.encoder import MemoryEncoder
from ..phi.positions import cells_for, grid_for
from ..phi.trunk import reset_linear, whole_cells
from .distributed.shards import whole_value
from .draws import generator_for
from .finite import StepResult
from .module import Batch, TrainingModule
from .options import TrainOptions
from .source import BatchSource

LEARNING_RATE, WARMUP = 2e-3, 20


def cells_of(latents_BCTHW: Tensor, config: EncoderConfig) -> Tensor:
    """The latents [B,M,C,N] that each token covers; the first cell, which has one latent, has it in all its places."""
    grid = grid_for(latents_BCTHW.shape[3], latents_BCTHW.shape[4], config)
    return _cells(whole_cells(latents_BCTHW, grid, config), config.stride)


def _cells(clip_BCTHW: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Cells [B,M,C,N] of a clip of whole ones."""
    time, height, width = stride
    clip = torch.cat([clip_BCTHW[:, :, :1].expand(-1, -1, time - 1, -1, -1), clip_BCTHW], dim=2)
    return rearrange(clip, "b c (t st) (h sh) (w sw) -> b (t h w) c (st sh sw)", st=time, sh=height, sw=width)


def coarser(tokens_BMD: Tensor, teacher: EncoderConfig, config: EncoderConfig, latents: Tensor) -> Tensor:
    """A teacher's tokens of `latents` [B,C,T,H,W], averaged over the cells [B,M,D] of an encoder of a coarser rate."""
    frames, height, width = latents.shape[2:]
    rows, columns = grid_for(height, width, teacher)
    tokens = rearrange(tokens_BMD, "b (t h w) d -> b d t h w", h=rows, w=columns)
    (time, high, wide), (fine_time, fine_high, fine_wide) = config.stride, teacher.stride
    ratio = time // fine_time, high // fine_high, wide // fine_wide
    cells = (cells_for(frames, config.stride[0])[1], *grid_for(height, width, config))
    wanted = 1 + (cells[0] - 1) * ratio[0], cells[1] * ratio[1], cells[2] * ratio[2]
    tokens = tokens[:, :, :, : wanted[1], : wanted[2]]
    missing = [end for whole, found in zip(wanted, tokens.shape[2:], strict=True) for end in (whole - found, 0)]
    return _cells(nn.functional.pad(tokens, missing[::-1], mode="replicate"), ratio).mean(dim=3)


def check_teacher(teacher: EncoderConfig, configs: Sequence[EncoderConfig]) -> None:
    """Raises ValueError for an encoder whose cells do not fill those of the encoders that shall learn from it."""
    for config in configs:
        parts = zip(config.stride, teacher.stride, strict=True)
        same = (config.width, config.latent_channels) == (teacher.width, teacher.latent_channels)
        if not same or teacher.variant != "proposed" or any(large % small for large, small in parts):
            raise ValueError(
                f"teacher of rate {teacher.rate} ({teacher.variant}, width {teacher.width}) cannot begin an encoder of "
                f"rate {config.rate}, width {config.width}: give a trained encoder of the same host at a finer rate, "
                "such as 2x2x1 for 2x2x2"
            )


def reconstruct(
    module: TrainingModule,
    encoders: Sequence[MemoryEncoder],
    source: BatchSource,
    options: TrainOptions,
    device: torch.device,
    after: Callable[[int, StepResult], None] = lambda step, result: None,
    teacher: MemoryEncoder | None = None,
) -> list[float]:
    """Trains those of `encoders` that have an HR branch for `options.reconstruction` steps; returns the losses.

    encoders: of `module`, whose host shows them the LR latents, or copies of them. after: told each step and its
    result; may raise to stop. A step whose loss or gradient is not finite changes nothing. teacher: an encoder of a
    finer rate, see `check_teacher`; tokens then learn to be the mean of its tokens in their cell, which a LoRA that was
    trained with it can read. `source` gives its LR latents too. The same options give the same weights.
    """
    encoders = [encoder for encoder in encoders if encoder.attention is not None]
    if not encoders:
        return []
    generator = generator_for(options.seed, "reconstruction")
    for encoder in encoders:
        encoder.to(device)
    readers = [reader_for(encoder, generator).to(device) for encoder in encoders]
    if teacher is not None:
        teacher.to(device).requires_grad_(False)
    trained = [p for part in (*encoders, *readers) for p in part.requires_grad_(True).parameters()]
    optimizer = torch.optim.AdamW(
        trained, lr=LEARNING_RATE, weight_decay=0.0, betas=(0.9, 0.99), fused=device.type == "cuda"
    )

    def lacking(encoder: MemoryEncoder, reader: nn.Linear, batch: Batch) -> Tensor:
        tokens = module.tokens_of(encoder, batch)
        if teacher is None:
            return nn.functional.mse_loss(reader(tokens).float(), cells_of(batch.hr, encoder.config).flatten(2))
        with torch.no_grad():
            wanted = coarser(module.tokens_of(teacher, batch), teacher.config, encoder.config, batch.hr)
        return nn.functional.mse_loss(tokens.float(), wanted.float())

    losses: list[float] = []
    for step in range(options.reconstruction):
        up, down = (step + 1) / WARMUP, 2 * (options.reconstruction - step) / options.reconstruction
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, up, down)
        total = torch.zeros((), device=device)
        for index in range(step * options.accumulate, (step + 1) * options.accumulate):
            batch = source.rows(-1 - index, 0, options.batch_size, "train", lambda frames, row: (0, frames)).to(device)
            with torch.autocast(device.type, torch.bfloat16, options.mixed_precision == "bf16"):
                loss = torch.stack([lacking(*pair, batch) for pair in zip(encoders, readers, strict=True)]).mean()
            (loss / options.accumulate).backward()
            total += loss.detach() / options.accumulate
        result = StepResult(float(total), float(nn.utils.clip_grad_norm_(trained, options.clip)))
        if result.fault is None:
            optimizer.step()
            losses.append(result.loss)
        optimizer.zero_grad()
        after(step, result)
    return losses


def whole_copies(encoders: Sequence[MemoryEncoder], device: torch.device) -> list[MemoryEncoder]:
    """Copies of encoders whose weights may be split over processes, all of which must call it."""
    copies = []
    for encoder in encoders:
        copy = MemoryEncoder(encoder.config, device=device, dtype=torch.float32)
        copy.load_state_dict({name: whole_value(value) for name, value in encoder.state_dict().items()})
        copies.append(copy)
    return copies


def reader_for(encoder: MemoryEncoder, generator: torch.Generator) -> nn.Linear:
    """From a token to all latents of its cell."""
    time, height, width = encoder.config.stride
    reader = nn.Linear(encoder.config.width, encoder.config.latent_channels * time * height * width)
    reset_linear(reader, generator)
    return reader
