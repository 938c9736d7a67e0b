"""Training on core's own WanModel: it learns, resumes to the same losses, and gives what core's loaders read."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.encoder_file import load_encoder, with_paths
from memory_encoder.objectives.continuation import Context
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.training.draws import draw_rows, draw_together
from memory_encoder.training.heldout import NOTHING, WITHOUT_MEMORY
from memory_encoder.training.listener import Listener, PictureListener
from memory_encoder.training.lora import add_lora, load_lora_state, lora_state, remove_lora
from memory_encoder.training.run_files import (
    ENCODER,
    HOST,
    LORA,
    LOSSES,
    checkpoint_name,
    checkpoints_in,
    lora_file,
    read_lora,
    read_losses,
)
from memory_encoder.training.trainer import Trainer
from tests.launching import launched
from tools.environment import ROOT

from .training import OneClip, tiny_encoder, tiny_host, tiny_module, tiny_options


@pytest.fixture(autouse=True)
def in_training(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Core's fused rotary embedding has no backward pass; with this flag core uses another."""
    monkeypatch.setattr(comfy.model_management, "in_training", True)


def mean_loss(trainer: Trainer, batches: int = 20) -> float:
    with torch.no_grad(), trainer.ema.applied():
        return sum(float(trainer.losses.held_out(index)) for index in range(batches)) / batches


@pytest.mark.parametrize(("changes", "share"), [({"train_host": True, "steps": 250}, 0.1), ({"steps": 250}, 0.35)])
def test_one_clip_is_learned(tmp_path: Path, changes: dict[str, Any], share: float) -> None:
    """All weights: under a tenth of the first loss. A LoRA on an untrained, frozen host gets less far as quickly."""
    options = tiny_options(checkpoint_every=1000, **changes)
    trainer = Trainer(tiny_module(options), OneClip(), options, tmp_path, cpu=True)
    losses = [entry["loss"] for entry in trainer.run()]
    start = sum(losses[:5]) / 5
    assert mean_loss(trainer) < share * start
    assert sum(losses[-20:]) / 20 < share * start * 1.3


def test_runs_of_one_process_may_differ_in_precision(tmp_path: Path) -> None:
    for precision in ("bf16", "no", "bf16"):
        options = tiny_options(steps=1, mixed_precision=precision)
        trainer = Trainer(tiny_module(options), OneClip(), options, tmp_path / precision, cpu=True)
        assert trainer.accelerator.mixed_precision == precision
        trainer.run()


def test_memory_is_what_is_learned_from(tmp_path: Path) -> None:
    """Eight clips without text: only the memory can tell which one is asked for."""
    options = tiny_options(train_host=True, steps=300, checkpoint_every=1000, batch_size=8)
    trainer = Trainer(tiny_module(options), OneClip(8), options, tmp_path, cpu=True)
    trainer.run()
    with_memory = mean_loss(trainer)
    module = trainer.module
    full = module.predict
    module.predict = lambda x_t, t, memory, first, conditioning: full(x_t, t, None, first, conditioning)  # type: ignore[method-assign]
    assert with_memory < 0.6 * mean_loss(trainer)


SCRIPT = str(Path(__file__).with_name("training.py"))


