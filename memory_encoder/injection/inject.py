"""Puts a memory into a host through ComfyUI's public patch points (paper section 3.2, Eq. 4: G(X_t, t, c, phi(H))).

A DIFFUSION_MODEL wrapper adds, for one forward pass, a patch to every block: memory tokens go in after the video
tokens and come out again, so that everything outside of the blocks sees the video alone. Earlier owners of a block
slot stay in charge and call our patch as their original block.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor

from ..budget import cache_bytes
from ..memory.video_memory import VideoMemory
from ..phi.cross_attention import CrossMemory
from ..phi.positions import lattice_coordinates
from .cached import cached_patches, hooked
from .compiled import compile_by_blocks, drops_guards, is_compiled, refuse_late, uncompiled
from .fit import check_latent_size, check_memory, needs_tokens
from .hosts import Host, HostError, MemoryTokens, find_host
from .hosts.attention_patches import patches_within
from .hosts.base import Block, BlockArgs, BlockPatch, Constants, Slot, scaling_of
from .hosts.comfy_models import host_of_patcher
from .saved_inputs import on_copies
from .selection import InjectedMemory, MemorySettings, as_trained, cross_memories, reading_of, select_tokens

# Names of wrapper types in comfy.patcher_extension.WrappersMP, and of a callback in CallbacksMP.
DIFFUSION_MODEL, PREPARE_SAMPLING, CALC_COND_BATCH = "diffusion_model", "prepare_sampling", "calc_cond_batch"
ON_CLEANUP = "on_cleanup"
KEY = "video_memory"


def inject(
    model: Any, memory: VideoMemory | None, settings: MemorySettings | None = None, time_offset: float | None = None
) -> Any:
    """Returns a clone of a ComfyUI ModelPatcher that sees `memory`; the clone samples as before if there is none.

    time_offset: see `select_tokens`; None continues the film. Raises HostError or ValueError when model and memory do
    not fit, naming what does not.
    """
    settings = settings or MemorySettings()
    patched = model.clone()
    for kind in (DIFFUSION_MODEL, PREPARE_SAMPLING, CALC_COND_BATCH):
        patched.remove_wrappers_with_key(kind, KEY)
    patched.remove_callbacks_with_key(ON_CLEANUP, KEY)
    host = host_of_patcher(patched)
    if memory is not None:
        needs_tokens(memory.config, "Apply Video Memory")
    if memory is None or memory.token_count == 0 or settings.strength == 0:
        return patched
    settings = as_trained([part.config for part in memory.parts], settings)
    check_memory(memory, host)
    refuse_context_windows(patched.model_options)
    offset = -float(memory.latents) if time_offset is None else time_offset
    injected = select_tokens(memory, host, settings, offset)
    cross = cross_memories(model, memory, settings, offset)
    injected = replace(injected, cross=cross, reading=reading_of(model, memory))
    if injected.tokens.shape[1] == 0:  # a strength below one token
        return patched
    eager = (injected.cache is not None and drops_guards(patched)) or (injected.hooks_modules and is_compiled(patched))
    compile_by_blocks(patched, host.slots())
    planned, guardless = Planned(injected, host), drops_guards(patched)
    patched.add_wrapper_with_key(
        DIFFUSION_MODEL, KEY, DiffusionModelWrapper(injected, eager=eager, guardless=guardless)
    )
    patched.add_wrapper_with_key(PREPARE_SAMPLING, KEY, PrepareSamplingWrapper(planned, eager, guardless))
    patched.add_wrapper_with_key(CALC_COND_BATCH, KEY, CalcCondBatchWrapper(planned))
    patched.add_callback_with_key(ON_CLEANUP, KEY, injected.forget)
    return patched


def is_injected(model: Any) -> bool:
    """Whether `inject` put a memory into this ModelPatcher; an empty one leaves nothing behind."""
    return bool(model.get_wrappers(DIFFUSION_MODEL, KEY))


def refuse_context_windows(model_options: dict[str, Any] | None, name: str = "model") -> None:
    """Raises HostError when core's context windows are on: they never tell the model where it is in the film.

    name: of the input that has the options.
    """
    if model_options and model_options.get("context_handler") is not None:
        raise HostError(
            f"{name} has context windows, which slice the film without telling the memory where it is; "
            "remove the Context Windows node, sections take its place"
        )


class DiffusionModelWrapper:
    """Wraps one forward pass of the diffusion model (WrappersMP.DIFFUSION_MODEL).

    eager: compiled blocks run as they are, see `compiled`. guardless: they do where others' patches are within them.
    """

    def __init__(
        self,
        memory: InjectedMemory,
        gradient_checkpointing: bool = False,
        eager: bool = False,
        guardless: bool = False,
    ) -> None:
        self.memory = memory
        self.gradient_checkpointing, self.eager, self.guardless = gradient_checkpointing, eager, guardless

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        # Arguments are found by name: their order has changed between versions of core.
        call = inspect.signature(executor.class_obj._forward).bind(*args, **kwargs)
        call.apply_defaults()
        host = find_host(executor.class_obj)
        x: Tensor = call.arguments["x"]
        options = call.arguments["transformer_options"]
        memory = self.memory
        tokens = expand_batch(memory.on(x.device, x.dtype), x.shape[0], options)
        rotary = memory.rotary(host, x.device, options)
        reading = memory.reading_on(x.device, x.dtype)
        if reading.picture is not None:
            reading = replace(reading, picture=expand_batch(reading.picture, x.shape[0], options))
        start = reading.section_start
        video = moved_section(host, x, start, options, memory.constants) if start else None
        # Weights that are trained, or patched anew for other steps, make the same values within this pass alone.
        fixed = not (memory.changing_weights or torch.is_grad_enabled())
        constants = memory.constants if fixed else Constants()
        state = MemoryTokens(tokens, rotary, memory.history_timestep, reading, video, constants)
        patches = self._patches(host, state, call.arguments)
        options = with_patches(options, patches, state, self._run_block(host, options))
        call.arguments["transformer_options"] = options
        try:
            return executor(*call.args, **call.kwargs)
        finally:
            # A checkpointed block holds the options until its backward pass, and the patches what the last block made:
            # where no backward pass reaches that one, the two would keep each other for good.
            options["patches_replace"]["dit"].clear()

    def _run_block(self, host: Host, options: Mapping[str, Any]) -> Callable[[Block], Block]:
        if self.gradient_checkpointing:
            return partial(checkpointed, adds_in_place=host.adds_in_place)
        if torch.is_grad_enabled() and host.adds_in_place:
            return lambda block: on_copies(_as_it_is(block))
        eager = self.eager or (self.guardless and patches_within(options))
        return (lambda block: uncompiled(_as_it_is(block))) if eager else _as_it_is

    def _patches(self, host: Host, state: MemoryTokens, call: Mapping[str, Any]) -> dict[Slot, BlockPatch]:
        """The patches of all blocks for one forward pass, by the way the memory is read."""
        cache = self.memory.cache
        if cache is None:
            patches = host.block_patches(state, call)
        else:
            slots = host.slots()
            # Hooks change the weights from step to step, under the very same prompts.
            entries = {} if self.memory.changing_weights else cache.of(call, len(slots))
            # With all keys and values there the memory has no pass of its own, nor what one would compute beforehand.
            memory = None if len(entries) == len(slots) else host.memory_pass(state, call)
            patches = cached_patches(slots, memory, entries, cache.keep_on)
        for one in self.memory.cross:
            patches = with_cross_attention(
                host, patches, one, call["x"], call["transformer_options"], self.memory.constants
            )
        return patches


def moved_section(
    host: Host, x: Tensor, start: float, options: dict[str, Any], constants: Constants, first: Sequence[float] = ()
) -> Tensor:
    """Rotary of a section [B,C,T,H,W] whose first latent is at time `start`; `first`: other times of its first ones."""

    def make() -> Tensor:
        frames, height, width = (-(-side // patch) for side, patch in zip(x.shape[2:], host.patch, strict=True))
        places = lattice_coordinates(frames, height, width, start)
        places[: len(first) * height * width, 0] = torch.tensor(first).repeat_interleave(height * width)
        return host.rotary(places.to(x.device), options)

    return constants.get(("section", x.device, x.shape[2:], scaling_of(options)), make)


def with_cross_attention(
    host: Host,
    patches: dict[Slot, BlockPatch],
    cross: CrossMemory,
    x: Tensor,
    options: dict[str, Any],
    constants: Constants,
) -> dict[Slot, BlockPatch]:
    """Patches whose blocks are followed by one more encoder's cross-attention."""

    def make() -> tuple[Tensor, Tensor]:
        rotary = host.flat_rotary(host.rotary(cross.coordinates.to(x.device), options))
        return cross.hidden.to(device=x.device, dtype=x.dtype), rotary

    hidden, rotary = constants.get(("cross", id(cross), x.device, x.dtype, scaling_of(options)), make)
    hidden = expand_batch(hidden, x.shape[0], options)

    def followed(patch: BlockPatch, module: Any) -> BlockPatch:
        def run(args: BlockArgs, block: Block) -> BlockArgs:
            where, positions = host.video(args)
            out = patch(args, block)
            video = out["img"][:, where]
            img = out["img"].clone() if torch.is_grad_enabled() else out["img"]
            img[:, where] += module(video, positions, hidden, rotary)
            return {**out, "img": img}

        return run

    slots = zip(patches.items(), cross.module.blocks, strict=True)
    return {slot: followed(patch, module) for (slot, patch), module in slots}


