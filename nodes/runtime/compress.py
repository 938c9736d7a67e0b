"""From LATENTs to memory: the VAE and the encoder, on the device while they work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...memory_encoder.injection.hosts.comfy_models import codec
from ...memory_encoder.memory.compressor import append_history, append_pictures, small_pictures
from ...memory_encoder.memory.memory_file import Memory, holds_pictures
from ...memory_encoder.memory.picture_choice import PictureChoice
from ...memory_encoder.memory.video_memory import VideoMemory
from ...memory_encoder.pictures.codec import Codec, codec_of
from .managed import ManagedEncoder

log = logging.getLogger("video_memory")


def normalised_history(model: Any, latent: dict[str, Any], name: str) -> Tensor:
    """LATENT -> latents [B,C,T,H,W] in the model's normalised space; raises ValueError that names the input."""
    samples = latent["samples"]
    latent_format = model.get_model_object("latent_format")
    channels = latent_format.latent_channels
    if getattr(samples, "is_nested", False) or samples.ndim != 5 or samples.shape[1] != channels:
        shape = "a nested latent" if getattr(samples, "is_nested", False) else f"shape {tuple(samples.shape)}"
        raise ValueError(
            f"{name}: {shape} does not fit the model, which works on [batch, {channels}, frames, height, width]; "
            "encode the clip with the video VAE that belongs to the model"
        )
    if not torch.isfinite(samples).all():
        raise ValueError(f"{name}: the latent holds NaN or infinite values; make it again")
    return latent_format.process_in(samples)


def latents_of(model: Any, normalised: Tensor) -> Tensor:
    """Latents in VAE space for normalised ones."""
    return model.get_model_object("latent_format").process_out(normalised)


def codec_for(model: Any, vae: Any) -> Codec:
    """VAE and host as the compressor sees them; raises ValueError when the VAE is not the model's."""
    return codec(model, vae)


def memory_codec(codec: Codec, model: Any, encoder: ManagedEncoder) -> Codec:
    """The codec for what joins a memory: where the encoder has a small VAE, that decodes and the model's own encodes.

    Raises ValueError when the small one makes other latents.
    """
    if encoder.lr_vae is None:
        return codec
    small = codec_of(encoder.lr_vae, model.get_model_object("latent_format"), name="lr_vae")
    if (small.temporal, small.spatial) != (codec.temporal, codec.spatial):
        raise ValueError(
            f"lr_vae makes {small.temporal} pictures of a latent, {small.spatial} times its size, and vae "
            f"{codec.temporal}, {codec.spatial} times; load the small VAE that belongs to the model"
        )
    return replace(codec, decode=lambda latents: small.decode(latents).clamp(0, 1))


def compress(
    encoder: ManagedEncoder,
    codec: Codec,
    memory: Memory,
    latents: Tensor,
    prompt: str = "",
    seed: int | None = None,
    repeated: int = 0,
    choice: PictureChoice | None = None,
) -> Any:
    """Appends normalised latents to a memory with the encoder on its device; the result lies in CPU memory.

    repeated, choice: for a memory of pictures, see `KeyframeMemory.appended`.
    """
    encoder.check_memory(memory)
    if holds_pictures(memory):
        return append_pictures(encoder.config, codec, memory, latents, prompt, seed, repeated, choice)
    with torch.no_grad():
        # Several encoders look at the same pictures; the VAE that makes them may push an encoder off the device.
        seeing = [part for part in memory.parts if part.config.has_lr]
        small = iter(small_pictures(seeing, codec, latents) if seeing else ())
        first, *others = (
            _compress_part(one, codec, part, latents, prompt, seed, next(small) if part.config.has_lr else None)
            for one, part in zip(encoder.parts, memory.parts, strict=True)
        )
    return replace(first, others=tuple(others))


def _compress_part(
    encoder: ManagedEncoder,
    codec: Codec,
    memory: VideoMemory,
    latents: Tensor,
    prompt: str,
    seed: int | None,
    small: Tensor | None,
) -> VideoMemory:
    if memory.encoder_id and memory.encoder_id != encoder.identity:
        log.warning("memory was begun with other encoder weights; old and new tokens may not speak the same language")
    return append_history(
        encoder.model, codec, memory, latents, prompt, seed, encoder.device, encoder.dtype, encoder.load, small
    )


def decode_once(decode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A decoder that gives equal latents the pictures it made before; it holds one result."""
    last: list[tuple[Tensor, Tensor]] = []

    def run(latents: Tensor) -> Tensor:
        if not last or not torch.equal(last[0][0], latents):
            last[:] = [(latents.clone(), decode(latents))]
        return last[0][1]

    return run
