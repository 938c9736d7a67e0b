"""A Wan host of ComfyUI's own class with random weights, and the ways to show it a history."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from benchmarks.flops import WanShape
from benchmarks.settings import GUIDANCE, HEAD_WIDTH, SECOND_RATE, WINDOW
from memory_encoder.budget import Plan, token_count
from memory_encoder.injection.guidance import HistoryGuidance
from memory_encoder.injection.hosts.comfy_models import PYTORCH_ATTENTION, load_comfy
from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings, encoder_key
from memory_encoder.memory.growing import Growing
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.cross_attention import CrossAttention
from memory_encoder.phi.encoder import StreamState
from memory_encoder.phi.positions import cell_coordinates, grid_for
from tools.environment import add_standins

SIGMA_TIMESTEP = 700.0  # any timestep costs the same
WEIGHT_GAIN = 0.5  # keeps activations small enough for half precision
Step = Callable[[], Tensor]


class SetupError(RuntimeError):
    """ComfyUI cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Comfy:
    """The modules of ComfyUI that are needed here."""

    wan: Any
    ops: Any
    management: Any
    patcher: Any
    version: str


def start_comfy(cpu: bool, arguments: Sequence[str] = ()) -> Comfy:
    """Imports the ComfyUI of COMFYUI_PATH with PyTorch's attention; `cpu` keeps it off a graphics card.

    arguments: others of ComfyUI's own command line.

    Raises SetupError when there is none. What is imported already is used as it is.
    """
    if "comfy.model_management" not in sys.modules:
        path = os.environ.get("COMFYUI_PATH")
        if not path or not (Path(path) / "comfy" / "ldm" / "wan" / "model.py").is_file():
            found = f"COMFYUI_PATH {path!r} holds no ComfyUI" if path else "COMFYUI_PATH is not set"
            raise SetupError(f"{found}; set it to the folder of a ComfyUI checkout, or run `make bench`")
        add_standins()
        load_comfy(path, (*PYTORCH_ATTENTION, *arguments, *(["--cpu"] if cpu else [])))
    return Comfy(
        wan=importlib.import_module("comfy.ldm.wan.model"),
        ops=importlib.import_module("comfy.ops"),
        management=importlib.import_module("comfy.model_management"),
        patcher=importlib.import_module("comfy.model_patcher"),
        version=importlib.import_module("comfyui_version").__version__,
    )


