"""HunyuanVideo and HunyuanVideo 1.5: double blocks (video and text streams), then single blocks (text, then video)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import attention_patches
from .base import (
    Block,
    BlockArgs,
    BlockPatch,
    HostError,
    MemoryPass,
    MemoryTokens,
    Once,
    Patched,
    Projection,
    Slot,
    as_it_lies,
    mean_of_points,
)

FIRST = "img_in.proj"

Segments = list[tuple[int, int | None, int]]


class HunyuanHost:
    """Memory follows the video tokens in both kinds of blocks; the text stream sees it through the attention."""

    name = "hunyuan"
    masks_text = True
    adds_in_place = True

    def __init__(self, model: Any, patched: Patched = as_it_lies) -> None:
        self.model, self.patched = model, patched
        self.width: int = model.hidden_size
        self.latent_channels: int = model.out_channels
        self.patch: tuple[int, int, int] = tuple(model.patch_size)
        self.text_width: int = model.params.context_in_dim
        self.pooled_width: int | None = model.params.vec_in_dim
        self.head_dim: int = model.hidden_size // model.num_heads
        self.image_channels: int = model.img_in.proj.weight.shape[1] - self.latent_channels
        # Checkpoints of 1.5 for text and for images have the same layers: who loads one has to say which it is.
        self.image_optional: bool = model.cond_type_embedding is not None

    @classmethod
    def matches(cls, model: Any) -> bool:
        # The super-resolution models of 1.5 want the film's own latents in more channels.
        video = type(model).__name__ == "HunyuanVideo" and len(model.patch_size) == 3
        return video and model.in_channels <= 2 * model.out_channels + 1

    def patchifier(self) -> tuple[Tensor, Tensor]:
        weight, bias = Projection(self.model, FIRST, self.patched).weights()
        return weight[:, : self.latent_channels], bias

    def embed(self, latents_BCTHW: Tensor) -> Tensor:
        return Projection(self.model, FIRST, self.patched)(latents_BCTHW, self.patch)

    def constants(self, guidance: float) -> dict[str, float]:
        return {"guidance": guidance} if self.model.params.guidance_embed else {}

    def rotary(self, coordinates: Tensor, options: Mapping[str, Any] | None = None) -> Tensor:
        """[1,1,M,d/2,2,2]: Hunyuan keeps the sequence on dimension 2."""
        return mean_of_points(self.model.pe_embedder(coordinates.reshape(1, -1, 3)), coordinates, axis=2)

    def block_patches(self, memory: MemoryTokens, call: Mapping[str, Any]) -> dict[Slot, BlockPatch]:
        to_zero = self._change_to_zero(call, memory) if memory.timestep == "zero" else None
        common = _HunyuanPatch(memory, to_zero)
        return {slot: common.double if slot[0] == "double_block" else common.single for slot in self.slots()}

    def slots(self) -> list[Slot]:
        double = [("double_block", i) for i in range(len(self.model.double_blocks))]
        return double + [("single_block", i) for i in range(len(self.model.single_blocks))]

    def memory_pass(self, memory: MemoryTokens, call: Mapping[str, Any]) -> MemoryPass:
        to_zero = self._change_to_zero(call, memory)
        return _HunyuanMemoryPass(memory, to_zero, self._text_at_zero(call), self._text_start(call))

    def video(self, args: BlockArgs) -> tuple[slice, Tensor]:
        length = args["img"].shape[1]
        if "txt" not in args:  # single blocks: text, then video
            start, stop = args["transformer_options"]["img_slice"]
            return slice(start, stop), self.flat_rotary(args["pe"][:1, :, start:stop])
        return slice(None), self.flat_rotary(args["pe"][:1, :, -length:])

    def flat_rotary(self, rotary: Tensor) -> Tensor:
        return rotary.movedim(2, 1)

    def _text_at_zero(self, call: Mapping[str, Any]) -> Tensor:
        """The text's tokens as they are at timestep 0; core refines them with the timestep before the blocks."""
        mask, dtype = call.get("attention_mask"), call["x"].dtype
        if mask is not None and not torch.is_floating_point(mask):
            mask = (mask - 1).to(dtype) * torch.finfo(dtype).max
        options = call["transformer_options"]
        text = self.model.txt_in(call["context"], torch.zeros_like(call["timestep"]), mask, transformer_options=options)
        kind = self.model.cond_type_embedding
        if kind is None:
            return text
        words = torch.zeros_like(text[:, :, 0], dtype=torch.long)
        return text + kind.to(text.device)(words).to(text.dtype)  # as core: this layer is not one that it moves

    def _text_start(self, call: Mapping[str, Any]) -> int:
        """Where that text begins in the blocks' text stream; CLIP vision and, in 1.5, glyphs come before it."""
        seen, glyphs = call.get("clip_fea"), call.get("txt_byt5")
        start = 0 if seen is None else seen.shape[1]
        if glyphs is None or self.model.byt5_in is None or self.model.cond_type_embedding is None:
            return start
        return start + glyphs.shape[1]

    def _change_to_zero(self, call: Mapping[str, Any], memory: MemoryTokens) -> Tensor:
        """time_in(0) - time_in(t), [B,D]: turns a modulation vector of timestep t into one of timestep 0."""
        if getattr(self.model, "time_r_in", None) is not None:
            raise HostError("this HunyuanVideo is a mean-flow model: set history_timestep to same")
        timestep, dtype = call["timestep"], call["x"].dtype
        now = self.model.time_in(_sinusoidal(timestep, 256).to(dtype))

        def make() -> Tensor:
            return self.model.time_in(_sinusoidal(torch.zeros_like(timestep), 256).to(dtype))

        return memory.constants.get(("at zero", now.device, dtype, len(timestep)), make) - now


