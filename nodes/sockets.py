"""The pack's own socket types and the inputs that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "video memory"

MemoryEncoderSocket = io.Custom("MEMORY_ENCODER")
VideoMemorySocket = io.Custom("VIDEO_MEMORY")
StoryboardSocket = io.Custom("STORYBOARD")


def model_input() -> io.Model.Input:
    return io.Model.Input("model", tooltip="Wan 2.1 or 2.2, or HunyuanVideo, from any of core's or GGUF loaders.")


def encoder_input() -> io.Input:
    return MemoryEncoderSocket.Input("memory_encoder", tooltip="Memory encoder made for this model.")


def vae_input() -> io.Vae.Input:
    return io.Vae.Input("vae", tooltip="The video VAE that belongs to the model.")


def memory_input(optional: bool = False, tooltip: str = "Compressed history of the film so far.") -> io.Input:
    return VideoMemorySocket.Input("memory", optional=optional, tooltip=tooltip)


def seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**63 - 1,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip="Same inputs and seed, same film.",
    )


def guidance_input() -> io.Float.Input:
    return io.Float.Input(
        "history_guidance",
        default=0.0,
        min=0.0,
        max=10.0,
        step=0.05,
        optional=True,
        tooltip="Weight of the memory in the guidance, relative to the prompt's. 0: the memory stands beside both prompts; "
        "1: beside the positive one alone, at no cost; other values take one more pass a step.",
    )


def injection_inputs(optional: bool) -> list[io.Input]:
    """How a memory enters the model, in the order of Apply Video Memory."""
    return [
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=optional,
            tooltip="Share of the memory that is used. 0 leaves the model exactly as it is.",
        ),
        io.Combo.Input(
            "history_timestep",
            options=["zero", "same"],
            default="zero",
            optional=optional,
            tooltip="zero tells the model that the memory is clean, same treats it like the section being made.",
        ),
        io.Int.Input(
            "sliding_window",
            default=0,
            min=0,
            max=8,
            optional=optional,
            tooltip="Last latent frames shown uncompressed, for one shot over several sections; try 3.",
        ),
        io.Combo.Input(
            "attention_mode",
            options=["joint"],
            default="joint",
            optional=optional,
            tooltip="joint: memory and video attend to each other.",
        ),
    ]
