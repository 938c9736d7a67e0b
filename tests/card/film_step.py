"""The phases of a film at full size on the fake card: the most bytes that are alive above the weights.

A host's blocks are all alike and a forward pass without gradients keeps nothing of them, so that few blocks reach the
peak of all, but for what a cached memory keeps of every block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from memory_encoder.budget import HOSTS, Plan, cache_bytes
from memory_encoder.evaluation.recall import WINDOW as RETRIEVED
from memory_encoder.phi.positions import cell_coordinates, cells_for, grid_for
from memory_encoder.pictures.codec import CONTEXT, Codec

from .film_pictures import append_peak, decode_peak
from .films import pack
from .hosts import FullModel, Steps, fp8_host
from .meter import Meter

FP8 = torch.float8_e4m3fn
NAMES = {
    "wan_1.3b": "wan-1.3b", "wan_5b": "wan-5b", "wan_14b": "wan-14b", "hunyuan": "hunyuan", "hunyuan15": "hunyuan-1.5"
}  # fmt: skip
FPS = {"wan_1.3b": 16.0, "wan_14b": 16.0}  # of the others 24
WINDOW = 3  # latents of the sliding window
WHOLE = "1x1x1"
# By phase: rates of the memory, how its encoder was trained, and settings.
STEPS: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]] = {
    "without": ((), {}, {}),
    "joint": (("4x4x2",), {}, {}),
    "cached": (("4x4x2",), {"memory_attention": "cached"}, {}),
    "two rates": (("4x4x2", "2x2x8"), {}, {}),
    "window": (("4x4x2",), {}, {"sliding_window": WINDOW}),
    "guided": (("4x4x2",), {}, {"history_guidance": 1.5}),
    "whole": ((WHOLE,), {}, {}),
    "retrieval": (("4x4x2",), {}, {}),
}


@dataclass(frozen=True)
class Cell:
    """One phase of one film. history, section: seconds before the section, and of it.

    rows: prompts that core has in one batch. kept: where keys and values of a cached memory wait, `card` or `ram`.
    streamed: the weights wait in RAM. layers: blocks that are run. horizon: tokens of the memory that are seen, or 0.
    """

    host: str
    phase: str
    width: int = 832
    height: int = 480
    history: float = 20.0
    section: float = 5.0
    rows: int = 1
    fp8: bool = False
    kept: str = "ram"
    streamed: bool = False
    layers: int | None = 1
    horizon: int = 0

    def plan(self) -> Plan:
        rates, encoder, settings = STEPS.get(self.phase, STEPS["joint"])
        return Plan(
            HOSTS[NAMES[self.host]],
            self.width,
            self.height,
            FPS.get(self.host, 24.0),
            self.history if rates else 0.0,
            self.section,
            rates or ("4x4x2",),
            cached="memory_attention" in encoder,
            section_latents=RETRIEVED if self.phase == "retrieval" else 0,
            sliding_window=settings.get("sliding_window", 0),
            bytes_per_weight=1.0 if self.fp8 else 2.0,
            horizon=self.horizon,
        )


@dataclass(frozen=True)
class Measured:
    """peak: bytes above the weights of the whole model: where fewer blocks were run, with what the others would keep.

    at: the operation in which it was reached. weights: bytes of those that were run. tokens: those of the memory.
    """

    peak: int
    at: str
    weights: int
    tokens: int


def measured(card: Any, cell: Cell) -> Measured:
    """Runs a phase.

    `decode`: a piece of film becomes pictures, as Save Film has them; `append`: a section becomes pictures, which join
    the memory; `phi`: what comes after the pictures.
    """
    if cell.phase not in ("decode", "append", "phi"):
        return measured_step(card, cell)
    card.free = 2**60
    model, grid = model_of(card, cell), grid_of(cell)
    if cell.phase == "decode":
        length = Codec(decode=lambda latents: latents, spatial=_spatial(cell)).chunk_length(*grid)
        return Measured(*decode_peak(card, model, CONTEXT + length, grid), 0)
    latents = cell.plan().latents(cell.section)
    return Measured(*append_peak(card, model, latents, grid, decoded=cell.phase == "append"), 0)


def measured_step(card: Any, cell: Cell) -> Measured:
    model = model_of(card, cell)
    plan = cell.plan()
    latent = (model.latent[0], plan.section_latents or plan.latents(cell.section), *grid_of(cell))
    meter = Meter()
    patcher = model.patcher
    tokens = 0
    if cell.phase != "without":
        memory = _memory(model, cell, latent[2:])
        tokens = memory.all_tokens().shape[1]
        card.free = 2**60 if cell.kept == "card" else 0
        chosen = STEPS[cell.phase][2] | {"horizon": cell.horizon}
        settings = pack("memory_encoder.injection.selection").MemorySettings(**chosen)
        patcher = pack("nodes.runtime.sampling").with_memory(patcher, memory, settings)
    card.free = 2**60 if cell.rows == 2 else 0  # core looks whether both prompts fit in one batch
    meter.add_module(model.patcher.model)
    weights = meter.now
    noise = torch.zeros(1, *latent)
    text = model.conditioning()
    with meter.above(), torch.no_grad():
        model.modules("comfy.sample").sample_custom(
            patcher, noise, 1.0 if cell.rows == 1 and cell.kept == "ram" else 5.0, Steps(), torch.zeros(2), text, text,
            torch.zeros_like(noise), seed=0,
        )  # fmt: skip
    blocks = len(model.host.slots())
    left_out = HOSTS[NAMES[cell.host]].blocks - blocks
    kept = 2 * cache_bytes(left_out, tokens, model.host.width) if cell.phase == "cached" and cell.kept == "card" else 0
    return Measured(meter.peak + kept, meter.at, weights, tokens)


def model_of(card: Any, cell: Cell) -> FullModel:
    """A host with weights as its file has them."""
    key = (cell.host, cell.fp8, cell.streamed, cell.layers)
    models: dict[Any, FullModel] = card.__dict__.setdefault("of_films", {})
    if key not in models:
        model = card.new_model(cell.host, FP8 if cell.fp8 else torch.bfloat16, cell.layers)
        if cell.fp8:
            fp8_host(model.diffusion_model)
        if cell.streamed:
            _stream(model.diffusion_model)
            model.patcher.model.to = lambda *_, **__: model.patcher.model  # core would not move all of it
        models[key] = model
    return models[key]


def _stream(model: Any) -> None:
    """As core's ModelPatcher.load leaves modules that do not fit: in RAM, and cast when they run."""
    for module in model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True
            module.to("cpu")


