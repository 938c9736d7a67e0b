"""Wan 2.1, Wan 2.2-14B (either expert) and Wan 2.2-5B, text-to-video and image-to-video."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import attention_patches
from .base import (
    HOOK,
    Block,
    BlockArgs,
    BlockPatch,
    Constants,
    MemoryPass,
    MemoryTokens,
    Once,
    Patched,
    Projection,
    Slot,
    as_it_lies,
    mean_of_points,
)

FIRST = "patch_embedding"


class WanHost:
    """Memory follows the video tokens in the self-attention of every block."""

    name = "wan"
    masks_text = False
    adds_in_place = False

    def __init__(self, model: Any, patched: Patched = as_it_lies) -> None:
        self.model, self.patched = model, patched
        self.width: int = model.dim
        self.latent_channels: int = model.out_dim
        self.patch: tuple[int, int, int] = tuple(model.patch_size)
        self.text_width: int = model.text_dim
        self.pooled_width: int | None = None
        self.head_dim: int = model.dim // model.num_heads
        self.image_channels: int = model.patch_embedding.weight.shape[1] - self.latent_channels
        self.image_optional = False

    @classmethod
    def matches(cls, model: Any) -> bool:
        # Subclasses (VACE, camera, animate, ...) add streams of video length beside the blocks.
        return type(model).__name__ == "WanModel" and not hasattr(model, "init_kv_caches")

    def patchifier(self) -> tuple[Tensor, Tensor]:
        weight, bias = Projection(self.model, FIRST, self.patched).weights()
        return weight[:, : self.latent_channels], bias

    def embed(self, latents_BCTHW: Tensor) -> Tensor:
        return Projection(self.model, FIRST, self.patched)(latents_BCTHW, self.patch)

    def constants(self, guidance: float) -> dict[str, float]:
        return {}

    def rotary(self, coordinates: Tensor, options: Mapping[str, Any] | None = None) -> Tensor:
        """[1,M,1,d/2,2,2]: Wan keeps the sequence on dimension 1."""
        rope = (options or {}).get("rope_options") or {}  # core's ScaleROPE; its Hunyuan knows no such thing
        if rope:
            scale, shift = (
                coordinates.new_tensor([rope.get(f"{name}_{axis}", usual) for axis in "tyx"])
                for name, usual in (("scale", 1.0), ("shift", 0.0))
            )
            coordinates = coordinates * scale + shift
        rotary = self.model.rope_embedder(coordinates.reshape(1, -1, 3)).movedim(1, 2)
        return mean_of_points(rotary, coordinates, axis=1)

    def block_patches(self, memory: MemoryTokens, call: Mapping[str, Any]) -> dict[Slot, BlockPatch]:
        patch = _WanPatch(self.model, memory)
        return {slot: partial(patch, slot[1]) for slot in self.slots()}

    def slots(self) -> list[Slot]:
        return [("double_block", i) for i in range(len(self.model.blocks))]

    def memory_pass(self, memory: MemoryTokens, call: Mapping[str, Any]) -> MemoryPass:
        return _WanMemoryPass(self.model, memory)

    def video(self, args: BlockArgs) -> tuple[slice, Tensor]:
        return slice(None), args["pe"]

    def flat_rotary(self, rotary: Tensor) -> Tensor:
        return rotary


class _WanPatch:
    """The patch of all blocks for one forward pass; modulation and rotary are built at the first block."""

    def __init__(self, model: Any, memory: MemoryTokens) -> None:
        self.model, self.memory = model, memory
        self._vec: tuple[Tensor, int, Tensor] | None = None
        self._pe: Once[Tensor] = Once()

    def __call__(self, index: int, args: BlockArgs, block: Block) -> BlockArgs:
        video, memory, reading = args["img"], self.memory.tokens, self.memory.reading
        length = video.shape[1]  # other owners of a block may leave tokens out
        if self._vec is None or self._vec[0] is not args["vec"] or self._vec[1] != length:
            self._vec = args["vec"], length, self._modulation(args["vec"], length)
        pe = self._pe.of(args["pe"], self._places)
        changed: BlockArgs = {"img": self.memory.behind(video), "vec": self._vec[2], "pe": pe}
        if reading.key_scale is not None:
            changed[HOOK] = _scaled_keys(reading.key_scale[index].to(video), memory.shape[1], self.model.num_heads)
        changed |= attention_patches.of_video(args, memory.shape[1], attention_patches.WAN)
        text = self.model.blocks[index].cross_attn
        with without_text(text, memory.shape[1]) if reading.skips_text else contextlib.nullcontext():
            out = block({**args, **changed})
        return {**out, "img": self.memory.split(out["img"], length)}

    def _places(self, pe: Tensor) -> Tensor:
        return torch.cat([pe, self.memory.rotary.to(pe)], dim=1)

    def _modulation(self, vec: Tensor, video: int) -> Tensor:
        """Modulation [B,n,6,D] for video and memory tokens.

        Core repeats each of the n entries over equal groups of tokens, so entries are listed once for every g tokens
        where g divides the runs of the video's own entries and the video's length. The last group may be shorter.
        """
        entries, memory = vec.shape[1], self.memory.tokens.shape[1]
        if self.memory.timestep == "same" and entries == 1:
            return vec
        run = video if entries == 1 else -(-video // entries)  # core repeats once more when it does not divide
        group = largest_group(math.gcd(run, video), video + memory)
        rows = torch.arange(0, video, group, device=vec.device) // run
        last = vec[:, -1:] if self.memory.timestep == "same" else at_zero(self.model, vec, self.memory.constants)
        return torch.cat([vec[:, rows], last.expand(-1, -(-memory // group), -1, -1)], dim=1)


@contextlib.contextmanager
def without_text(cross_attention: nn.Module, memory: int) -> Iterator[None]:
    """The last `memory` rows skip this cross-attention within the context.

    By hooks, which work beside whatever other packs have put in the place of its `forward`.
    """

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (args[0][:, : args[0].shape[1] - memory], *args[1:]), kwargs

    def after(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return nn.functional.pad(out, (0, 0, 0, memory))

    with contextlib.ExitStack() as stack:
        for handle in (
            cross_attention.register_forward_pre_hook(before, with_kwargs=True),
            cross_attention.register_forward_hook(after),
        ):
            stack.callback(handle.remove)
        yield


def _scaled_keys(scale: Tensor, memory: int, heads: int) -> Callable[..., Tensor]:
    """A hook on self-attention that makes the keys of the last `memory` rows 1 to 10 times as large (Helios)."""
    factor = 1 + 9 * torch.sigmoid(scale)

    def hook(attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        keys = k[:, -memory:].unflatten(2, (heads, -1)) * factor[:, None]
        return attention(q, torch.cat([k[:, :-memory], keys.flatten(2)], dim=1), v, *args, **kwargs)

    return hook


class _WanMemoryPass:
    def __init__(self, model: Any, memory: MemoryTokens) -> None:
        self.model, self.memory = model, memory
        self.tokens = memory.tokens.shape[1]

    def arguments(self, args: BlockArgs) -> BlockArgs:
        vec = at_zero(self.model, args["vec"], self.memory.constants)
        changed = {"img": self.memory.tokens, "vec": vec, "pe": self.memory.rotary.to(args["pe"])}
        return {**args, **changed, **attention_patches.of_memory(args, attention_patches.WAN)}

    def receive(self, out: BlockArgs) -> None:
        self.memory.tokens = out["img"]


def largest_group(length: int, tokens: int) -> int:
    """The largest divisor of `length` over which core repeats each of ceil(tokens / divisor) entries.

    Core repeats an entry tokens // entries times, once more where that leaves a rest, and cuts off what is too much.
    Around the square root of the number of tokens nearly every divisor is right, so that the entries stay few.
    """

    def repeated(entries: int) -> int:
        times, rest = divmod(tokens, entries)
        return times if rest == 0 or times == 1 else times + 1

    divisors = (group for group in range(length, 0, -1) if length % group == 0)
    return next(group for group in divisors if repeated(-(-tokens // group)) == group)


def at_zero(model: Any, vec: Tensor, constants: Constants) -> Tensor:
    """Modulation [B,1,6,D] of timestep 0: a sinusoidal embedding of ones (cosine) and zeros (sine)."""

    def make() -> Tensor:
        half = model.freq_dim // 2
        embedding = vec.new_zeros(1, 2 * half)
        embedding[:, :half] = 1
        return model.time_projection(model.time_embedding(embedding)).reshape(1, 1, 6, -1)

    return constants.get(("at zero", vec.device, vec.dtype), make).expand(vec.shape[0], -1, -1, -1)
