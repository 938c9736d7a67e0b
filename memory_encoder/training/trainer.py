"""The training loop of both stages, on Accelerate: one process or many (paper section 4.1)."""

from __future__ import annotations

import logging
import math
import uuid
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import Tensor, nn

from ..injection.hosts.comfy_models import has_accelerator
from . import run_files as files
from .distributed.in_place import norm_inputs_kept
from .distributed.sharding import in_forward, prepare_split, release, splits_weights
from .distributed.shards import load_optimizer_state, optimizer_state, own_shard, whole_value
from .draws import draw_rows, random_state_kept, target_of
from .listener import Listener
from .module import TrainingModule
from .optimizers import Ema, make_optimizers
from .options import TrainOptions
from .source import BatchSource

_LOG = logging.getLogger("video_memory")
MOST_SKIPPED = 5  # steps in a row; not from the paper


class NotFinite(ValueError):
    """A run that has nothing finite to go on with; its last checkpoint is what it was."""


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
        AcceleratorState._reset_state()  # else a later run of this process could not have another precision
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
        self.sharded = splits_weights(self.accelerator)
        if options.batch_size % self.accelerator.num_processes:
            raise ValueError(
                f"batch_size {options.batch_size} cannot be shared by {self.accelerator.num_processes} processes evenly"
            )
        for encoder in module.encoders:
            encoder.requires_grad_(options.train_encoder and options.stage != "host")
        if options.train_host:
            module.diffusion_model.requires_grad_(True)
        optimizers = make_optimizers(_trained(module), options, fused=self.accelerator.device.type == "cuda")
        if self.sharded:
            prepared: Any = prepare_split(self.accelerator, module, optimizers)
            module.agreed = self._anywhere
        else:
            prepared = self.accelerator.prepare(module, *optimizers)
        self.prepared: Any = prepared[0]
        self.optimizers: list[Any] = list(prepared[1:])
        self.ema = Ema(_trained(module), options.ema)  # sharding has made other parameters
        self.first_step = self.done = 0
        self.skipped = 0  # in a row, up to the last step
        self.run_id = uuid.uuid4().hex[:16]  # in the files of this run, and of no other of the same name
        # Let go after DDP's reducer: as its last holder that would wait for the group's thread, which waits for the
        # interpreter, and the process would never end.
        self._group = torch.distributed.group.WORLD if _is_distributed() else None

    def run(self, last_picture: bool = False) -> list[dict[str, Any]]:
        """Trains to the last step; returns the losses as {"step", "loss"} and {"step", "heldout"} entries.

        last_picture: draw one more when all is done. Steps whose loss or gradient is not finite are left out and have
        a {"step", "skipped"} entry. Raises NotFinite after MOST_SKIPPED of them in a row, and for weights that are not
        finite; no file holds such a state.
        """
        with random_state_kept(self.accelerator.device):
            set_seed(self.options.seed)  # for what draws from the global state inside the host, such as dropout
            return self._run(last_picture)

    def _run(self, last_picture: bool) -> list[dict[str, Any]]:
        self._restore()
        main = self.accelerator.is_main_process
        log = files.LossLog(self.folder / files.LOSSES, self.first_step) if main else None
        if self.accelerator.log_with and main:
            self.accelerator.init_trackers("tensorboard")
        if main:
            self.listener.started(self.first_step, self.options.steps)
        for step in range(self.first_step, self.options.steps):
            loss = self._step(step)
            self.done = step + 1
            if log is not None:
                if loss is None:
                    log.add(step=step, skipped=True)
                    self.listener.skipped(step)
                else:
                    log.add(step=step, loss=loss)
                    self.accelerator.log({"loss": loss}, step=step)
                    self.listener.step(step, loss)
            self._count(step, loss)
            self._report(step, log)
        self.accelerator.wait_for_everyone()
        self.save()
        if last_picture:
            self.picture(self.options.steps - 1)
        self.accelerator.end_training()
        return log.entries if log is not None else []

    def _step(self, step: int) -> float | None:
        """The mean loss, or None where it or the gradient is not finite and nothing has changed; the same everywhere.

        Every part of a step is run to its end in any case, as the exchange between processes wants it.
        """
        options = self.options
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate_at(step) * group["share"]
        total, finite = torch.zeros((), device=self.accelerator.device), True
        for part in range(options.accumulate):
            with self.accelerator.accumulate(self.prepared):
                with norm_inputs_kept(self.module.diffusion_model):
                    loss = self._loss(step * options.accumulate + part, "train")
                    self.accelerator.backward(loss)
                total += self._mean(loss.detach())
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.ema.parameters.values(), options.clip)
                    finite = math.isfinite(float(total)) and math.isfinite(float(whole_value(norm)))
                for optimizer in self.optimizers:
                    if finite:
                        optimizer.step()
                    optimizer.zero_grad()
        if not finite:
            return None
        self.ema.update(step + 1)
        return float(total) / options.accumulate

    def _count(self, step: int, loss: float | None) -> None:
        """Counts steps that were left out; raises NotFinite when they are too many in a row."""
        self.skipped = 0 if loss is not None else self.skipped + 1
        if loss is None:
            _LOG.warning("step %d left out: its loss or gradient is not finite (NaN or infinite)", step + 1)
        if self.skipped >= MOST_SKIPPED:
            raise NotFinite(
                f"the last {MOST_SKIPPED} steps, up to step {step + 1}, had a loss or gradient that is not finite; "
                f"{self.folder / files.CHECKPOINT} is as it was saved last. Lower learning_rate, or set "
                "mixed_precision to bf16 or no, and choose another run; to go on from the checkpoint as it is, run the "
                "same again"
            )

    def _loss(self, index: int, kind: str) -> Tensor:
        share = self.options.batch_size // self.accelerator.num_processes
        first = share * self.accelerator.process_index
        stride = self.module.stride
        target = partial(target_of, self.options, stride, index, kind)
        batch = self.source.rows(index, first, first + share, kind, target)
        drawn = draw_rows(batch, self.options, stride, index, first, kind)
        with self.accelerator.autocast():  # Accelerate puts it around the module itself unless weights are split
            return self.prepared(batch.to(self.accelerator.device), drawn).float()

    def _mean(self, loss: Tensor) -> Tensor:
        reduced: Any = self.accelerator.reduce(loss, reduction="mean")
        return reduced

    def _report(self, step: int, log: files.LossLog | None) -> None:
        options, number = self.options, step + 1
        if options.heldout_every and number % options.heldout_every == 0:
            heldout = self.heldout_loss()
            if log is not None and math.isfinite(heldout):
                log.add(step=step, heldout=heldout)
                self.accelerator.log({"heldout": heldout}, step=step)
                self.listener.heldout(step, heldout)
        if number % options.checkpoint_every == 0 and number < options.steps:
            self.save()
        if options.picture_every and number % options.picture_every == 0:
            self.picture(step)

    def picture(self, step: int) -> None:
        """Lets the listener draw with the averaged weights: in the main process, with the help of all that it needs."""
        main = self.accelerator.is_main_process
        if not (main or self.sharded):
            return
        draw = partial(self.listener.picture if main else self.listener.assist, step, self)
        with self.ema.applied():
            in_forward(self.module, draw) if self.sharded else draw()

    @torch.no_grad()
    def heldout_loss(self, batches: int = 2) -> float:
        """Mean loss on held-out clips with the same random numbers every time."""
        losses = [self._mean(self._loss(index, "heldout")) for index in range(batches)]
        if self.sharded:
            release(self.module)
        return float(torch.stack(losses).mean())

    def save(self) -> None:
        """Writes checkpoint, encoder and LoRA (averaged weights); only the main process writes.

        Where weights are split, all processes must call it.
        """
        main = self.accelerator.is_main_process
        self._check_finite()
        if not (main or self.sharded):
            return
        facts = {"stage": self.options.stage, "steps": self.done, "run": self.run_id}
        facts |= self.options.that_shape_the_run()
        with self.ema.applied():
            for number, encoder in enumerate(self.module.encoders, 1):
                files.save_encoder(self.folder / files.encoder_name(number), encoder, facts)
            if self.options.train_host:
                files.save_host(self.folder / files.HOST, self.module.diffusion_model, self.host_metadata, facts)
            else:
                files.save_lora(self.folder / files.LORA, self.module.diffusion_model, facts)
        state = {
            "step": self.done,
            "run": self.run_id,
            "options": self.options.that_shape_the_run(),
            "config": asdict(self.module.encoder.config),
            "others": [asdict(encoder.config) for encoder in self.module.encoders[1:]],
            **self.ema.state(),
            "optimizers": [optimizer_state(optimizer) for optimizer in self.optimizers],
        }
        if main:
            files.save_checkpoint(self.folder, state)

    def _anywhere(self, said: bool) -> bool:
        """Whether any process says so; all must ask."""
        votes: Any = self.accelerator.reduce(torch.tensor(float(said), device=self.accelerator.device), "sum")
        return float(votes) > 0

    def _check_finite(self) -> None:
        """Raises NotFinite, in all processes alike, when what would be saved is not finite in any of them."""
        states = [v for o in self.optimizers for entry in o.state.values() for v in entry.values()]
        held = [*self.ema.parameters.values(), *self.ema.averages.values(), *states]
        parts = (own_shard(value) for value in held if isinstance(value, Tensor) and value.is_floating_point())
        wrong = any(not bool(torch.isfinite(part).all()) for part in parts)
        if self._anywhere(wrong):
            raise NotFinite(
                f"weights or moments are not finite after step {self.done}; nothing was saved, and "
                f"{self.folder / files.CHECKPOINT} is as it was saved last. Lower learning_rate and choose another run"
            )

    def _restore(self) -> None:
        state = files.load_checkpoint(self.folder, self.options, *(encoder.config for encoder in self.module.encoders))
        if state is None:
            return
        self.ema.load(state)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer_state(optimizer, saved)
        self.first_step = self.done = int(state["step"])
        self.run_id = state.get("run", self.run_id)


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None
