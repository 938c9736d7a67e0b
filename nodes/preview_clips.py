"""Small moving pictures of a section: animated WebP from frames, and frames from latents by core's previewer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import latent_preview
import torch
from PIL import Image
from torch import Tensor

from ..memory_encoder.frames import evenly

MAX_WIDTH = 256
CLIP_FRAMES = 24  # of a stored section
LIVE_FRAMES = 8  # of a section that is being sampled; it is sent every few seconds
SHORTEST_FRAME_MS = 20  # browsers slow faster animations down


def cheapest_previewer(model: Any) -> Any:
    """Core's latent previewer that takes no model of its own, for a MODEL; None when there is none."""
    latent_format = model.get_model_object("latent_format")
    if latent_format.latent_rgb_factors is None:
        return None
    return latent_preview.Latent2RGBPreviewer(
        latent_format.latent_rgb_factors,
        getattr(latent_format, "latent_rgb_factors_bias", None),
        getattr(latent_format, "latent_rgb_factors_reshape", None),
    )


def latent_frames(previewer: Any, latents: Tensor, count: int) -> list[Image.Image]:
    """Pictures of at most `count` latents, evenly chosen, of normalised latents [B,C,T,H,W]."""
    steps = evenly(latents.shape[2], min(count, latents.shape[2]))
    return [previewer.decode_latent_to_preview(latents[:1, :, i : i + 1]) for i in steps]


def picture_frames(pictures: Tensor, count: int) -> list[Image.Image]:
    """At most `count` of the frames [T,H,W,3] in 0..1, evenly chosen, no wider than a tile needs."""
    picked = pictures[evenly(pictures.shape[0], min(count, pictures.shape[0])), ..., :3]
    data = (picked.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [fitted(Image.fromarray(frame)) for frame in data]


def fitted(image: Image.Image) -> Image.Image:
    """The image, scaled down when it is wider than `MAX_WIDTH`."""
    if image.width <= MAX_WIDTH:
        return image
    return image.resize((MAX_WIDTH, max(1, round(image.height * MAX_WIDTH / image.width))), Image.Resampling.BILINEAR)


def animated_webp(frames: Sequence[Image.Image], seconds: float, quality: int = 70) -> bytes:
    """An endless animation of `seconds`. Raises OSError or KeyError where Pillow has no WebP."""
    duration = max(SHORTEST_FRAME_MS, round(1000 * seconds / len(frames)))
    content = io.BytesIO()
    first, *rest = (frame.convert("RGB") for frame in frames)
    first.save(content, "WEBP", save_all=True, append_images=rest, duration=duration, loop=0, quality=quality, method=2)
    return content.getvalue()


def poster(content: bytes) -> bytes:
    """The middle frame of an animation, as WebP; after a cut the first one may still show the shot before."""
    with Image.open(io.BytesIO(content)) as image:
        image.seek(getattr(image, "n_frames", 1) // 2)
        still = io.BytesIO()
        image.convert("RGB").save(still, "WEBP", quality=75)
    return still.getvalue()
