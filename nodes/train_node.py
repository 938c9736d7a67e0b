"""The node that trains a memory encoder and the LoRA that reads it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..memory_encoder.files import named_folder
from ..memory_encoder.injection.hosts import find_host
from ..memory_encoder.injection.hosts.comfy_models import training_mode
from ..memory_encoder.injection.hosts.encoder_file import new_encoder, read_trained_on
from ..memory_encoder.phi.encoder import MemoryEncoder
from ..memory_encoder.training.dataset.mixture import Data
from ..memory_encoder.training.dataset.settings import of_another_vae
from ..memory_encoder.training.draws import random_state_kept
from ..memory_encoder.training.heldout import describe_parts
from ..memory_encoder.training.listener import Phase, PictureListener
from ..memory_encoder.training.options import NOT_LEARNED, TrainOptions
from ..memory_encoder.training.pace import Pace
from ..memory_encoder.training.presets import PRESETS, preset_named
from ..memory_encoder.training.run_files import LORA, encoder_name
from .events import TrainingEvents
from .runtime import folders, training
from .runtime.compress import codec_for
from .runtime.managed import ManagedEncoder, manage
from .runtime.progress import TrainingProgress
from .runtime.sampling import host_of
from .sockets import CATEGORY, MemoryDatasetSocket, MemoryEncoderSocket, encoder_input, seed_input, with_advanced

log = logging.getLogger("video_memory")
NO_PRESET = "none"


class VideoMemoryTrain(io.ComfyNode):
    """Trains both stages of the paper, live, cancellable and resumable; combined encoders together, with one LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryTrain",
            display_name="Train Memory Encoder",
            category=CATEGORY,
            description="Trains a memory encoder and a LoRA of the model. A cancelled run goes on where it was saved.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="Wan 2.1 or 2.2, or HunyuanVideo, in bf16, fp16 or fp8; GGUF cannot be trained on."
                ),
                encoder_input(),
                MemoryDatasetSocket.Input("dataset", tooltip="From Cache Training Clips."),
                io.Combo.Input(
                    "stage",
                    options=["retrieval", "continuation"],
                    default="retrieval",
                    tooltip="retrieval: pretraining, the model draws any frame from the memory. continuation: it makes "
                    "the next section; begin with an encoder from retrieval.",
                ),
                io.Int.Input("steps", default=10_000, min=1, max=10_000_000, tooltip="Steps of the whole run."),
                io.Int.Input(
                    "batch_size", default=8, min=1, max=4096,
                    tooltip="Clips in a step; cut into smaller steps where the card has no room for it.",
                ),
                io.Float.Input(
                    "learning_rate", default=5e-5, min=1e-7, max=1.0, step=1e-6, round=False,
                    tooltip="How far an update moves the weights (AdamW); lower it if the loss jumps or rises.",
                ),
                io.Int.Input("rank", default=128, min=1, max=1024, tooltip="Rank of the LoRA; the paper uses 128."),
                seed_input(),
                io.String.Input(
                    "run", default="my_memory", tooltip="Name of the run, a folder in output/video_memory_training."
                ),
                io.Int.Input("accumulate", default=1, min=1, max=1024, optional=True, tooltip="Steps in one update."),
                io.Int.Input(
                    "section", default=0, min=0, max=256, optional=True,
                    tooltip="Latents of the longest section in continuation. 0: 5 seconds, as the sampler makes, or "
                    "less where clips or card have no room for it.",
                ),
                io.Int.Input(
                    "picture_every", default=500, min=0, max=1_000_000, optional=True,
                    tooltip="Steps between pictures of recalled frames; 0 for none.",
                ),
                io.Int.Input(
                    "checkpoint_every", default=200, min=1, max=1_000_000, optional=True,
                    tooltip="Steps between checkpoints, from which a run that was stopped goes on.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing", default=True, optional=True, tooltip="Less memory, a third more time."
                ),
                io.Combo.Input(
                    "mixed_precision", options=["auto", "bf16", "no"], default="auto", optional=True,
                    tooltip="auto: bf16 where the card has it.",
                ),
                io.Float.Input(
                    "history_dropout", default=0.1, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of continuation steps without memory.",
                ),
                io.Float.Input(
                    "corruption", default=0.0, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Highest level of noise on the history in continuation, against drift.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Connect it to see recalled frames as the run goes."),
                io.Float.Input(
                    "retrieval_share", default=0.0, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of continuation steps that go on with retrieval, so that one LoRA does both.",
                ),
                io.LoraModel.Input(
                    "lora", optional=True, tooltip="LoRA to go on from, of the same rank; without it a new one."
                ),
                io.Float.Input(
                    "window_share", default=0.25, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of continuation steps that also show the last `window` latents, for sliding_window.",
                ),
                io.Float.Input(
                    "guidance", default=6.0, min=0.0, max=100.0, step=0.1, optional=True,
                    tooltip="What HunyuanVideo is told while it is trained; core samples with 6.",
                ),
                io.Float.Input(
                    "min_t", default=0.0, min=0.0, max=1.0, step=0.001, round=False, optional=True,
                    tooltip="Lowest trained timestep. 0.875 (I2V 0.9) for the high-noise expert of Wan 2.2 14B.",
                ),
                io.Float.Input(
                    "max_t", default=1.0, min=0.0, max=1.0, step=0.001, round=False, optional=True,
                    tooltip="Highest trained timestep. 0.875 (I2V 0.9) for the low-noise expert of Wan 2.2 14B.",
                ),
                io.Combo.Input(
                    "preset", options=[NO_PRESET, *PRESETS], default=NO_PRESET, optional=True,
                    tooltip="A whole recipe by name, in place of this node's own values; steps, run, seed and how "
                    "often it reports and saves stay.",
                ),
                io.Float.Input(
                    "clean_share", default=0.5, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of retrieval steps that mask nothing, as a film's memory is asked.",
                ),
                io.Float.Input(
                    "shorter_share", default=0.5, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of sections of any smaller length, as those of short shots have.",
                ),
                io.Float.Input(
                    "encoder_rate", default=1.0, min=1e-4, max=100.0, step=0.01, optional=True,
                    tooltip="Learning rate of the encoder as a share of the LoRA's; the tiny family took 1, and 0.3 in "
                    "continuation.",
                ),
                io.Int.Input(
                    "cooldown", default=0, min=0, max=10_000_000, optional=True,
                    tooltip="Last steps, in which the learning rate falls to zero.",
                ),
                io.Float.Input(
                    "ema", default=0.999, min=0.0, max=1.0, step=0.0001, round=False, optional=True,
                    tooltip="Decay of the averaged weights, which are what is saved.",
                ),
                io.Float.Input(
                    "shift", default=0.0, min=0.0, max=100.0, step=0.01, optional=True,
                    tooltip="Of the timesteps in training. 0: what the model is sampled with.",
                ),
                io.Float.Input(
                    "caption_dropout", default=0.1, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of clips whose caption is left out, which guidance needs.",
                ),
                io.Combo.Input(
                    "optimizer", options=["adamw", "adamw8bit", "muon"], default="adamw", optional=True,
                    tooltip="AdamW; adamw8bit keeps its moments in 8 bits and needs bitsandbytes or torchao; muon "
                    "moves the LoRA's matrices, keeps half as much for them and needs PyTorch 2.9.",
                ),
                io.Int.Input(
                    "resident_blocks", default=-1, min=-1, max=1000, optional=True,
                    tooltip="Blocks of the model that stay on the card; the others' weights come from RAM in their "
                    "turn. -1: all.",
                ),
                io.Boolean.Input(
                    "offload_inputs", default=False, optional=True,
                    tooltip="What gradient checkpointing keeps waits in RAM.",
                ),
                io.Int.Input(
                    "reconstruction", default=0, min=0, max=1_000_000, optional=True,
                    tooltip="Steps before the first in which the encoder alone learns to hold its latents. A few "
                    "hundred make a new encoder learn faster.",
                ),
                io.Int.Input(
                    "keep_checkpoints", default=2, min=1, max=1000, optional=True,
                    tooltip="How many of the last checkpoints stay.",
                ),
                io.Int.Input(
                    "max_skipped", default=5, min=1, max=1_000_000, optional=True,
                    tooltip="Steps in a row, left out since their loss is not finite, that end the run.",
                ),
                io.Int.Input(
                    "window", default=3, min=1, max=64, optional=True,
                    tooltip="Latents of the sliding window that is trained; as many as the sampler's sliding_window.",
                ),
                io.Float.Input(
                    "aligned", default=0.0, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of sections that start where one of a film does, for films whose shots have the "
                    "length of a section.",
                ),
                io.Boolean.Input(
                    "per_clip", default=True, optional=True,
                    tooltip="Each clip of a batch has a task, a history and dropout of its own. Off is quicker for "
                    "small models.",
                ),
                io.Int.Input(
                    "warmup", default=100, min=0, max=1_000_000, optional=True,
                    tooltip="First steps, in which the learning rate rises.",
                ),
                io.Int.Input(
                    "heldout_every", default=100, min=0, max=1_000_000, optional=True,
                    tooltip="Steps between looks at the held-out clips; 0 for none.",
                ),
                io.Int.Input(
                    "ema_every", default=1, min=1, max=10_000, optional=True,
                    tooltip="Steps between updates of the averaged weights, which lie in RAM; 10 saves time with large "
                    "models.",
                ),
            ],
            outputs=[
                MemoryEncoderSocket.Output(display_name="memory_encoder", tooltip="Trained encoder."),
                io.LoraModel.Output(display_name="lora", tooltip="LoRA of the model, for core's LoRA nodes."),
                io.LossMap.Output(display_name="loss_map", tooltip="Loss of each step, for core's Plot Loss Graph."),
                io.Image.Output(display_name="plot", tooltip="Loss curve."),
            ],
            is_output_node=True,
        )  # fmt: skip
        return with_advanced(
            schema,
            "accumulate",
            "section",
            "picture_every",
            "checkpoint_every",
            "gradient_checkpointing",
            "mixed_precision",
            "history_dropout",
            "corruption",
            "retrieval_share",
            "window_share",
            "guidance",
            "min_t",
            "max_t",
            "clean_share",
            "shorter_share",
            "encoder_rate",
            "cooldown",
            "ema",
            "shift",
            "caption_dropout",
            "optimizer",
            "resident_blocks",
            "offload_inputs",
            "reconstruction",
            "keep_checkpoints",
            "max_skipped",
            "window",
            "aligned",
            "per_clip",
            "warmup",
            "heldout_every",
            "ema_every",
        )

    @classmethod
    def execute(
        cls, model, memory_encoder: ManagedEncoder, dataset: Data, stage: Any, steps: int, run: str, vae=None,
        lora: dict[str, torch.Tensor] | None = None, preset: str = NO_PRESET, **recipe: Any,
    ) -> io.NodeOutput:  # fmt: skip
        """recipe: fields of TrainOptions, by the names of the inputs; what an old workflow has no input for is not."""
        from ..memory_encoder.training.run import train

        memory_encoder.check_host(host_of(model))
        folder = named_folder(folders.training_root(), run, "run")
        if preset != NO_PRESET:
            chosen = preset_named(preset).options(stage, steps)
            own = {name: value for name, value in recipe.items() if name in NOT_LEARNED | {"seed"}}
            recipe = own | chosen | {"preset": preset}
            log.info("preset %s: %s", preset, ", ".join(f"{name} {value}" for name, value in chosen.items()))
        options = TrainOptions(**{"stage": stage, "steps": steps} | recipe)
        decode = None if vae is None else codec_for(model, vae).decode
        if vae is not None and (remark := of_another_vae(dataset.space, vae)):
            log.warning("vae: %s", remark)
        listener = NodeListener(folder, decode, TrainingEvents(run, steps))
        own = random_state_kept(training.training_device())
        with own, torch.inference_mode(False), torch.enable_grad(), training_mode():
            copy = training.model_for_training(model, in_ram=options.resident_blocks >= 0)
            defaults = training.host_defaults(model)
            encoders = [plain_encoder(part, copy.model.diffusion_model, options.seed) for part in memory_encoder.parts]
            losses = train(
                copy.model.diffusion_model, encoders[0], dataset, options, folder, listener,
                cpu=training.training_device().type == "cpu", lora=training.plain_lora(lora), others=encoders[1:],
                defaults=defaults,
            )  # fmt: skip
        training.publish_run(folder, run, len(encoders))
        plot = torch.from_numpy(np.ascontiguousarray(listener.plot()[..., ::-1])).float()[None] / 255
        loss_map = {"loss": [entry["loss"] for entry in losses if "loss" in entry]}
        files = [folder / encoder_name(number) for number in range(1, len(encoders) + 1)]
        managed = [manage(part.cpu(), read_trained_on(path)) for part, path in zip(encoders, files, strict=True)]
        trained = reduce(ManagedEncoder.beside, managed)
        return io.NodeOutput(trained, training.load_lora(folder / LORA), loss_map, plot, ui=listener.summary())


