"""Nodes that make a memory encoder and say what it will cost."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..memory_encoder.budget import Plan, describe, estimate, host_of_encoder, memory_fields
from ..memory_encoder.injection.fit import check_encoder
from ..memory_encoder.injection.hosts import Host
from ..memory_encoder.injection.hosts.encoder_file import cross_settings, new_encoder
from ..memory_encoder.memory.picture_choice import check_opencv
from ..memory_encoder.phi.config import DEFAULT_WINDOW, MOST_PICTURES, EncoderConfig, Variant
from ..memory_encoder.phi.trained_on import Asked, remarks
from .runtime.folders import ENCODERS
from .runtime.managed import ManagedEncoder, load_encoder, manage
from .runtime.sampling import host_of
from .sockets import (
    CATEGORY,
    MemoryEncoderSocket,
    encoder_input,
    fps_input,
    horizon_input,
    lr_vae_input,
    model_input,
    seed_input,
    size_inputs,
    window_input,
    with_advanced,
)

log = logging.getLogger("video_memory")
UNTOLD = "the file does not say what the encoder was trained on"


class VideoMemoryEncoderLoader(io.ComfyNode):
    """Loads a trained encoder and the LoRA that was trained with it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryEncoderLoader",
            display_name="Load Memory Encoder",
            category=CATEGORY,
            description="Loads a memory encoder for a model, and the LoRA that teaches the model to read it.",
            inputs=[
                model_input(),
                io.Combo.Input(
                    "encoder_name",
                    options=folder_paths.get_filename_list(ENCODERS),
                    tooltip="File in models/memory_encoders.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=["none", *folder_paths.get_filename_list("loras")],
                    tooltip="LoRA trained together with the encoder.",
                ),
                io.Float.Input(
                    "lora_strength", default=1.0, min=-10.0, max=10.0, step=0.01, tooltip="Strength of the LoRA."
                ),
                lr_vae_input(),
            ],
            outputs=[
                io.Model.Output(tooltip="Model with the LoRA; the encoder is loaded and freed with it."),
                MemoryEncoderSocket.Output(
                    display_name="memory_encoder", tooltip="Encoder for the other memory nodes."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model, encoder_name: str, lora_name: str, lora_strength: float, lr_vae: Any = None
    ) -> io.NodeOutput:
        encoder = folder_paths.get_full_path_or_raise(ENCODERS, encoder_name)
        lora = None if lora_name == "none" else folder_paths.get_full_path_or_raise("loras", lora_name)
        model, loaded = encoder_and_lora(model, Path(encoder), lora and Path(lora), lora_strength)
        about = UNTOLD if loaded.trained_on is None else loaded.trained_on.describe()
        log.info("%s: %s", encoder_name, about)
        from ..memory_encoder.training.run_files import not_a_pair

        strangers = not_a_pair(Path(encoder), Path(lora)) if lora and lora_strength else None
        if strangers:
            log.warning("%s", strangers)
            about = f"{about}\n{strangers}"
        return io.NodeOutput(model, loaded.decoding_by(lr_vae), ui={"text": [about]})


def encoder_and_lora(model: Any, encoder: Path, lora: Path | None, strength: float) -> tuple[Any, ManagedEncoder]:
    """The model with the LoRA in it and the encoder attached, and the encoder. Raises ValueError for another host's."""
    loaded = load_encoder(encoder)
    loaded.check_host(host_of(model))
    if loaded.config.variant == "keyframes":
        check_opencv()
    if lora is not None and strength != 0:
        weights = comfy.utils.load_torch_file(str(lora), safe_load=True)
        model = with_lora(model, weights, strength, lora.name)
    return loaded.attach(model), loaded


def with_lora(model: Any, weights: Mapping[str, Tensor], strength: float, name: str) -> Any:
    """The model with a LoRA in it. Raises ValueError that names the file when none of it fits, which core only logs."""
    patched, _ = comfy.sd.load_lora_for_models(model, None, weights, strength, 0)
    if sum(map(len, patched.patches.values())) == sum(map(len, model.patches.values())):
        raise ValueError(
            f"lora_name: none of the {len(weights)} weights of {name} fits this model; choose the LoRA that belongs "
            "to the memory encoder, or convert it if its authors published it in other names (StoryMem, Memento: "
            "python -m memory_encoder convert)"
        )
    return patched


class VideoMemoryEncoderNew(io.ComfyNode):
    """Makes an untrained encoder; the start of training, and a memory by itself (Only LR)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryEncoderNew",
            display_name="New Memory Encoder",
            category=CATEGORY,
            description="An untrained encoder for a model. Its LR branch already keeps a small, slow copy.",
            inputs=[
                model_input(),
                io.String.Input(
                    "rate",
                    default="4x4x2",
                    tooltip="Compression of height x width x time, powers of two. "
                    "For recent a list, newest first: LATENTS@RATE+...",
                ),
                io.Combo.Input(
                    "variant",
                    options=list(get_args(Variant)),
                    default="proposed",
                    tooltip="proposed is the paper's encoder, recent a baseline: only the last latents, "
                    "coarser with age. keyframes keeps whole pictures, for Wan 2.2 I2V with the LoRAs of StoryMem or "
                    "Memento. The others are ablations.",
                ),
                io.Combo.Input(
                    "attention",
                    options=["frame", "causal", "full"],
                    default="frame",
                    tooltip="What the last layer sees: its own time step, earlier ones too, or all (not streamed).",
                ),
                io.Boolean.Input(
                    "cross_attention",
                    default=False,
                    tooltip="Second path from the encoder into every block of the model; it starts at zero.",
                ),
                seed_input("Seed of the initial weights."),
                io.Combo.Input(
                    "padding",
                    options=["ceil", "floor"],
                    default="ceil",
                    optional=True,
                    tooltip="Sizes that do not divide: ceil keeps the whole picture, floor crops right and bottom.",
                ),
                io.Combo.Input(
                    "memory_attention",
                    options=["joint", "cached"],
                    default="joint",
                    optional=True,
                    tooltip="How the model shall be trained to read it. cached is faster to sample and a little worse.",
                ),
                io.Int.Input(
                    "max_pictures",
                    default=8,
                    min=1,
                    max=MOST_PICTURES,
                    optional=True,
                    tooltip="Only keyframes: most pictures that a section sees. "
                    "Each takes one latent of the section's.",
                ),
                io.Int.Input(
                    "repeated_frames",
                    default=1,
                    min=0,
                    max=5,
                    optional=True,
                    tooltip="Only keyframes: last frames that a shot which goes on is given: 1 (StoryMem's MI2V), "
                    "5 (its MM2V) or 0.",
                ),
                io.Int.Input(
                    "picture_step",
                    default=0,
                    min=0,
                    max=100,
                    optional=True,
                    tooltip="Only keyframes: distance of the pictures in time before the section, as the model sees "
                    "it: 0 for StoryMem. Memento's converted file has the times of the film instead.",
                ),
                lr_vae_input(),
            ],
            outputs=[MemoryEncoderSocket.Output(display_name="memory_encoder", tooltip="Untrained encoder.")],
        )
        return with_advanced(
            schema, "variant", "attention", "cross_attention", "padding", "memory_attention", "max_pictures",
            "repeated_frames", "picture_step",
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model,
        rate: str,
        variant: str,
        attention: str,
        cross_attention: bool,
        seed: int,
        padding: str = "ceil",
        memory_attention: str = "joint",
        max_pictures: int = 8,
        repeated_frames: int = 1,
        picture_step: int = 0,
        lr_vae: Any = None,
    ) -> io.NodeOutput:
        host = host_of(model)
        if variant == "keyframes":
            made = keyframes_for(host, max_pictures, repeated_frames, picture_step)
            return io.NodeOutput(made.decoding_by(lr_vae))
        config = EncoderConfig.from_dict(
            {
                "host": host.name,
                "width": host.width,
                "latent_channels": host.latent_channels,
                "rate": rate.strip(),
                "variant": variant,
                "attention": attention,
                "padding": padding,
                "patch": host.patch,
                "memory_attention": memory_attention,
                **cross_settings(host, cross_attention),
            }
        )
        return io.NodeOutput(manage(new_encoder(config, host, seed)).decoding_by(lr_vae))


def keyframes_for(host: Host, max_pictures: int, repeated_frames: int, picture_step: int) -> ManagedEncoder:
    """A memory encoder of variant keyframes, which has no weights."""
    config = EncoderConfig(
        host.name,
        host.width,
        host.latent_channels,
        variant="keyframes",
        patch=host.patch,
        clips="section",
        repeated_frames=repeated_frames,
        max_pictures=max_pictures,
        first_kept=min(EncoderConfig.first_kept, max_pictures),
        picture_step=picture_step,
    )
    check_encoder(config, host)
    check_opencv()
    return ManagedEncoder(config, {}, torch.float32)


class VideoMemoryEncoderCombine(io.ComfyNode):
    """Two encoders that compress the same history at different rates."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryEncoderCombine",
            display_name="Combine Memory Encoders",
            category=CATEGORY,
            description="Both encoders compress the film; the model sees the tokens of both. "
            "For example 4x4x2 and 2x2x8. Use more of these nodes for more encoders.",
            inputs=[
                encoder_input(),
                MemoryEncoderSocket.Input("second_encoder", tooltip="Another memory encoder for the same model."),
            ],
            outputs=[MemoryEncoderSocket.Output(display_name="memory_encoder", tooltip="Both encoders in one.")],
        )

    @classmethod
    def execute(cls, memory_encoder: ManagedEncoder, second_encoder: ManagedEncoder) -> io.NodeOutput:
        return io.NodeOutput(memory_encoder.beside(second_encoder))


