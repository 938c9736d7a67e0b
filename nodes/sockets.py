"""The pack's own socket types and the inputs that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "video memory"

MemoryEncoderSocket = io.Custom("MEMORY_ENCODER")
VideoMemorySocket = io.Custom("VIDEO_MEMORY")
StoryboardSocket = io.Custom("STORYBOARD")


def shown_when_reused(schema: io.Schema) -> io.Schema:
    """A node whose view is filled again when ComfyUI reuses its result, as after a reload of the page.

    Set afterwards, since a ComfyUI that does not know the flag refuses it as an argument.
    """
    schema.has_intermediate_output = True
    return schema


def model_input() -> io.Model.Input:
    return io.Model.Input("model", tooltip="Wan 2.1 or 2.2, or HunyuanVideo, from any of core's or GGUF loaders.")


def encoder_input(optional: bool = False, tooltip: str = "Memory encoder made for this model.") -> io.Input:
    return MemoryEncoderSocket.Input("memory_encoder", optional=optional, tooltip=tooltip)


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
        tooltip="Weight of the memory in the guidance, relative to the prompt's. 0: it stands beside both prompts; "
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
            default=3,
            min=0,
            max=8,
            optional=optional,
            tooltip="Last latent frames shown uncompressed where a shot goes on; left out after a cut.",
        ),
        io.Combo.Input(
            "attention_mode",
            options=["joint", "cached", "auto"],
            default="auto",
            optional=optional,
            tooltip="joint: memory and video attend to each other. cached: what the memory gives is computed once per "
            "section, which is faster, for encoders trained so. auto: as the encoder was trained.",
        ),
    ]


def take_inputs() -> list[io.Input]:
    """Which take of each section a film uses, and which sections stay as they are; the render view writes them."""
    return [
        io.String.Input(
            "redo",
            default="",
            optional=True,
            tooltip='Takes of sections, counted from 1: {"2": 1} makes section 2 with another seed. Empty: none.',
        ),
        io.String.Input(
            "locks",
            default="",
            optional=True,
            tooltip="Sections that stay as they are, whatever changes: 2, 4-6. Counted from 1.",
        ),
    ]
