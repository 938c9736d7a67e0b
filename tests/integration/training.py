"""A tiny host and one clip for the training tests; also a script that trains, for tests that kill it or start several.

python -m tests.integration.training FOLDER STEPS STAGE [STEP | (signals | launcher | spoilt) STEP | killed MOVE]

With STEP it says "held" after that step and stays there until it is killed. With `signals` it sends itself Ctrl-C twice
then, with `launcher` once to the process that has started it; with `killed` it kills itself where it is to move that
file into its place, counted from 1. With `spoilt` the last clip of that step's batch holds one
NaN, which the last process gets.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memory_encoder.injection.hosts.comfy_models import load_comfy
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.listener import Listener
from memory_encoder.training.lora import add_lora
from memory_encoder.training.module import Batch, TrainingModule
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.trainer import Trainer

DIM, FRAMES, HEIGHT, WIDTH = 128, 5, 6, 8
SIZES = {"2x2x2": (3, 4, 4), "1x1x4": (2, 6, 8)}  # LR latents of a clip


def tiny_host(seed: int = 0, casting: bool = False) -> Any:
    """Core's WanModel of two blocks whose first projection and head are inverse, so that noise passes through.

    casting: its layers cast their weights to the type of what they get, as core loads a file of fp8.
    """
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    model: Any = WanModel(
        model_type="t2v", in_dim=16, out_dim=16, dim=DIM, ffn_dim=256, text_dim=64, num_heads=4, num_layers=2,
        operations=comfy.ops.manual_cast if casting else comfy.ops.disable_weight_init,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or name == "head.modulation":
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1)
            else:
                fan_in = DIM if name.endswith("modulation") else parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        model.time_embedding[2].weight.mul_(0.1)
        basis, _ = torch.linalg.qr(torch.randn(DIM, 64, generator=generator))
        model.patch_embedding.weight.copy_(basis.reshape(DIM, 16, 1, 2, 2) * 2**0.5)
        model.head.head.weight.copy_(basis.reshape(DIM, 16, 2, 2).permute(2, 3, 1, 0).reshape(64, DIM) / 2**0.5)
    return model


class OneClip:
    """The same smooth clip in every row, or eight different ones, with LR latents at some of the rates of SIZES."""

    def __init__(self, clips: int = 1, rates: tuple[str, ...] = ("2x2x2",)) -> None:
        generator = torch.Generator().manual_seed(1)
        self.hr = torch.cat([smooth_clip(generator) for _ in range(clips)])
        self.lr = {rate: torch.nn.functional.interpolate(self.hr, size=SIZES[rate]) for rate in rates}

    def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Batch:
        chosen = [(step + row) % len(self.hr) for row in range(first, last)]
        lr = {rate: value[chosen] for rate, value in self.lr.items()}
        return Batch(self.hr[chosen], lr, {"context": torch.zeros(len(chosen), 4, 64)})


def smooth_clip(generator: torch.Generator) -> Tensor:
    axes = (torch.linspace(0, 1, n) for n in (FRAMES, HEIGHT, WIDTH))
    t, h, w = torch.meshgrid(*axes, indexing="ij")
    modes = torch.stack([torch.ones_like(t), (3 * h).cos(), (3 * w).cos(), (3 * t).cos()])
    clip = torch.einsum("cm,mthw->cthw", torch.randn(16, 4, generator=generator), modes)
    return (clip / clip.std())[None]


def tiny_encoder(seed: int = 0, rate: str = "2x2x2") -> MemoryEncoder:
    encoder = MemoryEncoder(EncoderConfig("wan", DIM, 16, rate=rate, channels=(32, 32, 32, 64)))
    encoder.reset_parameters(torch.Generator().manual_seed(seed))
    return encoder


def tiny_module(
    options: TrainOptions,
    gradient_checkpointing: bool = False,
    rates: tuple[str, ...] = ("2x2x2",),
    casting: bool = False,
) -> TrainingModule:
    host = tiny_host(casting=casting)
    if not options.train_host:
        add_lora(host, options.rank, options.seed)
    first, *others = (tiny_encoder(rate=rate) for rate in rates)
    return TrainingModule(first, host, gradient_checkpointing=gradient_checkpointing, others=others)


def narrowed(module: TrainingModule, stored: torch.dtype, rounded: torch.dtype) -> TrainingModule:
    """The same, its frozen weights in a half type, and those of its blocks' layers of the values of `rounded` in
    `stored`: as files of bf16 and fp8 have them."""
    for name, value in module.diffusion_model.named_parameters():
        if value.requires_grad or name.startswith("patch_embedding."):  # Wan's stays float32
            continue
        layer = value.ndim == 2 and "blocks." in name
        value.data = value.data.to(rounded).to(stored) if layer else value.data.bfloat16()
    return module


def tiny_options(**changes: Any) -> TrainOptions:
    values = {
        "steps": 10, "batch_size": 4, "learning_rate": 3e-3, "rank": 32, "weight_decay": 0.0, "warmup": 20, "ema": 0.99,
        "shift": 12.0, "section": 2, "heldout_every": 0, "picture_every": 0, "checkpoint_every": 10,
        "clean_share": 0.0, "window_share": 0.0, "shorter_share": 0.0, "mixed_precision": "no",
        "gradient_checkpointing": False, "per_clip": False,
    }  # fmt: skip
    return TrainOptions(**(values | changes))


class Hold(Listener):
    """Stops a run after a step, so that a test can kill it there."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int, loss: float) -> None:
        if step == self.at:
            sys.stdout.write("held\n")
            sys.stdout.flush()
            threading.Event().wait()


