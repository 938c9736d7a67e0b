"""The `train` command: the same code as the node Train Memory Encoder."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ..injection.hosts import Host, find_host
from ..injection.hosts.comfy_models import (
    PYTORCH_ATTENTION,
    codec,
    computes_in_bf16,
    load_comfy,
    load_host,
    load_vae,
    sampling_shift,
    training_mode,
)
from ..injection.hosts.encoder_file import cross_settings, load_encoder, new_encoder, with_paths
from ..phi.config import EncoderConfig, Padding
from ..phi.encoder import MemoryEncoder
from .dataset.mixture import Mixture, open_datasets
from .dataset.settings import of_another_vae, parse_rates
from .dataset.share import use_own_device
from .distributed.shards import is_main
from .heldout import describe_parts
from .listener import PictureListener
from .options import HostDefaults, TrainOptions
from .pace import Pace
from .presets import preset_named
from .run import train
from .run_files import ENCODER, read_lora
from .trainer import Trainer

_LOG = logging.getLogger("video_memory")
DEFAULT_RATE = "4x4x2"


def run_train(args: argparse.Namespace) -> None:
    """Trains by the arguments of `arguments.train_arguments`; raises ValueError for what does not fit."""
    logging.basicConfig(level=logging.INFO if is_main() else logging.WARNING, format="%(message)s")
    if args.stage == "continuation" and not args.encoder and not args.from_scratch:
        raise ValueError(
            "stage continuation goes on with the encoder of stage retrieval, and none is given: add "
            f"--encoder RUN/{ENCODER} of that run, or --from-scratch to train a new one without it"
        )
    use_own_device()  # before core looks at one
    load_comfy(args.comfy, PYTORCH_ATTENTION)
    options = options_from(args)
    dataset = open_datasets(args.dataset)
    with torch.inference_mode(False), training_mode():
        patcher = load_host(args.host)
        model: Any = patcher.model
        host = find_host(model.diffusion_model)
        encoder, *others = encoders_from(args, host, dataset.padding, options.seed)
        pictures = None
        if args.vae:
            vae = load_vae(args.vae)
            pictures = codec(patcher, vae).decode
            if is_main() and (remark := of_another_vae(dataset.space, vae)):
                _LOG.warning("--vae %s: %s", args.vae, remark)
        report = Teller(args.out, pictures)
        if isinstance(dataset, Mixture) and is_main():
            print(f"datasets: {dataset}", flush=True)
        lora = None if args.lora is None else read_lora(args.lora)
        metadata = host_metadata(args.host)
        teacher = None if args.teacher is None else load_encoder(args.teacher)
        train(
            model.diffusion_model,
            encoder,
            dataset,
            options,
            args.out,
            report,
            metadata,
            lora=lora,
            card_gib=args.card_gib,
            others=others,
            teacher=teacher,
            given=given_on(args),
            defaults=HostDefaults(sampling_shift(patcher), "bf16" if computes_in_bf16(patcher.load_device) else "no"),
        )


class Teller(PictureListener):
    """Plain lines for a terminal."""

    facts = ""  # of the last step, beside its loss

    def plan(self, text: str) -> None:
        print(text, flush=True)

    def started(self, first_step: int, last_step: int) -> None:
        super().started(first_step, last_step)
        print(f"steps {first_step} to {last_step}", flush=True)

    def pace(self, step: int, pace: Pace) -> None:
        self.facts = f", {pace.describe()}"

    def parts(self, step: int, parts: Mapping[str, float]) -> None:
        super().parts(step, parts)
        print(f"step {step + 1} held out: {describe_parts(parts)}", flush=True)

    def reconstruction(self, step: int, steps: int, loss: float) -> None:
        if (step + 1) % 50 == 0:
            print(f"reconstruction, step {step + 1} of {steps}: loss {loss:.4f}", flush=True)

    def step(self, step: int, loss: float) -> None:
        self.losses.append((step, loss))
        if (step + 1) % 10 == 0:
            mean = sum(value for _, value in self.losses[-10:]) / len(self.losses[-10:])
            print(f"step {step + 1} loss {mean:.4f}{self.facts}", flush=True)

    def skipped(self, step: int) -> None:
        print(f"step {step + 1} left out: its loss or gradient is not finite", flush=True)

    def stopped(self, text: str) -> None:
        print(text, flush=True)

    def heldout(self, step: int, loss: float) -> None:
        super().heldout(step, loss)
        print(f"step {step + 1} held-out loss {loss:.4f}", flush=True)

    def picture(self, step: int, trainer: Trainer) -> None:
        super().picture(step, trainer)
        print(f"step {step + 1} pictures in {self.folder}", flush=True)


def encoders_from(args: argparse.Namespace, host: Host, padding: Padding, seed: int) -> list[MemoryEncoder]:
    """The encoders of `--encoder`, then a new one for each rate of `--rate`; one at 4x4x2 when neither is given.

    Raises ValueError for a file that cannot be read, and for a new encoder that repeats a rate.
    """
    encoders = [load_encoder(path) for path in args.encoder]
    for place, encoder in enumerate(encoders):
        config, cross = encoder.config, args.cross_attention
        encoders[place] = with_paths(
            encoder,
            host,
            config.cross_blocks > 0 if cross is None else cross,
            args.memory_attention or config.memory_attention,
            seed + place,
        )
    for rate in parse_rates(args.rate or ("" if encoders else DEFAULT_RATE)):
        if any(rate == encoder.config.rate for encoder in encoders):
            raise ValueError(
                f"rate {rate} asks for a new encoder beside one of the same rate; leave it out, or give another rate"
            )
        config = EncoderConfig(
            host=host.name, width=host.width, latent_channels=host.latent_channels, rate=rate, variant=args.variant,
            attention=args.attention, padding=padding, patch=host.patch,
            memory_attention=args.memory_attention or (encoders[0].config.memory_attention if encoders else "joint"),
            **cross_settings(host, bool(args.cross_attention)), **channels_from(args.channels),
        )  # fmt: skip
        encoders.append(new_encoder(config, host, seed + len(encoders)))
    return encoders


def given_on(args: argparse.Namespace) -> dict[str, Any]:
    """The options that stand on the command line."""
    values = {field.name: getattr(args, field.name, None) for field in fields(TrainOptions)}
    return {name: value for name, value in values.items() if value is not None}


def options_from(args: argparse.Namespace) -> TrainOptions:
    """Options given on the command line over those of the preset, over the defaults. Raises ValueError."""
    given = given_on(args)
    preset = preset_named(args.preset).options(args.stage, given.get("steps")) if args.preset else {}
    return TrainOptions(**preset | given)


def channels_from(text: str | None) -> dict[str, Any]:
    """Reads "64,128,256,512"; nothing leaves the paper's channels. Raises ValueError for anything else."""
    if not text:
        return {}
    try:
        return {"channels": tuple(int(part) for part in text.split(","))}
    except ValueError as error:
        raise ValueError(f"channels {text[:80]!r} are no numbers with commas; write such as 64,128,256,512") from error


def host_metadata(path: Path) -> dict[str, str]:
    """What a host's file says beside its weights; a host that is trained itself keeps it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}
