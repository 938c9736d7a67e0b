"""What a run takes, before it starts; large batches are cut into steps that fit the card."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..injection.hosts.base import host_blocks
from ..phi.encoder import MemoryEncoder
from .draws import drawn_for
from .module import TrainingModule
from .options import TrainOptions
from .ram_plan import GIB, RamPlan, pinned
from .step_bytes import FLOAT, BeginningBytes, StepBytes, beginning_bytes, sequence, step_bytes
from .weight_parts import weight_bytes

EIGHT_BIT = 2.06  # bytes of a trained value's two moments, with their scales
MOMENTS = {"adamw": 8.0, "muon": 8.0, "adamw8bit": EIGHT_BIT}  # bytes of a trained value's; muon: where AdamW moves it
OF_MUON = 4.0  # the one moment of the matrices that Muon moves
MOST_CLIPS = 4096  # on one card
RESERVED = 1.2 * GIB  # context of the driver, workspaces, fragmentation


@dataclass(frozen=True)
class Sharing:
    """How many processes share the batches, and whether they also split the weights (FSDP). here: on this machine."""

    processes: int = 1
    split: bool = False
    here: int = 1

    @classmethod
    def of_this_run(cls) -> Sharing:
        """What `accelerate launch` has said; known before the processes have met."""
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        split = processes > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
        return cls(processes, split, int(os.environ.get("LOCAL_WORLD_SIZE", processes)))

    @property
    def holders(self) -> int:
        """Processes that hold the weights together."""
        return self.processes if self.split else 1


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a run on each device that trains; an estimate. What lies in system RAM says `ram`.

    step: activations and gradients on their way. beginning: of the reconstruction before the first step. moments: bytes
    of a trained value's. blocks: bytes of each block's frozen weights. resident: so many of the blocks stay on the
    device, negative for all. unit: bytes of a block's weights, gathered while it runs where processes split them.
    """

    host: int
    host_values: int
    lora_values: int
    encoder_values: int
    trained_values: int
    tokens: int
    step: StepBytes
    beginning: BeginningBytes = field(default_factory=BeginningBytes)
    moments: float = 8.0
    blocks: tuple[int, ...] = ()
    resident: int = -1
    unit: int = 0
    sharing: Sharing = Sharing()

    @property
    def held(self) -> float:
        """The host's weights on one device; of split ones its part, and the block that runs and the next one.

        Of blocks that wait in RAM the largest, while it runs.
        """
        return self.between + max(self.waiting, default=0) + (2 * self.unit if self.sharing.split else 0)

    @property
    def between(self) -> float:
        """The host's weights on one device while no block runs."""
        return (self.host - sum(self.waiting)) / self.sharing.holders

    @property
    def waiting(self) -> tuple[int, ...]:
        """Bytes of each block that waits in system RAM."""
        return self.blocks[self.resident :] if self.resident >= 0 else ()

    @property
    def gradients(self) -> float:
        """Of all trained weights, on one device."""
        return FLOAT * self.trained_values / self.sharing.holders

    @property
    def trained(self) -> float:
        """Weights that are trained, with gradients and moments, on one device."""
        return (2 * FLOAT + self.moments) * self.trained_values / self.sharing.holders

    def need(self, clips: int, accumulate: bool = False) -> float:
        """The highest of a run in steps of so many clips: in a step, or in the reconstruction before the first.

        accumulate: the gradients of an earlier step are there from the start.
        """
        return max(self._need_of_steps(clips, accumulate), self.need_of_beginning(clips))

    def need_of_beginning(self, clips: int) -> float:
        """0 without a reconstruction. Each process takes the clips of all of them through its own encoders."""
        beginning = self.beginning(clips * self.sharing.processes)
        weights = FLOAT * self.trained_values / self.sharing.holders
        return self.between + weights + beginning + RESERVED if beginning else 0.0

    def _need_of_steps(self, clips: int, accumulate: bool) -> float:
        """As the backward pass begins, in its last block, or in the optimizer. What DDP exchanges lies in its buckets
        from the start."""
        accumulate = accumulate or (self.sharing.processes > 1 and not self.sharing.split)
        first, last = self.step.activations(clips)
        first += self.gradients if accumulate else 0
        complete = accumulate or (self.step.apart and clips > 1)  # before the last block of the last clip
        last += self.gradients * (1 if complete else 1 - 1 / self.step.blocks)
        return self.held + self.trained - self.gradients + max(first, last, self.gradients) + RESERVED

    def ram(self, clips: int) -> RamPlan:
        """System RAM of the processes of one machine, in steps of so many clips on each card."""
        here, trained, step = self.sharing.here, self.trained_values, self.step
        offloaded = step.offloaded and step.checkpointed
        gathered = FLOAT + self.moments + (FLOAT if self.sharing.split else 0)  # by the main process, whole
        return RamPlan(
            blocks=here * sum(self.waiting),
            inputs=here * clips * (step.blocks + 1) * pinned(step.input) if offloaded else 0,  # and of the last layers
            averages=here * FLOAT * trained / self.sharing.holders,
            saving=gathered * trained,
        )

    def clips_that_fit(self, card: float, accumulate: bool = False, ram: float | None = None) -> int:
        """Clips of one step of one process on a card, and a machine, of so many bytes, 0 when not even one fits."""
        counts = range(1, MOST_CLIPS + 1)
        return max((n for n in counts if self.need(n, accumulate) <= card and self.ram(n).fits(ram)), default=0)


