"""FramePack-F1 (diffusers' names, as in every published file) to core's HunyuanVideo and a memory encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..phi.config import EncoderConfig
from .names import Table, check_nothing_left, converted, swapped_halves
from .trained import Conversion, encoder_tensors
from .weights import Checkpoint

SCHEDULE = "1@1x1x1+2@2x2x2+16@4x4x4"
SEEN = 1 + 1 + 2 + 16  # the anchor and the schedule: where a section begins
SECTION = 9  # latents
GUIDANCE = 10.0  # of the distilled kind; core's own default is HunyuanVideo's
MARK = "clean_x_embedder.proj.weight"
LICENCE = (
    "FramePack's weights derive from HunyuanVideo: Tencent Hunyuan Community License, which excludes the European "
    "Union, the United Kingdom and South Korea"
)
INVERTED = (
    "nothing in the file tells FramePack-F1 from the first FramePack (FramePackI2V_HY), which makes a film backwards "
    "and gives nonsense here"
)
F1 = r"(?:(?<![a-z\d])|(?<=framepack)|(?<=i2v))f1(?=i2v|[^a-z\d]|$)"  # not that of sdf1, bf16 or a hash

_EMBEDDER = {"linear_1": "in_layer", "linear_2": "out_layer"}
_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
TABLES = (
    Table(
        "",
        "",
        {"x_embedder.proj": "img_in.proj", "context_embedder.proj_in": "txt_in.input_embedder"}
        | {
            f"{old}.{layer}": f"{new}.{core}"
            for old, new in (
                ("context_embedder.time_text_embed.timestep_embedder", "txt_in.t_embedder"),
                ("context_embedder.time_text_embed.text_embedder", "txt_in.c_embedder"),
                ("time_text_embed.timestep_embedder", "time_in"),
                ("time_text_embed.guidance_embedder", "guidance_in"),
                ("time_text_embed.text_embedder", "vector_in"),
            )
            for layer, core in _EMBEDDER.items()
        }
        | {"proj_out": "final_layer.linear"},
        made={"final_layer.adaLN_modulation.1": ("norm_out.linear", swapped_halves)},
    ),
    Table(
        "context_embedder.token_refiner.refiner_blocks.{}.",
        "txt_in.individual_token_refiner.blocks.{}.",
        {
            "norm1": "norm1",
            "norm2": "norm2",
            "attn.to_out.0": "self_attn.proj",
            "ff.net.0.proj": "mlp.0",
            "ff.net.2": "mlp.2",
            "norm_out.linear": "adaLN_modulation.1",
        },
        {"self_attn.qkv": _QKV},
    ),
    Table(
        "transformer_blocks.{}.",
        "double_blocks.{}.",
        {
            "norm1.linear": "img_mod.lin",
            "norm1_context.linear": "txt_mod.lin",
            "attn.norm_q": "img_attn.norm.query_norm",
            "attn.norm_k": "img_attn.norm.key_norm",
            "attn.norm_added_q": "txt_attn.norm.query_norm",
            "attn.norm_added_k": "txt_attn.norm.key_norm",
            "attn.to_out.0": "img_attn.proj",
            "attn.to_add_out": "txt_attn.proj",
            "ff.net.0.proj": "img_mlp.0",
            "ff.net.2": "img_mlp.2",
            "ff_context.net.0.proj": "txt_mlp.0",
            "ff_context.net.2": "txt_mlp.2",
        },
        {"img_attn.qkv": _QKV, "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")},
    ),
    Table(
        "single_transformer_blocks.{}.",
        "single_blocks.{}.",
        {
            "norm.linear": "modulation.lin",
            "attn.norm_q": "norm.query_norm",
            "attn.norm_k": "norm.key_norm",
            "proj_out": "linear2",
        },
        {"linear1": (*_QKV, "proj_mlp")},
    ),
)
ENCODER = (
    Table(
        "clean_x_embedder.",
        "recent.layers.",
        {"proj_4x": "0.layer.conv", "proj_2x": "1.layer.conv", "proj": "2.layer.conv"},
    ),
    Table("image_projection.", "picture.", {"up": "up", "down": "down"}),
)


def matches(keys: Sequence[str]) -> bool:
    return MARK in keys and any(key.startswith("single_transformer_blocks.") for key in keys)


def conversion(checkpoint: Checkpoint) -> Conversion:
    """Raises ConversionError for a checkpoint that is not whole, or holds more than FramePack does."""
    core, left = converted(checkpoint, TABLES)
    encoder, _ = converted(checkpoint, ENCODER)
    read = {key for one in encoder for key in one.sources}
    check_nothing_left([key for key in left if key not in read], "FramePack", checkpoint.name)
    weight = checkpoint.shape("clean_x_embedder.proj.weight")
    config = EncoderConfig(
        host="hunyuan",
        width=weight[0],
        latent_channels=weight[1],
        rate=SCHEDULE,
        variant="recent",
        positions="pooled",
        section_latents=SECTION,
        anchor=True,
        fill="zeros",
        history_timestep="same",
        section_start=SEEN,
        picture_width=checkpoint.shape("image_projection.up.weight")[1],
        start="picture",
        guidance=GUIDANCE,
    )
    name = checkpoint.nearest_name(f"{F1}|i2v")
    says = f"{name} has no F1 in its name" if name else "no name of its file and folders says so"
    notes = [] if re.search(F1, name.lower()) else [f"Check this is F1 ({says}): {INVERTED}"]
    return Conversion("framepack", "HunyuanVideo", core, encoder_tensors(encoder, checkpoint), config, LICENCE, notes)
