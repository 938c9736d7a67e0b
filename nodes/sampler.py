"""The Autoregressive Sampler node."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from comfy_api.latest import io

from ..memory_encoder.files import FolderNameError, named_folder
from ..memory_encoder.film.identity import conditioning as hashable
from ..memory_encoder.film.loop import Film, render_film
from ..memory_encoder.film.opening import Opening
from ..memory_encoder.film.sections import SectionStore
from ..memory_encoder.film.takes import parse_locks, parse_takes
from ..memory_encoder.frames import frames_in
from ..memory_encoder.injection.hosts.comfy_models import sampling_shift
from ..memory_encoder.injection.selection import as_trained
from ..memory_encoder.memory.branching import section_numbers
from ..memory_encoder.memory.memory_file import Memory
from ..memory_encoder.phi.trained_on import Asked, remarks
from ..memory_encoder.storyboard import Lattice, Section
from .film_beginning import BeginningRequest, append_opening, beginning_of, opening_report
from .film_events import FilmEvents
from .film_inputs import FilesOfFilms, describe_sampler, latent_size, models_of
from .film_pictures import check_marks, check_unused, choice_of, seen_pictures, unread_pictures, with_references
from .film_states import KEPT_STATES, MemoryMaker, state_store
from .keyframe_lead import lead_of
from .runtime import folders
from .runtime.compress import codec_for, memory_codec
from .runtime.managed import ManagedEncoder
from .runtime.progress import FilmProgress
from .runtime.sampling import host_of
from .saving import film_latent, film_stamp
from .section_renderer import SectionRenderer, own_memory, split_experts
from .shot_pictures import ShotPictures
from .sockets import (
    CATEGORY,
    StoryboardSocket,
    VideoMemorySocket,
    branch_inputs,
    encoder_input,
    guidance_input,
    horizon_input,
    image_inputs,
    injection_inputs,
    memory_input,
    model_input,
    picture_inputs,
    sampling_inputs,
    seed_input,
    settings_from,
    size_inputs,
    take_inputs,
    vae_input,
    with_advanced,
)
from .storyboard_node import EncodedStoryboard
from .trained_start import opened_memory, reading_report, with_guidance, with_picture

log = logging.getLogger("video_memory")
FILES = FilesOfFilms()
UNKNOWN = "no section is reused: ComfyUI does not say what feeds this node, so that other models would go unnoticed"


class VideoMemorySampler(io.ComfyNode):
    """Generates a film section by section, each seeing everything before it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
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
                *sampling_inputs(),
                io.Float.Input(
                    "cfg", default=5.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance; 1 with distilled models."
                ),
                seed_input(),
                *size_inputs(),
                io.String.Input("film", default="film", tooltip="Name of the film's folder in output/video_memory."),
                io.Latent.Input(
                    "history",
                    optional=True,
                    tooltip="A clip that the film continues; it opens the film. It must have the film's fps: "
                    "Clip for History sees to that.",
                ),
                memory_input(
                    optional=True,
                    tooltip="A saved memory that the film continues. Its last latents go before the film's own, for "
                    "the VAE to see; Save Film does not show them.",
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
                *picture_inputs(),
                io.Float.Input(
                    "kept_states",
                    default=KEPT_STATES,
                    min=0.0,
                    max=100000.0,
                    step=1.0,
                    optional=True,
                    tooltip="GB of disk for the memory after each section, so that a later run decodes and encodes "
                    "none of the finished ones. 20 GB hold more than an hour of 832x480; above that, what other runs "
                    "left goes first. 0: keep none.",
                ),
                horizon_input(),
            ],
            outputs=[
                io.Latent.Output(tooltip="The whole film; decode it once."),
                VideoMemorySocket.Output(display_name="memory", tooltip="Memory of the whole film."),
                io.String.Output(display_name="report", tooltip="What was made, reused and remembered."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.dynprompt],
        )
        return with_advanced(
            schema,
            "strength",
            "history_timestep",
            "sliding_window",
            "attention_mode",
            "boundary",
            "low_noise_memory",
            "history_guidance",
            "branch_film",
            "branch_section",
            "pictures",
            "kept_states",
            "horizon",
        )

    @classmethod
    def fingerprint_inputs(cls, film: Any = "", branch_film: Any = "", **_: Any) -> str:
        """Changes when the film that this one branches off does, and when files of the film itself were deleted."""
        try:  # a name that comes through a link is not known here
            folder = named_folder(folders.film_root(), film, "film") if isinstance(film, str) else None
        except FolderNameError:
            return film_stamp(branch_film)  # the run itself will say what is wrong
        return f"{film_stamp(branch_film)} {FILES.losses(folder)}"

    @classmethod
    def execute(
        cls, model, memory_encoder: ManagedEncoder, vae, storyboard: EncodedStoryboard, negative, sampler, sigmas,
        cfg: float, seed: int, width: int, height: int, film: str, history: dict | None = None,
        memory: Memory | None = None, model_low_noise=None, strength: float = 1.0, history_timestep: str = "zero",
        sliding_window: int = 3, attention_mode: str = "auto", boundary: float = 0.875, low_noise_memory: bool = True,
        history_guidance: float = 0.0, redo: str = "", locks: str = "", branch_film: str = "", branch_section: int = 1,
        start_image: torch.Tensor | None = None, clip_vision=None, references: torch.Tensor | None = None,
        pictures: str = "", kept_states: float = KEPT_STATES, horizon: int = 0,
    ) -> io.NodeOutput:  # fmt: skip
        settings = settings_from(strength, history_timestep, sliding_window, attention_mode, history_guidance)
        settings = replace(settings, horizon=horizon)
        settings = as_trained([part.config for part in memory_encoder.parts], settings)
        host = host_of(model)
        memory_encoder.check_host(host)
        if model_low_noise is not None:
            memory_encoder.check_host(host_of(model_low_noise))
        codec = codec_for(model, vae)
        lattice = Lattice.of([part.config for part in memory_encoder.parts], codec.temporal)
        size = latent_size(host, codec, width, height)
        low_noise = None if model_low_noise is None else memory_encoder.attach(model_low_noise)
        start = memory_encoder.empty_memory(1) if memory is None else memory
        memory_encoder.check_memory(start)
        check_unused(start, model, model_low_noise, settings, low_noise_memory)
        seen = memory_codec(codec, model, memory_encoder)
        own = own_memory(seen, model, low_noise, start)
        experts = split_experts(memory_encoder.attach(model), low_noise, sigmas, boundary, low_noise_memory, own)
        store = SectionStore(folders.film_root(), film)
        negative = with_guidance(storyboard.negative or negative, memory_encoder.config)
        positive = {
            prompt: with_guidance(cond, memory_encoder.config) for prompt, cond in storyboard.conditioning.items()
        }
        models = models_of(cls.hidden, [positive, negative])
        if models is None:
            log.warning("film %s: %s", film, UNKNOWN)
        maker = MemoryMaker(models, memory_encoder, state_store(store, models, kept_states, branch_film))
        opened = history is not None or memory is not None or bool(branch_film.strip())
        shown = ShotPictures.of(storyboard.storyboard, storyboard.pictures, start_image, (width, height), opened)
        request = BeginningRequest(history, memory, shown.start, film, branch_film, branch_section, references)
        made_before = maker.of_vae()
        beginning = beginning_of(request, model, vae, size, (width, height), storyboard.fps, lattice, made_before)
        beginning = with_picture(beginning, memory_encoder.config)
        opening = beginning.opening
        start = with_references(start, references, width, height, size[1:])
        given = start.contents() if memory is not None or references is not None else None
        start, shown = shown.with_cast(start, size[1:])
        choice = choice_of(start, pictures, opening, clip_vision)

        # Films of 0.1.0, whose second expert read the film through the first one's projection, are made anew there.
        read_own = ["own projection"] if own is not None and low_noise_memory else []
        ingredients = {
            "models": uuid4().hex if models is None else models,
            "encoder": [part.identity for part in memory_encoder.parts],
            "settings": settings.facts(),
            "sigmas": sigmas,
            "cfg": cfg,
            "sampler": describe_sampler(sampler),
            "size": [width, height],
            "negative": hashable(negative),
            "history": beginning.clip,
            "memory": given,
            "experts": [boundary, low_noise_memory, *read_own] if model_low_noise is not None else None,
            "branch": beginning.branch,
            "picture": beginning.picture,
        }
        states = maker.of_memory(start, opening)
        if own is not None:
            own.states = maker.of_memory(own.memory, opening, "model_low_noise")
            own.memory = append_opening(memory_encoder, own.codec, own.memory, model, opening, states=own.states)
        start = opened_memory(memory_encoder, seen, start, model, opening, size, clip_vision, choice, states)
        plan, steps = storyboard.plan(lattice, start.latents, **beginning.history(lattice)), len(sigmas) - 1
        shown, choice = shown.planned(plan), shown.chosen(choice, plan, start)
        lead = lead_of(choice, host, codec, vae, beginning.picture, clip_vision, shown.begins)
        shown.check_taken(plan, lead is not None)
        check_marks(choice, start, plan)
        asked = asked_of(plan, storyboard.fps, codec.temporal, sliding_window, sampling_shift(model))
        beyond = remarks([part.trained_on for part in memory_encoder.parts], asked)
        unread = unread_pictures(start, {"model": model, "model_low_noise": model_low_noise})
        for remark in (*beyond, *unread):
            log.warning("film %s: %s", film, remark)
        takes, locked = parse_takes(redo, len(plan)), parse_locks(locks, len(plan))
        progress = FilmProgress(model, len(plan), steps)
        before = max(section_numbers(start.sections), default=0)
        shots = storyboard.storyboard.shots
        events = FilmEvents(store, plan, model, steps, shots, locked, progress.previewer, before)
        renderer = SectionRenderer(
            experts, memory_encoder, seen, settings, positive, negative, cfg, sampler, size, progress, events, lead,
            choice, states,
        )  # fmt: skip

        def of_section(section: Section) -> dict[str, Any]:
            return {"positive": hashable(positive[section.prompt])} | shown.facts(section)

        with store.making(), events.going_on():
            facts = beginning.write_opening(store)
            result = render_film(
                plan, store, start, ingredients, seed, renderer, of_section, events.locked, takes, facts, size,
                events.started, partial(seen_pictures, choice),
            )  # fmt: skip
        kept = [] if maker.store is None else maker.store.files
        FILES.record(store.folder, [*files_of(result, store, opening), *kept])
        reading = [*unread, reading_report(memory_encoder.config, settings)]
        notes = [*beyond, *([UNKNOWN] if models is None else [])]
        report = "\n".join([film_report(result, storyboard.fps, opening, reading), *notes])
        latent = film_latent(result, storyboard.fps, opening)
        return io.NodeOutput(latent, result.memory, report, ui={"text": [report]})


