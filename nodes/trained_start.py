"""How a film begins for a model that was trained to read its history in one way (FramePack-F1, Helios)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..memory_encoder.film.opening import Opening, OpeningSection
from ..memory_encoder.film.states import KeptStates
from ..memory_encoder.frames import frames_in
from ..memory_encoder.injection.selection import MemorySettings
from ..memory_encoder.memory.picture_choice import PictureChoice
from ..memory_encoder.memory.video_memory import VideoMemory
from ..memory_encoder.phi.config import EncoderConfig
from ..memory_encoder.phi.stream import StreamState, of_nothing
from ..memory_encoder.pictures.codec import Codec
from .film_beginning import HISTORY, Beginning, append_opening
from .runtime.compress import normalised_history
from .runtime.managed import ManagedEncoder

NO_PICTURE = (
    "the model of this memory encoder was trained to go on from a picture, and the film has none to begin with; "
    "connect start_image, or a clip as history"
)
NO_CLIP_VISION = (
    "the model of this memory encoder is shown the film's first picture by CLIP vision; connect clip_vision "
    "(Load CLIP Vision with SigLIP: sigclip_vision_patch14_384)"
)


def with_picture(beginning: Beginning, config: EncoderConfig) -> Beginning:
    """The beginning of a film, which keeps its start image where the model is shown that throughout the film.

    Raises ValueError when the model must have something to begin with and there is nothing.
    """
    if config.start == "picture" and beginning.opening is None and not beginning.facts.memory:
        raise ValueError(NO_PICTURE)
    if config.start == "nothing" or beginning.opening is None or beginning.picture is None:
        return beginning
    return replace(beginning, opening=replace(beginning.opening, picture=beginning.picture))


def opened_memory(
    encoder: ManagedEncoder,
    codec: Codec,
    memory: Any,
    model: Any,
    opening: Opening | None,
    size: Sequence[int],
    clip_vision: Any,
    choice: PictureChoice | None = None,
    states: KeptStates | None = None,
) -> Any:
    """The memory with the film's opening in it, as the model was trained to see a film begin; size as of the latents.

    states: those of the memory, which come along.

    Raises ValueError when CLIP vision is needed and absent, or another one.
    """
    config = encoder.config
    if config.start == "nothing":
        return append_opening(encoder, codec, memory, model, opening, choice, states=states)
    if not memory.latents:
        memory = _unbegun(encoder, memory, size) if opening is None else _anchored(config, memory, model, opening)
    memory = append_opening(
        encoder, codec, memory, model, opening, None, lambda seen, part: _given(config, codec, seen, part, opening),
        states,
    )  # fmt: skip
    if config.picture_width and memory.picture is None:
        tokens = (states or KeptStates()).tensor(
            {"of": "picture"}, lambda: _picture_tokens(encoder, codec, memory, opening, clip_vision)
        )
        memory = replace(memory, picture=tokens)
    return memory


def with_guidance(conditioning: Any, config: EncoderConfig) -> Any:
    """CONDITIONING with the guidance that the model was trained with, where it says none itself (FluxGuidance does)."""
    if not config.guidance:
        return conditioning
    return [[text, {"guidance": config.guidance, **extra}] for text, extra in conditioning]


def reading_report(config: EncoderConfig, settings: MemorySettings) -> str:
    """What a person cannot choose, in a line; empty where there is no such thing."""
    if not config.locked:
        return ""
    sections = f", sections of {config.section_latents} latents" if config.section_latents else ""
    sections += f", guidance {config.guidance:g}" if config.guidance else ""
    return (
        f"as the model was trained: history_timestep {settings.history_timestep}, sliding_window "
        f"{settings.sliding_window}, attention_mode {settings.attention_mode}{sections}; it sees the last "
        f"{sum(piece.latents for piece in config.schedule)} latents and the film's first"
    )


def _unbegun(encoder: ManagedEncoder, memory: VideoMemory, size: Sequence[int]) -> VideoMemory:
    """What the model sees of a film that has not begun."""
    encoder.load()
    recent = encoder.model.recent
    assert recent is not None, "only variant recent begins with zeros"
    nothing = torch.zeros(1, size[0], 0, *size[1:], device=encoder.device, dtype=encoder.dtype)
    with torch.no_grad():
        seen = of_nothing(recent, nothing).to(device=torch.device("cpu"))
    return replace(memory, tail=seen.tail, tail_coordinates=seen.tail_coordinates)


def _anchored(config: EncoderConfig, memory: VideoMemory, model: Any, opening: Opening) -> VideoMemory:
    """A memory of nothing whose anchor is the opening's first latent: one that was given as noisy as in training."""
    first = normalised_history(model, {"samples": opening.latents[:, :, :1]}, "history")
    given = bool(opening.sections) and _was_given(opening.sections[0])
    anchor = _noisy(first, config, seed=0) if given else first
    return replace(memory, state=StreamState(caches=(anchor[:, :, :0], anchor)))


def _given(config: EncoderConfig, codec: Codec, seen: Tensor, part: OpeningSection, opening: Opening | None) -> Tensor:
    """Latents of an opening as the model was trained to see what it did not make itself."""
    if not config.start_noise or not _was_given(part):
        return seen
    if opening is not None and opening.picture is not None:
        frames = frames_in(config.section_latents, codec.temporal)
        seen = codec.encode(opening.picture[None].repeat(1, frames, 1, 1, 1))[:, :, -1:]
    return _noisy(seen, config, seed=1)


def _was_given(part: OpeningSection) -> bool:
    """Whether a piece of an opening came from outside; what a sampler made has a seed, whatever its prompt is."""
    return part.prompt == HISTORY and part.seed is None


def _noisy(latents: Tensor, config: EncoderConfig, seed: int) -> Tensor:
    """Each latent with an amount of noise drawn for it; the same in every run, so that a film can branch."""
    if not config.start_noise:
        return latents
    g = torch.Generator().manual_seed(seed)
    least, most = config.start_noise
    amount = (least + (most - least) * torch.rand(latents.shape[2], 1, 1, generator=g)).to(latents)
    return amount * torch.randn(latents.shape, generator=g).to(latents) + (1 - amount) * latents


def _picture_tokens(
    encoder: ManagedEncoder, codec: Codec, memory: VideoMemory, opening: Opening | None, clip_vision: Any
) -> Tensor:
    """Tokens [1,N,D] of the film's first picture: the start image, else what the first latent shows."""
    if clip_vision is None:
        raise ValueError(NO_CLIP_VISION)
    kept = None if opening is None else opening.picture
    picture = codec.decode(memory.state.caches[1])[0, :1].float().cpu().clamp(0, 1) if kept is None else kept
    seen = clip_vision.encode_image(picture, crop=False)["last_hidden_state"]  # stretched, as in training
    if seen.shape[-1] != encoder.config.picture_width:
        raise ValueError(
            f"clip_vision makes tokens of width {seen.shape[-1]}, the model was trained with "
            f"{encoder.config.picture_width}; load sigclip_vision_patch14_384 for FramePack"
        )
    encoder.load()
    tokens = encoder.model.picture
    assert tokens is not None, "an encoder with picture_width has this layer"
    with torch.no_grad():
        return tokens(seen.to(device=encoder.device, dtype=encoder.dtype)).cpu()
