"""A whole training step at full size on the fake card, with the bytes of each part of it.

Blocks of one kind are alike, so that the most that is alive in a given block of a given phase is linear in how many
there are: two steps of a few blocks tell what a step of all of them takes (`deep`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection.hosts.base import BLOCKS
from memory_encoder.objectives import retrieval
from memory_encoder.objectives.continuation import ContinuationDraw
from memory_encoder.objectives.retrieval import RetrievalDraw
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.phi.positions import cells_for, grid_for
from memory_encoder.training import losses, optimizers
from memory_encoder.training import trainer as loop
from memory_encoder.training.card_plan import RESERVED, MemoryPlan, plan_memory
from memory_encoder.training.lora import add_lora
from memory_encoder.training.module import Batch, TrainingModule
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.reconstruction import reconstruct
from memory_encoder.training.streaming import streamed_blocks

from .hosts import FullModel, depths, fp8_host
from .meter import Meter

FEWEST = 2  # blocks of a kind
OMEGA = 4  # latents: the most that retrieval asks for
FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Case:
    """A step: `section` latents (of Omega in retrieval) beside the memory of `history` latents, `clips` at once.

    stage: also `reconstruction`, a step of what comes before the first one. options: of TrainOptions, and the rate of a
    `teacher`.
    """

    host: str
    stage: Any = "continuation"
    section: int = 3
    history: int = 121
    clips: int = 1
    fp8: bool = False
    layers: Any = None  # of all kinds of blocks or a list with one of each; None for all
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Latents of the training clip."""
        return self.history + (self.section if self.stage == "continuation" else 0)

    def train_options(self) -> TrainOptions:
        values = {"rank": 128, "gradient_checkpointing": True, "window_share": 0.0} | self.options
        values.pop("teacher", None)
        if self.begins:
            values["reconstruction"] = 1
        return TrainOptions(
            stage="retrieval" if self.begins else self.stage, batch_size=self.clips, section=self.section,
            mixed_precision="bf16", history_dropout=0.0, **values,
        )  # fmt: skip

    @property
    def begins(self) -> bool:
        """Whether it comes before the first step."""
        return self.stage == "reconstruction"


@dataclass(frozen=True)
class Measured:
    """Highest live bytes of a step by phase, with the operation and what lay there, and the plan for it."""

    phases: dict[str, tuple[int, str, dict[str, int]]]
    plan: MemoryPlan

    @property
    def peak(self) -> int:
        return max(size for size, _, _ in self.phases.values())


class Clips:
    """Training clips in RAM."""

    def __init__(self, case: Case, model: FullModel, configs: Sequence[EncoderConfig]) -> None:
        self.case, self.model, self.configs = case, model, configs

    def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Batch:
        host, (channels, _, height, width) = self.model.host, self.model.latent
        count, frames, lr = last - first, self.case.frames, {}
        for config in self.configs:
            grid, cells = grid_for(height, width, config), cells_for(frames, config.stride[0])[1]
            lr[config.rate] = torch.zeros(count, channels, cells, grid[0] * host.patch[1], grid[1] * host.patch[2])
        conditioning = {"context": torch.zeros(count, self.model.words, host.text_width)}
        if host.pooled_width is not None:
            conditioning["y"] = torch.zeros(count, host.pooled_width)
        return Batch(torch.zeros(count, channels, frames, height, width), lr, conditioning)


def drawn(case: Case, batch: Batch) -> Any:
    """The random numbers of the longest step that the case can have, as `draw_rows` gives them."""
    if not case.train_options().per_clip:
        return drawn_together(case, batch)
    return tuple(drawn_together(case, batch.rows(row, row + 1)) for row in range(batch.hr.shape[0]))


def drawn_together(case: Case, batch: Batch) -> RetrievalDraw | ContinuationDraw:
    """One draw for all rows."""
    count, channels, _, height, width = batch.hr.shape
    size = (count, channels, case.section, height, width)
    if case.stage == "continuation":
        t, noise, options = torch.full((count,), 0.5), torch.zeros(size), case.train_options()
        window = min(options.window, case.history) if options.window_share else 0
        return ContinuationDraw(case.history, case.section, t, noise, False, None, None, window)
    return retrieval.draw(batch.hr, batch.lr, 3.0, torch.Generator(), range(10, 10 + min(OMEGA, case.section)))


