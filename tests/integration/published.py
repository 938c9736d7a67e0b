"""Tiny models of diffusers' classes with random weights, saved as published ones are, and what we make of them.

diffusers is what the comparisons of this folder are made with; nothing of the pack imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memory_encoder.cli import main
from memory_encoder.injection.hosts.encoder_file import read_encoder
from memory_encoder.injection.inject import DIFFUSION_MODEL, KEY, DiffusionModelWrapper, inject
from memory_encoder.injection.selection import MemorySettings, encoder_key
from memory_encoder.memory.compressor import append_history
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder

VISION, POOLED, CHANNELS, SECTION = 48, 768, 16, 9
TEXT = {"framepack": 64, "helios": 4096}  # core knows Wan's text by this width


def reference(module: str, name: str) -> Any:
    """A transformer class of diffusers; skips the test where the package is not installed."""
    pytest.importorskip("diffusers", reason="diffusers, which these comparisons are made with, is not installed")
    return getattr(pytest.importorskip(f"diffusers.models.transformers.{module}"), name)


def framepack(**changes: Any) -> nn.Module:
    kind = reference("transformer_hunyuan_video_framepack", "HunyuanVideoFramepackTransformer3DModel")
    sizes = dict(
        num_attention_heads=2, attention_head_dim=128, num_layers=2, num_single_layers=3, num_refiner_layers=2,
        text_embed_dim=TEXT["framepack"], pooled_projection_dim=POOLED, has_image_proj=True, image_proj_dim=VISION,
        has_clean_x_embedder=True,
    )  # fmt: skip
    return lively(kind(**sizes | changes))


def helios(**changes: Any) -> nn.Module:
    kind = reference("transformer_helios", "HeliosTransformer3DModel")
    sizes = dict(num_attention_heads=2, attention_head_dim=128, ffn_dim=512, num_layers=3, text_dim=TEXT["helios"])
    return lively(kind(**sizes | changes))


def lively(module: nn.Module) -> nn.Module:
    """Random weights with which every modulation, gate and norm shows in the result."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=g)
            if "scale_shift_table" in name:
                parameter.copy_(0.5 * noise)
            elif parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(0.1 * noise + float("norm" in name and name.endswith("weight")))
    return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class Converted:
    """A model and its encoder, from the files that `convert` wrote."""

    comfy: Any
    original: Any
    model: Path
    encoder: Path
    patcher: Any

    @property
    def config(self) -> EncoderConfig:
        return read_encoder(self.encoder)[0]

    def memory(
        self, latents: Tensor, vision: Tensor | None = None, **changes: Any
    ) -> tuple[VideoMemory, MemoryEncoder]:
        """The memory of a film of `latents`, and its encoder; `changes` are made to the configuration."""
        config, weights = read_encoder(self.encoder)
        config = replace(config, **changes)
        phi = MemoryEncoder(config, dtype=torch.float32)
        own = phi.state_dict().keys()
        phi.load_state_dict({name: value for name, value in weights.items() if name in own})
        empty: Any = None  # there is no LR branch
        memory = append_history(phi.eval(), empty, VideoMemory.empty(config, encoder_id="tiny"), latents)
        if vision is not None and phi.picture is not None:
            memory = replace(memory, picture=phi.picture(vision))
        return memory, phi

    def injected(self, memory: VideoMemory, phi: MemoryEncoder) -> Any:
        model = self.patcher.clone()
        model.set_additional_models(encoder_key("tiny"), [self.comfy.module("comfy.model_patcher").CoreModelPatcher(
            phi, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))])  # fmt: skip
        return inject(model, memory, MemorySettings())

    def forward(self, x: Tensor, memory: VideoMemory, phi: MemoryEncoder, **inputs: Any) -> Tensor:
        """One forward pass of core's model with the memory injected."""
        self.comfy.module("comfy.model_management").load_models_gpu([self.patcher])
        wrapper: DiffusionModelWrapper = self.injected(memory, phi).get_wrappers(DIFFUSION_MODEL, KEY)[0]
        with torch.inference_mode():
            return self.patcher.model.diffusion_model(
                x, transformer_options={"wrappers": {DIFFUSION_MODEL: {KEY: [wrapper]}}}, **inputs
            )


def converted(comfy: Any, folder: Path, name: str, original: Any, shard: str = "2MB") -> Converted:
    """Saves diffusers' model in shards, converts it on the command line and loads both files in core and here."""
    original.save_pretrained(folder / name, max_shard_size=shard)
    assert main(["convert", str(folder / name), "--out", str(folder / "out"), "--name", name]) == 0
    files = [folder / "out" / f"{name}_{part}.safetensors" for part in ("model", "memory_encoder")]
    with torch.inference_mode(False):
        patcher = comfy.module("comfy.sd").load_diffusion_model(str(files[0]), {"dtype": torch.float32})
    return Converted(comfy, original, files[0], files[1], patcher)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def history_inputs(film: Tensor) -> dict[str, Tensor]:
    """What diffusers' pipelines make of a film's latents: the first, and the last 19 with zeros in front."""
    seen = torch.nn.functional.pad(film, (0, 0, 0, 0, 19, 0))[:, :, -19:]
    far, middle, near = seen.split([16, 2, 1], dim=2)
    return {"far": far, "middle": middle, "near": torch.cat([film[:, :, :1], near], dim=2)}


def history_indices() -> Sequence[Tensor]:
    """Indices of anchor and newest latent, of 2, of 16, and of the section."""
    anchor, far, middle, near, section = torch.arange(1 + 16 + 2 + 1 + SECTION).split([1, 16, 2, 1, SECTION])
    return torch.cat([anchor, near]), middle, far, section


def framepack_output(original: Any, x: Tensor, t: Tensor, film: Tensor, text: Mapping[str, Tensor]) -> Tensor:
    """The velocity by diffusers' class."""
    history, (near, middle, far, section) = history_inputs(film), history_indices()
    with torch.inference_mode():
        return original(
            x, t, text["words"], torch.ones(text["words"].shape[:2], dtype=torch.long), text["pooled"], text["vision"],
            section, torch.full_like(t, 10000.0), history["near"], near, history["middle"], middle, history["far"], far,
            return_dict=False,
        )[0]  # fmt: skip


def helios_output(original: Any, x: Tensor, t: Tensor, film: Tensor, words: Tensor) -> Tensor:
    """The velocity by diffusers' class."""
    history, indices = history_inputs(film), [index[None] for index in history_indices()]
    near, middle, far, section = indices
    with torch.inference_mode():
        return original(
            x, t, words, section, near, middle, far, history["near"], history["middle"], history["far"],
            return_dict=False,
        )[0]  # fmt: skip


MAKERS: dict[str, Callable[..., nn.Module]] = {"framepack": framepack, "helios": helios}