def variables(comfy_environment: Any) -> dict[str, str]:
    """Environment of a training process: this checkout, one thread, the real ComfyUI."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"COMFYUI_PATH": str(comfy_environment.comfy), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return os.environ | own


@pytest.mark.parametrize("stage", ["retrieval", "continuation", "host"])
def test_killed_run_resumes_to_the_same_losses(comfy_environment: Any, tmp_path: Path, stage: str) -> None:
    def start(folder: str, *held: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, SCRIPT, str(tmp_path / folder), "24", stage, *held]
        return subprocess.Popen(command, env=variables(comfy_environment), stdout=subprocess.PIPE)

    whole, cut = start("whole"), start("cut", "17")
    assert cut.stdout is not None and b"held\n" in iter(cut.stdout.readline, b"")
    cut.kill()
    cut.communicate()
    whole.communicate()
    assert whole.returncode == 0
    assert len(read_losses(tmp_path / "cut" / LOSSES)) == 18 and checkpoints_in(tmp_path / "cut")
    resumed = start("cut")
    resumed.communicate()
    assert resumed.returncode == 0
    losses = {name: read_losses(tmp_path / name / LOSSES) for name in ("whole", "cut")}
    assert losses["whole"] == losses["cut"] and len(losses["cut"]) == 24


def test_two_processes_of_the_launcher_go_on_with_a_run_of_one_to_its_losses(
    comfy_environment: Any, tmp_path: Path
) -> None:
    for processes in (1, 2):
        launch = launched("--multi_gpu") if processes == 2 else []
        if processes == 2:
            shutil.copytree(tmp_path / "1", tmp_path / "2")
            (tmp_path / "2" / checkpoint_name(20)).unlink()  # as if it had been stopped after ten steps
        command = [sys.executable, *launch, SCRIPT, str(tmp_path / str(processes)), "20", "retrieval"]
        own = variables(comfy_environment) | {"ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, env=own, capture_output=True, timeout=1000)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        said = done.stdout.decode()
        assert f"{processes} processes" in said and f"from step {10 * (processes - 1)}\n" in said
    one, two = ([entry["loss"] for entry in read_losses(tmp_path / str(n) / LOSSES)] for n in (1, 2))
    assert len(one) == len(two) == 20 and one[:10] == two[:10]
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 2e-4


def test_lora_gives_the_same_latents_through_core_and_goes_away_without_a_trace(comfy: Any, tmp_path: Path) -> None:
    options = tiny_options(steps=5)
    module = tiny_module(options)
    Trainer(module, OneClip(), options, tmp_path, cpu=True).run()
    saved = load_file(tmp_path / LORA)
    assert all(name.startswith("diffusion_model.blocks.") for name in saved)
    x, t, text = torch.randn(1, 16, 2, 6, 8), torch.tensor([500.0]), torch.zeros(1, 4, 64)
    load_lora_state(module.diffusion_model, saved)
    with torch.no_grad():
        trained = module.diffusion_model(x, t, text)
        remove_lora(module.diffusion_model)
        assert torch.equal(module.diffusion_model(x, t, text), tiny_host()(x, t, text))

    patcher = comfy.module("comfy.model_patcher").ModelPatcher(
        Holder(tiny_host()), torch.device("cpu"), torch.device("cpu")
    )
    key_map = {name.removesuffix(".lora_A.weight"): f"{name.removesuffix('.lora_A.weight')}.weight" for name in saved}
    loaded = comfy.module("comfy.lora").load_lora(dict(saved), key_map)
    patched = patcher.clone()
    assert set(patched.add_patches(loaded, 1.0)) == set(loaded)
    comfy.model_management.load_models_gpu([patched])
    with torch.no_grad():
        assert (patched.model.diffusion_model(x, t, text) - trained).abs().max() < 1e-5


class Holder(torch.nn.Module):
    """A model with its host under the name that core's keys have."""

    def __init__(self, host: Any) -> None:
        super().__init__()
        self.diffusion_model = host


def test_files_of_a_run_are_what_the_loaders_read(comfy: Any, tmp_path: Path) -> None:
    options = tiny_options(steps=3, train_host=True)
    metadata = {"config": "{}"}
    Trainer(tiny_module(options), OneClip(), options, tmp_path, cpu=True, host_metadata=metadata).run()
    from safetensors import safe_open

    with safe_open(str(tmp_path / ENCODER), "pt") as file:
        config = EncoderConfig.from_metadata(file.metadata(), "encoder")
        assert '"stage": "retrieval"' in file.metadata()["training"]
    assert config == tiny_encoder().config
    assert set(load_file(tmp_path / ENCODER)) == set(tiny_encoder().state_dict())
    assert set(load_file(tmp_path / HOST)) == set(tiny_host().state_dict())


@pytest.mark.parametrize("stage", ["retrieval", "continuation", "host"])
def test_gradient_checkpointing_changes_no_gradient(comfy: Any, stage: Any) -> None:
    options = tiny_options(stage=stage, train_host=stage == "host")
    gradients = []
    for checkpointing in (False, True):
        module = tiny_module(options, gradient_checkpointing=checkpointing)
        torch.nn.init.normal_(module.encoder.out.weight, generator=torch.Generator().manual_seed(0))
        batch = OneClip(2).rows(0, 0, 2, "train", None)
        module(batch, draw_rows(batch, options, 2, 0, 0)).backward()
        gradients.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    scale = max(float(a.abs().max()) for a in gradients[0].values())
    assert max(float((a - gradients[1][n]).abs().max()) for n, a in gradients[0].items()) < 1e-5 * scale


@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
def test_batches_made_ahead_give_the_losses_of_batches_made_in_turn(comfy: Any, tmp_path: Path, stage: Any) -> None:
    losses = []
    for ahead in (0, 2):
        options = tiny_options(stage=stage, steps=4, accumulate=2)
        trainer = Trainer(tiny_module(options), OneClip(8), options, tmp_path / str(ahead), cpu=True)
        trainer.losses.batches.ahead = ahead
        losses.append(trainer.run())
    assert losses[0] == losses[1]


def test_accumulated_steps_equal_one_larger_step_in_number_of_updates(tmp_path: Path) -> None:
    options = tiny_options(steps=3, accumulate=2)
    trainer = Trainer(tiny_module(options), OneClip(8), options, tmp_path, cpu=True)
    trainer.run()
    assert trainer.done == 3
    assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {3}


