"""Both stages of training, recalled pictures and the evaluation on the card, through the pack's own loop."""

from __future__ import annotations

import argparse
import functools
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

from memory_encoder.evaluation import score
from memory_encoder.evaluation.counted import Counted
from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.phi.positions import cells_for, grid_for
from memory_encoder.training import evaluate_command, losses
from memory_encoder.training import trainer as loop
from memory_encoder.training.evaluate_command import Judge
from memory_encoder.training.lora import add_lora
from memory_encoder.training.module import Batch, TrainingModule
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.pictures import recall

from .conftest import on_real_tensors
from .films import vae_for
from .hosts import CARD, SIZES, FullModel
from .meter import GIB, Meter

RANK, CLIP, SECTION = 128, 31, 3  # latents: 5 s


class Clips:
    """Training clips at full size, in RAM."""

    def __init__(self, model: FullModel, encoder: MemoryEncoder) -> None:
        self.model, self.config = model, encoder.config

    def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Batch:
        host, (channels, _, height, width) = self.model.host, self.model.latent
        count, grid = last - first, grid_for(height, width, self.config)
        cells = cells_for(CLIP, self.config.stride[0])[1]
        lr = torch.zeros(count, channels, cells, grid[0] * host.patch[1], grid[1] * host.patch[2])
        conditioning = {"context": torch.zeros(count, self.model.words, host.text_width)}
        if host.pooled_width is not None:
            conditioning["y"] = torch.zeros(count, host.pooled_width)
        return Batch(torch.zeros(count, channels, CLIP, height, width), {self.config.rate: lr}, conditioning)


@pytest.fixture
def training(card: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The card as Accelerate finds it."""
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", str(CARD))
    monkeypatch.setattr(loop, "has_accelerator", lambda: True)
    monkeypatch.setattr(losses, "draw_rows", on_real_tensors(losses.draw_rows))
    # Fake tensors are those of one thread, and what a card reads by itself is of a card that is there.
    monkeypatch.setattr(losses, "Prefetch", functools.partial(losses.Prefetch, ahead=0))
    monkeypatch.setattr(losses, "pinned", lambda value: value)
    PartialState._reset_state()
    with card.on(), training_mode():
        yield card
    PartialState._reset_state()


def trainer(
    card: Any, name: str, folder: Path, stage: Any, layers: int | None, batch: int = 1, **config: Any
) -> tuple[loop.Trainer, Meter]:
    """A run that is about to begin, and a meter that knows the host's weights."""
    model, meter = card.new_model(name, torch.bfloat16, layers), Meter()
    meter.add_module(model.diffusion_model)
    if config.pop("cross", False):
        config |= {"cross_blocks": len(model.host.slots()), "head_dim": model.host.head_dim}
    encoder = MemoryEncoder(model.config(**config), dtype=torch.float32)
    add_lora(model.diffusion_model, RANK, 0)
    options = TrainOptions(
        stage=stage, batch_size=batch, rank=RANK, section=SECTION, mixed_precision="bf16", history_dropout=0.0,
        gradient_checkpointing=True, shift=3.0, window_share=0.0, shorter_share=0.0, per_clip=False,
    )  # fmt: skip
    module = TrainingModule(encoder, model.diffusion_model, gradient_checkpointing=True)
    with meter:
        made = loop.Trainer(module, Clips(model, encoder), options, folder)
    return made, meter


def live_after(run: loop.Trainer, meter: Meter, steps: int) -> list[int]:
    """Live bytes after each step."""
    after = []
    for step in range(steps):
        with meter:
            run._step(step)
            gc.collect()
        after.append(meter.now)
    return after


@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
@pytest.mark.parametrize("name", SIZES)
def test_every_host_trains_on_the_card(training: Any, name: str, stage: str, tmp_path: Path) -> None:
    run, meter = trainer(training, name, tmp_path, stage, 2, batch=2)
    first, second = live_after(run, meter, 2)
    assert first == second, f"a step leaves {(second - first) / GIB:.3f} GiB"
    trained = run.ema.parameters.values()
    assert {p.device.type for p in trained} == {"cuda"} and {p.dtype for p in trained} == {torch.float32}
    assert {value.device.type for value in run.ema.averages.values()} == {"cpu"}


@pytest.mark.parametrize(("name", "stage"), [("wan_5b", "continuation"), ("hunyuan", "retrieval")])
def test_a_whole_model_trains_on_the_card(training: Any, name: str, stage: str, tmp_path: Path) -> None:
    run, meter = trainer(training, name, tmp_path, stage, None)
    weights, meter.peak = meter.now, 0
    live_after(run, meter, 1)
    print(f"{name} {stage}: weights {weights / GIB:.2f} GiB, peak of a step {meter.peak / GIB:.2f} GiB")
    assert meter.peak < 1.5 * weights + 3 * GIB  # checkpointed: not every activation at once


@pytest.mark.parametrize("cross", [False, True], ids=["tokens", "cross"])
@pytest.mark.parametrize("name", ["wan_5b", "hunyuan"])
def test_cached_memory_leaves_nothing_behind_when_blocks_are_run_again(
    training: Any, name: str, cross: bool, tmp_path: Path
) -> None:
    run, meter = trainer(training, name, tmp_path, "continuation", 2, memory_attention="cached", cross=cross)
    after = live_after(run, meter, 4)
    assert len(set(after)) == 1, [f"{n / GIB:.3f} GiB" for n in after]


@pytest.mark.parametrize("name", SIZES)
def test_recalled_pictures_are_drawn_on_the_card(training: Any, name: str, tmp_path: Path) -> None:
    run, _ = trainer(training, name, tmp_path, "retrieval", 2)
    batch = run.source.rows(0, 0, 1, "train", lambda frames, row: (0, frames)).to(CARD)
    with run.ema.applied():
        for with_memory in (True, False):
            drawn = recall(run.module, batch, 10, 4, with_memory, 0)
            assert drawn.device == CARD and drawn.shape[2] == 4


@pytest.mark.parametrize("name", SIZES)
def test_an_evaluation_runs_on_the_card(training: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a host on the card, as a LoRA leaves it, and an encoder in RAM, as it is read."""
    model = training.new_model(name, torch.bfloat16, 2)
    vae, encoder = vae_for(model), MemoryEncoder(model.config(), dtype=torch.float32)
    clip = torch.zeros(17, model.latent[2] * vae.spatial, model.latent[3] * vae.spatial, 3)
    monkeypatch.setattr(Judge, "_pictures", lambda self, path: clip)
    # Which frames tell something follows from values, and there are none on this card.
    monkeypatch.setattr(score, "counted", lambda pictures: Counted([*range(len(pictures))], 0, 0))
    monkeypatch.setattr(evaluate_command, "asked", lambda pictures: [0, 2])
    args = argparse.Namespace(seed=0, steps=1, guidance=6.0, horizon=0, history_guidance=2.5, whole_history=True)
    judge = Judge(model.patcher, vae, [encoder], None, args)
    with torch.no_grad():
        found = judge.score("clip", Path("clip.mp4"))
    assert {picture.device.type for picture in found.pictures.values()} == {"cpu"}
