"""The plan of a training run against what a run really keeps, and batches cut for a card."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.card_advice import describe_plan
from memory_encoder.training.card_plan import (
    GIB,
    RESERVED,
    MemoryPlan,
    Sharing,
    card_bytes,
    fit_to_card,
    plan_memory,
)
from memory_encoder.training.draws import draw_rows
from memory_encoder.training.lora import add_lora
from memory_encoder.training.module import TrainingModule
from memory_encoder.training.step_bytes import BeginningBytes, StepBytes
from tests.integration.training import OneClip, tiny_module, tiny_options


def kept_bytes(module: Any, options: Any) -> int:
    """What autograd keeps for the backward pass of one step, weights left out; equal storages count once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = OneClip(options.batch_size).rows(0, 0, options.batch_size, "train", None)
    batch = replace(
        batch, conditioning={"context": torch.zeros(options.batch_size, 512, 64)}
    )  # as core pads Wan's text
    drawn = draw_rows(batch, options, 2, 0, 0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module(batch, drawn)
    assert loss.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("stage", ["continuation", "host"])
def test_estimated_activations_are_near_what_a_step_keeps(comfy: Any, stage: Any) -> None:
    options = tiny_options(stage=stage, train_host=stage == "host", history_dropout=0.0, section=4, batch_size=4)
    module = tiny_module(options)
    with comfy.module("memory_encoder.injection.hosts.comfy_models").training_mode():
        measured = kept_bytes(module, options)
    step = plan_memory(module, options, (16, 5, 6, 8)).step
    estimated = options.batch_size * (step.blocks * step.kept + step.outside)
    print("RATIO", stage, estimated / measured)
    # A host that is trained itself keeps what a frozen one does not need, above all of its text; it is small.
    assert (0.75 if stage == "continuation" else 0.5) < estimated / measured < 1.35, (estimated, measured)


def test_gradient_checkpointing_lowers_the_estimate(comfy: Any) -> None:
    options = tiny_options()
    module = tiny_module(options)
    needs = [
        plan_memory(module, tiny_options(gradient_checkpointing=saved), (16, 5, 6, 8)).need(1)
        for saved in (True, False)
    ]
    assert needs[0] < needs[1]


def full_size_5b(comfy: Any, options: Any) -> TrainingModule:
    """Wan 2.2 5B with a LoRA and its encoder, without weights, in the layers' own sizes and fp8's bytes."""
    wan = comfy.module("comfy.ldm.wan.model").WanModel
    with torch.device("meta"):
        model = wan(
            model_type="t2v", patch_size=(1, 2, 2), in_dim=48, out_dim=48, dim=3072, ffn_dim=14336, num_heads=24,
            num_layers=30, operations=comfy.module("comfy.ops").disable_weight_init, device="meta",
            dtype=torch.float8_e4m3fn,
        )  # fmt: skip
        encoder = MemoryEncoder(EncoderConfig("wan", 3072, 48))
    add_lora(model, options.rank, 0)
    return TrainingModule(encoder, model)


def test_a_12_gb_card_trains_wan_5b_with_rank_128_by_the_plan(comfy: Any) -> None:
    options = tiny_options(
        stage="continuation", rank=128, batch_size=8, section=3, gradient_checkpointing=True, mixed_precision="bf16",
        optimizer="adamw8bit",
    )  # fmt: skip
    plan = plan_memory(full_size_5b(comfy, options), options, (48, 124, 30, 52))  # 20 s of 832x480 at 24 fps
    card = card_bytes(12.0)
    cut = fit_to_card(options, plan, card)
    assert 4.9e9 < plan.host_values < 5.1e9 and 3.0e8 < plan.lora_values < 3.5e8
    assert cut.batch_size >= 1 and cut.batch_size * cut.accumulate == 8 and cut.accumulate > 1
    assert "card 12.0 GiB: fits" in describe_plan(plan, cut, 7, card)
    refused = describe_plan(plan, options, 7, 8 * GIB)
    assert "does not fit" in refused and "--resident-blocks" in refused


def test_what_makes_a_run_fit_is_named_with_its_memory_the_cheapest_first(comfy: Any) -> None:
    """Alone where one is enough, together where none is; options that are taken are planned with the same numbers."""
    options = tiny_options(
        stage="continuation", rank=128, batch_size=8, section=3, gradient_checkpointing=True, mixed_precision="bf16"
    )
    module, shape = full_size_5b(comfy, options), (48, 124, 30, 52)
    text = describe_plan(plan_memory(module, options, shape), options, 7, 11.9 * GIB)
    named = re.findall(r"--(\S+)(?: (\S+))? \((\d+\.\d) GiB\)", text)
    assert [name for name, _, _ in named][:1] == ["optimizer"] and "resident-blocks" in [name for name, _, _ in named]
    kinds = {"optimizer": str, "resident-blocks": int, "rank": int, "offload-inputs": lambda _: True}
    for name, value, gib in named:
        if name == "rank":
            continue  # another module
        taken = replace(options, **{name.replace("-", "_"): kinds[name](value)})
        assert plan_memory(module, taken, shape).need(1, True) / GIB == pytest.approx(float(gib), abs=0.05)
    both = describe_plan(plan_memory(module, options, shape), options, 7, 5.5 * GIB)
    assert "--optimizer adamw8bit --offload-inputs --resident-blocks 0 (" in both
    assert "whatever waits in RAM" in describe_plan(plan_memory(module, options, shape), options, 7, 2 * GIB)


def test_of_clips_that_pass_one_by_one_only_one_is_in_a_block_at_a_time() -> None:
    """What waits for their backward passes is that of all."""
    together = StepBytes(inputs=40, input=1, kept=10, on_the_way=5, blocks=40, outside=1, once=3)
    apart = replace(together, apart=True)
    assert apart.activations(1) == together.activations(1) == (60, 21)
    assert apart.activations(8) == (3 + 8 * 2 + 15 + 8 * 40, 3 + 8 * 2 + 15 + 7 * 40 + 1)
    assert together.activations(8) == (3 + 8 * (2 + 15 + 40), 3 + 8 * (2 + 15 + 1))
    offloaded, whole = replace(apart, offloaded=True), replace(apart, checkpointed=False)
    assert offloaded.activations(8) == (3 + 8 + 15 + 1, 3 + 8 + 15 + 1)
    assert whole.activations(8) == (3 + 8 * 2 + 5 + 8 * 40 * 10, 3 + 8 * 2 + 15 + 7 * 40 * 10)


@pytest.mark.parametrize(
    ("card", "expected"), [(None, (12, 1)), (100.0, (12, 1)), (7.5, (6, 2)), (5.0, (4, 3)), (1.0, (1, 12))]
)
def test_a_batch_becomes_steps_that_fit_and_stays_the_same_number_of_clips(
    card: float | None, expected: tuple[int, int]
) -> None:
    plan = MemoryPlan(0, 0, 0, 0, 0, 1, StepBytes(inputs=GIB))
    bytes_of_card = None if card is None else card * GIB + RESERVED
    options = fit_to_card(tiny_options(batch_size=12), plan, bytes_of_card)
    assert (options.batch_size, options.accumulate) == expected


def test_a_reconstruction_that_takes_more_than_a_step_is_said_and_cuts_the_batch() -> None:
    """It has the clips of all processes at once, where a step has those of one."""
    plan = MemoryPlan(0, 0, 0, 0, 0, 1, StepBytes(inputs=GIB), BeginningBytes(clip=3 * GIB))
    options = tiny_options(batch_size=12, reconstruction=300)
    assert plan.need(4) == plan.need_of_beginning(4) == 12 * GIB + RESERVED
    assert fit_to_card(options, plan, 12 * GIB + RESERVED).batch_size == 4
    assert "most of all takes the reconstruction" in describe_plan(plan, options, 7, None)
    assert "--reconstruction 0 (" in describe_plan(plan, options, 7, 2 * GIB + RESERVED)
    shared = replace(plan, sharing=Sharing(processes=4))
    assert shared.need(4) == 48 * GIB + RESERVED
    without = replace(plan, beginning=BeginningBytes())
    assert without.need(4) == 4 * GIB + RESERVED and "most of all" not in describe_plan(without, options, 7, None)


def test_only_a_run_that_reconstructs_is_planned_with_it(comfy: Any) -> None:
    def beginning(**changes: Any) -> int:
        options = tiny_options(**{"reconstruction": 300} | changes)
        return plan_memory(tiny_module(options), options, (16, 5, 6, 8)).beginning(4)

    assert beginning() > 0
    assert beginning(reconstruction=0) == beginning(train_encoder=False) == 0
    assert beginning(stage="host", train_host=True) == 0


def test_processes_that_split_the_weights_need_less_on_each_card(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options, plans = tiny_options(batch_size=8), []
    for split in ("false", "true"):
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("ACCELERATE_USE_FSDP", split)
        plans.append(plan_memory(tiny_module(options), options, (16, 5, 6, 8)))
    whole, split = plans
    assert split.trained == whole.trained / 4
    assert split.held == whole.held / 4 + 2 * split.unit and 0 < split.unit < whole.held
    assert "on each of 4 devices" in describe_plan(split, options, 7, None)
    with pytest.raises(ValueError, match="adamw8bit cannot be used with FSDP"):
        plan_memory(tiny_module(options), replace(options, optimizer="adamw8bit"), (16, 5, 6, 8))


def test_what_ddp_exchanges_is_there_from_the_start() -> None:
    """Its buckets are the gradients, as between the steps of an update that is accumulated."""
    one = MemoryPlan(0, 0, 0, 0, GIB, 1, StepBytes(input=4 * GIB, kept=GIB))
    several = replace(one, sharing=Sharing(2))
    assert several.need(1) == several.need(1, True) == one.need(1, True) > one.need(1)
    assert replace(one, sharing=Sharing(2, split=True)).need(1) < several.need(1)


def test_a_batch_is_cut_for_each_card_of_those_that_share_it() -> None:
    plan = MemoryPlan(0, 0, 0, 0, 0, 1, StepBytes(inputs=GIB), sharing=Sharing(processes=2))
    cut = fit_to_card(tiny_options(batch_size=12), plan, 3.5 * GIB + RESERVED)
    assert (cut.batch_size, cut.accumulate) == (6, 2)
    smallest = fit_to_card(tiny_options(batch_size=12), plan, 0.1 * GIB)
    assert (smallest.batch_size, smallest.accumulate) == (2, 6)
    uneven = tiny_options(batch_size=7)
    assert fit_to_card(uneven, plan, 0.1 * GIB) == uneven


def test_plan_names_what_is_trained(comfy: Any) -> None:
    options = tiny_options()
    text = describe_plan(plan_memory(tiny_module(options), options, (16, 5, 6, 8)), options, 7, None)
    assert "LoRA rank 32" in text and "7 clips" in text and "GiB" in text
    host = tiny_options(stage="host", train_host=True)
    assert "M parameters, trained" in describe_plan(plan_memory(tiny_module(host), host, (16, 5, 6, 8)), host, 7, None)


def test_the_card_that_trains_is_planned_for_though_the_host_still_lies_in_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    assert card_bytes(None, cpu=True) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    cards = [SimpleNamespace(total_memory=GIB), SimpleNamespace(total_memory=12 * GIB)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", cards.__getitem__)
    assert card_bytes(None) == 12 * GIB
    assert card_bytes(8.0) == 8 * GIB
    assert card_bytes(None, cpu=True) is None


def test_a_card_without_size_is_refused() -> None:
    with pytest.raises(ValueError, match="card_gib"):
        card_bytes(0.0)


def test_system_ram_is_planned_beside_the_card() -> None:
    """Blocks that wait, inputs in torch's powers of two for every clip of a step, averages, and what a save gathers."""
    step = StepBytes(inputs=10 * 3 * GIB, input=3 * GIB, blocks=10, offloaded=True)
    plan = MemoryPlan(0, 0, 0, 0, GIB, 1, step, blocks=(GIB, GIB, GIB), resident=1)
    ram = plan.ram(2)
    assert (ram.blocks, ram.inputs) == (2 * GIB, 2 * 11 * 4 * GIB)
    assert (ram.averages, ram.saving) == (4 * GIB, 12 * GIB) and ram.all == 106 * GIB
    assert replace(plan, step=replace(step, offloaded=False)).ram(2).inputs == 0
    assert replace(plan, step=replace(step, checkpointed=False)).ram(2).inputs == 0
    assert replace(plan, resident=-1).ram(2).blocks == 0
    assert replace(plan, moments=2.0).ram(2).saving == 6 * GIB


def test_processes_of_one_machine_share_its_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    plan = MemoryPlan(0, 0, 0, 0, GIB, 1, StepBytes(), blocks=(GIB,), resident=0, sharing=Sharing.of_this_run())
    assert (plan.ram(1).blocks, plan.ram(1).averages) == (8 * GIB, 32 * GIB)
    split = replace(plan, resident=-1, sharing=Sharing(16, True, 8))
    assert (split.ram(1).averages, split.ram(1).saving) == (2 * GIB, 16 * GIB)


def test_a_batch_whose_inputs_fill_the_ram_is_cut_too() -> None:
    """A card has room for twelve clips; a machine of 20 GiB, 4 of them for all else, for the inputs of four."""
    step = StepBytes(input=2 * GIB, blocks=1, offloaded=True)
    plan, options = MemoryPlan(0, 0, 0, 0, 0, 1, step), tiny_options(batch_size=12)
    assert fit_to_card(options, plan, 100 * GIB, 52 * GIB) == options == fit_to_card(options, plan, 100 * GIB)
    cut = fit_to_card(options, plan, 100 * GIB, 20 * GIB)
    assert (cut.batch_size, cut.accumulate) == (4, 3)
    assert fit_to_card(options, plan, None, 20 * GIB) == options  # what trains on a processor waits nowhere


def test_ram_that_the_machine_has_not_is_said_with_what_takes_less() -> None:
    plan = MemoryPlan(0, 0, 0, 0, 0, 1, StepBytes(), blocks=(20 * GIB,), resident=0)
    options = tiny_options(batch_size=1)
    fits = describe_plan(plan, options, 7, 24 * GIB, 32 * GIB)
    assert fits.endswith(
        "system RAM 20.00 of 32.0 GiB: blocks that wait 20.00, inputs that wait 0.00, averages 0.00, saving 0.00"
    )
    assert "--resident-blocks" in describe_plan(plan, options, 7, 24 * GIB, 22 * GIB).splitlines()[-1]
    assert "system RAM" not in describe_plan(plan, options, 7, None, 16 * GIB)
