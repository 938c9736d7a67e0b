"""What a run will train and what it takes, before it starts; large batches are cut into steps that fit the card."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..injection.hosts import find_host
from ..injection.hosts.base import BLOCKS, host_blocks
from ..objectives.retrieval import OMEGA_SIZES
from ..phi.config import EncoderConfig
from ..phi.positions import cells_for, grid_for
from ..phi.trunk import layer_strides
from .lora import linear_layers
from .module import TrainingModule
from .options import TrainOptions

GIB = 1024**3
TRAINED_BYTES = 16  # of a trained value: float32 weight, gradient and AdamW's two moments
RESERVED = 1.0 * GIB  # context of the driver, workspaces, fragmentation
# Values kept for the backward pass, as a multiple of the inputs and outputs of a block's linear layers. Measured on
# core's Wan blocks with a LoRA (tests/integration/test_plan.py).
KEPT = 1.2


@dataclass(frozen=True)
class Sharing:
    """How many processes share the batches, and whether they also split the weights (FSDP)."""

    processes: int = 1
    split: bool = False

    @classmethod
    def of_this_run(cls) -> Sharing:
        """What `accelerate launch` has said; known before the processes have met."""
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        return cls(processes, processes > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true")

    @property
    def holders(self) -> int:
        """Processes that hold the weights together."""
        return self.processes if self.split else 1


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a run on each device that trains; an estimate. Averages of the weights lie in system RAM.

    unit: bytes of a block's weights, gathered while it runs where processes split the weights.
    """

    host: int
    host_values: int
    lora_values: int
    encoder_values: int
    trained_values: int
    tokens: int
    clip: int
    unit: int = 0
    sharing: Sharing = Sharing()

    @property
    def held(self) -> float:
        """The host's weights on one device; of split ones its part, and the block that runs and the next one."""
        return self.host / self.sharing.holders + (2 * self.unit if self.sharing.split else 0)

    @property
    def trained(self) -> float:
        """Weights that are trained, with gradients and moments, on one device."""
        return TRAINED_BYTES * self.trained_values / self.sharing.holders

    @property
    def fixed(self) -> float:
        """What does not depend on the batch."""
        return self.held + self.trained + RESERVED

    def clips_that_fit(self, card: float) -> int:
        """Clips of one step of one process on a card of so many bytes, 0 when not even one fits."""
        return max(0, int((card - self.fixed) / self.clip))


def plan_memory(module: TrainingModule, options: TrainOptions, latents: tuple[int, ...]) -> MemoryPlan:
    """Estimates a run on clips of `latents` (C, T, H, W)."""
    model, configs = module.diffusion_model, [encoder.config for encoder in module.encoders]
    values = {name: parameter.numel() for name, parameter in module.named_parameters()}
    lora = sum(count for name, count in values.items() if ".lora_" in name)
    encoder = sum(count for name, count in values.items() if name.startswith(("encoder.", "others.")))
    host = sum(values.values()) - lora - encoder
    trained = lora + (encoder if options.train_encoder and options.stage != "host" else 0)
    tokens = _tokens(configs, options, latents)
    return MemoryPlan(
        host=_bytes(p for name, p in model.named_parameters() if ".lora_" not in name),
        host_values=host,
        lora_values=lora,
        encoder_values=encoder,
        trained_values=trained + (host if options.train_host else 0),
        tokens=tokens,
        clip=_clip_bytes(model, options, tokens) + sum(_encoder_bytes(c, options, latents) for c in configs),
        unit=max((_bytes(block.parameters()) for block in host_blocks(model)), default=0),
        sharing=Sharing.of_this_run(),
    )


