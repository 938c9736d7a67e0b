"""The VAE as the library sees it, and beside it the host's first projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Latents decoded again in front of a chunk or a section: the first count whose error no 16-bit number shows.
CONTEXT = 6
CHUNK_BYTES = 2**30  # pictures, as floats, that one call of the VAE may make
SHORTEST, LONGEST = 4, 32  # latents of a chunk


def _absent(_: Tensor) -> Tensor:
    raise ValueError("this codec was made without a host; it cannot embed")


def _as_they_are(latents: Tensor) -> Tensor:
    return latents


@dataclass(frozen=True, kw_only=True)
class Codec:
    """What phi and a movie need of the VAE and of the host; the caller decides on devices.

    decode: latents [B,C,t,h,w] -> pictures [B,1+temporal*(t-1),H,W,3] in 0..1.
    encode: pictures -> latents; for phi they are in the host's normalised space.
    embed: normalised latents -> the host's first projection on the token grid [B,D,t,h/2,w/2].
    temporal, spatial: pictures per latent in time, and along height and width; the VAE is causal.
    """

    decode: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Tensor] = _absent
    embed: Callable[[Tensor], Tensor] = _absent
    temporal: int = 4
    spatial: int = 8

    def decode_after(self, before: Tensor | None, latents: Tensor) -> Tensor:
        """Pictures of the latents only; those `before` them, if any, lead the causal decoder in."""
        if before is None:
            return self.decode(latents)
        return self.decode(torch.cat([before, latents], dim=2))[:, -self.temporal * latents.shape[2] :]

    def chunk_length(self, height: int, width: int) -> int:
        """Latents of that size to decode at once so that the pictures, context included, stay within CHUNK_BYTES."""
        bytes_per_latent = self.temporal * height * width * self.spatial**2 * 3 * 4
        return max(SHORTEST, min(LONGEST, CHUNK_BYTES // bytes_per_latent - CONTEXT))


def codec_of(
    vae: Any,
    latent_format: Any = None,
    embed: Callable[[Tensor], Tensor] = _absent,
    film: Tensor | None = None,
    name: str = "vae",
) -> Codec:
    """The codec of core's VAE for a model's latents in its normalised space, or for those of `film` as they are.

    Without `embed` it only encodes and decodes. Raises ValueError that calls the VAE by the `name` of its input when it
    makes other latents.
    """
    if film is None:
        channels, need, owner = latent_format.latent_channels, "the model needs", "the model"
        process_in, process_out = latent_format.process_in, latent_format.process_out
    else:
        channels, need, owner = film.shape[1], "the film has", "the film's model"
        process_in = process_out = _as_they_are
    if vae.latent_dim != 3 or vae.latent_channels != channels:
        raise ValueError(
            f"{name} makes {vae.latent_dim}D latents of {vae.latent_channels} channels, but {need} 3D latents of "
            f"{channels}; load the VAE that belongs to {owner}"
        )
    return Codec(
        decode=lambda latents: vae.decode(process_out(latents)),
        encode=lambda pictures: process_in(torch.cat([vae.encode(clip) for clip in pictures])),
        embed=embed,
        temporal=vae.temporal_compression_decode() or 4,
        spatial=vae.spacial_compression_decode(),
    )
