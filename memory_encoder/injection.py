"""Puts a memory into a host through ComfyUI's public patch points (paper section 3.2, Eq. 4: G(X_t, t, c, phi(H))).

A DIFFUSION_MODEL wrapper adds, for one forward pass, a patch to every block: memory tokens go in after the video
tokens and come out again, so that everything outside of the blocks sees the video alone. Earlier owners of a block
slot stay in charge and call our patch as their original block.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor

from .budget import cache_bytes
from .cached import cached_patches, hooked
from .cross_attention import CrossMemory
from .hosts import Host, HostError, MemoryTokens, find_host
from .hosts.base import Block, BlockArgs, BlockPatch, Slot
from .memory import VideoMemory
from .selection import InjectedMemory, MemorySettings, cross_memories, select_tokens

# Names of wrapper types in comfy.patcher_extension.WrappersMP.
DIFFUSION_MODEL, PREPARE_SAMPLING = "diffusion_model", "prepare_sampling"
KEY = "video_memory"


def inject(
    model: Any, memory: VideoMemory | None, settings: MemorySettings | None = None, time_shift: float | None = None
) -> Any:
    """Returns a clone of a ComfyUI ModelPatcher that sees `memory`; the clone samples as before if there is none.

    time_shift: see `select_tokens`; None continues the film. Raises HostError or ValueError when model and memory do
    not fit, naming what does not.
    """
    settings = settings or MemorySettings()
    patched = model.clone()
    patched.remove_wrappers_with_key(DIFFUSION_MODEL, KEY)
    patched.remove_wrappers_with_key(PREPARE_SAMPLING, KEY)
    host = find_host(patched.get_model_object("diffusion_model"))
    if memory is None or memory.latents == 0 or settings.strength == 0:
        return patched
    check_fit(host, memory)
    refuse_context_windows(patched.model_options)
    shift = -float(memory.latents) if time_shift is None else time_shift
    injected = select_tokens(memory, host, settings, shift)
    injected = replace(injected, cross=cross_memories(model, memory, settings.strength, shift))
    if injected.tokens.shape[1] == 0:  # a strength below one token
        return patched
    patched.add_wrapper_with_key(DIFFUSION_MODEL, KEY, DiffusionModelWrapper(injected))
    planned = PrepareSamplingWrapper(injected.tokens.shape[1], host.patch, kept_on_device(injected, host))
    patched.add_wrapper_with_key(PREPARE_SAMPLING, KEY, planned)
    return patched


def kept_on_device(memory: InjectedMemory, host: Host) -> int:
    """Bytes of keys and values that a cached memory keeps beside the model for both prompts."""
    if memory.cache is None or memory.cache.keep_on is not None:
        return 0
    return 2 * cache_bytes(len(host.slots()), memory.tokens.shape[1], host.width)


def is_injected(model: Any) -> bool:
    """Whether `inject` put a memory into this ModelPatcher; an empty one leaves nothing behind."""
    return bool(model.get_wrappers(DIFFUSION_MODEL, KEY))


def check_fit(host: Host, memory: VideoMemory) -> None:
    """Raises ValueError when a memory's tokens, or the latents it keeps, cannot enter this host."""
    for part in memory.parts:
        _check_part(host, part)


def _check_part(host: Host, memory: VideoMemory) -> None:
    config = memory.config
    if (config.host, config.width) != (host.name, host.width):
        raise ValueError(
            f"memory was made for {config.host} of width {config.width}, but model is {host.name} of width "
            f"{host.width}; compress the history with an encoder for this model"
        )
    if config.latent_channels != host.latent_channels:
        raise ValueError(
            f"memory holds latents of {config.latent_channels} channels, model makes {host.latent_channels}; "
            "compress the history with the VAE and an encoder for this model"
        )


def refuse_context_windows(model_options: dict[str, Any] | None) -> None:
    """Raises HostError when core's context windows are on: they never tell the model where it is in the film."""
    if model_options and model_options.get("context_handler") is not None:
        raise HostError(
            "model has context windows, which slice the film without telling the memory where it is; "
            "remove the Context Windows node, sections take its place"
        )


class DiffusionModelWrapper:
    """Wraps one forward pass of the diffusion model (WrappersMP.DIFFUSION_MODEL)."""

    def __init__(self, memory: InjectedMemory, gradient_checkpointing: bool = False) -> None:
        self.memory = memory
        self.run_block: Callable[[Block], Block] = checkpointed if gradient_checkpointing else _as_it_is

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        # Arguments are found by name: their order has changed between versions of core.
        call = inspect.signature(executor.class_obj._forward).bind(*args, **kwargs)
        call.apply_defaults()
        host = find_host(executor.class_obj)
        x: Tensor = call.arguments["x"]
        tokens = expand_batch(self.memory.on(x.device, x.dtype), x.shape[0])
        rotary = host.rotary(self.memory.coordinates.to(x.device))
        state = MemoryTokens(tokens, rotary, self.memory.history_timestep)
        options = call.arguments["transformer_options"]
        patches = self._patches(host, state, call.arguments)
        call.arguments["transformer_options"] = with_patches(options, patches, state, self.run_block)
        return executor(*call.args, **call.kwargs)

    def _patches(self, host: Host, state: MemoryTokens, call: Mapping[str, Any]) -> dict[Slot, BlockPatch]:
        """The patches of all blocks for one forward pass, by the way the memory is read."""
        cache = self.memory.cache
        if cache is None:
            patches = host.block_patches(state, call)
        else:
            slots, entries = host.slots(), cache.of(call)
            # With all keys and values there the memory has no pass of its own, nor what one would compute beforehand.
            memory = None if len(entries) == len(slots) else host.memory_pass(state, call)
            patches = cached_patches(slots, memory, entries, cache.keep_on)
        for one in self.memory.cross:
            patches = with_cross_attention(host, patches, one, call["x"])
        return patches