def test_other_settings_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    options = tiny_options(steps=2)
    Trainer(tiny_module(options), OneClip(), options, tmp_path, cpu=True).run()
    other = tiny_options(steps=4, shift=3.0)
    with pytest.raises(ValueError, match=r"other settings: shift 12\.0 in the run, 3\.0 asked"):
        Trainer(tiny_module(other), OneClip(), other, tmp_path, cpu=True).run()
    (only,) = checkpoints_in(tmp_path)
    only.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=only.name):
        Trainer(tiny_module(options), OneClip(), options, tmp_path, cpu=True).run()


def test_listener_hears_everything_and_can_stop_a_run_that_then_resumes(tmp_path: Path) -> None:
    heard: list[str] = []
    phases: list[str] = []

    class Stop(Exception):
        pass

    class Phases(Listener):
        def phase(self, phase: str) -> None:
            phases.append(phase)

    class Ear(Phases):
        def step(self, step: int, loss: float) -> None:
            heard.append("step")
            if len(heard) == 14:
                raise Stop

        def heldout(self, step: int, loss: float) -> None:
            heard.append("heldout")

        def picture(self, step: int, trainer: Trainer) -> None:
            heard.append("picture")

    options = tiny_options(steps=12, checkpoint_every=4, heldout_every=4, picture_every=4)
    with pytest.raises(Stop):
        Trainer(tiny_module(options), OneClip(), options, tmp_path, Ear(), cpu=True).run()
    assert heard.count("heldout") == 2 and heard.count("picture") == 2
    assert phases == ["heldout", "saving", "pictures"] * 2 + ["saving"], "nothing that takes its time goes unsaid"
    phases.clear()
    trainer = Trainer(tiny_module(options), OneClip(), options, tmp_path, Phases(), cpu=True)
    trainer.run(last_picture=True)
    assert phases == ["heldout", "pictures", "saving", "pictures"]
    assert trainer.first_step == 10  # the fourteenth call was its tenth step


