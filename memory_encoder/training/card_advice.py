"""The plan of a run for people: what it trains and takes, and what would make it fit on a card. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .card_plan import EIGHT_BIT, GIB, RESERVED, MemoryPlan
from .options import TrainOptions
from .step_bytes import BeginningBytes

Change = Callable[[MemoryPlan], MemoryPlan]
REFUSED = "does not fit by this estimate"


def describe_plan(
    plan: MemoryPlan, options: TrainOptions, clips: int, card: float | None, ram: float | None = None
) -> str:
    """The plan for people, with what to change when it does not fit a card or its machine's ram, both in bytes."""
    host = "trained" if options.train_host else f"frozen; LoRA rank {options.rank} {plan.lora_values / 1e6:.1f} M"
    share = options.batch_size // plan.sharing.processes
    need = plan.need(share, options.accumulate > 1)
    each = f" on each of {plan.sharing.processes} devices" if plan.sharing.processes > 1 else ""
    lines = [
        f"stage {options.stage}, {options.steps} steps, {options.batch_size * options.accumulate} clips an update in "
        f"steps of {options.batch_size}, {clips} clips of training data",
        f"host {plan.host_values / 1e6:.1f} M parameters, {host}; encoder {plan.encoder_values / 1e6:.1f} M; "
        f"{plan.tokens} tokens a clip",
        f"estimated memory {need / GIB:.2f} GiB{each}: host {plan.held / GIB:.2f}, trained weights, gradients and "
        f"moments {plan.trained / GIB:.2f}, activations {plan.step.activations(share)[0] / GIB:.2f}, reserve "
        f"{RESERVED / GIB:.1f}",
    ]
    if plan.need_of_beginning(share) == need:
        lines.append(
            "most of all takes the reconstruction before the first step, which has all clips of a step at once"
        )
    if card is not None:
        lines.append(f"card {card / GIB:.1f} GiB: " + ("fits" if need <= card else remedies(plan, options, card)))
        if ram is not None:
            lines.append(plan.ram(share).describe(ram))
    return "\n".join(lines)


def remedies(plan: MemoryPlan, options: TrainOptions, card: float) -> str:
    """Each remedy that makes one clip a step fit; where none does, the shortest list of them together."""
    accumulate = options.batch_size > plan.sharing.processes or options.accumulate > 1

    def need(one: MemoryPlan) -> float:
        return one.need(1, accumulate)

    adding = _that_add_up(plan, options)
    ways = [(name, change(plan)) for name, change in adding]
    if not options.train_host and not plan.sharing.split:
        if plan.resident:
            count = len(plan.blocks) if plan.resident < 0 else plan.resident
            fewer = (replace(plan, resident=n) for n in range(count - 1, -1, -1))
            ways[-1:] = [(f"--resident-blocks {one.resident}", one) for one in fewer if need(one) <= card][:1]
        if plan.host > 1.5 * plan.host_values:
            ways.append(("a host in fp8", _narrow(plan)))
        half = replace(plan, trained_values=plan.trained_values - plan.lora_values // 2)
        ways.append((f"--rank {max(1, options.rank // 2)}", half))
    ways.append(("--reconstruction 0", replace(plan, beginning=BeginningBytes())))
    alone = [f"{name} ({need(one) / GIB:.1f} GiB)" for name, one in ways if need(one) <= card]
    if alone:
        return f"{REFUSED}. Each of these alone makes one clip a step fit: {'; '.join(alone)}"
    names, together = [], plan
    for name, change in adding:
        names, together = [*names, name], change(together)
        if need(together) <= card:
            return f"{REFUSED}. These make one clip a step fit: {' '.join(names)} ({need(together) / GIB:.1f} GiB)"
    return f"{REFUSED}, whatever waits in RAM. Take a lower rank, smaller or shorter clips, a smaller host, or FSDP"


def _that_add_up(plan: MemoryPlan, options: TrainOptions) -> list[tuple[str, Change]]:
    """Options that are not taken yet and keep the recipe, but for the 8 bits of the optimizer's moments."""
    changes: list[tuple[str, Change]] = []
    if not options.gradient_checkpointing:
        changes.append(
            ("--gradient-checkpointing", lambda one: replace(one, step=replace(one.step, checkpointed=True)))
        )
    if options.optimizer == "adamw":
        changes.append(("--optimizer adamw8bit", lambda one: replace(one, moments=EIGHT_BIT)))
    if not options.offload_inputs:
        changes.append(("--offload-inputs", lambda one: replace(one, step=replace(one.step, offloaded=True))))
    if not options.train_host and not plan.sharing.split and plan.resident:
        changes.append(("--resident-blocks 0", lambda one: replace(one, resident=0)))
    return changes


def _narrow(plan: MemoryPlan) -> MemoryPlan:
    """The same host in fp8: the blocks take a byte a value."""
    blocks = tuple(size * plan.host_values // plan.host for size in plan.blocks)
    return replace(plan, host=plan.host - sum(plan.blocks) + sum(blocks), blocks=blocks)