def asked_of(plan: Sequence[Section], fps: float, temporal: int, window: int, shift: float) -> Asked:
    """What a film asks of its memory; the latent of a single frame at its very beginning counts for no time."""
    return Asked(
        history_seconds=max(section.start_latent for section in plan) * temporal / fps,
        section_seconds=max(section.latents - (section.start_latent == 0) for section in plan) * temporal / fps,
        fps=fps,
        window=window if any(section.transition == "continue" for section in plan) else 0,
        shift=shift,
    )


def files_of(film: Film, store: SectionStore, opening: Opening | None) -> list[Path]:
    """The files that hold a film's latents."""
    sections = [store.path(entry.key, entry.section.index) for entry in film.sections]
    return sections if opening is None else [*sections, opening.path(store)]


def film_report(film: Film, fps: float, opening: Opening | None, reading: Sequence[str] = ()) -> str:
    """One line per section in seconds, what comes before them, then the whole as Save Film writes it.

    reading: how the models read the memory, where that is to be said.
    """
    lines = [
        f"{entry.section.index + 1:3d}  {entry.section.start_seconds:7.2f} s  {entry.section.seconds:5.2f} s  "
        f"{'made' if entry.status == 'stored' else entry.status}  memory {entry.memory_tokens} tokens  "
        f"{entry.section.prompt}"
        for entry in film.sections
    ]
    reused = sum(entry.reused for entry in film.sections)
    frames = sum(entry.section.frames for entry in film.sections)
    earlier = max(section_numbers(film.memory.sections), default=0) - len(film.sections)
    if earlier > 0:
        lines.append(
            f"the memory holds {earlier} sections from before this film: Cut Memory and Retrieve Frames count them "
            f"first, so that section 1 is {earlier + 1} there"
        )
    if opening is not None:
        lines += opening_report(opening, fps, film.sections[0].section.transition == "continue")
        frames += opening.frames
    lines += [*clips_report(film, opening), *filter(None, reading)]
    lines.append(
        f"{len(film.sections)} sections, {reused} reused, {frames} frames ({frames / fps:.2f} s) at {fps:g} fps"
    )
    return "\n".join(lines)


def clips_report(film: Film, opening: Opening | None) -> list[str]:
    """What a film whose sections are clips of their own is for nodes that take its LATENT for one clip."""
    sections = [entry.section for entry in film.sections]
    clips = len(sections) + sum(1 for _ in opening.parts()) if opening is not None else len(sections)
    if sections[0].repeated is None or clips + sections[0].repeated == 1:
        return []
    repeated = sum(section.repeated or 0 for section in sections)
    latents = sum(section.latents for section in sections) + (0 if opening is None else opening.latents.shape[2])
    left_out = f" and leaves out {repeated} frames that were made once more" if repeated else ""
    return [
        f"each section is a clip of its own: Save Film joins {clips} clips{left_out}; VAE Decode takes the LATENT for "
        f"one clip of {frames_in(latents)} frames, which flashes at every join"
    ]


NODES = [VideoMemorySampler]
