"""The pack's nodes and small models in this process, for tests that call nodes one by one."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from .films import storyboard, write_models


class CountedVae:
    """Core's VAE, which counts how often it works."""

    def __init__(self, vae: Any) -> None:
        self.vae, self.calls = vae, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vae, name)

    def decode(self, *args: Any, **values: Any) -> Any:
        self.calls += 1
        return self.vae.decode(*args, **values)

    def encode(self, *args: Any, **values: Any) -> Any:
        self.calls += 1
        return self.vae.encode(*args, **values)


@dataclass
class World:
    """Untrained models of two blocks, and the sampler node on them.

    nodes: node classes by name. out: ComfyUI's output folder. inputs: what the sampler is given.
    """

    nodes: dict[str, Any]
    out: Path
    clip: Any
    inputs: dict[str, Any]

    def shots(self, *prompts: str, seconds: float = 0.5, fps: float = 16.0) -> Any:
        return self.call("VideoMemoryStoryboard", self.clip, storyboard(prompts, seconds), fps, seconds)[0]

    def film(self, name: str, *prompts: str, **changes: Any) -> tuple[Any, Any, str]:
        """LATENT, memory and report of a film of sections of half a second."""
        values = self.inputs | {"film": name, "storyboard": self.shots(*prompts)} | changes
        return self.call("VideoMemorySampler", **values)

    def call(self, node: str, *args: Any, **values: Any) -> Any:
        """A node's outputs."""
        return self.run(node, *args, **values).result

    def vae_calls(self) -> int:
        """How often the VAE has decoded or encoded since it was asked last."""
        vae = self.inputs["vae"]
        calls, vae.calls = vae.calls, 0
        return calls

    def run(self, node: str, *args: Any, **values: Any) -> Any:
        """All that a node returns, its ui as well."""
        with torch.inference_mode():
            return self.nodes[node].execute(*args, **values)


def make_world(comfy: Any, load_pack: Callable[..., ModuleType], pack: str, out: Path) -> World:
    """The caller points ComfyUI's output folder at `out`."""
    extension = asyncio.run(load_pack(pack).comfy_entrypoint())
    nodes = {node.__name__: node for node in asyncio.run(extension.get_node_list())}
    # The models stay the same, so that nothing need be said of them but that they are known.
    hidden = SimpleNamespace(prompt={"1": {"inputs": {}}}, unique_id="1", dynprompt=None, extra_pnginfo=None)
    for node in nodes.values():
        node.hidden = hidden
    write_models(comfy.base / "models")
    clip = importlib.import_module("demo.nodes.text_encoder").HashTextEncoder()
    with torch.inference_mode():
        model = comfy.nodes.UNETLoader().load_unet("host.safetensors", "default")[0]
        vae = comfy.nodes.VAELoader().load_vae("vae.safetensors")[0]
        encoder = nodes["VideoMemoryEncoderNew"].execute(model, "2x2x2", "proposed", "frame", False, 0).result[0]
    inputs = {
        "model": model,
        "memory_encoder": encoder,
        "vae": CountedVae(vae),
        "negative": clip.encode_from_tokens_scheduled(clip.tokenize("")),
        "sampler": comfy.module("comfy.samplers").sampler_object("euler"),
        "sigmas": torch.linspace(1, 0, 3),
        "cfg": 2.0,
        "seed": 3,
        "width": 64,
        "height": 48,
    }
    return World(nodes, out, clip, inputs)
