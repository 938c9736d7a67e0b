"""The training loop of both stages, on Accelerate: one process or many (paper section 4.1)."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    broadcast,
    set_seed,
)
from torch import nn

from ..files import remove_abandoned
from ..injection.hosts.comfy_models import has_accelerator
from ..phi.trained_on import TrainedOn
from . import run_files as files
from .card_plan import Sharing
from .checkpoints import FULL, Checkpoints, floats, settings_of, weights_sample
from .distributed.meeting import PATIENCE, not_exchanged
from .distributed.sharding import in_forward, prepare_split, splits_weights
from .distributed.shards import load_optimizer_state, optimizer_state, own_shard, put_whole, whole_value
from .draws import TOGETHER, drawn_for, random_state_kept
from .finite import NotFinite, Skips, StepResult
from .interruption import Stopped, signals_noted
from .listener import Listener, Phase
from .losses import Losses
from .module import TrainingModule
from .optimizers import Ema, make_optimizers, set_rate
from .options import HostDefaults, TrainOptions
from .pace import Clock, Pace
from .reconstruction import whole_copies
from .source import BatchSource
from .step_bytes import FLOAT

_LOG = logging.getLogger("video_memory")
Beginning = Callable[..., object]  # `reconstruct` with all but the module, its encoders, the device and whom it tells
PACE_EVERY = 10  # steps between lines of pace.jsonl


class Trainer:
    """Trains `module` on `source` and leaves checkpoints, losses, encoder and LoRA in `folder`.

    A folder with a checkpoint of the same settings is gone on with, to the same losses where the batch is split as it
    was. The encoder and LoRA with the lowest held-out loss stand in its folder `best`.
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
            # Split weights keep whole gradients on every card between steps that are not exchanged.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=options.accumulate, sync_each_batch=Sharing.of_this_run().split
            ),
            cpu=cpu or not has_accelerator(),  # else several processes on CPUs would not find each other
            log_with="tensorboard" if _has_tensorboard() else None,
            project_dir=str(folder),
            kwargs_handlers=[
                # A step without memory leaves the encoder without gradients.
                DistributedDataParallelKwargs(
                    find_unused_parameters=options.stage != "retrieval", gradient_as_bucket_view=True
                ),
                InitProcessGroupKwargs(timeout=PATIENCE),
            ],
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
        sample = weights_sample(module.diffusion_model)  # while they are whole
        optimizers = make_optimizers(_trained(module), options, fused=self.accelerator.device.type == "cuda")
        if self.sharded:
            prepared: Any = prepare_split(self.accelerator, module, optimizers)
            module.agreed = self._anywhere
        else:
            if self.accelerator.num_processes > 1:
                not_exchanged(module)
            prepared = self.accelerator.prepare(module, *optimizers)
        self.prepared: Any = prepared[0]
        self.optimizers: list[Any] = list(prepared[1:])
        self.moments = [f"{type(one).__module__.split('.')[0]} {type(one).__name__}" for one in optimizers]
        drawing = drawn_for(options, self.sharded)
        if drawing != options and self.accelerator.is_main_process:
            _LOG.warning("%s", TOGETHER)
        self.ema = Ema(_trained(module), options.ema, options.ema_every)  # sharding has made other parameters
        self.losses = Losses(self.accelerator, self.prepared, module, source, drawing, self.ema, self.sharded)
        self.checkpoints = Checkpoints(folder, options.keep_checkpoints)
        configs = [encoder.config for encoder in module.encoders]
        data, content = (getattr(source, name, None) for name in ("identity", "content"))
        self.settings = settings_of(options, configs, data, sample, content)
        self.first_step = self.done = self.saved = 0
        self.trained_on: TrainedOn | None = None  # for the files of the encoders
        self.sampling_shift = HostDefaults().shift  # of the timesteps that pictures are drawn with
        self.lists: Mapping[str, Sequence[str]] = {}  # files of lines in the run's folder, once it is known to be its
        self.skips = Skips(options.max_skipped)
        self.beginning: Beginning | None = None  # what a new run does before its first step
        self.moving = False  # whether a step has begun to change weights
        self.best = math.inf  # the lowest held-out loss
        self.stopping: BaseException | None = None  # why this process asks the run to end after its step
        self.run_id = uuid.uuid4().hex[:16]  # in the files of this run, and of no other of the same name
        # Let go after DDP's reducer: as its last holder that would wait for the group's thread, which waits for the
        # interpreter, and the process would never end.
        self._group = torch.distributed.group.WORLD if _is_distributed() else None

    def run(self, last_picture: bool = False) -> list[dict[str, Any]]:
        """Trains to the last step; returns the losses as {"step", "loss"} and {"step", "heldout"} entries.

        last_picture: draw one more when all is done. Steps whose loss or gradient is not finite are left out and have
        a {"step", "skipped"} entry, which says what was not. Raises NotFinite after `options.max_skipped` of them in a
        row, and for weights that are not finite; no file holds such a state. Ctrl-C and SIGTERM end a run after its
        step: it is saved, and Stopped is raised; what a listener raises does the same, and is raised again. BusyError
        while another process trains in the folder.
        """
        with random_state_kept(self.accelerator.device), signals_noted(self._asked_to_stop), ExitStack() as held:
            self._in_main(lambda: held.enter_context(files.alone_in(self.folder)))
            set_seed(self.options.seed)  # for what draws from the global state inside the host, such as dropout
            try:
                return self._run(last_picture)
            finally:
                self.losses.batches.close()

    def _run(self, last_picture: bool) -> list[dict[str, Any]]:
        begun = self._restore()
        main = self.accelerator.is_main_process
        self._in_main(self._prepare_folder)
        if self.beginning is not None and not begun:
            self._begin(self.beginning)
        log = files.LossLog(self.folder / files.LOSSES, self.first_step) if main else None
        if self.accelerator.log_with and main:
            self.accelerator.init_trackers("tensorboard")
        if main:
            count = self.accelerator.num_processes
            _LOG.info("training in %s", "one process" if count == 1 else f"{count} processes")
            self.listener.started(self.first_step, self.options.steps)
        clock = Clock(self.options.steps, self.options.batch_size * self.options.accumulate)
        for step in range(self.first_step, self.options.steps):
            clock.begin()
            result = self._step_or_save(step)
            self.done = step + 1
            if log is not None:
                pace = clock.end(step, self.options.learning_rate_at(step), result.norm)
                self._tell(self._log_step, step, result, log, pace)
            self._count(step, result)
            self._stop_if_asked()
            if self._report(step, log):
                self._stop_if_asked()
        self.accelerator.wait_for_everyone()
        self._tell_phase("saving")
        self.save()
        if last_picture:
            self._tell_phase("pictures")
            self.picture(self.options.steps - 1)
        self.accelerator.end_training()
        return log.entries if log is not None else []

    def _begin(self, beginning: Beginning) -> None:
        """Lets the encoders of a new run learn by themselves; what ends a run ends this too, and nothing is saved."""
        device, skips = self.accelerator.device, Skips(self.options.max_skipped, "step of the reconstruction")
        cure = "Nothing was saved; give mixed_precision no, or reconstruction 0 to begin without it"

        def after(step: int, result: StepResult) -> None:
            if result.fault is None and self.accelerator.is_main_process:
                self._tell(self.listener.reconstruction, step, self.options.reconstruction, result.loss)
            skips.count(step, result, cure)
            self._stop_if_asked()

        def learn() -> None:
            beginning(self.module, copies, device=device, after=after)

        copies = whole_copies(self.module.encoders, device)
        with random_state_kept(device):
            in_forward(self.module, learn) if self.sharded else learn()
        for encoder, copy in zip(self.module.encoders, copies, strict=True):
            learned = copy.state_dict()
            for name, parameter in encoder.named_parameters():
                put_whole(broadcast(learned[name]), parameter)  # type: ignore[arg-type]
        self.ema.restart()

    def _log_step(self, step: int, result: StepResult, log: files.LossLog, pace: Pace) -> None:
        if result.fault is None:
            log.add(step=step, loss=result.loss)
            self.accelerator.log({"loss": result.loss, **pace.values()}, step=step)
            if (step + 1) % PACE_EVERY == 0:
                files.LossLog.append(self.folder / files.PACE, {"step": step, **pace.values()})
            self.listener.pace(step, pace)
            self.listener.step(step, result.loss)
        else:
            log.add(step=step, skipped=result.fault)
            self.listener.skipped(step)

    def _tell(self, tell: Callable[..., None], *values: Any) -> None:
        """Tells the world, in the main process; what is raised there ends the run in all of them, after its step."""
        try:
            tell(*values)
        except BaseException as error:  # ComfyUI's for a cancelled run is no Exception
            self.stopping = self.stopping or error

    def _asked_to_stop(self, number: int) -> None:
        self.stopping = self.stopping or Stopped(self.done, number)

    def _stop_if_asked(self) -> None:
        """Saves and ends the run, in all processes, when any of them asks for it."""
        if not self._anywhere(self.stopping is not None):
            return
        if self.saved < self.done:
            self._tell_phase("saving")
            self.save()
        self.accelerator.wait_for_everyone()  # a launcher ends all processes as soon as one has ended
        self.accelerator.end_training()
        asked = self.stopping
        if asked is None or isinstance(asked, Stopped):
            asked = Stopped(self.done, *([] if asked is None else [asked.code - 128]))
            if self.accelerator.is_main_process:
                self._tell(self.listener.stopped, str(asked))
        raise asked

    def _step_or_save(self, step: int) -> StepResult:
        """A step; what is raised in it before weights move, such as a full card, finds the steps before it saved."""
        self.moving = False
        try:
            return self._step(step)
        except BaseException:
            if self.accelerator.num_processes == 1 and not self.moving and self.saved < self.done:
                self.save()
            raise

    def _step(self, step: int) -> StepResult:
        """One step; the result is the same in all processes. Where it is not finite nothing has changed.

        Every part of a step is run to its end in any case, as the exchange between processes wants it.
        """
        options = self.options
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                set_rate(group, options.learning_rate_at(step) * group["share"])
        total, result = torch.zeros((), device=self.accelerator.device), StepResult(0.0, 0.0)
        for part in range(options.accumulate):
            with self.accelerator.accumulate(self.prepared):
                loss = self.losses.trained(step * options.accumulate + part)
                self.accelerator.backward(loss)
                total += self.losses.mean(loss.detach())
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.ema.parameters.values(), options.clip)
                    result = StepResult(float(total) / options.accumulate, float(whole_value(norm)))
                    self.moving = result.fault is None
                for optimizer in self.optimizers:
                    if result.fault is None:
                        optimizer.step()
                    optimizer.zero_grad()
        if result.fault is None:
            self.ema.update(step + 1)
        return result

    def _count(self, step: int, result: StepResult) -> None:
        """Counts steps that were left out; raises NotFinite when they are too many in a row."""
        self.skips.count(
            step, result,
            f"The run in {self.folder} is as it was saved after step {self.saved}; run the same again with a lower "
            "learning_rate, or with mixed_precision bf16 or no",
        )  # fmt: skip

    def _report(self, step: int, log: files.LossLog | None) -> bool:
        """What is due after a step: held-out loss, checkpoint, picture; whether anything was."""
        options, number = self.options, step + 1
        heldout, picture = (every and number % every == 0 for every in (options.heldout_every, options.picture_every))
        if heldout:
            self._tell_phase("heldout")
            self._report_heldout(step, log)
        checkpoint = number % options.checkpoint_every == 0 and number < options.steps
        if checkpoint:
            self._tell_phase("saving")
            self.save()
        if picture:
            self._tell_phase("pictures")
            self.picture(step)
        return bool(heldout or checkpoint or picture)

    def _report_heldout(self, step: int, log: files.LossLog | None) -> None:
        value = self.losses.of_averages()
        if not math.isfinite(value):
            if log is not None:
                _LOG.warning("step %d: the held-out loss is %s and is left out", step + 1, value)
            return
        if log is not None:
            self._tell(partial(log.add, step=step, heldout=value))
            self.accelerator.log({"heldout": value}, step=step)
            self._tell(self.listener.heldout, step, value)
        if self.options.stage != "host":
            self._report_parts(step, log)
        if value < self.best:
            self._check_finite()
            self._write_best(value)

    def _write_best(self, heldout: float) -> None:
        """Files of the lowest held-out loss; a disk without room for them is named, and the run goes on."""
        try:
            self._in_main(lambda: self.checkpoints.make_room(FLOAT * self._values()))
            self._write_files(self.folder / files.BEST, heldout=heldout)
        except OSError as error:
            if self.accelerator.is_main_process:
                _LOG.warning("the files of the lowest held-out loss were not written: %s", error)
            return
        self.best = heldout

    def _report_parts(self, step: int, log: files.LossLog | None) -> None:
        """What the held-out loss is made of."""
        parts = self.losses.parts_of_averages()
        if log is not None and all(math.isfinite(value) for value in parts.values()):
            self._tell(partial(log.add, step=step, parts=parts))
            self.accelerator.log({f"heldout {name}": value for name, value in parts.items()}, step=step)
            self._tell(self.listener.parts, step, parts)

    def _tell_phase(self, phase: Phase) -> None:
        if self.accelerator.is_main_process:
            self._tell(self.listener.phase, phase)

    def picture(self, step: int) -> None:
        """Lets the listener draw with the averaged weights: in the main process, with the help of all that it needs."""
        main = self.accelerator.is_main_process
        if not (main or self.sharded):
            return
        draw = partial(self.listener.picture if main else self.listener.assist, step, self)
        with self.ema.applied():
            in_forward(self.module, partial(self._tell, draw)) if self.sharded else self._tell(draw)

    def save(self) -> None:
        """Writes checkpoint, encoder and LoRA (averaged weights); all processes must call it, the main one writes.

        Raises OSError, in all processes alike, that says how much room they take and where, when there is none.
        """
        self._check_finite()
        self._in_main(lambda: self.checkpoints.make_room(self._bytes()))
        self._write_files(self.folder)
        state = {
            "step": self.done,
            "run": self.run_id,
            "best": self.best,
            "skipped": self.skips.in_all,
            "moments": self.moments,
            **self.settings,
            **self.ema.state(),
            "optimizers": [optimizer_state(optimizer) for optimizer in self.optimizers],
        }
        self._in_main(lambda: self.checkpoints.save(state))
        self.saved = self.done

    def _write_files(self, folder: Path, **more: Any) -> None:
        """Encoder and LoRA, or the host that is trained, of the averaged weights; more: further facts in them."""
        facts = {"stage": self.options.stage, "steps": self.done, "run": self.run_id, **more}
        facts |= self.options.that_shape_the_run()
        model, encoders = self.module.diffusion_model, enumerate(self.module.encoders, 1)
        data = None if self.trained_on is None else replace(self.trained_on, steps=self.done)
        with self.ema.applied():
            made = {files.encoder_name(n): files.encoder_file(encoder, facts, data) for n, encoder in encoders}
            if self.options.train_host:
                made[files.HOST] = files.host_file(model, self.host_metadata, facts)
            else:
                made[files.LORA] = files.lora_file(model, facts)

            def write() -> None:
                for name, file in made.items():
                    file.write(folder / name)

            self._in_main(write)

    def _prepare_folder(self) -> None:
        """Sees before the first step whether the disk has room for what is saved after it, and writes `lists`."""
        for folder in (self.folder, self.folder / files.BEST):
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder)
        self.checkpoints.make_room(self._bytes())
        files.write_lists(self.folder, self.lists)

    def _bytes(self) -> int:
        """What is written when the run is saved, about: parameters, averages, moments, and the files of averages."""
        return FLOAT * self._values() * (2 + 2 + 1)

    def _values(self) -> int:
        return sum(parameter.numel() for parameter in self.ema.parameters.values())

    def _in_main(self, work: Callable[[], object]) -> None:
        """Lets the main process work on the disk; an error there is raised in all processes."""
        failure: OSError | None = None
        if self.accelerator.is_main_process:
            try:
                work()
            except OSError as error:
                failure = self.checkpoints.full(self._bytes()) if error.errno in FULL else error
                failure.__cause__ = error
        if self._anywhere(failure is not None):
            raise failure or OSError(f"the first process could not write to {self.folder}")

    def _anywhere(self, said: bool) -> bool:
        """Whether any process says so; all must ask."""
        votes: Any = self.accelerator.reduce(torch.tensor(float(said), device=self.accelerator.device), "sum")
        return float(votes) > 0

    def _check_finite(self) -> None:
        """Raises NotFinite, in all processes alike, when what would be saved is not finite in any of them."""
        states = [dict(optimizer.state) for optimizer in self.optimizers]
        held = floats([self.ema.parameters, self.ema.averages, states])
        if self._anywhere(any(not bool(torch.isfinite(own_shard(value)).all()) for value in held)):
            raise NotFinite(
                f"weights or moments are not finite after step {self.done}; nothing was saved. The run in "
                f"{self.folder} is as it was saved after step {self.saved}; run the same again with a lower "
                "learning_rate"
            )

    def _restore(self) -> bool:
        """Goes on with what the folder holds; whether it holds a run."""
        state = self.checkpoints.newest(self.settings, self.ema.parameters)
        self._agree(0 if state is None else state["step"])
        if state is None:
            return False
        with self.checkpoints.restoring():
            self.ema.load(state)
            if state.get("moments", self.moments) == self.moments:
                for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                    load_optimizer_state(optimizer, saved)
        if state.get("moments", self.moments) != self.moments and self.accelerator.is_main_process:
            _LOG.warning("the moments of %s begin anew: the run's are of %s", self.moments, state["moments"])
        self.first_step = self.done = self.saved = state["step"]
        self.run_id = state.get("run", self.run_id)
        if state["options"]["batch_size"] == self.options.batch_size:  # else other clips are held out in a batch
            self.best = state.get("best", self.best)
        self.skips.in_all = state.get("skipped", 0)
        return True

    def _agree(self, step: int) -> None:
        """Raises ValueError where processes would not go on from the same step: each looks into its own folder."""
        steps: Any = self.accelerator.gather(torch.tensor([float(step)], device=self.accelerator.device))
        found = [int(value) for value in steps]
        if len(set(found)) > 1:
            raise ValueError(
                f"the processes would go on from steps {found}: each has to see the same {self.folder}; put it on a "
                "disk that all machines share, or copy its newest checkpoint to each"
            )


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None
