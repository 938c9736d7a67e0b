"""Puts a memory into a host through ComfyUI's public patch points (paper section 3.2, Eq. 4: G(X_t, t, c, phi(H))).

A DIFFUSION_MODEL wrapper adds, for one forward pass, a patch to every block: memory tokens go in after the video
tokens and come out again, so that everything outside of the blocks sees the video alone. Earlier owners of a block
slot stay in charge and call our patch as their original block.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor

from .hosts import Host, HostError, MemoryTokens, find_host
from .hosts.base import Block, BlockArgs, BlockPatch, HistoryTimestep
from .memory import VideoMemory
from .positions import lattice_coordinates

# Names of wrapper types in comfy.patcher_extension.WrappersMP.
DIFFUSION_MODEL, PREPARE_SAMPLING = "diffusion_model", "prepare_sampling"
KEY = "video_memory"
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class MemorySettings:
    """How a memory enters the host.

    strength: 0 leaves the host untouched, 1 uses every memory token. In between, that share of the tokens is used,
        evenly spread over space and time: the memory's share of the attention fades with it, at no cost and without a
        mask. Not from the paper.
    history_timestep: `zero` marks memory as clean, `same` gives it the section's timestep. Not from the paper.
    sliding_window: last latent frames that are shown uncompressed beside the memory (paper section 4.5).
    history_guidance: weight of the memory in the guidance relative to the prompt's, 0 for none; see `guidance`.
    """

    strength: float = 1.0
    history_timestep: HistoryTimestep = "zero"
    sliding_window: int = 0
    history_guidance: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength {self.strength} must lie between 0 and 1")
        if self.history_guidance < 0:
            raise ValueError(f"history_guidance {self.history_guidance} must not be negative; 0 turns it off")
        if self.history_timestep not in ("zero", "same"):
            raise ValueError(f"history_timestep {self.history_timestep!r} is unknown; choose zero or same")


@dataclass
class InjectedMemory:
    """Tokens [B,M,D] and coordinates [M,3] relative to the section being made, whose first latent is at time 0."""

    tokens: Tensor
    coordinates: Tensor
    history_timestep: HistoryTimestep = "zero"
    _placed: dict[tuple[torch.device, torch.dtype], Tensor] = field(default_factory=dict, repr=False)

    def on(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Tokens on a device, moved once and kept for the other steps of the section."""
        if (device, dtype) not in self._placed:
            self._placed[device, dtype] = self.tokens.to(device=device, dtype=dtype)
        return self._placed[device, dtype]


def select_tokens(memory: VideoMemory, host: Host, settings: MemorySettings, time_shift: float) -> InjectedMemory:
    """Chooses and places the tokens that enter the host.

    time_shift is added to all times: minus the film's latents so far to continue the film, minus i to ask for frame i.
    """
    tokens, coordinates = memory.all_tokens(), memory.all_coordinates()
    count = min(settings.sliding_window, memory.recent.shape[2])
    if count:
        window = host.embed(memory.recent[:, :, -count:])
        lattice = lattice_coordinates(*window.shape[2:], start=memory.latents - count)
        tokens = torch.cat([tokens, window.flatten(2).transpose(1, 2).to(tokens)], dim=1)
        coordinates = torch.cat([coordinates, lattice])
    if settings.strength < 1:
        keep = kept_tokens(len(coordinates), settings.strength)
        tokens, coordinates = tokens[:, keep], coordinates[keep]
    coordinates = coordinates + coordinates.new_tensor([time_shift, 0, 0])
    return InjectedMemory(tokens, coordinates, settings.history_timestep)


def kept_tokens(count: int, strength: float) -> Tensor:
    """Indices of the tokens used at `strength`; a higher strength only adds to them."""
    order = torch.arange(1, count + 1, dtype=torch.float64) * _GOLDEN_RATIO % 1
    return torch.nonzero(order < strength).flatten()


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
    if injected.tokens.shape[1] == 0:  # a strength below one token
        return patched
    patched.add_wrapper_with_key(DIFFUSION_MODEL, KEY, DiffusionModelWrapper(injected))
    patched.add_wrapper_with_key(PREPARE_SAMPLING, KEY, PrepareSamplingWrapper(injected.tokens.shape[1], host.patch))
    return patched


def is_injected(model: Any) -> bool:
    """Whether `inject` put a memory into this ModelPatcher; an empty one leaves nothing behind."""
    return bool(model.get_wrappers(DIFFUSION_MODEL, KEY))


def check_fit(host: Host, memory: VideoMemory) -> None:
    """Raises ValueError when a memory's tokens, or the latents it keeps, cannot enter this host."""
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
        patches = host.block_patches(state, call.arguments)
        call.arguments["transformer_options"] = with_patches(options, patches, state, self.run_block)
        return executor(*call.args, **call.kwargs)


class PrepareSamplingWrapper:
    """Declares the memory's tokens to the VRAM planner by enlarging the noise shape (WrappersMP.PREPARE_SAMPLING)."""

    def __init__(self, tokens: int, patch: tuple[int, int, int]) -> None:
        self.tokens, self.patch = tokens, patch

    def __call__(self, executor: Any, model: Any, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_context_windows(model.model_options)
        # The planner multiplies the sizes behind the channels, so that one long axis counts the same.
        area = math.prod(noise_shape[2:]) + self.tokens * math.prod(self.patch)
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
    block = _bound_now(block)

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
    return block


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
