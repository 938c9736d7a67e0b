"""The training loop of both stages, on Accelerate: one process or many (paper section 4.1)."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, set_seed
from torch import Tensor

from ..hosts.checkpoint import has_accelerator
from .checkpoint import (
    ENCODER,
    HOST,
    LORA,
    LOSSES,
    LossLog,
    load_checkpoint,
    save_checkpoint,
    save_encoder,
    save_host,
    save_lora,
)
from .draws import draw_rows, target_of
from .ema import Ema
from .listener import BatchSource, Listener
from .module import TrainingModule
from .optimizers import make_optimizers
from .options import TrainOptions

# Every process holds all weights; FSDP, DeepSpeed and Megatron would leave each with a part of what is to be saved.
DATA_PARALLEL = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU)


class Trainer:
    """Trains `module` on `source` and leaves checkpoints, losses, encoder and LoRA in `folder`.

    A folder with a checkpoint of the same settings is gone on with, to the same losses.
    """

    def __init__(
        self,
        module: TrainingModule,
        source: BatchSource,
        options: TrainOptions,
        folder: Path,
        listener: Listener | None = None,
        cpu: bool = False,
        host_metadata: dict[str, str] | None = None,
    ) -> None:
        self.options, self.source, self.folder = options, source, folder
        self.host_metadata = host_metadata or {}
        self.listener = listener or Listener()
        self.accelerator = Accelerator(
            mixed_precision=options.mixed_precision,
            gradient_accumulation_steps=options.accumulate,
            cpu=cpu or not has_accelerator(),  # else several processes on CPUs would not find each other
            log_with="tensorboard" if _has_tensorboard() else None,
            project_dir=str(folder),
            # A step without memory leaves the encoder without gradients.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=options.stage != "retrieval")],
        )
        self.module = module
        if self.accelerator.distributed_type not in (DistributedType.NO, *DATA_PARALLEL):
            raise ValueError(
                f"processes share a run as {self.accelerator.distributed_type.value}, which splits the weights that "
                "are saved; choose plain multi-process training (DDP) in `accelerate config`"
            )
        if options.batch_size % self.accelerator.num_processes:
            raise ValueError(
                f"batch_size {options.batch_size} cannot be shared by {self.accelerator.num_processes} processes evenly"
            )
        module.encoder.requires_grad_(options.train_encoder and options.stage != "host")
        if options.train_host:
            module.diffusion_model.requires_grad_(True)
        parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.ema = Ema(parameters, options.ema)
        self.prepared = self.accelerator.prepare(module)
        self.optimizers: list[Any] = [self.accelerator.prepare(each) for each in make_optimizers(parameters, options)]
        self.first_step = 0

    def run(self) -> list[dict[str, Any]]:
        """Trains to the last step; returns the losses as {"step", "loss"} and {"step", "heldout"} entries."""
        set_seed(self.options.seed)  # for what draws from the global state inside the host, such as dropout
        self._restore()
        main = self.accelerator.is_main_process
        log = LossLog(self.folder / LOSSES, self.first_step) if main else None
        if self.accelerator.log_with and main:
            self.accelerator.init_trackers("tensorboard")
        self.listener.started(self.first_step, self.options.steps)
        for step in range(self.first_step, self.options.steps):
            loss = self._step(step)
            if log is not None:
                log.add(step=step, loss=loss)
                self.accelerator.log({"loss": loss}, step=step)
            self.listener.step(step, loss)
            self._report(step, log)
        self.accelerator.wait_for_everyone()
        self.save()
        self.accelerator.end_training()
        return log.entries if log is not None else []

    def _step(self, step: int) -> float:
        options = self.options
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = options.rate_at(step) * group["share"]
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(options.accumulate):
            with self.accelerator.accumulate(self.prepared):
                loss = self._loss(step * options.accumulate + part, "train")
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.ema.parameters.values(), options.clip)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            total += self._mean(loss.detach())
        self.ema.update(step + 1)
        return float(total) / options.accumulate

    def _loss(self, index: int, kind: str) -> Tensor:
        share = self.options.batch_size // self.accelerator.num_processes
        first = share * self.accelerator.process_index
        stride = self.module.encoder.config.stride[0]
        target = partial(target_of, self.options, stride, index, kind)
        batch = self.source.rows(index, first, first + share, kind, target)
        drawn = draw_rows(batch, self.options, stride, index, first, kind)
        return self.prepared(batch.to(self.accelerator.device), drawn)

    def _mean(self, loss: Tensor) -> Tensor:
        reduced: Any = self.accelerator.reduce(loss, reduction="mean")
        return reduced

    def _report(self, step: int, log: LossLog | None) -> None:
        options, number = self.options, step + 1
        if options.heldout_every and number % options.heldout_every == 0:
            heldout = self.heldout_loss()
            if log is not None:
                log.add(step=step, heldout=heldout)
                self.accelerator.log({"heldout": heldout}, step=step)
            self.listener.heldout(step, heldout)
        if number % options.checkpoint_every == 0 and number < options.steps:
            self.save()
        if options.picture_every and number % options.picture_every == 0 and self.accelerator.is_main_process:
            with self.ema.applied():
                self.listener.picture(step, self)

    @torch.no_grad()
    def heldout_loss(self, batches: int = 2) -> float:
        """Mean loss on held-out clips with the same random numbers every time."""
        losses = [self._mean(self._loss(index, "heldout")) for index in range(batches)]
        return float(torch.stack(losses).mean())

    def save(self) -> None:
        """Writes checkpoint, encoder and LoRA (averaged weights); only the main process writes."""
        if not self.accelerator.is_main_process:
            return
        done = self._steps_done()
        facts = {"stage": self.options.stage, "steps": done, **self.options.that_shape_the_run()}
        with self.ema.applied():
            save_encoder(self.folder / ENCODER, self.module.encoder, facts)
            if self.options.train_host:
                save_host(self.folder / HOST, self.module.diffusion_model, self.host_metadata, facts)
            else:
                save_lora(self.folder / LORA, self.module.diffusion_model, facts)
        save_checkpoint(
            self.folder,
            {
                "step": done,
                "options": self.options.that_shape_the_run(),
                "config": asdict(self.module.encoder.config),
                "parameters": {name: p.detach().cpu() for name, p in self.ema.parameters.items()},
                "averages": {name: value.cpu() for name, value in self.ema.averages.items()},
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            },
        )

    def _steps_done(self) -> int:
        states = self.optimizers[0].state_dict()["state"].values()
        return max((int(state["step"]) for state in states), default=self.first_step)

    def _restore(self) -> None:
        state = load_checkpoint(self.folder, self.options, self.module.encoder.config)
        if state is None:
            return
        with torch.no_grad():
            for name, parameter in self.ema.parameters.items():
                parameter.copy_(state["parameters"][name])
                self.ema.averages[name].copy_(state["averages"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.first_step = int(state["step"])


def _has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None
