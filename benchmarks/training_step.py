"""Real training steps, each way beside the plain one: clips a second, losses, and on a card its memory beside the plan.

    python tools/environment.py run -m benchmarks.training_step             a tiny host on the CPU, some minutes
    python -m benchmarks.training_step --size 5b --fp8 --out RESULT.json    on a card, in less than ten minutes

On a card the host is Wan of full size with random weights, 832x480, 20 s of history, and the clips are noise: its
losses mean nothing. COMFYUI_PATH names the ComfyUI whose model is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest import mock

import torch
from peft.tuners.lora import Linear

from benchmarks.flops import WanShape
from benchmarks.settings import HEAD_WIDTH, PUBLISHED, TEXT_TOKENS
from benchmarks.wan_host import Comfy, start_comfy
from memory_encoder.injection.hosts.base import host_blocks
from memory_encoder.injection.hosts.comfy_models import training_mode
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.phi.positions import cells_for, grid_for
from memory_encoder.training.card_plan import GIB, RESERVED, plan_memory
from memory_encoder.training.lora import add_lora
from memory_encoder.training.module import Batch, TrainingModule
from memory_encoder.training.optimizers import EIGHT_BIT
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.streaming import streamed_blocks
from memory_encoder.training.trainer import Trainer
from tests.integration import training as tiny
from tools.machine import describe, load_average

SIZES = {"1.3b": (1536, 30), "5b": (3072, 30), "14b": (5120, 40)}  # width and blocks of published Wans
TURN = 10  # steps, after which it is another way's turn
WARM = 2  # steps that are not timed
RATE = "4x4x2"


@dataclass(frozen=True)
class Way:
    """One way of taking the same steps. host: types of its weights, and of the values that they have, else float32.
    around: what is patched meanwhile."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    host: tuple[torch.dtype, torch.dtype] | None = None
    prefetch: bool = True
    compiled: bool = False
    around: Callable[[], Any] = contextlib.nullcontext


def pefts_layer() -> Any:
    return mock.patch("memory_encoder.training.lora_layer.LoraLayer", Linear)


PLAIN = "plain"
HALF, FP8 = torch.bfloat16, torch.float8_e4m3fn
TINY = (
    Way(PLAIN),
    Way("another seed", {"seed": 1}),
    Way("--mixed-precision bf16, bf16 host", {"mixed_precision": "bf16"}, (HALF, HALF)),
    Way("the same with peft's LoRA layer", {"mixed_precision": "bf16"}, (HALF, HALF), around=pefts_layer),
    Way("--mixed-precision bf16, fp8 host", {"mixed_precision": "bf16"}, (FP8, FP8)),
    Way("bf16 host of the fp8 host's values", {"mixed_precision": "bf16"}, (HALF, FP8)),
    Way("--gradient-checkpointing", {"gradient_checkpointing": True}),
    Way("the same, --offload-inputs", {"gradient_checkpointing": True, "offload_inputs": True}),
    Way("--resident-blocks 0", {"resident_blocks": 0}),
    Way("--optimizer adamw8bit", {"optimizer": "adamw8bit"}),
    Way("--per-clip", {"per_clip": True}),
    Way("--ema-every 10", {"ema_every": 10}),
    Way("batches in turn", prefetch=False),
    Way("blocks compiled", compiled=True),
)
CARD = (
    Way(PLAIN),
    Way("--offload-inputs --resident-blocks 0 (presets)", {"offload_inputs": True, "resident_blocks": 0}),
    Way("--offload-inputs", {"offload_inputs": True}),
    Way("--resident-blocks 0", {"resident_blocks": 0}),
    Way("--optimizer adamw8bit", {"optimizer": "adamw8bit"}),
    Way("--ema-every 10", {"ema_every": 10}),
    Way("--no-gradient-checkpointing", {"gradient_checkpointing": False}),
    Way("--no-per-clip --batch-size 2", {"per_clip": False, "batch_size": 2}),
    Way("--batch-size 2", {"batch_size": 2}),
    Way("blocks compiled", compiled=True),
)