class StepMeter(Meter):
    """Live bytes with the highest by phase of a step, and by the kind of what is there at the highest of all.

    The float32 gradient of the queries, which the flash kernel adds up for itself, is in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.tag = "before", "other"
        self.phases: dict[str, tuple[int, str, dict[str, int]]] = {}
        self.entered: dict[str, int] = {}  # times that blocks have run in this phase
        self._tags: dict[int, tuple[str, int]] = {}

    def add(self, tensor: Tensor, name: str = "given") -> None:
        super().add(tensor, name)
        if tensor.device.type == self.device:
            key = tensor.untyped_storage()._cdata  # type: ignore[attr-defined]
            if key not in self._tags and key in self._known:
                self._tags[key] = (f"{self.tag}", self._known[key])
                self._look(name)

    def label(self, tensor: Tensor, tag: str) -> None:
        """Says what a tensor is."""
        self.add(tensor)
        if tensor.device.type == self.device:
            key = tensor.untyped_storage()._cdata  # type: ignore[attr-defined]
            self._tags[key] = (tag, self._known[key])

    def _gone(self, key: int) -> None:
        super()._gone(key)
        self._tags.pop(key, None)

    def _look(self, name: str, more: int = 0) -> None:
        if self.now + more > self.phases.get(self.phase, (0, "", {}))[0]:
            parts: dict[str, int] = {"kernel": more}
            for tag, size in self._tags.values():
                parts[tag] = parts.get(tag, 0) + size
            self.phases[self.phase] = (self.now + more, name, parts)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if "flash_attention_backward" in str(func):
            self._look(str(func), 4 * args[1].numel())
        return result


def module_of(card: Any, case: Case) -> tuple[FullModel, TrainingModule]:
    """Host with its LoRA, and an encoder, as a run gets them."""
    model = card.new_model(case.host, FP8 if case.fp8 else torch.bfloat16, case.layers)
    if case.fp8:
        fp8_host(model.diffusion_model)
    encoder, options = MemoryEncoder(model.config(), dtype=torch.float32), case.train_options()
    add_lora(model.diffusion_model, options.rank, 0)
    checkpointing = options.gradient_checkpointing
    return model, TrainingModule(
        encoder, model.diffusion_model, gradient_checkpointing=checkpointing, offload_inputs=options.offload_inputs
    )


def teacher_of(model: FullModel, case: Case) -> MemoryEncoder | None:
    rate = case.options.get("teacher")
    return MemoryEncoder(model.config(rate=rate), dtype=torch.float32) if rate else None


def plan_of(model: FullModel, module: TrainingModule, case: Case) -> MemoryPlan:
    """What the run of such a module is told."""
    teacher, latents = teacher_of(model, case), (model.latent[0], case.frames, *model.latent[2:])
    return plan_memory(module, case.train_options(), latents, teacher)


def needed(plan: MemoryPlan, case: Case) -> int:
    """What the plan says of a case, without its reserve, which is for what the card does not show."""
    steps = plan.need(case.clips, case.options.get("accumulate", 1) > 1)
    return round((plan.need_of_beginning(case.clips) if case.begins else steps) - RESERVED)


@contextmanager
def run_of(card: Any, case: Case, folder: Path) -> Iterator[tuple[loop.Trainer, StepMeter, MemoryPlan]]:
    """A run of the pack's own loop that is about to begin, a meter that knows its weights, and the plan."""
    model, module = module_of(card, case)
    options, plan, meter = case.train_options(), plan_of(model, module, case), StepMeter()
    with streamed_blocks(model.diffusion_model, options.resident_blocks), pytest.MonkeyPatch.context() as patch:
        if options.optimizer == "adamw8bit":
            patch.setattr(optimizers, "adamw_8bit", lambda card: EightBit)
        teacher = teacher_of(model, case)
        configs = [module.encoder.config, *([teacher.config] if teacher else [])]
        run = loop.Trainer(module, Clips(case, model, configs), options, folder)
        _label(meter, module)
        _tell_blocks(meter, model.diffusion_model)
        yield run, meter, plan


def _label(meter: StepMeter, module: TrainingModule) -> None:
    for name, parameter in module.named_parameters():
        kind = "LoRA" if ".lora_" in name else "encoder" if name.startswith("encoder.") else "frozen"
        meter.label(parameter, kind)
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: meter.label(p.grad, "gradients"))