def with_cross_attention(
    host: Host, patches: dict[Slot, BlockPatch], cross: CrossMemory, x: Tensor
) -> dict[Slot, BlockPatch]:
    """Patches whose blocks are followed by one more encoder's cross-attention."""
    hidden = expand_batch(cross.hidden.to(device=x.device, dtype=x.dtype), x.shape[0])
    rotary = host.flat_rotary(host.rotary(cross.coordinates.to(x.device)))

    def followed(patch: BlockPatch, module: Any) -> BlockPatch:
        def run(args: BlockArgs, block: Block) -> BlockArgs:
            where, positions = host.video(args)
            out = patch(args, block)
            video = out["img"][:, where]
            img = out["img"].clone()
            img[:, where] += module(video, positions, hidden, rotary)
            return {**out, "img": img}

        return run

    slots = zip(patches.items(), cross.module.blocks, strict=True)
    return {slot: followed(patch, module) for (slot, patch), module in slots}


class PrepareSamplingWrapper:
    """Declares the memory's tokens to the VRAM planner by enlarging the noise shape (WrappersMP.PREPARE_SAMPLING).

    kept_bytes: what stays on the device through all steps, such as cached keys and values.
    """

    def __init__(self, tokens: int, patch: tuple[int, int, int], kept_bytes: int = 0) -> None:
        self.tokens, self.patch, self.kept_bytes = tokens, patch, kept_bytes

    def __call__(self, executor: Any, model: Any, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_context_windows(model.model_options)
        # The planner multiplies the sizes behind the channels, so that one long axis counts the same.
        plain = math.prod(noise_shape[2:])
        area = plain + self.tokens * math.prod(self.patch)
        if self.kept_bytes:
            area += math.ceil(plain * self.kept_bytes / model.model.memory_required(list(noise_shape)))
        return executor(model, [*noise_shape[:2], area, *[1] * (len(noise_shape) - 3)], conds, *args, **kwargs)


def expand_batch(tokens: Tensor, batch: int) -> Tensor:
    """Repeats memory rows for a batch that holds conditional and unconditional rows one after the other."""
    if tokens.shape[0] == 1:
        return tokens.expand(batch, -1, -1)
    if batch % tokens.shape[0]:
        raise ValueError(f"memory has batch {tokens.shape[0]}, the latent {batch}; use one film or equal batches")
    return tokens.repeat(batch // tokens.shape[0], 1, 1)


def with_patches(
    options: dict[str, Any],
    patches: dict[tuple[str, int], BlockPatch],
    memory: MemoryTokens,
    run_block: Callable[[Block], Block] | None = None,
) -> dict[str, Any]:
    """A copy of transformer_options whose block slots also run `patches`; the given dictionary is left alone."""
    replace = options.get("patches_replace", {})
    slots = dict(replace.get("dit", {}))
    for slot, patch in patches.items():
        slots[slot] = _chain(slots.get(slot), patch, memory, run_block or _as_it_is)
    return {**options, "patches_replace": {**replace, "dit": slots}}


def checkpointed(block: Block) -> Block:
    """A block that keeps only its inputs for the backward pass and is run again there (gradient checkpointing)."""
    block = hooked(_bound_now(block))

    def run(args: BlockArgs) -> BlockArgs:
        def forward(img: Tensor, txt: Tensor | None) -> BlockArgs:
            # Hunyuan's blocks add in place, which would spoil the inputs of the second run.
            return block({**args, "img": img.clone(), "txt": None if txt is None else txt.clone()})

        result: Any = torch.utils.checkpoint.checkpoint(forward, args["img"], args.get("txt"), use_reentrant=False)
        return result

    return run


def _bound_now(function: Any) -> Any:
    """A copy of a closure that keeps the values its variables have now.

    Core makes `original_block` inside its loop over the blocks: called in the backward pass, after the loop, it would
    run the last block.
    """
    cells = getattr(function, "__closure__", None)
    if not isinstance(function, types.FunctionType) or not cells:
        return function
    fixed = tuple(types.CellType(cell.cell_contents) for cell in cells)
    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, fixed)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _as_it_is(block: Block) -> Block:
    return hooked(block)


def _chain(earlier: Any, patch: BlockPatch, memory: MemoryTokens, run_block: Callable[[Block], Block]) -> Any:
    def run(args: BlockArgs, extra: dict[str, Any]) -> BlockArgs:
        original = run_block(extra["original_block"])
        before = memory.tokens

        def with_memory(inner: BlockArgs) -> BlockArgs:
            memory.tokens = before  # an earlier owner may run the block more than once
            return patch(inner, original)

        if earlier is None:
            return with_memory(args)
        return earlier(args, {**extra, "original_block": with_memory})

    return run
