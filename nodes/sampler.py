"""The Autoregressive Sampler node."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..memory_encoder.film import Film, render_film
from ..memory_encoder.identity import conditioning as hashable
from ..memory_encoder.memory import VideoMemory
from ..memory_encoder.sections import SectionStore
from ..memory_encoder.takes import parse_locks, parse_takes
from . import runtime
from .film import SectionRenderer, split_experts
from .film_events import FilmEvents
from .film_inputs import describe_sampler, latent_size, models_of
from .history import settings_from
from .lead import image_inputs, lead_picture
from .managed import ManagedEncoder
from .opening import Asked, beginning_of, branch_inputs, remembered
from .saving import film_latent, film_stamp
from .sockets import (
    CATEGORY,
    StoryboardSocket,
    VideoMemorySocket,
    encoder_input,
    guidance_input,
    injection_inputs,
    memory_input,
    model_input,
    seed_input,
    take_inputs,
    vae_input,
)
from .storyboard import EncodedStoryboard


class VideoMemorySampler(io.ComfyNode):
    """Generates a film section by section, each seeing everything before it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemorySampler",
            display_name="Autoregressive Sampler",
            category=CATEGORY,
            description="Makes a storyboard section by section; each sees the whole film so far through the memory. "
            "Finished sections lie in output/video_memory/<film> and are reused by the next run.",
            inputs=[
                model_input(),
                encoder_input(),
                vae_input(),
                StoryboardSocket.Input("storyboard", tooltip="Shots from the Storyboard node."),
                io.Conditioning.Input("negative", tooltip="Negative prompt; a storyboard's own comes first."),
                io.Sampler.Input("sampler", tooltip="For example KSamplerSelect."),
                io.Sigmas.Input("sigmas", tooltip="For example BasicScheduler."),
                io.Float.Input(
                    "cfg", default=5.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance; 1 with distilled models."
                ),
                seed_input(),
                io.Int.Input("width", default=832, min=16, max=16384, step=16, tooltip="Width in pixels."),
                io.Int.Input("height", default=480, min=16, max=16384, step=16, tooltip="Height in pixels."),
                io.String.Input("film", default="film", tooltip="Name of the film's folder in output/video_memory."),
                io.Latent.Input("history", optional=True, tooltip="A clip that the film continues; it opens the film."),
                memory_input(
                    optional=True,
                    tooltip="A saved memory that the film continues. The film opens with its last picture, from which "
                    "the VAE decodes all new frames.",
                ),
                io.Model.Input("model_low_noise", optional=True, tooltip="Second expert of Wan 2.2 14B (low noise)."),
                *injection_inputs(optional=True),
                io.Float.Input(
                    "boundary",
                    default=0.875,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="Sigma below which the low-noise expert runs: 0.875 for Wan 2.2 T2V, 0.9 for I2V.",
                ),
                io.Boolean.Input(
                    "low_noise_memory",
                    default=True,
                    optional=True,
                    tooltip="Whether the low-noise expert sees the memory.",
                ),
                guidance_input(),
                *take_inputs(),
                *branch_inputs(),
                *image_inputs(),
            ],
            outputs=[
                io.Latent.Output(tooltip="The whole film; decode it once."),
                VideoMemorySocket.Output(display_name="memory", tooltip="Memory of the whole film."),
                io.String.Output(display_name="report", tooltip="What was made, reused and remembered."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, branch_film: Any = "", **_: Any) -> str:
        """Changes when the film that this one branches off does."""
        return film_stamp(branch_film)

    @classmethod
    def execute(
        cls,
        model,
        memory_encoder: ManagedEncoder,
        vae,
        storyboard: EncodedStoryboard,
        negative,
        sampler,
        sigmas,
        cfg: float,
        seed: int,
        width: int,
        height: int,
        film: str,
        history: dict | None = None,
        memory: VideoMemory | None = None,
        model_low_noise=None,
        strength: float = 1.0,
        history_timestep: str = "zero",
        sliding_window: int = 3,
        attention_mode: str = "auto",
        boundary: float = 0.875,
        low_noise_memory: bool = True,
        history_guidance: float = 0.0,
        redo: str = "",
        locks: str = "",
        branch_film: str = "",
        branch_section: int = 1,
        start_image: torch.Tensor | None = None,
        clip_vision=None,
    ) -> io.NodeOutput:
        settings = settings_from(strength, history_timestep, sliding_window, attention_mode, history_guidance)
        host = runtime.host_of(model)
        memory_encoder.check_host(host)
        if model_low_noise is not None:
            memory_encoder.check_host(runtime.host_of(model_low_noise))
        codec = runtime.codec_for(model, vae)
        size = latent_size(host, codec, width, height)
        low_noise = None if model_low_noise is None else memory_encoder.attach(model_low_noise)
        experts = split_experts(memory_encoder.attach(model), low_noise, sigmas, boundary, low_noise_memory)
        asked = Asked(history, memory, start_image, film, branch_film, branch_section)
        begun = beginning_of(asked, model, vae, size, (width, height), storyboard.fps)
        store = SectionStore(runtime.film_root(), film)

        start = memory or memory_encoder.empty_memory(1)
        made_of = {
            "models": models_of(cls.hidden),
            "encoder": [part.identity for part in memory_encoder.parts],
            "settings": vars(settings),
            "sigmas": sigmas,
            "cfg": cfg,
            "sampler": describe_sampler(sampler),
            "size": [width, height],
            "negative": hashable(storyboard.negative or negative),
            "history": begun.clip,
            "memory": start.all_tokens() if memory else None,
            "experts": [boundary, low_noise_memory] if model_low_noise is not None else None,
            "branch": begun.branch,
            "picture": begun.picture,
        }
        if begun.opening is not None:
            start = remembered(memory_encoder, codec, start, model, begun.opening)
        plan = storyboard.plan(codec.temporal, start.latents)
        takes, kept = parse_takes(redo, len(plan)), parse_locks(locks, len(plan))
        events = FilmEvents(store, plan, model, len(sigmas) - 1, storyboard.storyboard.shots, kept)
        events.started()
        renderer = SectionRenderer(
            experts,
            memory_encoder,
            codec,
            settings,
            storyboard.conditioning,
            storyboard.negative or negative,
            cfg,
            sampler,
            size,
            runtime.FilmProgress(model, len(plan), len(sigmas) - 1),
            events,
            lead_picture(host, codec, vae, begun.picture, clip_vision),
        )
        result = render_film(
            plan,
            store,
            start,
            made_of,
            seed,
            renderer,
            lambda section: {"positive": hashable(storyboard.conditioning[section.prompt])},
            events.locked,
            takes,
            begun.about(store),
        )
        parts = [*([] if begun.opening is None else [begun.opening.latents]), *result.latents]
        report = film_report(result, storyboard.fps)
        return io.NodeOutput(film_latent(parts, storyboard.fps), result.memory, report, ui={"text": [report]})


def film_report(film: Film, fps: float) -> str:
    """One line per section in seconds, then the memory."""
    lines = [
        f"{entry.section.index + 1:3d}  {entry.section.start_seconds:7.2f} s  {entry.section.seconds:5.2f} s  "
        f"{'made' if entry.status == 'stored' else entry.status}  memory {entry.memory_tokens} tokens  "
        f"{entry.section.prompt}"
        for entry in film.sections
    ]
    reused = sum(entry.reused for entry in film.sections)
    frames = sum(entry.section.frames for entry in film.sections)
    lines.append(f"{len(lines)} sections, {reused} reused, {frames} frames ({frames / fps:.2f} s) at {fps:g} fps")
    return "\n".join(lines)


NODES = [VideoMemorySampler]