@dataclass
class Setting:
    """What all ways share."""

    comfy: Comfy
    size: str
    fp8: bool
    latents: tuple[int, int, int, int]
    options: TrainOptions
    layers: int | None

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.size == "tiny" or not torch.cuda.is_available() else "cuda")

    def module(self, options: TrainOptions, host_types: tuple[torch.dtype, torch.dtype] | None) -> TrainingModule:
        if self.size == "tiny":
            casting = host_types is not None and FP8 in host_types
            module = tiny.tiny_module(options, options.gradient_checkpointing, casting=casting)
            if host_types is not None:
                tiny.narrowed(module, *host_types)
            module.offload_inputs = options.offload_inputs
            return module
        host = self._wan()
        add_lora(host, options.rank, 0)
        encoder = MemoryEncoder(EncoderConfig("wan", host.dim, self.latents[0], rate=RATE, padding="ceil"))
        encoder.reset_parameters(torch.Generator().manual_seed(0))
        checkpointing, offload = options.gradient_checkpointing, options.offload_inputs
        return TrainingModule(encoder, host, "zero", checkpointing, (), options.guidance, offload)

    def _wan(self) -> Any:
        """Core's WanModel with random weights, made where it will run; fp8 for the matrices of its blocks."""
        width, layers = SIZES[self.size]
        ffn, channels = PUBLISHED[width]
        heads, layers = width // HEAD_WIDTH, self.layers or layers
        shape = WanShape(width, ffn, heads, layers, channels, 16 if channels == 48 else 8, TEXT_TOKENS)
        model = self.comfy.wan.WanModel(
            model_type="t2v", patch_size=shape.patch, text_len=shape.text_tokens, in_dim=channels, dim=width,
            ffn_dim=ffn, text_dim=shape.text_width, out_dim=channels, num_heads=heads, num_layers=layers,
            device="meta", dtype=torch.bfloat16, operations=self.comfy.ops.manual_cast,
        )  # fmt: skip
        for name, value in list(model.named_parameters()):
            parent, _, leaf = name.rpartition(".")
            made = torch.randn(value.shape, device=self.device, dtype=value.dtype) * value[0].numel() ** -0.5
            made = made if value.ndim > 1 else torch.full_like(made, float("norm" in name and leaf == "weight"))
            narrow = self.fp8 and value.ndim == 2 and "blocks." in name
            made = made.to(FP8) if narrow else made
            model.get_submodule(parent)._parameters[leaf] = torch.nn.Parameter(made, False)
        return model.eval()

    def source(self, options: TrainOptions) -> Any:
        return tiny.OneClip(8) if self.size == "tiny" else Noise(self.latents)


class Noise:
    """Clips of noise, with a text of full length."""

    def __init__(self, latents: tuple[int, int, int, int]) -> None:
        self.latents, self.config = latents, EncoderConfig("wan", HEAD_WIDTH, latents[0], rate=RATE, padding="ceil")

    def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Batch:
        channels, frames, height, width = self.latents
        count, (down, across) = last - first, grid_for(height, width, self.config)
        cells = cells_for(frames, self.config.stride[0])[1]
        lr = torch.randn(count, channels, cells, down * self.config.patch[1], across * self.config.patch[2])
        return Batch(
            torch.randn(count, *self.latents), {RATE: lr}, {"context": torch.randn(count, TEXT_TOKENS, 4096) * 0.1}
        )