def plan_memory(
    module: TrainingModule, options: TrainOptions, latents: tuple[int, ...], teacher: MemoryEncoder | None = None
) -> MemoryPlan:
    """Estimates a run on clips of `latents` (C, T, H, W). Raises ValueError for what split weights rule out.

    teacher: from which the encoders learn before the first step (`options.reconstruction`).
    """
    sharing = Sharing.of_this_run()
    if sharing.split and options.resident_blocks >= 0:
        raise ValueError(
            "resident_blocks cannot be used with FSDP, which splits the weights itself; leave one of them out"
        )
    if sharing.split and options.optimizer == "adamw8bit":
        raise ValueError(
            "optimizer adamw8bit cannot be used with FSDP, which cannot split its moments; take adamw, whose moments "
            "FSDP splits"
        )
    model, configs = module.diffusion_model, [encoder.config for encoder in module.encoders]
    values = {name: parameter.numel() for name, parameter in module.named_parameters()}
    lora = sum(count for name, count in values.items() if ".lora_" in name)
    encoder = sum(count for name, count in values.items() if name.startswith(("encoder.", "others.")))
    host = sum(values.values()) - lora - encoder
    trained = lora + (encoder if options.train_encoder and options.stage != "host" else 0)
    trained += host if options.train_host else 0
    return MemoryPlan(
        host=_bytes(p for name, p in model.named_parameters() if ".lora_" not in name),
        host_values=host,
        lora_values=lora,
        encoder_values=encoder,
        trained_values=trained,
        tokens=sequence(configs, options, latents),
        step=step_bytes(model, configs, drawn_for(options, sharing.split), latents, encoder),
        beginning=beginning_bytes(model, module.encoders, options, latents, teacher),
        moments=_moments(options, host if options.train_host else lora, trained),
        blocks=tuple(_bytes(p for p in block.parameters() if not p.requires_grad) for block in host_blocks(model)),
        resident=options.resident_blocks,
        unit=max((_bytes(block.parameters()) for block in host_blocks(model)), default=0),
        sharing=sharing,
    )


def _moments(options: TrainOptions, in_matrices: int, trained: int) -> float:
    """Bytes of a trained value's moments, the mean of all; in_matrices: values that Muon would move."""
    share = in_matrices / max(trained, 1) if options.optimizer == "muon" else 0.0
    return MOMENTS[options.optimizer] * (1 - share) + OF_MUON * share


def fit_to_card(options: TrainOptions, plan: MemoryPlan, card: float | None, ram: float | None = None) -> TrainOptions:
    """The same clips in an update, in steps of as many as fit cards of `card` bytes; at least one clip on each.

    ram: bytes of the machine, where that is known, which a step has to fit too.

    No card leaves the options alone, and so does a batch that fits.
    """
    processes = plan.sharing.processes
    share = options.batch_size // processes
    if card is None or (plan.need(share, options.accumulate > 1) <= card and plan.ram(share).fits(ram)):
        return options
    fits = processes * max(1, plan.clips_that_fit(card, accumulate=True, ram=ram))
    shares = [n for n in range(processes, fits + 1, processes) if options.batch_size % n == 0]
    share = max(shares, default=options.batch_size)  # what cannot be shared evenly is refused later
    return replace(options, batch_size=share, accumulate=options.accumulate * options.batch_size // share)


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


def _bytes(parameters: Iterable[Tensor]) -> int:
    return sum(weight_bytes(parameter) for parameter in parameters)