class Spoilt(OneClip):
    """Clips of which some steps hold one NaN, in the last of the rows that end with row `end`, or of any."""

    def __init__(self, *steps: int, end: int | None = None) -> None:
        super().__init__(8)
        self.steps, self.end = steps, end

    def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Batch:
        batch = super().rows(step, first, last, kind, target)
        if step in self.steps and self.end in (None, last) and kind == "train":
            batch.hr[-1, 0, :, 0, 0] = float("nan")
        return batch


class Signals(Listener):
    """Sends signals after a step."""

    def __init__(self, at: int, process: int, times: int) -> None:
        self.at, self.process, self.times = at, process, times

    def step(self, step: int, loss: float) -> None:
        for _ in range(self.times if step == self.at else 0):
            os.kill(self.process, signal.SIGINT)

    def stopped(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")


def kill_at(move: int) -> None:
    """Lets this process end in the middle of writing a file."""
    moves, real = [0], os.replace

    def replace(*args: Any) -> None:
        moves[0] += 1
        if moves[0] == move:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args)

    os.replace = replace


def listener_of(what: str = "", at: str = "0") -> Listener | None:
    """What is asked for after FOLDER STEPS STAGE."""
    if what == "killed":
        kill_at(int(at))
    elif what == "signals":
        return Signals(int(at), os.getpid(), 2)
    elif what == "launcher":
        return Signals(int(at), os.getppid(), 1)
    elif what not in ("", "spoilt"):
        return Hold(int(what))
    return None


def main() -> None:
    folder, steps, stage = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    clips, listener = OneClip(8), listener_of(*sys.argv[4:])
    if sys.argv[4:5] == ["spoilt"]:
        clips = Spoilt(int(sys.argv[5]), end=tiny_options().batch_size)
    sys.argv = sys.argv[:1]
    load_comfy(arguments=["--cpu"])
    import comfy.model_management

    comfy.model_management.in_training = True
    own = {"train_host": True, "optimizer": "muon", "context": 0.5} if stage == "host" else {}
    options = tiny_options(steps=steps, stage=stage, **own)
    trainer = Trainer(tiny_module(options), clips, options, folder, listener)
    sys.stdout.write(f"{trainer.accelerator.num_processes} processes\n")
    trainer.run()
    sys.stdout.write(f"from step {trainer.first_step}\n")


if __name__ == "__main__":
    main()