class Run:
    """Steps of one way. Raises RuntimeError where it has no room, or is not for this machine."""

    def __init__(self, way: Way, setting: Setting, folder: Path, stack: contextlib.ExitStack) -> None:
        self.way, self.device = way, setting.device
        self.options = replace(setting.options, **way.options)
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.losses: list[float] = []
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with way.around():
            module = setting.module(self.options, way.host)
        if way.compiled:
            for block in host_blocks(module.diffusion_model):
                block.compile()
        self.plan = plan_memory(module, self.options, setting.latents)
        stack.enter_context(streamed_blocks(module.diffusion_model, self.options.resident_blocks))
        self.trainer = Trainer(
            module, setting.source(self.options), self.options, folder, cpu=self.device.type == "cpu"
        )
        self.trainer.losses.batches.ahead *= way.prefetch
        stack.callback(self.trainer.losses.batches.close)

    def take(self, steps: int) -> None:
        for _ in range(steps):
            started, cpu = time.perf_counter(), time.process_time()
            result = self.trainer._step(len(self.losses))
            self.losses.append(result.loss)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - started)
            self.cpu_seconds.append(time.process_time() - cpu)

    def result(self) -> dict[str, Any]:
        timed, clips = slice(min(WARM, len(self.seconds) - 1), None), self.options.batch_size
        found = {
            "way": self.way.name,
            "seconds": median(self.seconds[timed]),
            "clips_a_second": clips / median(self.seconds[timed]),
            "clips_a_cpu_second": clips / median(self.cpu_seconds[timed]),
            "losses": [round(loss, 6) for loss in self.losses],
            "plan_gib": (self.plan.need(clips) - RESERVED) / GIB,
        }
        if self.device.type == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
            found["reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
        return found


def measure(ways: list[Way], setting: Setting, steps: int, minutes: float) -> Iterator[dict[str, Any]]:
    """The tiny host's ways in turns, so that a machine that slows down does so for all; others one after the other."""
    together, end = setting.size == "tiny", time.monotonic() + 60 * minutes
    with training_mode(), tempfile.TemporaryDirectory() as folder:
        for group in [ways] if together else [[way] for way in ways]:
            if time.monotonic() > end:
                yield from ({"way": way.name, "error": "no time left"} for way in group)
                continue
            with contextlib.ExitStack() as stack:
                yield from _in_turns(group, setting, steps, Path(folder), stack)
            gc.collect()
            if setting.device.type == "cuda":
                torch.cuda.empty_cache()


def _in_turns(
    ways: list[Way], setting: Setting, steps: int, folder: Path, stack: contextlib.ExitStack
) -> Iterator[dict[str, Any]]:
    runs: dict[str, Run] = {}
    failed: dict[str, str] = {}

    def attempt(way: Way, work: Callable[[], None]) -> None:
        try:
            work()
        except (RuntimeError, ValueError) as error:  # no room on the card, no optimizer of 8 bits, no compiler
            failed[way.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"

    def begin(way: Way) -> None:
        runs[way.name] = Run(way, setting, folder, stack)

    for way in ways:
        attempt(way, partial(begin, way))
    for count in [TURN] * (steps // TURN) + [steps % TURN]:
        for way in ways:
            if way.name in runs and way.name not in failed:
                attempt(way, partial(runs[way.name].take, count))
    for way in ways:
        error = failed.get(way.name)
        yield {"way": way.name, "error": error} if error else runs[way.name].result()


def apart(losses: list[float], plain: list[float]) -> float:
    """Mean distance of two curves of losses, each the mean of so many steps at a time, from the second quarter on."""
    first = len(plain) // 4
    pairs = [(mean(losses[i : i + TURN]), mean(plain[i : i + TURN])) for i in range(first, len(plain), TURN)]
    return mean(abs(a - b) for a, b in pairs)


def table(results: list[dict[str, Any]]) -> str:
    """In Markdown, against the first way."""
    plain, last = results[0], len(results[0]["losses"]) // 4
    card = "peak_gib" in plain
    heads = ["way", "clips/s", "ratio", *(["peak GiB", "plan GiB"] if card else ["ratio of CPU time"])]
    heads += [] if card else ["last losses", "curve apart"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for one in results:
        if "error" in one:
            lines.append(f"| {one['way']} | {one['error']} |" + " |" * (len(heads) - 2))
            continue
        timed = "clips_a_second" in one  # else its losses alone were taken, on a machine too busy for more
        row = [one["way"], *[""] * 2]
        if timed:
            row[1:] = [f"{one['clips_a_second']:.3g}", f"{one['clips_a_second'] / plain['clips_a_second']:.2f}"]
        if card:
            row += [f"{one['peak_gib']:.2f}", f"{one['plan_gib']:.2f}"]
        else:
            row.append(f"{one['clips_a_cpu_second'] / plain['clips_a_cpu_second']:.2f}" if timed else "")
            distance = apart(one["losses"], plain["losses"])
            row += [f"{mean(one['losses'][-last:]):.4f}", "equal" if distance == 0 else f"{distance:.5f}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def setting_of(args: argparse.Namespace) -> Setting:
    comfy = start_comfy(cpu=args.size == "tiny" or not torch.cuda.is_available())
    if args.size == "tiny":
        options = tiny.tiny_options(steps=args.steps, stage="continuation", history_dropout=0.0, batch_size=4)
        return Setting(comfy, args.size, False, (16, tiny.FRAMES, tiny.HEIGHT, tiny.WIDTH), options, None)
    channels = PUBLISHED[SIZES[args.size][0]][1]
    spatial = 16 if channels == 48 else 8
    options = TrainOptions(
        stage="continuation", steps=args.steps, batch_size=1, rank=args.rank, section=args.section, shift=3.0,
        history_dropout=0.0, caption_dropout=0.0, shorter_share=0.0, window_share=0.0, mixed_precision="bf16",
        heldout_every=0, picture_every=0,
    )  # fmt: skip
    latents = (channels, args.history + args.section, args.height // spatial, args.width // spatial)
    return Setting(comfy, args.size, args.fp8, latents, options, args.layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", *SIZES), default="tiny")
    parser.add_argument("--fp8", action="store_true", help="the matrices of the blocks in fp8")
    parser.add_argument("--steps", type=int, help="of each way; 200 of the tiny host, else 5")
    parser.add_argument("--section", type=int, default=3, help="latents")
    parser.add_argument("--history", type=int, default=121, help="latents")
    parser.add_argument("--width", type=int, default=832, help="pixels")
    parser.add_argument("--height", type=int, default=480, help="pixels")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--layers", type=int, help="fewer blocks, to try it")
    parser.add_argument("--only", default="", help="ways whose name contains this, beside the plain one")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no other way is begun")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    args = parser.parse_args()
    args.steps = args.steps or (200 if args.size == "tiny" else 5)
    ways = [way for way in (TINY if args.size == "tiny" else CARD) if way.name == PLAIN or args.only in way.name]
    setting, results = setting_of(args), []
    for result in measure(ways, setting, args.steps, args.minutes):
        results.append(result)
        sys.stderr.write(f"{result['way']}: {result.get('error') or round(result['seconds'], 3)}\n")
    sys.stdout.write(table(results) + "\n")
    if args.out:
        ram = setting.comfy.management.total_ram
        machine = describe(setting.device, int(ram * 2**20), setting.comfy.version) | {"load_average": load_average()}
        eight = [name for name, _ in EIGHT_BIT if importlib.util.find_spec(name)]
        asked = {name: value for name, value in vars(args).items() if name != "out"}
        result = {"machine": machine, "asked": asked, "eight_bit": eight, "ways": results}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