class _HunyuanMemoryPass:
    """Text and memory at timestep 0, beside the text and the video of the step.

    text: the part of the text stream that depends on the timestep, from `start` on.
    """

    def __init__(self, memory: MemoryTokens, to_zero: Tensor, text: Tensor, start: int) -> None:
        self.memory, self.to_zero, self.start, self.refined = memory, to_zero, start, text
        self.tokens = memory.tokens.shape[1]
        self.text: Tensor | None = None
        self.single: Tensor | None = None
        self._pe: Once[Tensor] = Once()

    def arguments(self, args: BlockArgs) -> BlockArgs:
        words = self._text(args)
        vec, text = args["vec"], words.shape[1]
        mask = args.get("attention_mask")
        changed: BlockArgs = {
            "vec": (vec if vec.ndim == 2 else vec[:, -1]) + self.to_zero.to(vec),
            "pe": self._pe.of(args["pe"], self._places),
            "attention_mask": None if mask is None else torch.nn.functional.pad(mask[..., :text], (0, self.tokens)),
            **attention_patches.of_memory(args, attention_patches.HUNYUAN),
        }
        # Core's blocks add in place.
        if "txt" in args:
            dims = {"modulation_dims_img": None, "modulation_dims_txt": None}
            return {**args, **changed, **dims, "img": self.memory.tokens.clone(), "txt": words.clone()}
        single = torch.cat([words, self.memory.tokens], dim=1) if self.single is None else self.single
        return {**args, **changed, "modulation_dims": None, "img": single.clone()}

    def _places(self, pe: Tensor) -> Tensor:
        assert self.text is not None, "the text is known in front of the first block"
        rotary = self.memory.rotary.to(pe).expand(pe.shape[0], -1, -1, -1, -1, -1)
        return torch.cat([pe[:, :, : self.text.shape[1]], rotary], dim=2)

    def _text(self, args: BlockArgs) -> Tensor:
        if self.text is None:  # in front of the first block
            end = self.start + self.refined.shape[1]
            self.text = torch.cat([args["txt"][:, : self.start], self.refined, args["txt"][:, end:]], dim=1)
        return self.text

    def receive(self, out: BlockArgs) -> None:
        if "txt" in out:
            self.memory.tokens, self.text = out["img"], out["txt"]
        else:
            self.single = out["img"]


