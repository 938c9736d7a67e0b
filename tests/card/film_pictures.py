"""Between the sections of a film, on the fake card: core's VAE at full size, and phi."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from memory_encoder.pictures.codec import CONTEXT

from .films import film, pack, vae_for
from .hosts import FullModel
from .meter import Meter

BLOCKS = {
    "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0, "double_z": True, "conv3d": True, "time_compress": 4,
}  # fmt: skip
REFINER = {
    "block_out_channels": [128, 256, 512, 1024, 1024], "in_channels": 3, "out_channels": 3, "num_res_blocks": 2,
    "ffactor_spatial": 16, "ffactor_temporal": 4, "downsample_match_channel": True, "upsample_match_channel": True,
    "z_channels": 32,
}  # fmt: skip


def vae_of(card: Any, model: FullModel) -> Any:
    """Core's VAE for a model, made as its loader makes it from the keys of a file."""
    return _loaded(card, (model.size.kind, model.latent[0]), network)


def small_vae_of(card: Any, model: FullModel) -> Any:
    """Core's TAEHV for the same latents."""
    return _loaded(card, ("small", model.latent[0]), _small_network)


def _loaded(card: Any, key: tuple[str, int], build: Callable[[Callable[[str], Any], str, int], Any]) -> Any:
    made = card.__dict__.setdefault("vaes", {})
    if key not in made:
        with torch.device("meta"):
            weights = build(card.comfy.module, *key).state_dict()
        weights = {name: torch.empty(value.shape, dtype=torch.bfloat16) for name, value in weights.items()}
        made[key] = card.comfy.module("comfy.sd").VAE(sd=weights)
    return made[key]


def _small_network(module: Callable[[str], Any], _kind: str, channels: int) -> Any:
    return module("comfy.taesd.taehv").TAEHV(channels)


def network(module: Callable[[str], Any], kind: str, channels: int) -> Any:
    """The VAE of a kind of model, in core's class; module: gives core's modules by name."""
    wan = {"z_dim": channels, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [], "dropout": 0.0}
    wan["temperal_downsample"] = [False, True, True]
    if kind == "wan":
        if channels == 48:
            return module("comfy.ldm.wan.vae2_2").WanVAE(dim=160, **wan)
        return module("comfy.ldm.wan.vae").WanVAE(dim=96, **wan)
    models = module("comfy.ldm.models.autoencoder")
    if channels == 16:
        return models.AutoencoderKL(ddconfig=BLOCKS, embed_dim=16)
    refiner = "comfy.ldm.hunyuan_video.vae_refiner"
    return models.AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.EmptyRegularizer"},
        encoder_config={"target": f"{refiner}.Encoder", "params": REFINER},
        decoder_config={"target": f"{refiner}.Decoder", "params": REFINER},
    )


def decode_peak(card: Any, model: FullModel, latents: int, grid: tuple[int, int]) -> tuple[int, str, int]:
    """Bytes above the VAE's weights while so many latents become pictures, the operation, and those weights."""
    vae = vae_of(card, model)
    vae.first_stage_model.to("cuda")
    meter = Meter()
    meter.add_module(vae.first_stage_model)
    weights = meter.now
    with meter.above(), torch.no_grad():
        vae.decode(torch.zeros(1, model.latent[0], latents, *grid))
    return meter.peak, meter.at, weights


def append_peak(
    card: Any, model: FullModel, latents: int, grid: tuple[int, int], decoded: bool = True
) -> tuple[int, str, int]:
    """Bytes above the weights while a section joins a memory, the operation, and the weights of VAE and phi.

    decoded: with core's VAE; else its pictures are there, in RAM, and all that comes after them is measured.
    """
    compress, vae, encoder = pack("nodes.runtime.compress"), vae_of(card, model), film(model, (CONTEXT + 1,)).encoder
    codec, shapes = (compress.codec_for(model.patcher, one) for one in (vae, vae_for(model)))
    channels = model.latent[0]
    before = torch.zeros(1, channels, CONTEXT + 1, *grid)
    memory = compress.compress(encoder, shapes, encoder.empty_memory(1), before)
    vae.first_stage_model.to("cuda")
    meter = Meter()
    meter.add_module(model.patcher.model)
    host = meter.now
    meter.add_module(vae.first_stage_model)
    meter.add_module(encoder.model)
    weights = meter.now - host
    codec = codec if decoded else replace(codec, decode=shapes.decode)
    with meter.above():
        compress.compress(encoder, codec, memory, torch.zeros(1, channels, latents, *grid))
    return meter.peak, meter.at, weights