def _spatial(cell: Cell) -> int:
    return HOSTS[NAMES[cell.host]].spatial


def grid_of(cell: Cell) -> tuple[int, int]:
    return cell.height // _spatial(cell), cell.width // _spatial(cell)


def _memory(model: FullModel, cell: Cell, size: tuple[int, ...]) -> Any:
    """A memory of the film's latents, whose first one is a single frame."""
    rates, encoder, settings = STEPS[cell.phase]
    latents = 1 + cell.plan().latents(cell.history)
    video_memory, stream = pack("memory_encoder.memory.video_memory"), pack("memory_encoder.phi.encoder")
    config_of, grown = pack("memory_encoder.phi.config").EncoderConfig, pack("memory_encoder.memory.growing").Growing.of
    parts = []
    for rate in rates:
        config = config_of(**vars(model.config(rate=rate, **encoder)))
        grid, cells = grid_for(size[-2], size[-1], config), cells_for(latents, config.stride[0])[1]
        with unset_fake_temporarily():  # by which a horizon chooses
            places = cell_coordinates(0, cells, grid, config, latents)
            no_places = places[:0]
        tokens = torch.zeros(1, len(places), model.host.width)
        parts.append(
            video_memory.VideoMemory(
                config=config, tokens=grown(tokens, 1), coordinates=grown(places, 0), tail=tokens[:, :0],
                tail_coordinates=no_places,
                recent=torch.zeros(1, model.latent[0], settings.get("sliding_window", 0), *size[-2:]),
                state=stream.StreamState(latents=latents, size=size[-2:]),
            )
        )  # fmt: skip
    return replace(parts[0], others=tuple(parts[1:]))
