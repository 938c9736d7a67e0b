"""The pack's own socket types and the inputs that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

from ..memory_encoder.injection.selection import MemorySettings
from ..memory_encoder.phi.config import DEFAULT_WINDOW, RECENT_LATENTS

CATEGORY = "video memory"

MemoryEncoderSocket = io.Custom("MEMORY_ENCODER")
VideoMemorySocket = io.Custom("VIDEO_MEMORY")
StoryboardSocket = io.Custom("STORYBOARD")
MemoryDatasetSocket = io.Custom("MEMORY_DATASET")


def with_lasting_view(schema: io.Schema) -> io.Schema:
    """A node whose view is filled again when ComfyUI reuses its result, as after a reload of the page.

    Set afterwards, since a ComfyUI that does not know the flag refuses it as an argument.
    """
    schema.has_intermediate_output = True
    return schema


def with_advanced(schema: io.Schema, *names: str) -> io.Schema:
    """A node that shows these widgets only when it is asked to: most films do without them.

    Set afterwards, for the same reason.
    """
    known = {entry.id: entry for entry in schema.inputs}
    for name in names:
        known[name].advanced = True
    return schema


def model_input() -> io.Model.Input:
    return io.Model.Input("model", tooltip="Wan 2.1 or 2.2, or HunyuanVideo, from any of core's or GGUF loaders.")


def encoder_input(optional: bool = False, tooltip: str = "Memory encoder made for this model.") -> io.Input:
    return MemoryEncoderSocket.Input("memory_encoder", optional=optional, tooltip=tooltip)


def vae_input() -> io.Vae.Input:
    return io.Vae.Input("vae", tooltip="The video VAE that belongs to the model.")


def lr_vae_input() -> io.Vae.Input:
    tooltip = (
        "A small VAE for the same latents, such as lighttaew2_1 or lighttaew2_2: it makes the pictures that the memory "
        "encoder's low-resolution branch sees, and those of the preview. Much faster; the film itself is decoded by "
        "vae."
    )
    return io.Vae.Input("lr_vae", optional=True, tooltip=tooltip)


def memory_input(optional: bool = False, tooltip: str = "Compressed history of the film so far.") -> io.Input:
    return VideoMemorySocket.Input("memory", optional=optional, tooltip=tooltip)


def seed_input(tooltip: str = "Same inputs and seed, same film.") -> io.Int.Input:
    fixed = io.ControlAfterGenerate.fixed  # another seed makes a film, or an encoder and its films, anew
    return io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=fixed, tooltip=tooltip)


def sampling_inputs() -> list[io.Input]:
    return [
        io.Sampler.Input("sampler", tooltip="For example KSamplerSelect."),
        io.Sigmas.Input("sigmas", tooltip="For example BasicScheduler."),
    ]


def size_inputs(note: str = "") -> list[io.Input]:
    return [
        io.Int.Input("width", default=832, min=16, max=16384, step=16, tooltip=f"Width in pixels{note}."),
        io.Int.Input("height", default=480, min=16, max=16384, step=16, tooltip="Height in pixels."),
    ]


def fps_input(tooltip: str = "16 for Wan 14B, 24 for 5B and Hunyuan.") -> io.Float.Input:
    return io.Float.Input("fps", default=16.0, min=1.0, max=240.0, step=0.01, tooltip=tooltip)


def strength_input(optional: bool, tooltip: str) -> io.Float.Input:
    return io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01, optional=optional, tooltip=tooltip)


def guidance_input(
    tooltip: str = "Weight of the memory in the guidance, relative to the prompt's. 0: it stands beside both prompts; "
    "1: beside the positive one alone, at no cost; other values take one more pass a step.",
) -> io.Float.Input:
    return io.Float.Input("history_guidance", default=0.0, min=0.0, max=10.0, step=0.05, optional=True, tooltip=tooltip)


def horizon_input() -> io.Int.Input:
    return io.Int.Input(
        "horizon",
        default=0,
        min=0,
        max=10_000_000,
        step=100,
        optional=True,
        tooltip="Most memory tokens that a section sees; 0: all. Above it the near past comes from the finest memory "
        "encoder, what is before it from coarser ones (Combine Memory Encoders), and the rest thinned.",
    )


def window_input(optional: bool) -> io.Int.Input:
    return io.Int.Input(
        "sliding_window",
        default=DEFAULT_WINDOW,
        min=0,
        max=RECENT_LATENTS,
        optional=optional,
        tooltip="Last latent frames shown uncompressed where a shot goes on; left out after a cut.",
    )


def injection_inputs(optional: bool) -> list[io.Input]:
    """How a memory enters the model, in the order of Apply Video Memory."""
    return [
        strength_input(optional, "Share of the memory that is used. 0 leaves the model exactly as it is."),
        io.Combo.Input(
            "history_timestep",
            options=["zero", "same"],
            default="zero",
            optional=optional,
            tooltip="zero tells the model that the memory is clean, same treats it like the section being made.",
        ),
        window_input(optional),
        io.Combo.Input(
            "attention_mode",
            options=["joint", "cached", "auto"],
            default="auto",
            optional=optional,
            tooltip="joint: memory and video attend to each other. cached: what the memory gives is computed once per "
            "section, which is faster, for encoders trained so. auto: as the encoder was trained.",
        ),
    ]


def settings_from(
    strength: float, history_timestep: str, sliding_window: int, attention_mode: str, history_guidance: float
) -> MemorySettings:
    """Widget values -> settings."""
    return MemorySettings(strength, history_timestep, sliding_window, history_guidance, attention_mode)  # type: ignore[arg-type]


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


def branch_inputs() -> list[io.Input]:
    """Where a film branches off another one."""
    return [
        io.String.Input(
            "branch_film",
            default="",
            optional=True,
            tooltip="Name of an earlier film whose first sections open this one, as they are. Empty: none.",
        ),
        io.Int.Input(
            "branch_section",
            default=1,
            min=0,
            max=99999,
            optional=True,
            tooltip="How many sections of branch_film are kept; this film goes on after them.",
        ),
    ]


def image_inputs() -> list[io.Input]:
    """What a film can begin with as a picture."""
    return [
        io.Image.Input(
            "start_image",
            optional=True,
            tooltip="The film's first frame. Image-to-video models begin with it, others see it in their memory.",
        ),
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="For Wan 2.1 and HunyuanVideo 1.5 image-to-video, and FramePack-F1. "
            "HunyuanVideo 1.5 is taken for text-to-video without it.",
        ),
    ]


def picture_inputs() -> list[io.Input]:
    """What a memory of pictures is given by hand; the render view writes the text."""
    return [
        io.Image.Input(
            "references",
            optional=True,
            tooltip="Faces, places and costumes that the film knows from its first shot on; for encoders of variant "
            "keyframes.",
        ),
        io.String.Input(
            "pictures",
            default="",
            optional=True,
            tooltip="Pictures that a memory of keyframes always keeps or never does, as SECTION:FRAME: 2:40, -3:16. "
            "0:1 is the first before the film. Empty: none.",
        ),
    ]
