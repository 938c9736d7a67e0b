"""The checkpoints of a run: which stay, which is gone on with, and what may change on the way."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.training import optimizers
from memory_encoder.training.card_plan import Sharing
from memory_encoder.training.checkpoints import Checkpoints, _same_weights, floats, weights_sample
from memory_encoder.training.listener import Listener
from memory_encoder.training.ram_plan import RamPlan
from memory_encoder.training.run import split_as_begun
from memory_encoder.training.run_files import (
    BEST,
    CHECKPOINT,
    ENCODER,
    LORA,
    LOSSES,
    checkpoint_name,
    checkpoints_in,
    facts_of,
    read_losses,
)
from memory_encoder.training.streaming import streamed_blocks
from memory_encoder.training.trainer import Trainer

from .runs import options_of, run, same, trainer_of
from .training import OneClip, tiny_module


@pytest.fixture(autouse=True)
def as_in_training(comfy: Any) -> Iterator[None]:
    with training_mode():
        yield


def test_the_last_few_checkpoints_stay_and_have_their_steps_in_their_names(tmp_path: Path) -> None:
    run(tmp_path, steps=9)
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-000009.pt", "checkpoint-000008.pt"]
    run(tmp_path, steps=11, keep_checkpoints=3)
    assert [path.name for path in checkpoints_in(tmp_path)] == [checkpoint_name(n) for n in (11, 10, 9)]


@pytest.mark.parametrize("damage", ["cut", "foreign", "nan"])
def test_a_damaged_checkpoint_is_passed_over_and_named_and_the_one_before_goes_on(
    made: Any, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path / "whole", steps=6)
    made(tmp_path / "cut", steps=4)
    newest = tmp_path / "cut" / checkpoint_name(4)
    if damage == "cut":
        newest.write_bytes(newest.read_bytes()[:-1000])
    elif damage == "foreign":
        torch.save({"step": 4}, newest)
    else:
        spoil(newest)
    assert run(tmp_path / "cut", steps=6).first_step == 2
    assert f"{newest.name} cannot be gone on with" in caplog.text
    assert "going on from checkpoint-000002.pt instead, step 2" in caplog.text
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert newest in checkpoints_in(tmp_path / "cut")  # the sound one of the same step


def spoil(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    next(iter(state["averages"].values())).view(-1)[0] = float("nan")
    torch.save(state, path)


def test_where_no_checkpoint_is_usable_all_are_named_with_the_reason(made: Any, tmp_path: Path) -> None:
    made(tmp_path, steps=4)
    newest, older = checkpoints_in(tmp_path)
    spoil(newest)
    older.write_bytes(b"")
    with pytest.raises(ValueError, match=r"000004\.pt .* hold NaN .*000002\.pt .* damaged .*choose another folder"):
        run(tmp_path, steps=6)
    assert checkpoints_in(tmp_path) == [newest, older]


def test_a_checkpoint_that_could_not_be_read_is_no_damaged_one(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, steps=4)

    def fail(*args: Any, **values: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(OSError, match=r"cannot read .*checkpoint-000004\.pt.*check the disk"):
        run(tmp_path, steps=6)


def test_a_checkpoint_of_the_first_version_goes_on(made: Any, tmp_path: Path) -> None:
    """It had one file without a number, and knew nothing of what came later."""
    made(tmp_path / "whole", steps=6)
    made(tmp_path / "old", steps=4)
    newest, older = checkpoints_in(tmp_path / "old")
    state = torch.load(newest, weights_only=True)
    later = ("steps", "checkpoint_every", "heldout_every", "picture_every", "keep_checkpoints", "max_skipped")
    for name in (*later, "min_t", "max_t"):
        del state["options"][name]
    for name in ("best", "data"):
        del state[name]
    newest.unlink()
    older.unlink()
    torch.save(state, tmp_path / "old" / CHECKPOINT)
    assert run(tmp_path / "old", steps=6).first_step == 4
    assert same(tmp_path / "whole", tmp_path / "old")


def test_the_sample_of_a_host_is_no_view_of_its_weights() -> None:
    """A view would take the whole weight into every checkpoint."""
    host = torch.nn.Linear(1000, 1000).requires_grad_(False)
    (sample,) = weights_sample(host).values()
    assert sample.untyped_storage().nbytes() < 10_000


# Held-out loss


def test_held_out_loss_is_of_the_averages_that_are_saved(tmp_path: Path) -> None:
    trainer = run(tmp_path, steps=4, learning_rate=1e-2, ema=0.9)
    told = trainer.losses.of_averages()
    raw = float(sum(trainer.losses.held_out(index).detach() for index in range(2)) / 2)
    trainer.ema.assign()
    averaged = float(sum(trainer.losses.held_out(index).detach() for index in range(2)) / 2)
    assert told == pytest.approx(averaged, rel=1e-6) and abs(told - raw) > 1e-4


class Told(Listener):
    """Another held-out loss than the measured one."""

    def __init__(self, *losses: float) -> None:
        self.losses = list(losses)

    def trainer(self, folder: Path, **changes: Any) -> Trainer:
        trainer = trainer_of(folder, **changes)
        trainer.losses.of_averages = lambda updates=2: self.losses.pop(0)  # type: ignore[method-assign]
        return trainer


def test_the_best_by_held_out_loss_stays_under_its_own_name_across_runs(tmp_path: Path) -> None:
    Told(0.5, 0.3, float("nan"), 0.4).trainer(tmp_path, steps=8, heldout_every=2).run()
    best = tmp_path / BEST
    for name in (ENCODER, LORA):
        facts = facts_of(best / name)
        assert (facts["steps"], facts["heldout"]) == (4, 0.3)
        assert any(
            not torch.equal(value, load_file(tmp_path / name)[key]) for key, value in load_file(best / name).items()
        )
    assert "NaN" not in (tmp_path / LOSSES).read_text()
    Told(0.35, 0.2).trainer(tmp_path, steps=12, heldout_every=2).run()
    assert facts_of(best / ENCODER)["steps"] == 12
    with safe_open(str(best / ENCODER), "pt") as file:
        assert "rate" in str(file.metadata())


# Other circumstances


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 4, "accumulate": 1},
        {"batch_size": 1, "accumulate": 4},
        {"mixed_precision": "bf16"},
        {"learning_rate": 1e-3, "encoder_rate": 0.5, "weight_decay": 0.1, "warmup": 3, "cooldown": 2, "clip": 0.5},
        {"ema": 0.5, "checkpoint_every": 3, "heldout_every": 2, "keep_checkpoints": 1, "max_skipped": 2},
        {"gradient_checkpointing": True, "offload_inputs": True},
        {"ema_every": 2, "reconstruction": 300, "preset": "tiny"},
    ],
)
def test_a_run_goes_on_under_other_circumstances_and_says_what_changed(
    made: Any, tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, steps=2, accumulate=2)
    caplog.set_level("INFO", "video_memory")
    trainer = run(tmp_path, **({"steps": 4, "batch_size": 2, "accumulate": 2} | changes))
    assert trainer.first_step == 2 and trainer.done == 4
    before = options_of(batch_size=2, accumulate=2)
    for name, value in changes.items():
        if value != getattr(before, name):
            assert f"{name} {value} from here on, {getattr(before, name)} before" in caplog.text
    assert "steps 4 from here on, 2 before" in caplog.text and "training in one process" in caplog.text


def test_a_dataset_that_holds_other_things_by_the_same_names_is_gone_on_with_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def clips(content: str) -> OneClip:
        one: Any = OneClip(8)
        one.content = content
        return one

    for steps, content in ((2, "a"), (3, "a"), (4, "b")):
        assert "holds other things" not in caplog.text
        trainer_of(tmp_path, clips=clips(content), steps=steps).run()
    assert "the dataset holds other things than when this run last stopped" in caplog.text


@pytest.mark.parametrize(
    ("asked", "begun", "fitting", "processes", "expected"),
    [
        ((8, 1), (2, 4), 8, 1, (2, 4)),  # a larger card
        ((8, 1), (8, 1), 4, 1, (4, 2)),  # a smaller one
        ((8, 1), (2, 4), 2, 4, (8, 1)),  # more processes than a step has clips
        ((8, 1), (4, 2), 2, 2, (4, 2)),
        ((4, 2), (8, 1), 8, 1, (4, 2)),  # smaller steps are asked for
        ((8, 1), (), 4, 1, (4, 2)),
        ((8, 1), (2, 2), 8, 1, (8, 1)),  # another batch, which is refused later
    ],
)
def test_a_batch_goes_on_being_split_as_it_was_where_that_fits(
    asked: tuple[int, int], begun: tuple[int, ...], fitting: int, processes: int, expected: tuple[int, int]
) -> None:
    plan: Any = SimpleNamespace(
        sharing=Sharing(processes),
        need=lambda clips, accumulate=False: clips,
        ram=lambda clips: RamPlan(0, 0, 0, 0),
        clips_that_fit=lambda card, accumulate=False, ram=None: card,
    )
    options = options_of(batch_size=asked[0], accumulate=asked[1])
    run_options: dict[str, Any] = dict(zip(("batch_size", "accumulate"), begun, strict=False))
    got = split_as_begun(options, run_options, plan, fitting)
    assert (got.batch_size, got.accumulate) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 8}, "rank 4 in the run, 8 asked"),
        ({"batch_size": 6}, "batch_size x accumulate 2 in the run, 6 asked"),
        ({"seed": 3, "min_t": 0.5}, r"min_t 0\.0 in the run, 0\.5 asked, seed 0 in the run, 3 asked"),
        ({"stage": "continuation"}, "stage retrieval in the run, continuation asked"),
        ({"steps": 3}, "has done 4 steps, and steps is 3"),
    ],
)
def test_what_makes_it_another_run_is_refused_with_both_values(
    made: Any, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    made(tmp_path, steps=4)
    before = [path.read_bytes() for path in checkpoints_in(tmp_path)]
    with pytest.raises(ValueError, match=said) as error:
        run(tmp_path, **({"steps": 6} | changes))
    assert "choose another folder" in str(error.value) and "delete" not in str(error.value)
    assert [path.read_bytes() for path in checkpoints_in(tmp_path)] == before


def test_another_encoder_and_other_data_are_refused_with_both_values(tmp_path: Path) -> None:
    class Named(OneClip):
        identity = "8 windows (aa)"

    run(tmp_path, steps=2, clips=Named(8))
    options, other = options_of(steps=4), Named(8, ("1x1x4",))
    with pytest.raises(ValueError, match=r"rate of encoder 1 2x2x2 in the run, 1x1x4 asked"):
        Trainer(tiny_module(options, rates=("1x1x4",)), other, options, tmp_path, cpu=True).run()
    other = Named(8)
    other.identity = "9 windows (bb)"
    with pytest.raises(ValueError, match=r"dataset 8 windows \(aa\) in the run, 9 windows \(bb\) asked"):
        run(tmp_path, steps=4, clips=other)
    module = tiny_module(options)
    del module.diffusion_model.blocks[1]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"trains other weights: diffusion_model\.blocks\.1\..* not there here"):
        Trainer(module, Named(8), options, tmp_path, cpu=True).run()


def test_moments_of_another_adamw_begin_anew_and_of_another_kind_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class AdamW8bit(torch.optim.SGD):
        """Of other state."""

        def __init__(self, groups: Any, lr: float, **_: Any) -> None:
            super().__init__(groups, lr=lr, momentum=0.9)

    caplog.set_level("INFO", "video_memory")
    monkeypatch.setattr(optimizers, "adamw_8bit", lambda card: AdamW8bit)
    run(tmp_path, steps=2)
    run(tmp_path, steps=4, optimizer="adamw8bit")
    assert "optimizer adamw8bit from here on, adamw before" in caplog.text
    assert re.search(r"moments of \['.* AdamW8bit'\] begin anew: the run's are of \['torch AdamW'\]", caplog.text)
    caplog.clear()
    run(tmp_path, steps=6, optimizer="adamw8bit")
    assert "begin anew" not in caplog.text
    with pytest.raises(ValueError, match="optimizer adamw8bit in the run, muon asked"):
        run(tmp_path, steps=8, optimizer="muon")


def test_the_numbers_inside_of_tensors_of_eight_bits_are_looked_at() -> None:
    class Packed(torch.Tensor):
        codes, scale = torch.zeros(2, dtype=torch.uint8), torch.tensor([float("nan")])

        def __tensor_flatten__(self) -> Any:
            return ["codes", "scale"], None

    state = {"state": [torch.zeros(2).as_subclass(Packed), torch.ones(1, dtype=torch.int)]}
    assert [bool(value.isnan().all()) for value in floats(state)] == [True]


def test_a_run_goes_on_with_blocks_that_are_streamed(made: Any, tmp_path: Path) -> None:
    """Their weights are no parameters meanwhile, and what tells the host must not change with it."""
    made(tmp_path / "whole", steps=4)
    made(tmp_path / "cut", steps=2)
    options = options_of(steps=4, resident_blocks=0)
    module = tiny_module(options)
    with streamed_blocks(module.diffusion_model, 0):
        Trainer(module, OneClip(8), options, tmp_path / "cut", cpu=True).run()
    assert same(tmp_path / "whole", tmp_path / "cut")


def with_host(folder: Path, change: Any, steps: int) -> Trainer:
    """A run on a host whose weights are changed before."""
    options = options_of(steps=steps)
    module = tiny_module(options)
    with torch.no_grad():
        for name, parameter in module.diffusion_model.named_parameters():
            if parameter.ndim > 1 and ".lora_" not in name:
                parameter.data = change(parameter.data)
    trainer = Trainer(module, OneClip(8), options, folder, cpu=True)
    trainer.run()
    return trainer


@pytest.mark.parametrize(
    "kept",
    [
        lambda weight: weight.bfloat16().float().double(),
        lambda weight: weight.to(torch.float8_e4m3fn).double(),
        lambda weight: (weight * 37).to(torch.float8_e4m3fn).double() / 37,
    ],
)
def test_the_host_of_a_run_may_have_another_precision_and_another_host_of_its_shape_is_refused(
    tmp_path: Path, kept: Any
) -> None:
    """Such as the other expert of Wan 2.2 14B."""
    with_host(tmp_path, lambda weight: weight, 2)
    state = torch.load(checkpoints_in(tmp_path)[0], weights_only=True)["host"]
    assert 4 <= len(state) <= 16 and all(len(value) < 600 for value in state.values())
    changed = {name: kept(value) for name, value in state.items()}
    assert _same_weights(state, changed) and _same_weights(state, state) and _same_weights({}, state)
    assert not _same_weights(state, {name: value + 1e-3 for name, value in state.items()})
    assert not _same_weights(changed, {name: value.flip(0) for name, value in state.items()})
    with pytest.raises(ValueError, match="host has the weights of one model in the run, another asked"):
        with_host(tmp_path, lambda weight: weight * 1.01, 4)


def test_a_log_of_an_earlier_version_with_nan_goes_on(made: Any, tmp_path: Path) -> None:
    made(tmp_path, steps=4)
    lines = (tmp_path / LOSSES).read_text().splitlines()
    (tmp_path / LOSSES).write_text("\n".join([lines[0], '{"step": 1, "loss": NaN}', '{"other": 1}', "7", *lines[2:]]))
    assert [entry["step"] for entry in read_losses(tmp_path / LOSSES)] == [0, 2, 3]
    run(tmp_path, steps=5)
    assert "NaN" not in (tmp_path / LOSSES).read_text()


@pytest.mark.parametrize(
    "values", [{"options": 3}, {"step": -1.5}, {"averages": {}}, {"optimizers": [{}]}, {"parameters": {"a": 1}}]
)
def test_well_formed_files_with_other_content_are_named(made: Any, tmp_path: Path, values: dict[str, Any]) -> None:
    made(tmp_path, steps=2)
    (path,) = checkpoints_in(tmp_path)
    torch.save(torch.load(path, weights_only=True) | values, path)
    with pytest.raises(ValueError):
        run(tmp_path, steps=4)


def test_checkpoints_of_other_names_are_none(tmp_path: Path) -> None:
    for name in ("checkpoint-x.pt", "checkpoint-000001.pt.bak", "other.pt"):
        (tmp_path / name).touch()
    assert checkpoints_in(tmp_path) == [] and Checkpoints(tmp_path, 1).unusable == []
