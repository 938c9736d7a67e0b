"""What a film's parts take on a real card: steps, what is beside them, a training step. One command, ten minutes.

    COMFYUI_PATH=... python -m benchmarks.on_a_card --size 5b --card-gb 12 --out RESULT.json
    python tools/environment.py run -m benchmarks.on_a_card --size tiny     the same on a CPU, to see that it works

A real ComfyUI with random weights of full size (nothing is downloaded), 832x480, 20 s of history, sections of 5 s. A
larger card is made one of `--card-gb`: the allocator refuses more, and core is told to keep the rest free. Each part is
written when it is done; what fails or finds no time says so. Random weights cost what trained ones do.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import training_step
from benchmarks.flops import WanShape, step_flops
from benchmarks.overhead import PROMPTS, STEPS
from benchmarks.settings import HEAD_WIDTH, PUBLISHED, TEXT_TOKENS
from benchmarks.wan_host import Comfy, random_memory, start_comfy
from demo.tiny_family.install import VAE_NAME, WEIGHTS
from memory_encoder.budget import GIB, HOSTS, Plan, full_tokens, token_count
from memory_encoder.files import write_bytes
from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import codec, load_vae
from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings
from memory_encoder.memory.compressor import append_history, small_pictures
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.pictures.codec import CONTEXT, codec_of
from tests.card.film_pictures import network
from tools.machine import describe, load_average

WHOLE = "1x1x1"  # the history itself
CASES = ("without memory", "memory", "cached, on the card", "cached, waiting in RAM", "whole history")
TIMED = 2  # steps of each turn, after one that is not
WAY = "resident-blocks 0"  # of the training: that of the presets for such a card


@dataclass(frozen=True)
class Size:
    """A Wan: its sizes, and the film that it makes."""

    shape: WanShape
    plan: Plan
    published: str = ""


def size_named(name: str, layers: int | None) -> Size:
    """A published one by name, or `tiny`, with which a CPU is quick."""
    if name == "tiny":
        shape = WanShape(2 * HEAD_WIDTH, 512, 2, layers or 2, text_tokens=16)
        return Size(shape, Plan(HOSTS["tiny"], 32, 32, 16.0, 1.0, 0.5, ("4x4x2",)))
    width, blocks = training_step.SIZES[name]
    ffn, channels = PUBLISHED[width]
    host, fps = HOSTS[f"wan-{name}"], 24.0 if name == "5b" else 16.0
    shape = WanShape(width, ffn, width // HEAD_WIDTH, layers or blocks, channels, host.spatial, TEXT_TOKENS)
    return Size(shape, Plan(host, 832, 480, fps, 20.0, 5.0, ("4x4x2",)), name)


@dataclass
class Timed:
    """A sampler that asks the model some times, and how long each took; values mean nothing."""

    device: torch.device
    seconds: list[float] = field(default_factory=list)

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, noise: Tensor, *_: Any
    ) -> Tensor:
        for sigma in sigmas[:-1]:
            with timed(self.device, self.seconds):
                model_wrap(noise, sigma.expand(len(noise)), **extra_args)
        return noise


@contextlib.contextmanager
def timed(device: torch.device, seconds: list[float]) -> Iterator[None]:
    """Adds what the block takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds.append(time.perf_counter() - start)


