"""The node that trains a memory encoder and the LoRA that reads it."""

from __future__ import annotations

import logging
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..memory_encoder.files import named_folder
from ..memory_encoder.injection.hosts import find_host
from ..memory_encoder.injection.hosts.comfy_models import training_mode
from ..memory_encoder.injection.hosts.encoder_file import new_encoder
from ..memory_encoder.phi.encoder import MemoryEncoder
from ..memory_encoder.training.dataset.dataset import MemoryDataset
from ..memory_encoder.training.draws import random_state_kept
from ..memory_encoder.training.listener import PictureListener
from ..memory_encoder.training.options import TrainOptions
from ..memory_encoder.training.pictures import loss_plot, recall_picture
from ..memory_encoder.training.run_files import LORA
from .events import TrainingEvents
from .runtime import folders, training
from .runtime.compress import codec_for
from .runtime.managed import ManagedEncoder, manage
from .runtime.progress import TrainingProgress
from .runtime.sampling import host_of
from .sockets import CATEGORY, MemoryDatasetSocket, MemoryEncoderSocket, encoder_input, seed_input, with_advanced

log = logging.getLogger("video_memory")


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
                io.Int.Input("steps", default=2000, min=1, max=10_000_000, tooltip="Steps of the whole run."),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Clips in a step."),
                io.Float.Input(
                    "learning_rate", default=5e-5, min=1e-7, max=1.0, step=1e-6, round=False, tooltip="Of AdamW."
                ),
                io.Int.Input("rank", default=128, min=1, max=1024, tooltip="Rank of the LoRA; the paper uses 128."),
                seed_input(),
                io.String.Input(
                    "run", default="my_memory", tooltip="Name of the run, a folder in output/video_memory_training."
                ),
                io.Int.Input("accumulate", default=1, min=1, max=1024, optional=True, tooltip="Steps in one update."),
                io.Int.Input(
                    "section", default=8, min=1, max=256, optional=True, tooltip="Latents of a section in continuation."
                ),
                io.Int.Input(
                    "picture_every", default=250, min=0, max=1_000_000, optional=True,
                    tooltip="Steps between pictures of recalled frames; 0 for none.",
                ),
                io.Int.Input("checkpoint_every", default=100, min=1, max=1_000_000, optional=True, tooltip="In steps."),
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
                    "window_share", default=0.0, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of continuation steps that also show the last 3 latents, for sliding_window.",
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
        )

    @classmethod
    def execute(
        cls, model, memory_encoder: ManagedEncoder, dataset: MemoryDataset, stage: Any, steps: int, batch_size: int,
        learning_rate: float, rank: int, seed: int, run: str, accumulate: int = 1, section: int = 8,
        picture_every: int = 250, checkpoint_every: int = 100, gradient_checkpointing: bool = True,
        mixed_precision: str = "auto", history_dropout: float = 0.1, corruption: float = 0.0, vae=None,
        retrieval_share: float = 0.0, lora: dict[str, torch.Tensor] | None = None, window_share: float = 0.0,
        guidance: float = 6.0, min_t: float = 0.0, max_t: float = 1.0,
    ) -> io.NodeOutput:  # fmt: skip
        from ..memory_encoder.training.run import train

        memory_encoder.check_host(host_of(model))
        folder = named_folder(folders.training_root(), run, "run")
        options = TrainOptions(
            stage=stage, steps=steps, batch_size=batch_size, learning_rate=learning_rate, rank=rank, seed=seed,
            accumulate=accumulate, section=section, picture_every=picture_every, checkpoint_every=checkpoint_every,
            gradient_checkpointing=gradient_checkpointing, history_dropout=history_dropout, corruption=corruption,
            mixed_precision=training.training_precision(mixed_precision), retrieval_share=retrieval_share,
            window_share=window_share, guidance=guidance, min_t=min_t, max_t=max_t,
        )  # fmt: skip
        decode = None if vae is None else codec_for(model, vae).decode
        listener = NodeListener(folder, decode, TrainingEvents(run, steps))
        own = random_state_kept(training.training_device())
        with own, torch.inference_mode(False), torch.enable_grad(), training_mode():
            copy = training.model_for_training(model)
            encoders = [plain_encoder(part, copy.model.diffusion_model, seed) for part in memory_encoder.parts]
            losses = train(
                copy.model.diffusion_model, encoders[0], dataset, options, folder, listener,
                cpu=training.training_device().type == "cpu", lora=training.plain_lora(lora), others=encoders[1:],
            )  # fmt: skip
        training.publish_run(folder, run, len(encoders))
        plot = torch.from_numpy(np.ascontiguousarray(listener.plot()[..., ::-1])).float()[None] / 255
        loss_map = {"loss": [entry["loss"] for entry in losses if "loss" in entry]}
        trained = reduce(ManagedEncoder.beside, [manage(encoder.cpu()) for encoder in encoders])
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
            shown = recall_picture(trainer, self.decode) if self.decode is not None else self.plot()
            self.progress.show(step + 1, shown)

    def plot(self) -> np.ndarray:
        """The loss curve as it stands."""
        return loss_plot(self.losses, self.heldout_losses)

    def summary(self) -> dict[str, Any]:
        """What the node shows when it is done."""
        last = f"last loss {self.losses[-1][1]:.4f}" if self.losses else "nothing left to do"
        return {"text": [f"{self.text}\n{last}\n{self.folder}"]}


NODES = [VideoMemoryTrain]