class VideoMemoryBudget(io.ComfyNode):
    """Tokens and VRAM of a plan, before it runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryBudget",
            display_name="Memory Budget",
            category=CATEGORY,
            description="Counts memory tokens, estimates VRAM for a film and says what to change when it is too much.",
            inputs=[
                encoder_input(),
                *size_inputs(),
                fps_input("Frames per second."),
                io.Float.Input(
                    "history_seconds", default=20.0, min=0.0, max=86400.0, tooltip="Length of the film so far."
                ),
                io.Float.Input("section_seconds", default=5.0, min=0.25, max=600.0, tooltip="Length of one section."),
                io.Float.Input(
                    "card_gib", default=12.0, min=1.0, max=1024.0, optional=True, tooltip="VRAM of the card."
                ),
                io.Float.Input(
                    "bytes_per_weight",
                    default=1.0,
                    min=0.1,
                    max=4.0,
                    step=0.05,
                    optional=True,
                    tooltip="1 for fp8, 2 for bf16 or fp16, about 0.6 for GGUF Q4.",
                ),
                horizon_input(),
                window_input(optional=True),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The budget as text."),
                io.Int.Output(display_name="tokens", tooltip="Memory tokens of the history."),
            ],
            is_output_node=True,
        )
        return with_advanced(schema, "bytes_per_weight", "horizon", "sliding_window")

    @classmethod
    def execute(
        cls,
        memory_encoder: ManagedEncoder,
        width: int,
        height: int,
        fps: float,
        history_seconds: float,
        section_seconds: float,
        card_gib: float = 12.0,
        bytes_per_weight: float = 1.0,
        horizon: int = 0,
        sliding_window: int = DEFAULT_WINDOW,
    ) -> io.NodeOutput:
        configs = [part.config for part in memory_encoder.parts]
        host, name = host_of_encoder(configs[0])
        plan = Plan(
            host=host,
            width=width,
            height=height,
            fps=fps,
            history_seconds=history_seconds,
            section_seconds=section_seconds,
            card_gib=card_gib,
            bytes_per_weight=bytes_per_weight,
            horizon=horizon,
            **memory_fields(configs, fps, section_seconds, sliding_window),
        )
        asked = Asked(history_seconds, section_seconds, fps)
        trained = [part.trained_on for part in memory_encoder.parts]
        says = [one.describe() for one in trained if one is not None]
        report = "\n".join([describe(plan, name), *says, *remarks(trained, asked)])
        return io.NodeOutput(report, estimate(plan).memory_tokens, ui={"text": [report]})


NODES = [VideoMemoryEncoderLoader, VideoMemoryEncoderNew, VideoMemoryEncoderCombine, VideoMemoryBudget]