def test_losses_pace_and_what_the_held_out_loss_is_made_of_go_to_tensorboard(comfy: Any, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = tiny_options(steps=3, heldout_every=3)
    entries = Trainer(tiny_module(options), OneClip(), options, tmp_path, cpu=True).run()
    files = list(tmp_path.rglob("events.out.tfevents*"))
    assert len(files) == 1
    log = events.EventAccumulator(str(files[0].parent))
    log.Reload()
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    told = {name: [event.value for event in log.Scalars(name)] for name in log.Tags()["scalars"]}
    assert told["loss"] == pytest.approx(losses)
    assert told["learning_rate"] == pytest.approx([options.learning_rate_at(step) for step in range(3)])
    for name in ("seconds_a_step", "gradient_norm"):
        assert len(told[name]) == 3 and all(value > 0 for value in told[name])
    assert len(told["heldout"]) == len(told[f"heldout {WITHOUT_MEMORY}"]) == len(told[f"heldout {NOTHING}"]) == 1


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_a_run_shared_in_a_way_that_is_not_supported_does_not_start(
    comfy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    accelerate = pytest.importorskip("accelerate")
    monkeypatch.setattr(accelerate.Accelerator, "distributed_type", accelerate.DistributedType(kind))
    with pytest.raises(ValueError, match="accelerate config"):
        Trainer(tiny_module(tiny_options()), OneClip(), tiny_options(), tmp_path, cpu=True)


def test_a_host_in_training_sees_its_context_at_its_true_time(comfy: Any) -> None:
    options = tiny_options(stage="host", train_host=True, context=1.0, batch_size=2)
    module, batch = tiny_module(options), OneClip(2).rows(0, 0, 2, "train", None)
    drawn = replace(draw_together(batch, options, 2, 0, 0), history=3, context=Context(0, 2, coarse=False))
    with torch.no_grad():
        loss = module(batch, drawn)
        other = replace(batch, hr=torch.cat([batch.hr[:, :, :2] + 1, batch.hr[:, :, 2:]], dim=2))
        assert not torch.equal(module(other, drawn), loss)
        assert not torch.equal(module(batch, replace(drawn, context=Context(1, 3, coarse=False))), loss)
        small = replace(drawn, context=Context(0, 3, coarse=True))
        seen = module(batch, small)
        lr = batch.lr["2x2x2"]
        beyond = {"2x2x2": torch.cat([lr[:, :, :2], lr[:, :, 2:] + 1], dim=2)}
        within = {"2x2x2": torch.cat([lr[:, :, :1] + 1, lr[:, :, 1:]], dim=2)}
        assert torch.equal(module(replace(batch, lr=beyond), small), seen)
        assert not torch.equal(module(replace(batch, lr=within), small), seen)


def test_a_run_begins_with_the_lora_of_another(comfy: Any, tmp_path: Path) -> None:
    options = tiny_options(rank=4)
    first = tiny_module(options)
    state = lora_state(first.diffusion_model)
    for tensor in state.values():
        tensor.fill_(0.5)
    lora_file(first.diffusion_model, {}).write(tmp_path / "lora.safetensors")
    second = tiny_module(options)
    load_lora_state(second.diffusion_model, read_lora(tmp_path / "lora.safetensors"))
    assert all(bool((tensor == 0.5).all()) for tensor in lora_state(second.diffusion_model).values())
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"broken\.safetensors is damaged"):
        read_lora(tmp_path / "broken.safetensors")


def test_model_without_blocks_takes_no_lora() -> None:
    with pytest.raises(ValueError, match="no linear layers"):
        add_lora(torch.nn.Linear(2, 2), 4, 0)


def test_lora_of_another_rank_is_refused(comfy: Any) -> None:
    host = tiny_host()
    add_lora(host, 4, 0)
    state = {name: tensor.clone() for name, tensor in lora_state(host).items()}
    other = tiny_host()
    add_lora(other, 8, 0)
    with pytest.raises(ValueError, match="rank"):
        load_lora_state(other, state)


def test_a_run_that_goes_on_draws_its_curve_from_the_beginning(comfy: Any, tmp_path: Path) -> None:
    for steps in (3, 6):
        options, listener = tiny_options(steps=steps, checkpoint_every=3), PictureListener(tmp_path)
        Trainer(tiny_module(options), OneClip(), options, tmp_path, listener, cpu=True).run()
    assert [step for step, _ in listener.losses] == list(range(6))


@pytest.mark.parametrize("change", [{"window_share": 1.0}, {"aligned": 1.0}, {"corruption": 0.5}])
def test_settings_of_the_continuation_stage_change_the_loss(comfy: Any, change: dict[str, Any], tmp_path: Path) -> None:
    losses = []
    for number, more in enumerate(({}, change)):
        options = tiny_options(steps=3, stage="continuation", history_dropout=0.0, **more)
        trainer = Trainer(tiny_module(options), OneClip(8), options, tmp_path / str(number), cpu=True)
        trainer.run()
        losses.append([entry["loss"] for entry in read_losses(tmp_path / str(number) / LOSSES)])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
@pytest.mark.parametrize("paths", [{"memory_attention": "cached"}, {"cross_attention": True}])
def test_every_way_into_the_host_is_trained(
    comfy: Any, stage: Any, paths: dict[str, Any], checkpointing: bool, tmp_path: Path
) -> None:
    options = tiny_options(steps=4, stage=stage, history_dropout=0.0, warmup=1)
    module = tiny_module(options, checkpointing)
    settings: dict[str, Any] = {"cross_attention": False, "memory_attention": "joint"} | paths
    module.encoder = with_paths(module.encoder, find_host(module.diffusion_model), seed=1, **settings)
    before = {name: value.clone() for name, value in module.encoder.state_dict().items()}
    Trainer(module, OneClip(8), options, tmp_path, cpu=True).run()
    after = module.encoder.state_dict()
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert not still, f"not trained: {still}"
    again = load_encoder(tmp_path / ENCODER)
    assert again.config == module.encoder.config


def test_gradient_checkpointing_changes_no_gradient_of_a_cached_memory(comfy: Any) -> None:
    gradients = []
    for checkpointing in (False, True):
        module = tiny_module(tiny_options(), checkpointing)
        host = find_host(module.diffusion_model)
        module.encoder = with_paths(module.encoder, host, False, "cached", seed=1)
        torch.nn.init.normal_(module.encoder.out.weight, std=0.1, generator=torch.Generator().manual_seed(2))
        batch = OneClip(8).rows(0, 0, 2, "train", None)
        module(batch, draw_rows(batch, tiny_options(), 2, 0, 0)).backward()
        gradients.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], atol=1e-5, rtol=1e-4)


def test_the_loss_of_clips_that_are_drawn_for_one_by_one_is_the_mean_of_theirs(comfy: Any, tmp_path: Path) -> None:
    options = tiny_options(stage="continuation", per_clip=True, retrieval_share=0.5, history_dropout=0.3, batch_size=8)
    module, source = tiny_module(options), OneClip(8)
    batch = source.rows(3, 0, 8, "train", None)
    drawn = draw_rows(batch, options, module.stride, 3, 0)
    assert isinstance(drawn, tuple) and len({type(one) for one in drawn}) == 2
    with torch.no_grad():
        whole = module(batch, drawn)
        single = [module(batch.rows(row, row + 1), one) for row, one in enumerate(drawn)]
    assert torch.allclose(whole, torch.stack(single).mean())
    run = Trainer(module, source, options, tmp_path, cpu=True).run()
    losses = [entry["loss"] for entry in run if "loss" in entry]
    assert len(losses) == 10 and all(math.isfinite(loss) for loss in losses)