def fit_to_card(options: TrainOptions, plan: MemoryPlan, card: float | None) -> TrainOptions:
    """The same clips in an update, in steps of as many as fit cards of `card` bytes; at least one clip on each.

    None leaves the options alone, and so does a batch that fits.
    """
    processes = plan.sharing.processes
    fits = options.batch_size if card is None else processes * max(1, plan.clips_that_fit(card))
    if fits >= options.batch_size:
        return options
    shares = [n for n in range(processes, fits + 1, processes) if options.batch_size % n == 0]
    share = max(shares, default=options.batch_size)  # what cannot be shared evenly is refused later
    return replace(options, batch_size=share, accumulate=options.accumulate * options.batch_size // share)


def describe_plan(plan: MemoryPlan, options: TrainOptions, clips: int, card: float | None) -> str:
    """The plan for people, with what to change when it does not fit."""
    host = "trained" if options.train_host else f"frozen; LoRA rank {options.rank} {plan.lora_values / 1e6:.1f} M"
    need = plan.fixed + options.batch_size // plan.sharing.processes * plan.clip
    each = f" on each of {plan.sharing.processes} devices" if plan.sharing.processes > 1 else ""
    lines = [
        f"stage {options.stage}, {options.steps} steps, {options.batch_size * options.accumulate} clips an update in "
        f"steps of {options.batch_size}, {clips} clips of training data",
        f"host {plan.host_values / 1e6:.1f} M parameters, {host}; encoder {plan.encoder_values / 1e6:.1f} M; "
        f"{plan.tokens} tokens a clip",
        f"estimated memory {need / GIB:.2f} GiB{each}: host {plan.held / GIB:.2f}, trained weights, gradients and "
        f"moments {plan.trained / GIB:.2f}, activations {plan.clip / GIB:.2f} a clip",
    ]
    if card is not None:
        lines.append(f"card {card / GIB:.1f} GiB: " + ("fits" if need <= card else _advice(options)))
    return "\n".join(lines)


def card_bytes(gib: float | None, cpu: bool = False) -> float | None:
    """Size of the card to plan for: what was asked for, else that of the present one; None without, or on the `cpu`.

    A host that still lies in system RAM counts too: it is moved there before the first step.
    """
    if gib is not None:
        if gib <= 0:
            raise ValueError(f"card_gib {gib} must be above 0")
        return gib * GIB
    if cpu or not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def _advice(options: TrainOptions) -> str:
    changes = ["a host in fp8", "a lower rank", "smaller or shorter clips"]
    if not options.gradient_checkpointing:
        changes.insert(0, "gradient checkpointing")
    return "does not fit by this estimate. Change one or more of: " + "; ".join(changes)


def _tokens(configs: Sequence[EncoderConfig], options: TrainOptions, latents: tuple[int, ...]) -> int:
    """The longest sequence: section or Omega, and the memories of the whole clip."""
    _, frames, height, width = latents
    patch, memory = configs[0].patch, 0
    if options.stage != "host":
        memory = sum(cells_for(frames, c.stride[0])[1] * prod(grid_for(height, width, c)) for c in configs)
    target = options.section if options.stage != "retrieval" else min(max(OMEGA_SIZES), frames)
    return target * (height // patch[1]) * (width // patch[2]) + memory


def _clip_bytes(model: nn.Module, options: TrainOptions, tokens: int) -> int:
    """Activations of the host for one clip."""
    modules: dict[str, Any] = dict(model.named_modules())
    layers = [modules[name] for name in linear_layers(model) if ".lora_" not in name and ".base_layer" not in name]
    size = 2 if options.mixed_precision == "bf16" else 4
    every = int(KEPT * size * tokens * sum(layer.in_features + layer.out_features for layer in layers))
    if not options.gradient_checkpointing:
        return every
    blocks = {name.split(".")[0] + name.split(".")[1] for name in modules if name.startswith(BLOCKS)}
    inputs = len(blocks) * tokens * find_host(model).width * size
    return inputs + every // max(len(blocks), 1)


def _encoder_bytes(config: EncoderConfig, options: TrainOptions, latents: tuple[int, ...]) -> int:
    """Activations of the encoder: each layer's output twice, before and after SiLU."""
    if not config.has_hr or options.stage == "host":
        return 0
    size, cells, total = 2 if options.mixed_precision == "bf16" else 4, [float(n) for n in latents[1:]], 0.0
    channels = [*config.channels, *[config.channels[-1]] * len(layer_strides(config))]
    for stride, width in zip(layer_strides(config), channels, strict=False):
        cells = [n / s for n, s in zip(cells, stride, strict=True)]
        total += 2 * width * prod(cells) * size
    return int(total)


def _bytes(parameters: Iterable[Tensor]) -> int:
    found: Any = sum(p.numel() * p.element_size() for p in parameters)
    return int(found)
