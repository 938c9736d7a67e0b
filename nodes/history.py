"""Nodes that compress a history, keep it and put it into a model."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..memory_encoder.memory.memory_file import Memory, load_memory
from ..memory_encoder.memory.video_memory import VideoMemory
from .runtime.compress import codec_for, compress, memory_codec, normalised_history
from .runtime.folders import memory_folder
from .runtime.managed import ManagedEncoder
from .runtime.sampling import host_of, with_memory
from .saving import prefix_fault
from .sockets import (
    CATEGORY,
    VideoMemorySocket,
    encoder_input,
    guidance_input,
    horizon_input,
    injection_inputs,
    memory_input,
    model_input,
    settings_from,
    vae_input,
    with_advanced,
)


class VideoMemoryCompress(io.ComfyNode):
    """Compresses a clip, or appends it to a memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryCompress",
            display_name="Compress History",
            category=CATEGORY,
            description="Compresses a video latent into a few thousand tokens, or appends it to a memory.",
            inputs=[
                encoder_input(),
                model_input(),
                vae_input(),
                io.Latent.Input("latent", tooltip="The clip, from VAE Encode or a sampler."),
                memory_input(optional=True, tooltip="Memory that the clip continues."),
            ],
            outputs=[
                VideoMemorySocket.Output(display_name="memory", tooltip="The history with this clip in it."),
                io.Int.Output(display_name="tokens", tooltip="Tokens of the whole memory."),
            ],
        )

    @classmethod
    def execute(
        cls, memory_encoder: ManagedEncoder, model, vae, latent: dict, memory: Memory | None = None
    ) -> io.NodeOutput:
        memory_encoder.check_host(host_of(model))
        latents = normalised_history(model, latent, "latent")
        codec = memory_codec(codec_for(model, vae), model, memory_encoder)
        start = memory_encoder.empty_memory(latents.shape[0]) if memory is None else memory
        made = compress(memory_encoder, codec, start, latents)
        return io.NodeOutput(made, made.token_count)


class VideoMemoryApply(io.ComfyNode):
    """Lets a model see a memory while it samples."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryApply",
            display_name="Apply Video Memory",
            category=CATEGORY,
            description="The model samples the continuation of the film: what it makes starts where the memory ends.",
            inputs=[
                model_input(),
                memory_input(),
                *injection_inputs(optional=False),
                guidance_input(),
                encoder_input(
                    optional=True, tooltip="Only for encoders with cross-attention that Load did not attach."
                ),
                horizon_input(),
            ],
            outputs=[io.Model.Output(tooltip="Model that sees the memory.")],
        )
        return with_advanced(schema, "history_timestep", "attention_mode", "history_guidance", "horizon")

    @classmethod
    def execute(
        cls,
        model,
        memory: VideoMemory,
        strength: float,
        history_timestep: str,
        sliding_window: int,
        attention_mode: str,
        history_guidance: float = 0.0,
        memory_encoder: ManagedEncoder | None = None,
        horizon: int = 0,
    ) -> io.NodeOutput:
        if memory_encoder is not None:
            model = memory_encoder.attach(model)
        settings = settings_from(strength, history_timestep, sliding_window, attention_mode, history_guidance)
        return io.NodeOutput(with_memory(model, memory, replace(settings, horizon=horizon)))


class VideoMemorySave(io.ComfyNode):
    """Writes a memory to the output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemorySave",
            display_name="Save Video Memory",
            category=CATEGORY,
            description="Saves a memory in output/video_memories, so that another workflow can go on from it.",
            inputs=[
                memory_input(),
                io.String.Input("filename_prefix", default="film", tooltip="Name; a number is added."),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: Any = "film") -> bool | str:
        """Before anything runs: the film whose memory it is takes hours."""
        return memory_name_fault(filename_prefix) or True

    @classmethod
    def execute(cls, memory: Memory, filename_prefix: str) -> io.NodeOutput:
        path = next_memory_path(memory_folder(), filename_prefix)
        memory.save(path)
        return io.NodeOutput(ui={"text": [f"{path.name}: {memory.latents} latents, {memory.token_count} tokens"]})


class VideoMemoryLoad(io.ComfyNode):
    """Reads a memory that was saved."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryLoad",
            display_name="Load Video Memory",
            category=CATEGORY,
            description="Loads a memory from output/video_memories.",
            inputs=[
                # A text and no list: a workflow names the memory that another one will leave behind.
                io.String.Input("memory_name", default="", tooltip="File made by Save Video Memory."),
            ],
            outputs=[VideoMemorySocket.Output(display_name="memory", tooltip="The saved history.")],
        )

    @classmethod
    def fingerprint_inputs(cls, memory_name: str) -> str:
        try:
            status = stored_memory(memory_name).stat()
        except FileNotFoundError:
            return ""  # the run itself will say what is wrong
        return f"{status.st_size}-{status.st_mtime_ns}"

    @classmethod
    def execute(cls, memory_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_memory(stored_memory(memory_name)))


def stored_memory(name: str) -> Path:
    """The file of that name in output/video_memories; raises FileNotFoundError that names what is there."""
    path = memory_folder() / Path(name.strip()).name
    if not name.strip() or not os.path.isfile(path):  # which minds no name, however long or odd
        found = sorted(path.name for path in memory_folder().glob("*.safetensors"))
        cure = f"choose one of {', '.join(found[-5:])}" if found else "make one with Save Video Memory first"
        raise FileNotFoundError(f"memory_name: {name[:100]!r} is not in output/video_memories; {cure}")
    return path


def memory_name_fault(prefix: Any) -> str:
    """Why a memory cannot be named so; empty when it can."""
    if not isinstance(prefix, str) or not re.fullmatch(r"[\w][\w .-]{0,79}", prefix):
        shown = str(prefix)[:80]
        return f"filename_prefix {shown!r} is not a plain name; use up to 80 letters, digits, spaces, dots, - and _"
    return prefix_fault(prefix)


def next_memory_path(folder: Path, prefix: str) -> Path:
    """folder/prefix_00001.safetensors with the next free number; raises ValueError for a name that is a path."""
    if fault := memory_name_fault(prefix):
        raise ValueError(fault)
    taken = [
        re.fullmatch(re.escape(prefix) + r"_(\d+)\.safetensors", path.name) for path in folder.glob("*.safetensors")
    ]
    number = 1 + max((int(match.group(1)) for match in taken if match), default=0)
    return folder / f"{prefix}_{number:05}.safetensors"


NODES = [VideoMemoryCompress, VideoMemoryApply, VideoMemorySave, VideoMemoryLoad]