class _HunyuanPatch:
    """The patches of all blocks for one forward pass; positions are laid out at the first block."""

    def __init__(self, memory: MemoryTokens, to_zero: Tensor | None) -> None:
        self.memory, self.to_zero = memory, to_zero
        self.words: int | None = None  # length of the text stream as core makes it
        self._pe: Once[Tensor] = Once()
        self._mask: Once[Tensor] = Once()
        self._vec: Once[tuple[Tensor, int | None]] = Once()

    def double(self, args: BlockArgs, block: Block) -> BlockArgs:
        args = self._with_picture(args)
        video = args["img"].shape[1]
        vec, row = self._vec.of(args["vec"], self._modulation)
        changed = self._common(args) | {
            "vec": vec,
            "modulation_dims_img": self._segments(args.get("modulation_dims_img"), video, row),
            "modulation_dims_txt": args.get("modulation_dims_txt") or ([(0, None, 0)] if row is not None else None),
        }
        out = block({**args, **changed})
        return {**out, "img": self.memory.split(out["img"], video)}

    def single(self, args: BlockArgs, block: Block) -> BlockArgs:
        length = args["img"].shape[1]
        vec, row = self._vec.of(args["vec"], self._modulation)
        segments = self._segments(args.get("modulation_dims"), length, row)
        out = block({**args, **self._common(args), "vec": vec, "modulation_dims": segments})
        return {**out, "img": self.memory.split(out["img"], length)}

    def _with_picture(self, args: BlockArgs) -> BlockArgs:
        """Puts the picture's tokens in front of the text where it comes from core; blocks hand both on together."""
        picture, words = self.memory.reading.picture, args["txt"]
        if picture is None:
            return args
        self.words = words.shape[1] if self.words is None else self.words
        return {**args, "txt": torch.cat([picture, words], dim=1)} if words.shape[1] == self.words else args

    def _common(self, args: BlockArgs) -> BlockArgs:
        mask = args.get("attention_mask")
        return {
            "img": self.memory.behind(args["img"]),
            "pe": self._pe.of(args["pe"], self._places),
            "attention_mask": None if mask is None else self._mask.of(mask, self._shown),
            **attention_patches.of_video(args, self.memory.tokens.shape[1], attention_patches.HUNYUAN),
        }

    @property
    def _before(self) -> int:
        """Tokens of the picture in front of the text."""
        picture = self.memory.reading.picture
        return 0 if picture is None else picture.shape[1]

    def _shown(self, mask: Tensor) -> Tensor:
        """Core's mask, additive, zero where attention is allowed."""
        return torch.nn.functional.pad(mask, (self._before, self.memory.tokens.shape[1]))

    def _places(self, pe: Tensor) -> Tensor:
        """Rotary of the picture, the text, the video and the memory; core gives each row of the batch its own copy."""

        def rows(rotary: Tensor) -> Tensor:
            return rotary.to(pe).expand(pe.shape[0], -1, -1, -1, -1, -1)

        parts = [pe, rows(self.memory.rotary)]
        if self.memory.video is not None:
            parts[:1] = pe[:, :, : -self.memory.video.shape[2]], rows(self.memory.video)
        if self._before:  # a place like the text's, which is not rotated
            parts.insert(0, torch.eye(2).to(pe).expand(*pe.shape[:2], self._before, pe.shape[3], 2, 2))
        return torch.cat(parts, dim=2)

    def _modulation(self, vec: Tensor) -> tuple[Tensor, int | None]:
        """Vector(s) with one more row for the memory, and that row; core's last row is the section's timestep."""
        if self.to_zero is None:
            return (vec, None) if vec.ndim == 2 else (vec, vec.shape[1] - 1)
        rows = vec[:, None] if vec.ndim == 2 else vec
        return torch.cat([rows, rows[:, -1:] + self.to_zero[:, None].to(rows)], dim=1), rows.shape[1]

    @staticmethod
    def _segments(segments: Segments | None, length: int, row: int | None) -> Segments | None:
        """Core's modulation segments (start, end, row) closed at `length`, then the memory's."""
        if row is None:
            return segments
        closed = [(start, length if end is None else end, r) for start, end, r in segments or [(0, None, 0)]]
        return [*closed, (length, None, row)]


def _sinusoidal(timestep: Tensor, width: int, period: float = 10000.0) -> Tensor:
    """Sinusoidal embedding [B,width], cosine first."""
    half = width // 2
    rates = torch.exp(-math.log(period) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half)
    angles = timestep[:, None].float() * rates
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1).to(timestep)