def plain_encoder(managed: ManagedEncoder, diffusion_model: torch.nn.Module, seed: int) -> MemoryEncoder:
    """A copy of an encoder with ordinary float32 weights, on the device of training."""
    encoder = new_encoder(managed.config, find_host(diffusion_model), seed)
    encoder.load_state_dict(training.plain_state(managed.model))
    return encoder.to(training.training_device())


class NodeListener(PictureListener):
    """Progress, live pictures and a way to stop, on the node."""

    def __init__(self, folder: Path, decode: Any, events: TrainingEvents) -> None:
        super().__init__(folder, decode)
        self.events = events
        self.progress: TrainingProgress | None = None
        self.text = ""

    def plan(self, text: str) -> None:
        self.text = text
        log.info("%s", text)

    def started(self, first_step: int, last_step: int) -> None:
        super().started(first_step, last_step)
        self.progress = TrainingProgress(first_step, last_step)
        self.events.started(first_step)

    def reconstruction(self, step: int, steps: int, loss: float) -> None:
        if self.progress is None:
            self.progress = TrainingProgress(0, steps)
        self.progress.step(step + 1)

    def step(self, step: int, loss: float) -> None:
        super().step(step, loss)
        self.events.step(step, loss)
        if self.progress is not None:
            self.progress.step(step + 1)

    def skipped(self, step: int) -> None:
        if self.progress is not None:
            self.progress.step(step + 1)

    def heldout(self, step: int, loss: float) -> None:
        super().heldout(step, loss)
        self.events.heldout(step, loss)

    def picture(self, step: int, trainer: Any) -> None:
        super().picture(step, trainer)
        self.events.picture(step, self.decode is not None)
        if self.progress is not None:
            self.progress.show(step + 1, self.shown)

    def pace(self, step: int, pace: Pace) -> None:
        self.events.pace = pace.values()

    def phase(self, phase: Phase) -> None:
        self.events.phase(phase)

    def parts(self, step: int, parts: Mapping[str, float]) -> None:
        super().parts(step, parts)
        log.info("step %d held out: %s", step + 1, describe_parts(parts))
        self.events.parts(step, parts)

    def summary(self) -> dict[str, Any]:
        """What the node shows when it is done."""
        last = f"last loss {self.losses[-1][1]:.4f}" if self.losses else "nothing left to do"
        return {"text": [f"{self.text}\n{last}\n{self.folder}"]}


NODES = [VideoMemoryTrain]
