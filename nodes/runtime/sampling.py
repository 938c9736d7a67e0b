"""Core's sampling, with a model that sees a memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.model_management as mm
import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...memory_encoder.budget import cache_bytes
from ...memory_encoder.evaluation.recall import WINDOW, windows
from ...memory_encoder.injection.guidance import guide
from ...memory_encoder.injection.hosts import Host
from ...memory_encoder.injection.hosts.comfy_models import host_of_patcher
from ...memory_encoder.injection.inject import inject, is_injected
from ...memory_encoder.injection.selection import MemorySettings, attention_mode
from ...memory_encoder.memory.video_memory import VideoMemory
from .progress import FilmProgress


def host_of(model: Any) -> Host:
    """The host behind a MODEL socket; raises HostError when it cannot carry a memory."""
    return host_of_patcher(model)


def empty_conditioning(model: Any) -> Any:
    """CONDITIONING of no text for models whose text encoder is not connected: zeros of the host's sizes."""
    host = host_of(model)
    pooled = None if host.pooled_width is None else torch.zeros(1, host.pooled_width)
    return [[torch.zeros(1, 1, host.text_width), {"pooled_output": pooled}]]


def noise_like(latent: Tensor, seed: int) -> Tensor:
    """Noise from a generator of its own, in the way of core's RandomNoise; the global random state is not touched."""
    return comfy.sample.prepare_noise_inner(latent, torch.Generator().manual_seed(seed))


def sample(
    model: Any,
    noise: Tensor,
    latent: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    sampler: Any,
    sigmas: Tensor,
    seed: int,
    callback: Any = None,
    noise_mask: Tensor | None = None,
) -> Tensor:
    """One run of core's custom sampling; latents go in and come out in VAE space."""
    sigmas = sigmas.clone()  # core's uni_pc writes into them; the next section and the next run need them as they are
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, latent, noise_mask, callback, seed=seed
    )


def with_memory(
    model: Any, memory: VideoMemory | None, settings: MemorySettings, time_offset: float | None = None
) -> Any:
    """A clone of MODEL that sees `memory`, with history guidance when the settings ask for it."""
    patched = inject(model, memory, replace(settings, cache_on=cache_device(model, memory, settings)), time_offset)
    return guide(patched, settings.history_guidance if is_injected(patched) else 0.0, comfy.samplers.calc_cond_batch)


def settled(model: Any, *conditionings: Any) -> Any:
    """MODEL, or where hooks will change its weights the ordinary model that core has then in place of one with dynamic
    VRAM. Core makes that from the files anew for each clone that it samples; of one MODEL it is made once."""
    dynamic = getattr(model, "is_dynamic", None)  # not in older versions
    if dynamic is None or not dynamic():
        return model
    hooks = any(comfy.sampler_helpers.cond_has_hooks(one) for one in conditionings)
    return model.get_non_dynamic_delegate() if hooks else model


CACHE_SHARE = 0.2  # of the free VRAM that keys and values of a cached memory may take; not from the paper


def cache_device(model: Any, memory: VideoMemory | None, settings: MemorySettings) -> torch.device | None:
    """Where a cached memory's keys and values wait between steps: None beside the model, else system RAM when tight."""
    if memory is None or attention_mode(memory, settings) != "cached" or mm.is_device_cpu(model.load_device):
        return None
    free = mm.get_free_memory(model.load_device)
    host = host_of(model)
    tokens = min(memory.token_count, settings.horizon or memory.token_count)
    latents, height, width = memory.recent.shape[2:]
    tokens += min(settings.sliding_window, latents) * (height // host.patch[1]) * (width // host.patch[2])
    needed = 2 * cache_bytes(len(host.slots()), tokens, host.width)  # both prompts
    return None if needed < CACHE_SHARE * free else torch.device("cpu")


START_IMAGE = ("concat_latent_image", "concat_mask")  # core's names


def retrieve(
    model: Any,
    memory: VideoMemory,
    latents: range,
    sampler: Any,
    sigmas: Tensor,
    seed: int,
    positive: Any,
    settings: MemorySettings,
    progress: FilmProgress,
) -> Tensor:
    """Latents [1,C,T,H,W] of the history at `latents`, drawn from the memory alone, a few at a time.

    A start image in `positive` is left out: it is the first frame of another clip.
    """
    model = settled(model, positive)
    host = host_of(model)
    positive = [[text, {k: v for k, v in extra.items() if k not in START_IMAGE}] for text, extra in positive]
    count, parts = min(WINDOW, memory.latents), []
    for first, dropped in windows(latents, memory.latents):
        empty = torch.zeros(1, host.latent_channels, count, *memory.state.size)
        patched = with_memory(model, memory, settings, time_offset=-float(first))
        noise = noise_like(empty, seed + first)
        made = sample(patched, noise, empty, positive, positive, 1.0, sampler, sigmas, seed, progress.step)
        parts.append(made[:, :, dropped:])
        progress.advance(len(sigmas) - 1)
    return torch.cat(parts, dim=2)[:, :, : len(latents)].float()
