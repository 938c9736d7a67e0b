"""Other nodes' patches of the attention within a block, as core's InfiniteTalk and Normalized Attention Guidance.

Core calls those in `transformer_options["patches"]` with all rows of the block. The memory's rows are the last ones:
they are kept from a patch, which sees what it would see without a memory, and stand behind what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .base import BlockArgs

OPTIONS, PATCHES, MASK = "transformer_options", "patches", "attn_mask"  # core's names
SEQUENCES = ("q", "k", "v", "pe")  # arguments of Hunyuan's patches with the rows along dimension 2
Patch = Callable[..., Any]
Shown = Callable[..., Any]  # a patch, the number of the memory's rows and the block's options, then what core gives


def of_video(args: BlockArgs, memory: int, kinds: Mapping[str, Shown]) -> BlockArgs:
    """What changes of a block's arguments where the last `memory` rows are the memory's; nothing without patches.

    kinds: WAN or HUNYUAN. Core counts the blocks in the very options that it gives, so each block gets its own copy.
    """
    options = args.get(OPTIONS) or {}
    patches = options.get(PATCHES) or {}
    shown = {
        name: [partial(kind, patch, memory, options) for patch in patches[name]]
        for name, kind in kinds.items()
        if patches.get(name)
    }
    return {OPTIONS: {**options, PATCHES: {**patches, **shown}}} if shown and memory else {}


def of_memory(args: BlockArgs, kinds: Mapping[str, Shown]) -> BlockArgs:
    """What changes of the arguments of a block that the memory runs through alone: there is nothing for patches."""
    options = args.get(OPTIONS) or {}
    patches = options.get(PATCHES) or {}
    if not any(patches.get(name) for name in kinds):
        return {}
    return {OPTIONS: {**options, PATCHES: {name: value for name, value in patches.items() if name not in kinds}}}


def _in_wan(patch: Patch, memory: int, options: dict[str, Any], args: dict[str, Any]) -> Tensor:
    """x [B,L+M,D], and behind self-attention q and k [B,L+M,heads,d] as well; returns x."""
    rows = args["x"].shape[1]
    given = {
        name: _video(value, memory) if isinstance(value, Tensor) and value.shape[1:2] == (rows,) else value
        for name, value in args.items()
    }
    # What a patch leaves in the options is for other patches, and other blocks, to find.
    return _with_memory(patch({**given, OPTIONS: options}), given["x"], args["x"], memory)


def _before_attention(
    patch: Patch, memory: int, options: dict[str, Any], q: Tensor, k: Tensor, v: Tensor, **more: Any
) -> dict[str, Any]:
    """q, k and v [B,heads,rows,d], pe [B,1,rows,..], attn_mask [..,rows] or None; returns what changes, by name."""
    rows, whole = q.shape[2] - memory, {"q": q, "k": k, "v": v, **more}
    video = {**whole, **{name: whole[name][:, :, :rows] for name in SEQUENCES if whole.get(name) is not None}}
    mask = whole.get(MASK)
    if mask is not None:
        video[MASK] = mask[..., :rows, :rows] if _by_query(mask, rows + memory) else mask[..., :rows]
    _show(whole.get("extra_options"), rows)
    made = patch(*(video[name] for name in "qkv"), **{name: video[name] for name in more})

    def put_back(name: str, value: Any) -> Any:
        if name in whole and value is video[name]:
            return whole[name]
        if value is None or (name in SEQUENCES and whole.get(name) is None):
            return value
        if name == MASK:
            return _with_columns(value, mask, rows, memory)
        return torch.cat([value, whole[name][:, :, rows:]], dim=2) if name in SEQUENCES else value

    return {name: put_back(name, value) for name, value in made.items()}


def _behind_attention(
    patch: Patch, memory: int, options: dict[str, Any], attended: Tensor, extra_options: dict[str, Any]
) -> Tensor:
    """attended [B,rows,D], text first; returns the same."""
    video = _video(attended, memory)
    _show(extra_options, video.shape[1])
    return _with_memory(patch(video, extra_options), video, attended, memory)


def _video(whole: Tensor, memory: int) -> Tensor:
    """All but the memory's rows of dimension 1, contiguous like all that core gives there."""
    return whole[:, : whole.shape[1] - memory].contiguous()


def _with_memory(made: Tensor, given: Tensor, whole: Tensor, memory: int) -> Tensor:
    """The memory's rows behind what a patch made of `given`, without a copy where that lies in `whole` still."""
    rows = whole.shape[1] - memory
    if made is given and whole[:, :rows].is_contiguous():
        return whole
    return torch.cat([made, whole[:, rows:]], dim=1)


def _show(extra_options: dict[str, Any] | None, rows: int) -> None:
    """Ends the video at its last row, in the copy of the options that core makes for a block's patches."""
    if extra_options and "img_slice" in extra_options:
        start, end = extra_options["img_slice"]
        extra_options["img_slice"] = [start, min(end, rows)]


def _by_query(mask: Tensor, rows: int) -> bool:
    return mask.ndim > 1 and mask.shape[-2] == rows


def _with_columns(made: Tensor, whole: Tensor | None, rows: int, memory: int) -> Tensor:
    """A patch's mask [..,rows] or [..,rows,rows] hides nothing of the memory; what that sees is up to `whole`."""
    wide = torch.nn.functional.pad(made, (0, memory), value=float(made.dtype == torch.bool))
    if not _by_query(made, rows):
        return wide
    own = made.new_full((1, 1), made.dtype == torch.bool) if whole is None else _as_type(whole[..., -1:, :], made.dtype)
    return torch.cat([wide, own.expand(*wide.shape[:-2], memory, wide.shape[-1])], dim=-2)


def _as_type(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask as one of truth, or the other way round."""
    if dtype == torch.bool:
        return mask if mask.dtype == dtype else mask >= 0
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


WAN: dict[str, Shown] = {"attn1_patch": _in_wan, "attn2_patch": _in_wan}
HUNYUAN: dict[str, Shown] = {"attn1_patch": _before_attention, "attn1_output_patch": _behind_attention}


def patches_within(options: Mapping[str, Any]) -> bool:
    """Whether other nodes patch the attention within blocks of either host."""
    patches = options.get(PATCHES) or {}
    return any(patches.get(name) for name in (*WAN, *HUNYUAN))