class Holder(nn.Module):
    """What a ModelPatcher expects around a diffusion model."""

    def __init__(self, diffusion_model: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = diffusion_model


class Bench:
    """A host, a section to denoise and a history, on one device; `cases` lead to forward passes that take no arguments.

    plan gives the sizes in pixels and seconds; its first rate and its padding give the number of memory tokens.
    """

    def __init__(self, comfy: Comfy, shape: WanShape, plan: Plan, device: torch.device, dtype: torch.dtype, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.comfy, self.shape, self.plan = comfy, shape, plan
        self.device, self.dtype, self.generator = device, dtype, generator
        self.model = build_wan(comfy, shape, dtype, generator).to(device)
        self.section = self._random(1, shape.channels, plan.latents(plan.section_seconds), *self.latent_size)
        self.text = self._random(1, shape.text_tokens, shape.text_width)
        self.timestep = torch.full((1,), SIGMA_TIMESTEP, device=device)

    @property
    def latent_size(self) -> tuple[int, int]:
        return self.plan.height // self.shape.spatial, self.plan.width // self.shape.spatial

    def cases(self, cross_width: int = HEAD_WIDTH) -> dict[str, Callable[[], Step]]:
        """By name, what prepares a case and returns its forward pass, so that skipped ones cost nothing.

        `cached` is a step after the first of a section: keys and values are there.
        """
        patcher = self.comfy.patcher.ModelPatcher(Holder(self.model), self.device, torch.device("cpu"))
        memory = self.memory()
        patchers: dict[str, Callable[[], Any]] = {
            "without": lambda: patcher,
            "strength 0": lambda: inject(patcher, memory, MemorySettings(strength=0.0)),
            "memory": lambda: inject(patcher, memory),
            "window": lambda: inject(patcher, self.memory(window=True), MemorySettings(sliding_window=WINDOW)),
            "cross": lambda: self.with_cross(patcher, cross_width),
            "two": lambda: inject(patcher, replace(memory, others=(self.memory(rate=SECOND_RATE),))),
        }
        cases = {name: partial(self._plain, make) for name, make in patchers.items()}
        special = {"history": self._history, "cached": self._cached, "guided": self._guided}
        return cases | {name: partial(make, patcher) for name, make in special.items()}

    def _plain(self, make: Callable[[], Any]) -> Step:
        return partial(self.step, make())

    def _history(self, patcher: Any) -> Step:
        latents = self.plan.latents(self.plan.history_seconds)
        return partial(
            self.step, patcher, context_latents=[self._random(1, self.shape.channels, latents, *self.latent_size)]
        )

    def _cached(self, patcher: Any) -> Step:
        step = partial(self.step, inject(patcher, self.memory(memory_attention="cached")))
        with torch.inference_mode():
            step()
        return step

    def _guided(self, patcher: Any) -> Step:
        """The prompt with memory and without, as the pack's history guidance asks for them at a CFG of 1."""

        def evaluate(model: Any, conds: Any, x: Tensor, sigma: Any, options: dict[str, Any]) -> list[Tensor]:
            return [self._forward(options["transformer_options"])]

        args = {
            "conds": [[{"uuid": uuid4()}]],  # its text is the one that every step has
            "model_options": {"transformer_options": transformer_options(inject(patcher, self.memory()))},
            "model": self.model,
            "input": self.section,
            "sigma": None,
        }
        guidance = HistoryGuidance(GUIDANCE, evaluate)
        return lambda: guidance(args)[0]

    def warm_up(self) -> None:
        """A short pass, so that weights are in place and threads are started before anything is timed."""
        patcher = self.comfy.patcher.ModelPatcher(Holder(self.model), self.device, torch.device("cpu"))
        self.step(patcher, section=self.section[:, :, :1])

    def with_cross(self, patcher: Any, width: int) -> Any:
        """The memory with hidden states of `width`, and an encoder's branch attached to the model."""
        settings = {"channels": (width,), "heads": 1, "cross_blocks": self.shape.layers, "head_dim": HEAD_WIDTH}
        memory = self.memory(**settings)
        hidden = self._random(1, memory.token_count, width)
        memory = replace(memory, hidden=Growing.of(hidden, 1), tail_hidden=hidden[:, :0], encoder_id="bench")
        branch = Holder(nn.Identity())
        cross = CrossAttention(memory.config, dtype=self.dtype)
        cross.reset_parameters(self.generator)
        branch.cross = cross.to(self.device)
        model = patcher.clone()
        owner = self.comfy.patcher.ModelPatcher(branch, self.device, torch.device("cpu"))
        model.set_additional_models(encoder_key("bench"), [owner])
        return inject(model, memory)

    def memory(self, rate: str | None = None, window: bool = False, **more: Any) -> VideoMemory:
        """Random tokens at the places where the encoder puts them; their number is that of `token_count`."""
        shape, plan = self.shape, self.plan
        rate = rate or plan.rates[0]
        config = EncoderConfig("wan", shape.width, shape.channels, rate=rate, padding=plan.padding, **more)
        return random_memory(config, plan, self.latent_size, self._random, WINDOW if window else 0)

    def step(self, patcher: Any, section: Tensor | None = None, **extra: Any) -> Tensor:
        """One forward pass as core's sampler runs it, with the patcher's wrappers in transformer_options."""
        return self._forward(transformer_options(patcher), section, **extra)

    def _forward(self, options: dict[str, Any], section: Tensor | None = None, **extra: Any) -> Tensor:
        x = self.section if section is None else section
        return self.model(x, self.timestep, self.text, transformer_options={**options, "uuids": ["bench"]}, **extra)

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(device=self.device, dtype=self.dtype)


def random_memory(
    config: EncoderConfig, plan: Plan, size: tuple[int, int], random: Callable[..., Tensor], window: int = 0
) -> VideoMemory:
    """A memory of the plan's history at latents of `size`; random: gives tokens of a shape, where they are to lie."""
    latents, grid = plan.latents(plan.history_seconds), grid_for(*size, config)
    cells = token_count(plan, config.rate) // (grid[0] * grid[1])
    coordinates = cell_coordinates(0, cells, grid, config, latents)
    tokens = random(1, len(coordinates), config.width)
    return VideoMemory(
        config=config,
        tokens=Growing.of(tokens, 1),
        coordinates=Growing.of(coordinates, 0),
        tail=torch.zeros_like(tokens[:, :0]),
        tail_coordinates=coordinates[:0],
        recent=torch.zeros(1, config.latent_channels, window, *size),
        state=StreamState(latents=latents, size=size),
    )


def transformer_options(patcher: Any) -> dict[str, Any]:
    """Those of a ModelPatcher with its wrappers, as core's sampler hands them to the model."""
    return {**patcher.model_options["transformer_options"], "wrappers": patcher.wrappers}


def build_wan(comfy: Comfy, shape: WanShape, dtype: torch.dtype, generator: torch.Generator) -> nn.Module:
    """ComfyUI's WanModel (text-to-video) of these sizes with random weights, on the CPU."""
    model = comfy.wan.WanModel(
        model_type="t2v", patch_size=shape.patch, text_len=shape.text_tokens, in_dim=shape.channels, dim=shape.width,
        ffn_dim=shape.ffn, text_dim=shape.text_width, out_dim=shape.channels, num_heads=shape.heads,
        num_layers=shape.layers, device="cpu", dtype=dtype, operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(std=WEIGHT_GAIN * value[0].numel() ** -0.5, generator=generator)
            else:
                value.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return model.eval()
