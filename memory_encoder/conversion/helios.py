"""Helios-Base (diffusers' names) to core's Wan 2.1 14B text-to-video and a memory encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from ..phi.config import EncoderConfig
from .names import Table, check_nothing_left, converted
from .trained import Conversion, encoder_tensors
from .weights import Checkpoint, Made

SCHEDULE = "1@1x1x1+2@2x2x2+16@4x4x4"
SECTION = 9  # latents
START_NOISE = (0.111, 0.135)  # of a picture or clip that a film begins with
MARK = "patch_short.weight"
LICENCE = "Helios is published under the Apache License 2.0, as is Wan 2.1, on which it is built"
DISTILLED = (
    "the tensors of Helios-Mid and Helios-Distilled have the same names, but these two need a sampler that makes a "
    "section in three sizes, which is not here; use Helios-Base"
)
BASE = r"helios.*base|(?<![a-z])base[-_ ]?helios"  # base alone is the name of many a folder
OTHERS = r"distil|(?:(?<![a-z])|(?<=helios))mid(?![a-z])"

_ATTENTION = (
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "o"),
    ("norm_q", "norm_q"),
    ("norm_k", "norm_k"),
)
TOP = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "patch_embedding": "patch_embedding",
    "proj_out": "head.head",
}
HEAD = "scale_shift_table"  # at the top in files of its first weeks
BLOCK = Table(
    "blocks.{}.",
    "blocks.{}.",
    {"scale_shift_table": "modulation", "norm2": "norm3", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2"}
    | {
        f"{old}.{theirs}": f"{new}.{ours}"
        for old, new in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for theirs, ours in _ATTENTION
    },
)
TABLES = (Table("", "", TOP | {f"norm_out.{HEAD}": "head.modulation"}), BLOCK)
OLD_TABLES = (Table("", "", TOP | {HEAD: "head.modulation"}), BLOCK)
ENCODER = (
    Table(
        "",
        "recent.layers.",
        {"patch_long": "0.layer.conv", "patch_mid": "1.layer.conv", "patch_short": "2.layer.conv"},
    ),
)
_SCALE = re.compile(r"blocks\.(\d+)\.attn1\.history_key_scale")


def matches(keys: Sequence[str]) -> bool:
    return MARK in keys and "patch_long.weight" in keys


def conversion(checkpoint: Checkpoint) -> Conversion:
    """Raises ConversionError for a checkpoint that is not whole, or holds more than Helios does."""
    core, left = converted(checkpoint, OLD_TABLES if HEAD in checkpoint else TABLES)
    encoder, _ = converted(checkpoint, ENCODER)
    scales = sorted((int(match[1]), key) for key in left if (match := _SCALE.fullmatch(key)))
    key_scale: tuple[int, ...] = ()
    if scales:
        keys = tuple(key for _, key in scales)
        key_scale = (len(keys), checkpoint.shape(keys[0])[0])
        encoder.append(Made("key_scale", keys, key_scale, torch.stack))
    read = {key for one in encoder for key in one.sources}
    check_nothing_left([key for key in left if key not in read], "Helios", checkpoint.name)
    weight = checkpoint.shape(MARK)
    config = EncoderConfig(
        host="wan",
        width=weight[0],
        latent_channels=weight[1],
        rate=SCHEDULE,
        variant="recent",
        positions="pooled",
        clips="section",
        section_latents=SECTION,
        anchor=True,
        fill="zeros",
        history_timestep="zero",
        skips_text=True,
        key_scale=key_scale,
        start="zeros",
        start_noise=START_NOISE,
    )
    name = checkpoint.nearest_name(f"{OTHERS}|{BASE}")
    says = f"{name} is the name of another" if name else "no name of its file and folders says so"
    doubted = not name or re.search(OTHERS, name.lower())
    notes = [f"Check this is Helios-Base ({says}): {DISTILLED}"] if doubted else []
    return Conversion("helios", "Wan 2.1", core, encoder_tensors(encoder, checkpoint), config, LICENCE, notes)
