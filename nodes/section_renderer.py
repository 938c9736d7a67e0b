"""How the Autoregressive Sampler renders one section with core's samplers, one or two experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..memory_encoder.film.states import KeptStates, appended_section
from ..memory_encoder.injection.leading_pictures import with_leading_pictures
from ..memory_encoder.injection.selection import MemorySettings
from ..memory_encoder.memory.compressor import decode_again
from ..memory_encoder.memory.picture_choice import PictureChoice
from ..memory_encoder.memory.video_memory import VideoMemory
from ..memory_encoder.pictures.codec import Codec
from ..memory_encoder.storyboard import Section
from .film_events import FilmEvents
from .keyframe_lead import KeyframeLead
from .lead import LeadPicture, SectionInputs
from .runtime import sampling
from .runtime.compress import compress, decode_once, normalised_history
from .runtime.managed import ManagedEncoder
from .runtime.progress import FilmProgress, stop_if_interrupted


@dataclass
class OwnMemory:
    """The film as an expert sees it whose first projection is not the first expert's: LR tokens go through its own.

    What phi adds to them was trained for one expert, and is the same for both.
    """

    codec: Codec
    memory: VideoMemory
    states: KeptStates = field(default_factory=KeptStates)


@dataclass(frozen=True)
class Expert:
    """One diffusion model, the sigmas it runs, whether it sees the memory, and its own one where it needs that."""

    model: Any
    sigmas: Tensor
    sees_memory: bool = True
    own: OwnMemory | None = None


def own_memory(codec: Codec, model: Any, low_noise: Any, memory: Any) -> OwnMemory | None:
    """What the low-noise expert needs beside the memory; a memory given stays as it was made, for lack of its pictures.

    None where it sees the same: without a branch for LR, or with the same first projection as `model`.
    """
    if low_noise is None or not any(part.config.has_lr for part in memory.parts):
        return None
    first, second = (sampling.host_of(one) for one in (model, low_noise))
    pairs = zip(first.patchifier(), second.patchifier(), strict=True)
    if all(torch.equal(*(weight.detach().float().cpu() for weight in pair)) for pair in pairs):
        return None
    return OwnMemory(replace(codec, embed=second.embed), memory)


def split_experts(
    model: Any, low_noise: Any, sigmas: Tensor, boundary: float, low_sees_memory: bool, own: OwnMemory | None = None
) -> list[Expert]:
    """The experts in the order they run; the second takes over at the first sigma below `boundary`.

    Raises ValueError when there is nothing to sample.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"sigmas has {sigmas.numel()} values; connect a scheduler with at least one step")
    if low_noise is None:
        return [Expert(model, sigmas)]
    below = torch.nonzero(sigmas < boundary).flatten()
    switch = int(below[0]) if len(below) else len(sigmas) - 1
    experts = [Expert(model, sigmas[: switch + 1]), Expert(low_noise, sigmas[switch:], low_sees_memory, own)]
    return [expert for expert in experts if len(expert.sigmas) > 1]


@dataclass
class SectionRenderer:
    """The world as the autoregressive loop sees it (see `memory_encoder.film.loop.Renderer`)."""

    experts: list[Expert]
    encoder: ManagedEncoder
    codec: Codec
    settings: MemorySettings
    conditioning: dict[str, Any]
    negative: Any
    cfg: float
    sampler: Any
    latent_size: tuple[int, int, int]
    progress: FilmProgress
    events: FilmEvents
    lead: LeadPicture | KeyframeLead | None = None
    choice: PictureChoice | None = None
    states: KeptStates = field(default_factory=KeptStates)

    def sample(self, section: Section, seed: int, memory: Any) -> Tensor:
        """Latents [1,C,T,H,W] of a section in VAE space."""
        channels, height, width = self.latent_size
        latent = torch.zeros(1, channels, section.latents, height, width)
        inputs = SectionInputs(latent, self.conditioning[section.prompt], self.negative)
        self.events.sampling(section)
        if self.choice is not None and section.index == 0:
            self.events.pictures(memory, self.choice, 0)
        if self.lead is not None:
            inputs = self.lead.inputs(section, memory, inputs.latent, inputs.positive, inputs.negative)
        latent = inputs.latent
        noise, shift = sampling.noise_like(latent, seed), float(inputs.lead - memory.latents)
        steps = 0
        for number, expert in enumerate(self.experts):
            stop_if_interrupted()
            seen = memory if expert.own is None else expert.own.memory
            seen = seen if expert.sees_memory and self.choice is None else None
            model = sampling.settled(expert.model, inputs.positive, inputs.negative)
            model = sampling.with_memory(model, seen, self._settings(section), shift)
            model = with_leading_pictures(model, inputs.times, noise) if inputs.times else model
            latent = sampling.sample(
                model,
                noise if number == 0 else torch.zeros_like(noise),
                latent,
                inputs.positive,
                inputs.negative,
                self.cfg,
                self.sampler,
                expert.sigmas,
                seed,
                self._callback(steps, inputs.lead),
                inputs.noise_mask,
            )
            steps += len(expert.sigmas) - 1
            self.progress.advance(len(expert.sigmas) - 1)
        return latent[:, :, inputs.lead :].float()

    def _settings(self, section: Section) -> MemorySettings:
        """After a cut the last pictures would only pull the section back to what they show."""
        return self.settings if section.transition == "continue" else replace(self.settings, sliding_window=0)

    def append(self, memory: Any, latents: Tensor, section: Section, seed: int) -> Any:
        """The memory with the section in it; of one that was appended before nothing is computed."""
        stop_if_interrupted()
        latent = normalised_history(self.experts[0].model, {"samples": latents}, "section")
        codec = self.events.watch_decoding(section, self.codec, lambda codec: decode_again(memory, codec, latent))
        codec = replace(codec, decode=decode_once(codec.decode))
        choice = None if self.choice is None else self.choice.of_section(section.index)
        marks = None if choice is None else choice.marks.until(len(memory.sections))
        facts = appended_section(latents, section.prompt, seed, section.repeated, marks)

        def compressed(before: Any, codec: Codec) -> Any:
            repeated = section.repeated or 0
            return compress(self.encoder, codec, before, latent, section.prompt, seed, repeated, choice)

        for expert in self.experts:
            if (own := expert.own) is not None and expert.sees_memory:
                other = replace(own.codec, decode=codec.decode)
                own.memory = own.states.extended(own.memory, facts, partial(compressed, own.memory, other))
        after = self.states.extended(memory, facts, partial(compressed, memory, codec))
        if self.choice is not None:
            self.events.pictures(after, self.choice, section.index + 1)
        return after

    def _callback(self, before: int, lead: int) -> Callable[[int, Tensor, Tensor, int], None]:
        """Tells of each step, and shows the section without the `lead` latents in front of it."""

        def step(index: int, denoised: Tensor, x: Tensor, total: int) -> None:
            denoised, x = denoised[:, :, lead:], x[:, :, lead:]
            self.progress.step(index, denoised, x, total)
            self.events.step(before + index + 1, denoised)

        return step

    def section_done(self, section: Section, latents: Tensor, reused: bool) -> None:
        """Counts a reused section as progress and stops between sections when asked to."""
        if reused:
            self.progress.advance(sum(len(expert.sigmas) - 1 for expert in self.experts))
        self.events.done(section, latents)
        stop_if_interrupted()