@dataclass
class Bench:
    """Core's models with random weights on one device, and what is measured with them. end: when to begin no more."""

    comfy: Comfy
    size: Size
    fp8: bool
    device: torch.device
    end: float

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    @property
    def grid(self) -> tuple[int, int]:
        plan = self.size.plan
        return plan.height // plan.host.spatial, plan.width // plan.host.spatial

    def random(self, *shape: int) -> Tensor:
        return torch.randn(*shape)  # in RAM, as a memory is

    def latents(self, count: int) -> Tensor:
        return self.random(1, self.size.shape.channels, count, *self.grid)

    def drawn(self, build: Callable[[], Any], narrow: bool = False) -> dict[str, Tensor]:
        """A checkpoint in RAM: random weights of a network; narrow: the matrices of blocks in fp8."""
        with torch.device("meta"):
            names = build().state_dict()
        made = {}
        for name, value in names.items():
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 1.0
            weight = torch.randn(value.shape, device=self.device, dtype=self.dtype) * scale
            weight = weight if value.ndim > 1 else torch.full_like(weight, float("norm" in name or "gamma" in name))
            if narrow and value.ndim == 2 and "blocks." in name:
                weight = weight.to(torch.float8_e4m3fn)
            made[name] = weight.cpu()
        return made

    @cached_property
    def host(self) -> Any:
        """Core's ModelPatcher, from its own loader, which decides how weights are kept."""
        shape = self.size.shape
        build = partial(
            self.comfy.wan.WanModel, model_type="t2v", patch_size=shape.patch, text_len=shape.text_tokens,
            in_dim=shape.channels, dim=shape.width, ffn_dim=shape.ffn, text_dim=shape.text_width,
            out_dim=shape.channels, num_heads=shape.heads, num_layers=shape.layers, device="meta",
            operations=self.comfy.ops.disable_weight_init,
        )  # fmt: skip
        return core("sd").load_diffusion_model_state_dict(self.drawn(build, self.fp8))

    def vae(self, small: bool) -> Any:
        """Core's VAE or TAEHV for the host's latents; the tiny host's VAE is the demo's."""
        channels = self.size.shape.channels
        if not (small or self.size.published):
            return load_vae(WEIGHTS / VAE_NAME)
        kind = partial(importlib.import_module("comfy.taesd.taehv").TAEHV, channels)
        return core("sd").VAE(
            sd=self.drawn(kind if small else partial(network, importlib.import_module, "wan", channels))
        )

    def memory(self, rate: str, **more: Any) -> VideoMemory:
        config = EncoderConfig(
            "wan", self.size.shape.width, self.size.shape.channels, rate=rate, padding="ceil", **more
        )
        return random_memory(config, self.size.plan, self.grid, self.random)

    def cases(self) -> dict[str, Callable[[], Any]]:
        """What makes the model of each case."""
        cached = partial(self.memory, "4x4x2", memory_attention="cached")
        return dict(
            zip(
                CASES,
                (
                    lambda: self.host,
                    lambda: inject(self.host, self.memory("4x4x2")),
                    lambda: inject(self.host, cached()),
                    lambda: inject(self.host, cached(), MemorySettings(cache_on=torch.device("cpu"))),
                    lambda: inject(self.host, self.memory(WHOLE)),
                ),
                strict=True,
            )
        )

    def flops(self) -> dict[str, int]:
        """Of a step of each case."""
        plan, shape = self.size.plan, self.size.shape
        section, tokens = full_tokens(plan, plan.section_seconds), token_count(plan, "4x4x2")
        beside = ({}, {"memory": tokens}, *[{"cached": tokens}] * 2, {"memory": token_count(plan, WHOLE)})
        return {case: step_flops(shape, section, **more) for case, more in zip(CASES, beside, strict=True)}

    def steps(self, rounds: int) -> dict[str, Any]:
        """Seconds of a step of every case, in turns, through core's sampling; on a card, also the most it held."""
        plan, text = self.size.plan, torch.zeros(1, self.size.shape.text_tokens, self.size.shape.text_width)
        noise, cases = self.latents(plan.latents(plan.section_seconds)), self.cases()
        found: dict[str, Any] = {case: {"all_seconds": []} for case in CASES}
        for case in [*CASES] * rounds:
            one = found[case]
            if time.monotonic() > self.end or "error" in one:
                one.setdefault("error", "no time left") if not one["all_seconds"] else None
                continue
            sampler = Timed(self.device)
            try:
                with self._peak(one), torch.inference_mode():
                    core("sample").sample_custom(
                        cases[case](), noise, 1.0, sampler, torch.linspace(1, 0, TIMED + 2), [[text, {}]], [[text, {}]],
                        torch.zeros_like(noise), seed=0,
                    )  # fmt: skip
                one["all_seconds"] += sampler.seconds[1:]
            except RuntimeError as error:  # no room on the card
                one["error"] = first_line(error)
        flops, first = self.flops(), found[CASES[0]]
        for case, one in found.items():
            one["flops_ratio"] = flops[case] / flops[CASES[0]]
            if one["all_seconds"]:
                one["seconds"] = median(one["all_seconds"])
                one["ratio"] = one["seconds"] / median(first["all_seconds"])
        return found

    def beside(self, step: float) -> dict[str, Any]:
        """Seconds of what a section takes beside its steps, and its share of a section's sampling. step: seconds."""
        plan, large, encoder = self.size.plan, codec(self.host, self.vae(False)), self._encoder()
        count = plan.latents(plan.section_seconds)
        place = {"device": self.device, "dtype": self.dtype}
        found: dict[str, list[float]] = {name: [] for name in ("decoded", "encoded", "decoded small", "Save Film")}
        with torch.inference_mode():
            before, latents = self.latents(CONTEXT + 1), self.latents(count)
            memory = append_history(encoder, large, empty(encoder.config), before, **place)
            for _ in range(2):  # the first finds nothing on the card
                with timed(self.device, found["decoded"]):
                    (pictures,) = small_pictures([memory], large, latents)
                with timed(self.device, found["encoded"]):
                    append_history(encoder, large, memory, latents, small=pictures, **place)
            small, length = codec_of(self.vae(True), self.host.model.latent_format), large.chunk_length(*self.grid)
            for _ in range(2):
                with timed(self.device, found["decoded small"]):
                    small.decode_after(before[:, :, -CONTEXT:], latents)
                with timed(self.device, found["Save Film"]):
                    large.decode_after(before[:, :, -CONTEXT:], self.latents(length))
        seconds = {name: times[-1] for name, times in found.items()}
        seconds["Save Film"] *= count / length
        return {name: {"seconds": value, "share": value / (step * STEPS * PROMPTS)} for name, value in seconds.items()}

    def _encoder(self) -> MemoryEncoder:
        host = find_host(self.host.get_model_object("diffusion_model"))
        encoder = MemoryEncoder(EncoderConfig("wan", host.width, host.latent_channels, rate="4x4x2", padding="ceil"))
        encoder.reset_parameters(torch.Generator().manual_seed(0))
        return encoder.requires_grad_(False).to(self.device, self.dtype)

    def training(self, steps: int = 3) -> dict[str, Any]:
        """Steps of the presets' training, with the plan beside them."""
        self.forget()
        name, ways = (
            ("tiny", training_step.TINY) if not self.size.published else (self.size.published, training_step.CARD)
        )
        asked = argparse.Namespace(
            size=name, steps=steps, rank=128, section=3, fp8=self.fp8, layers=self.size.shape.layers, history=121,
            width=832, height=480,
        )  # fmt: skip
        way = next(way for way in ways if WAY in way.name)
        minutes = (self.end - time.monotonic()) / 60
        return next(training_step.measure([way], training_step.setting_of(asked), steps, minutes))

    def forget(self) -> None:
        """Takes everything from the card."""
        self.comfy.management.unload_all_models()
        self.__dict__.pop("host", None)
        gc.collect()
        self.comfy.management.soft_empty_cache()

    @contextlib.contextmanager
    def _peak(self, facts: dict[str, Any]) -> Iterator[None]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.device.type == "cuda":
            facts["peak_gib"] = max(facts.get("peak_gib", 0.0), torch.cuda.max_memory_allocated(self.device) / GIB)