def _tell_blocks(meter: StepMeter, model: torch.nn.Module) -> None:
    """The phase says in which block it is: those of the first half of a kind by their number, others from the end.

    And which time it runs there, as it does for each clip of its own.
    """
    for kind in BLOCKS:
        blocks = list(getattr(model, kind.rstrip("."), ()))
        for index, block in enumerate(blocks):
            place = index if 2 * index < len(blocks) else index - len(blocks)

            def enter(*_: Any, place: str = f"{kind}{place}") -> None:
                times = meter.entered[place] = meter.entered.get(place, 0) + 1
                meter.phase = f"{meter.tag} {place} {times}"

            block.register_forward_pre_hook(enter, prepend=True)


class EightBit(torch.optim.Optimizer):
    """The bytes of an AdamW of 8 bits, whose kernels fake tensors do not know."""

    def __init__(self, groups: Any, lr: float, **_: Any) -> None:
        super().__init__(groups, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p not in self.state:
                    self.state[p]["moments"] = torch.zeros(int(2.06 * p.numel()), dtype=torch.uint8, device=p.device)


def measure(card: Any, case: Case, folder: Path) -> Measured:
    """A step of a run whose optimizer has its moments already; or all that comes before the first step."""
    if case.begins:
        return _beginning(card, case, folder)
    with run_of(card, case, folder) as (run, meter, plan), pytest.MonkeyPatch.context() as patch:
        for parameter in run.ema.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
            for value in [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]:
                meter.label(value, "moments")
        patch.setattr(losses, "draw_rows", lambda batch, *_: drawn(case, batch))

        def enter(phase: str, function: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                meter.phase, meter.tag, meter.entered = phase, phase, {}
                return function(*args, **kwargs)

            return call

        for owner, name, phase in (
            (run.losses, "trained", "forward"),
            (run.accelerator, "backward", "backward"),
            (run.accelerator, "clip_grad_norm_", "optimizer"),
        ):
            patch.setattr(owner, name, enter(phase, getattr(owner, name)))
        with meter:
            run._step(0)
    return Measured(meter.phases, plan)


def _beginning(card: Any, case: Case, folder: Path) -> Measured:
    """The reconstruction, as the loop begins a new run; a second step of it has moments."""
    with run_of(card, case, folder) as (run, meter, plan), pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "random_state_kept", lambda device: nullcontext())
        patch.setattr(run, "_stop_if_asked", lambda: None)  # fake votes are all for it
        meter.phase = case.stage
        seen: Any = run.source
        teachers = [MemoryEncoder(config, dtype=torch.float32) for config in seen.configs[1:]]
        options = replace(case.train_options(), reconstruction=2)
        with meter:
            run._begin(partial(reconstruct, source=run.source, options=options, teacher=next(iter(teachers), None)))
    return Measured(meter.phases, plan)


def shallow(case: Case) -> tuple[int, list[Case]]:
    """Two cases of few blocks, and how many times their difference lies between the first and the whole.

    Each has the whole's shares of the kinds of blocks, and of those that stay on the card.
    """
    whole = list(depths(case.host).values())
    resident, parts = case.options.get("resident_blocks", -1), math.gcd(*whole)
    step = parts // math.gcd(parts, resident) if resident > 0 else 1
    first = step * -(-FEWEST // step)

    def of(count: int) -> Case:
        kept = {} if resident < 0 else {"resident_blocks": resident * count // parts}
        return replace(case, layers=[n * count // parts for n in whole], options=case.options | kept)

    return (parts - first) // step, [of(first), of(first + step)]


def whole(card: Any, case: Case, folder: Path) -> dict[str, int]:
    """Highest live bytes of a step by phase and block."""
    return {name: size for name, (size, _, _) in measure(card, case, folder).phases.items()}


def deep(card: Any, case: Case, folder: Path) -> dict[str, int]:
    """The same of a step of all blocks, from two steps of a few.

    Where each of many clips has passes of its own, what waits while the first backward pass runs is linear in them.
    """
    options = case.train_options()
    if options.per_clip and case.clips > 2 and not (options.offload_inputs or case.begins):
        few, more = (deep(card, replace(case, clips=clips), folder) for clips in (1, 2))
        return _further(few, more, case.clips - 1)
    times, cases = shallow(case)
    few, more = (whole(card, one, folder) for one in cases)
    return _further(few, more, times)


def _further(few: dict[str, int], more: dict[str, int], times: int) -> dict[str, int]:
    """So many times as far from the first as the second is, where both have been."""
    return {name: few[name] + times * (more[name] - few[name]) for name in few if name in more}