class Planned:
    """A memory as core's VRAM planner counts: an area of latents beside the section's own."""

    def __init__(self, memory: InjectedMemory, host: Host) -> None:
        self.memory = memory
        picture = 0 if memory.reading.picture is None else memory.reading.picture.shape[1]
        self.area = (memory.tokens.shape[1] + picture) * math.prod(host.patch)
        stays = memory.cache is not None and memory.cache.keep_on is None
        both_prompts = 2 * cache_bytes(len(host.slots()), memory.tokens.shape[1], host.width)
        self.kept_bytes = both_prompts if stays else 0

    def enlarged(self, shape: Sequence[int], memory_required: Callable[[list[int]], float]) -> list[int]:
        """The shape [B,C,...] of latents with the memory, and with keys and values that will stay on the device.

        The planner multiplies the sizes behind the channels, so that one long axis counts the same.
        """
        plain = math.prod(shape[2:])
        area = plain + self.area
        missing = self.kept_bytes - (self.memory.cache.bytes if self.memory.cache else 0)
        if missing > 0:
            area += math.ceil(plain * missing / memory_required(list(shape)))
        return [*shape[:2], area, *[1] * (len(shape) - 3)]


class PrepareSamplingWrapper:
    """Declares the memory to the VRAM planner by enlarging the noise shape (WrappersMP.PREPARE_SAMPLING)."""

    def __init__(self, planned: Planned, eager: bool, guardless: bool) -> None:
        self.planned, self.eager, self.guardless = planned, eager, guardless

    def __call__(self, executor: Any, model: Any, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_context_windows(model.model_options)
        memory = self.planned.memory
        pixels = getattr(model.model.latent_format, "spacial_downscale_ratio", None)  # not in older versions
        check_latent_size(memory.size, noise_shape, pixels)
        patched = patches_within(model.model_options.get("transformer_options", {}))
        needs_guards = (memory.cache is not None and not self.eager) or (patched and not self.guardless)
        refuse_late(model, needs_guards, memory.hooks_modules and not self.eager)
        memory.changing_weights = any("hooks" in one for conditioning in conds.values() for one in conditioning)
        shape = self.planned.enlarged(noise_shape, model.model.memory_required)
        return executor(model, shape, conds, *args, **kwargs)


class CalcCondBatchWrapper:
    """Lets core see the memory when it decides how many prompts fit into one batch (WrappersMP.CALC_COND_BATCH)."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned

    def __call__(self, executor: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        return executor(_ModelWithMemory(model, self.planned), *args, **kwargs)


class _ModelWithMemory:
    """Core's model in all but the memory that a batch of latents requires."""

    def __init__(self, model: Any, planned: Planned) -> None:
        self._model, self._planned = model, planned

    @property
    def __class__(self) -> type:  # other wrappers may ask what kind of model it is
        return type(self._model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def memory_required(self, input_shape: list[int], *args: Any, **kwargs: Any) -> float:
        shape = self._planned.enlarged(input_shape, self._model.memory_required)
        return self._model.memory_required(shape, *args, **kwargs)


def expand_batch(tokens: Tensor, rows: int, transformer_options: Mapping[str, Any] | None = None) -> Tensor:
    """Memory for all rows of a batch, which holds the latents once for each prompt, one prompt after the other.

    Raises ValueError when there are several memories and not as many latents.
    """
    if tokens.shape[0] == 1:
        return tokens.expand(rows, -1, -1)
    prompts = len((transformer_options or {}).get("cond_or_uncond") or [None])
    if rows != prompts * tokens.shape[0]:
        latents = rows // prompts if rows % prompts == 0 else f"{rows} rows for {prompts} prompts"
        raise ValueError(
            f"memory holds {tokens.shape[0]} clips, the latent {latents}; "
            "sample as many latents as the memory has clips, or use a memory of one clip"
        )
    return tokens.repeat(prompts, 1, 1)


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


def checkpointed(block: Block, adds_in_place: bool) -> Block:
    """A block that keeps only its inputs for the backward pass and is run again there (gradient checkpointing).

    All tensors among its arguments are inputs, so that hooks on saved tensors see them and nothing else holds them.
    adds_in_place: whether it is one of those that `on_copies` is for.
    """
    block = hooked(_bound_now(block))
    block = on_copies(block) if adds_in_place else block

    def run(args: BlockArgs) -> BlockArgs:
        inputs = {name: value for name, value in args.items() if isinstance(value, Tensor)}
        names, others = list(inputs), {name: value for name, value in args.items() if name not in inputs}

        def forward(*values: Tensor) -> BlockArgs:
            return block({**others, **dict(zip(names, values, strict=True))})

        result: Any = torch.utils.checkpoint.checkpoint(forward, *inputs.values(), use_reentrant=False)
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
        if earlier is not None:
            memory.apart()

        def with_memory(inner: BlockArgs) -> BlockArgs:
            memory.tokens = before  # an earlier owner may run the block more than once
            return patch(inner, original)

        if earlier is None:
            return with_memory(args)
        return earlier(args, {**extra, "original_block": with_memory})

    return run