def core(name: str) -> Any:
    return importlib.import_module(f"comfy.{name}")


def empty(config: EncoderConfig) -> VideoMemory:
    return VideoMemory.empty(config, 1)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def start(card_gb: float) -> tuple[Comfy, torch.device]:
    """ComfyUI on the card, which is made one of so many GB, or on the CPU where there is none."""
    if not torch.cuda.is_available():
        return start_comfy(cpu=True), torch.device("cpu")
    total, wanted = torch.cuda.get_device_properties(0).total_memory, card_gb * 1e9
    hidden = max(0.0, total - wanted) / GIB
    if hidden:
        torch.cuda.set_per_process_memory_fraction(wanted / total)
    comfy = start_comfy(cpu=False, arguments=("--reserve-vram", f"{hidden + 0.4:.2f}") if hidden else ())
    return comfy, comfy.management.get_torch_device()


def measure(bench: Bench, rounds: int, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All parts, one after the other; save: called with what is there after each."""
    found: dict[str, Any] = {}

    def beside() -> dict[str, Any]:
        step = found["steps"].get("memory", {}).get("seconds")
        if step is None:
            raise ValueError("no step with memory was timed, of which it would be a share")
        return bench.beside(step)

    parts = {"steps": partial(bench.steps, rounds), "beside": beside, "training": bench.training}
    for name, part in parts.items():
        try:
            found[name] = {"error": "no time left"} if time.monotonic() > bench.end else part()
        except (RuntimeError, ValueError) as error:
            found[name] = {"error": first_line(error)}
        save(found)
    return found


def table(found: dict[str, Any]) -> str:
    """In Markdown."""
    lines = ["| case | seconds a step | ratio | FLOPs ratio | peak GiB |", "|---|---:|---:|---:|---:|"]
    for case, one in found["steps"].items():
        if case != "error":
            shown = [
                f"{one[name]:.3f}" if name in one else "" for name in ("seconds", "ratio", "flops_ratio", "peak_gib")
            ]
            lines.append(f"| {case} | {one.get('error', shown[0])} | {' | '.join(shown[1:])} |")
    lines += ["", "| of a section | seconds | of its sampling |", "|---|---:|---:|"]
    for name, one in found["beside"].items():
        if name != "error":
            lines.append(f"| {name} | {one['seconds']:.3f} | {100 * one['share']:.2f} % |")
    errors = [f"{part}: {values['error']}" for part, values in found.items() if "error" in values]
    training = found["training"]
    if "error" not in training:
        errors.append(f"training, {training['way']}: {training['seconds']:.2f} s a step of one clip")
    return "\n".join([*lines, "", *errors])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", *training_step.SIZES), default="5b")
    parser.add_argument("--bf16", action="store_true", help="weights of the host in bf16 instead of fp8")
    parser.add_argument("--card-gb", type=float, default=12.0, help="of which the card is made one")
    parser.add_argument("--layers", type=int, help="fewer blocks, to try it")
    parser.add_argument("--rounds", type=int, default=2, help="turns of every case")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which nothing more is begun")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    args = parser.parse_args(argv)
    end = time.monotonic() + 60 * args.minutes
    comfy, device = start(args.card_gb)
    if device.type == "cpu" and args.size != "tiny":
        parser.error("there is no card; --size tiny runs on a CPU")
    bench = Bench(comfy, size_named(args.size, args.layers), args.size != "tiny" and not args.bf16, device, end)
    about = describe(device, int(comfy.management.total_ram * 2**20), comfy.version) | {"load_average": load_average()}
    asked = {name: value for name, value in vars(args).items() if name != "out"}

    def save(found: dict[str, Any]) -> None:
        if args.out:
            text = json.dumps({"machine": about, "asked": asked, "parts": found}, indent=1)
            write_bytes(args.out, (text + "\n").encode())

    sys.stdout.write(table(measure(bench, args.rounds, save)) + "\n")


if __name__ == "__main__":
    main()
