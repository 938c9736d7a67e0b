"""From VAE latents to memory: feeds both branches of phi, section by section (paper Figures 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..frames import first_frame
from ..phi.config import RECENT_LATENTS, EncoderConfig
from ..phi.encoder import MemoryEncoder
from ..phi.low_resolution import downsample, encode_cells, lr_frame_indices
from ..phi.positions import cells_for, grid_for
from ..pictures.codec import CONTEXT, Codec
from ..pictures.decoding import decoded
from .keyframe_memory import KeyframeMemory
from .memory_file import Memory, holds_pictures
from .picture_choice import PictureChoice
from .video_memory import VideoMemory

PIECE = 64  # latents that become pictures at once: any usual section, and not a clip of a minute (4.6 GB at 832x480)


def append_history(
    encoder: MemoryEncoder,
    codec: Codec,
    memory: VideoMemory,
    latents_BCTHW: Tensor,
    prompt: str = "",
    seed: int | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    ready: Callable[[], None] | None = None,
    small: Tensor | None = None,
) -> VideoMemory:
    """Appends normalised latents to a memory; nothing already compressed is computed again.

    device, dtype: where phi computes, by default where its weights lie. The memory returned lies on the CPU.
    ready: called when the VAE has done its part, before phi runs. small: what `small_pictures` made of the latents.

    Raises ValueError when the memory was made by another encoder or the latents do not continue it.
    """
    check_maker(memory, encoder.config)
    _check_batch(memory, latents_BCTHW)
    lr, lr_frames = None, None
    if encoder.config.has_lr:
        if small is None:
            (small,) = small_pictures([memory], codec, latents_BCTHW)
        lr, lr_frames = _low_resolution(encoder.config, codec, memory, latents_BCTHW, small)
    if ready is not None:
        ready()
    weight = next(encoder.parameters(), latents_BCTHW)
    place = {"device": device or weight.device, "dtype": dtype or weight.dtype}
    encoded = encoder.append(
        latents_BCTHW.to(**place), None if lr is None else lr.to(**place), memory.state.to(**place)
    ).to(device=torch.device("cpu"))
    recent = latents_BCTHW
    if memory.recent.shape[2]:
        recent = torch.cat([memory.recent, latents_BCTHW.to(memory.recent)], dim=2)
    return memory.extended(encoded, recent[:, :, -RECENT_LATENTS:].clone(), lr_frames, prompt, seed)


def append_pictures(
    config: EncoderConfig,
    codec: Codec,
    memory: KeyframeMemory,
    latents_BCTHW: Tensor,
    prompt: str = "",
    seed: int | None = None,
    repeated: int = 0,
    choice: PictureChoice | None = None,
) -> KeyframeMemory:
    """Appends normalised latents, a clip of its own, to a memory of pictures; see `KeyframeMemory.appended`."""
    check_maker(memory, config)
    if latents_BCTHW.shape[0] != 1:
        raise ValueError(
            f"latent holds {latents_BCTHW.shape[0]} clips; a memory of keyframes is of one: pick it with Latent From "
            "Batch"
        )
    size = (latents_BCTHW.shape[3], latents_BCTHW.shape[4])
    pictures = codec.decode(latents_BCTHW)[0]
    return memory.appended(pictures, latents_BCTHW.shape[2], size, prompt, seed, repeated, choice)


def check_maker(memory: Memory, config: EncoderConfig) -> None:
    """Raises ValueError when a memory was made by an encoder with other settings."""
    if memory.config != config:
        raise ValueError(
            f"memory was made by another encoder ({memory.config.host} {memory.config.rate} {memory.config.variant}); "
            "compress the history with the encoder in use"
        )


def _check_batch(memory: VideoMemory, latents: Tensor) -> None:
    if memory.latents and memory.batch != latents.shape[0]:
        raise ValueError(f"latent holds {latents.shape[0]} clips, memory {memory.batch}; continue as many as it has")


def decode_again(memory: Memory, codec: Codec, latents: Tensor) -> None:
    """Decodes normalised latents as appending them does, for whoever watches the codec."""
    if holds_pictures(memory):
        codec.decode(latents)
    elif any(part.config.has_lr for part in memory.parts):
        for _ in _pieces(memory, codec, latents):
            pass


def _pieces(memory: VideoMemory, codec: Codec, latents: Tensor) -> Iterator[Tensor]:
    """Pictures [B,T,H,W,3] of the latents, which continue a memory, in pieces of PIECE latents."""
    before = memory.recent[:, :, -CONTEXT:].to(latents) if memory.state.latents else None
    return decoded(latents.split(PIECE, dim=2), codec, before)


def small_pictures(memories: Sequence[VideoMemory], codec: Codec, latents: Tensor) -> list[Tensor]:
    """For each of the memories that one film has: the pictures [B,k,h,w,3] that its LR branch sees of the latents.

    The latents are decoded once, in pieces, so that a clip of any length takes no more room than one of them.
    """
    first = memories[0]
    _check_batch(first, latents)
    frame, found = first_frame(first.state.latents, codec.temporal), [[] for _ in memories]
    for pictures in _pieces(first, codec, latents):
        for seen, memory in zip(found, memories, strict=True):
            grid = grid_for(latents.shape[3], latents.shape[4], memory.config)
            keep = lr_frame_indices(frame, pictures.shape[1], memory.config.stride[0])
            seen.append(downsample(pictures[:, keep], grid, memory.config, codec.spatial))
        frame += pictures.shape[1]
    return [torch.cat(seen, dim=1) for seen in found]


def _low_resolution(
    config: EncoderConfig, codec: Codec, memory: VideoMemory, latents: Tensor, frames: Tensor
) -> tuple[Tensor, Tensor]:
    """LR tokens [B,D,t,h,w] of the cells that the latents touch, and the LR frames that the next append needs."""
    before, step = memory.state.latents, codec.temporal
    if memory.lr_frames is not None:
        frames = torch.cat([memory.lr_frames.to(frames), frames], dim=1)

    done, _ = cells_for(before, config.stride[0])
    complete, started = cells_for(before + latents.shape[2], config.stride[0])
    lr, rest = encode_cells(frames, codec.encode, step, done, complete, started)
    return codec.embed(lr), rest.clone()
