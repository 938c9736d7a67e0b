"""Train the tiny Wan 2.1 format VAE on the CPU (or a GPU when there is one).

    python -m demo.tiny_family.train_vae prepare --clips FOLDER --data CACHE
    python -m demo.tiny_family.train_vae train   --data CACHE --out RUN [--steps N | --minutes M] [--resume]
    python -m demo.tiny_family.train_vae export  --data CACHE --out RUN --weights FILE

``train`` may be stopped at any time and goes on with ``--resume``; about an hour on two cores is enough. The objective
is not from the paper: L1 on pixels and on their differences, a posterior of fixed width and a small pull of its mean
towards zero.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch._dynamo
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from .clips import CACHE_SHORT_SIDE, CUT_SHARE, WindowSampler, add_clips, cache_clips, cache_films
from .muon import Muon
from .wan_vae import (
    LATENT_CHANNELS,
    POSTERIOR_STD,
    add_comfyui_to_path,
    build_vae,
    decode_clip,
    encode_clip,
    fold_latent_statistics,
    norm_silu,
    save_weights,
)

# frames, clips per batch, crop side, probability. Single frames first: they cost a third of a clip's frame and teach
# the same spatial weights. Never a batch of one: PyTorch's CPU conv3d is about ten times slower there.
IMAGE_BATCHES = ((1, 16, 64, 0.8), (1, 8, 96, 0.2))
CLIP_BATCHES = ((1, 16, 64, 0.2), (1, 8, 96, 0.05), (5, 4, 64, 0.4), (9, 2, 64, 0.35))
WARMUP_STEPS = 40
EMA_DECAY = 0.995
GRADIENT_WEIGHT = 0.5
LATENT_WEIGHT = 1e-3
STANDARD = (torch.zeros(LATENT_CHANNELS), torch.ones(LATENT_CHANNELS))  # mean and deviation of latents in training
PIXEL_LAYERS = ("encoder.conv1.weight", "decoder.head.2.weight")


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of pixels plus L1 of horizontal, vertical and temporal differences. Both [B, 3, T, H, W]."""
    loss = F.l1_loss(output, target)
    edges = [F.l1_loss(output.diff(dim=d), target.diff(dim=d)) for d in (3, 4)]
    if output.shape[2] > 1:
        edges.append(F.l1_loss(output.diff(dim=2), target.diff(dim=2)))
    return loss + GRADIENT_WEIGHT * torch.stack(edges).mean()


@dataclass
class Anchor:
    """A VAE whose latents are to stay valid for the models that were trained on them, and how much that weighs."""

    vae: torch.nn.Module
    weight: float


def training_step(
    vae: torch.nn.Module, pixels: Tensor, generator: torch.Generator, norm: Any, anchor: Anchor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the loss and the mean squared error in [-1, 1] units (for the log)."""
    mean = encode_clip(vae, pixels, norm)
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    output = decode_clip(vae, mean + POSTERIOR_STD * noise, norm).float()
    loss = reconstruction_loss(output, pixels) + LATENT_WEIGHT * mean.square().mean()
    if anchor:
        with torch.no_grad():
            kept = encode_clip(anchor.vae, pixels, norm)
        loss = loss + anchor.weight * F.mse_loss(mean.float(), kept.float())
    return loss, (output.detach() - pixels).square().mean()


def make_optimizers(
    vae: torch.nn.Module, lr: float, pixel_layers: tuple[str, ...] = PIXEL_LAYERS
) -> list[torch.optim.Optimizer]:
    """Muon for hidden convolutions; AdamW for norms, biases and the layers that touch pixels."""
    named = {name: p for name, p in vae.named_parameters() if p.requires_grad}
    hidden = {k: p for k, p in named.items() if p.ndim >= 4 and k.endswith("weight") and k not in pixel_layers}
    others = [p for k, p in named.items() if k not in hidden]
    optimizers = [Muon(hidden.values(), lr), torch.optim.AdamW(others, lr / 10, (0.9, 0.98), weight_decay=1e-4)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


@torch.no_grad()
def save_preview(vae: torch.nn.Module, sampler: WindowSampler, path: Path) -> float:
    """Write original | reconstruction pairs of fixed crops; returns their PSNR in dB."""
    pixels = torch.from_numpy(sampler.batch(np.random.default_rng(7), 8, 5, 96)).to(next(vae.parameters()).device)
    output = decode_clip(vae, encode_clip(vae, pixels)).clamp(-1, 1)
    psnr = -10 * math.log10(float((output - pixels).square().mean()) / 4)
    pairs = torch.cat([pixels[:, :, 2], output[:, :, 2]], 3)  # [8, 3, 96, 192]
    grid = pairs.reshape(2, 4, 3, 96, 192).permute(0, 3, 1, 4, 2).reshape(192, 768, 3)
    rgb = ((grid + 1) * 127.5).round().byte().cpu().numpy()
    cv2.imwrite(str(path), cv2.resize(rgb[:, :, ::-1], None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
    return psnr


@dataclass
class Run:
    """Everything that a checkpoint holds."""

    vae: torch.nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema: dict[str, Tensor]
    step: int = 0
    elapsed: float = 0.0  # seconds of training, over all starts

    def save(self, path: Path, dim: int, keeps_latents: bool) -> None:
        optimizers = [o.state_dict() for o in self.optimizers]
        state = {"model": self.vae.state_dict(), "optimizers": optimizers, "ema": self.ema}
        save_checkpoint(path, {**state, "step": self.step, "elapsed": self.elapsed, "dim": dim, "keeps": keeps_latents})

    def load(self, path: Path, device: torch.device) -> None:
        saved = torch.load(path, map_location=device, weights_only=True)
        self.vae.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.ema, self.step, self.elapsed = saved["ema"], saved["step"], saved["elapsed"]

    def update(self, loss: Tensor, factor: float) -> None:
        """One optimizer step at ``factor`` times the peak learning rates, then the moving average."""
        self.vae.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for key, value in self.vae.state_dict().items():
                self.ema[key].lerp_(value, 1 - decay)
        self.step += 1


def draw_batch(sampler: WindowSampler, seed: int, step: int, images_only: bool) -> Tensor:
    """Batches depend on seed and step alone, so that a resumed run sees the same ones."""
    rng = np.random.default_rng((seed, step))
    kinds = IMAGE_BATCHES if images_only else CLIP_BATCHES
    frames, count, size, _ = kinds[rng.choice(len(kinds), p=[k[3] for k in kinds])]
    return torch.from_numpy(sampler.batch(rng, count, frames, size))


def learning_rate_factor(step: int, progress: float) -> float:
    """Warm-up, then cosine to 2 %."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))


def begin_from(vae: torch.nn.Module, weights: Path) -> None:
    """Loads exported weights and takes Wan's statistics of the latents out of them again, as the loss expects."""
    import comfy.latent_formats

    vae.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    wan = comfy.latent_formats.Wan21()
    fold_latent_statistics(vae, wan.latents_mean.flatten(), wan.latents_std.flatten(), *STANDARD)


def train(args: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    sampler = WindowSampler(args.data, args.real_share, args.zoom, args.cuts, args.aligned_cuts)
    print("windows: " + ", ".join(f"{k} {sum(map(len, v))}" for k, v in sampler.groups.items()), flush=True)

    vae = build_vae(args.dim, args.seed).to(device)
    if args.decoder_only:
        for part in (vae.encoder, vae.conv1):
            part.requires_grad_(False)
    anchor = None
    if args.begin:
        begin_from(vae, args.begin)
        anchor = Anchor(copy.deepcopy(vae).requires_grad_(False), args.keep_latents) if args.keep_latents else None
    ema = {k: v.detach().clone() for k, v in vae.state_dict().items()}
    run = Run(vae, make_optimizers(vae, args.lr), ema)
    if args.resume and checkpoint.exists():
        run.load(checkpoint, device)
        print(f"resumed at step {run.step} after {run.elapsed / 60:.1f} min", flush=True)
    norm = norm_silu
    if args.compile:
        torch._dynamo.config.recompile_limit = 256  # one small kernel per shape
        norm = torch.compile(norm_silu, dynamic=False)

    last_save = last_picture = time.monotonic()
    recent: list[tuple[float, float]] = []
    while True:
        started = time.monotonic()
        # The schedule follows the clock when --minutes is given: on a shared machine the step time is not known.
        progress = run.elapsed / 60 / args.minutes if args.minutes else run.step / args.steps
        if progress >= 1:
            break
        pixels = draw_batch(sampler, args.seed, run.step, progress < args.images_until).to(device)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
        pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss, error = training_step(vae, pixels, generator, norm, anchor)
        factor = learning_rate_factor(run.step, progress)
        run.update(loss, factor)
        recent.append((float(loss.detach()), float(error)))
        now = time.monotonic()
        run.elapsed += now - started
        if run.step % 25 == 0:
            mean_loss, mean_error = np.mean(recent, axis=0)
            recent = []
            line = f"step {run.step} loss {mean_loss:.4f} psnr {-10 * math.log10(mean_error / 4):.2f} dB"
            print(f"{line} lr x{factor:.2f} {run.elapsed / 60:.1f} min", flush=True)
        if now - last_save > 150:
            run.save(checkpoint, args.dim, bool(anchor or args.decoder_only))
            last_save = now
        if now - last_picture > 300:
            average = build_vae(args.dim).to(device)
            average.load_state_dict(run.ema)
            psnr = save_preview(average, sampler, args.out / "preview.png")
            print(f"step {run.step} preview (EMA) psnr {psnr:.2f} dB -> {args.out / 'preview.png'}", flush=True)
            last_picture = now
    run.save(checkpoint, args.dim, bool(anchor or args.decoder_only))
    print(f"done at step {run.step}", flush=True)


@torch.no_grad()
def export(args: argparse.Namespace) -> None:
    """Fold Wan's latent statistics into the EMA weights and write them as fp16: those that the latents of the training
    data have, or where the latents were kept, the very ones that were taken out, so that they stay the same numbers."""
    import comfy.latent_formats

    saved = torch.load(args.out / "checkpoint.pt", map_location="cpu", weights_only=True)
    vae = build_vae(saved["dim"])
    vae.load_state_dict(saved["ema"])
    sampler = WindowSampler(args.data)
    rng = np.random.default_rng(11)
    batches = [torch.from_numpy(sampler.batch(rng, 8, frames, 96)) for frames in (1, 5, 9) * 8]
    latents = torch.cat([encode_clip(vae, b).transpose(0, 1).flatten(1) for b in batches], 1)
    before = decode_clip(vae, encode_clip(vae, batches[1]))
    wan = comfy.latent_formats.Wan21()
    measured = STANDARD if saved["keeps"] else (latents.mean(1), latents.std(1))
    fold_latent_statistics(vae, *measured, wan.latents_mean.flatten(), wan.latents_std.flatten())
    after = decode_clip(vae, encode_clip(vae, batches[1]))
    print(f"folding changed the round trip by {float((after - before).abs().max()):.1e}")
    save_weights(vae.state_dict(), args.weights, {"steps": str(saved["step"])})
    print(f"wrote {args.weights} ({args.weights.stat().st_size / 1e6:.1f} MB) from step {saved['step']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument("command", choices=("prepare", "train", "export"))
    add_clips(parser)
    parser.add_argument("--data", type=Path, required=True, help="cache folder of decoded windows")
    parser.add_argument("--films", type=int, default=60, help="procedural films to render for training")
    parser.add_argument("--out", type=Path, help="run folder: checkpoint.pt, preview.png")
    parser.add_argument("--weights", type=Path, default=here / "weights" / "tiny_wan_vae.safetensors")
    parser.add_argument("--comfyui", help="ComfyUI folder (default: COMFYUI_PATH)")
    parser.add_argument("--dim", type=int, default=16, help="base width; core's full VAE has 96")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=0, help="follow the clock instead of --steps")
    parser.add_argument("--images-until", type=float, default=0.5, help="part of the schedule with single frames only")
    parser.add_argument("--real-share", type=float, default=0.65, help="part of real clips; the rest is films")
    parser.add_argument("--short-side", type=int, default=CACHE_SHORT_SIDE, help="pixels of the cached windows")
    parser.add_argument("--zoom", type=float, default=1.5, help="a crop shows up to this many times its side")
    parser.add_argument("--cuts", type=float, default=CUT_SHARE, help="part of the clips with a cut inside")
    parser.add_argument("--aligned-cuts", type=float, default=0, help="part of these whose cut is between two latents")
    parser.add_argument("--keep-latents", type=float, default=0, help="weight of staying at the latents of --begin")
    parser.add_argument("--decoder-only", action="store_true", help="train the decoder alone: latents stay as they are")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--lr", type=float, default=0.02, help="of Muon; AdamW beside it has a tenth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin", type=Path, help="exported weights to begin with, instead of random ones")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--compile", action="store_true", help="fuse norm and SiLU (needs a C++ compiler)")
    args = parser.parse_args()
    if args.command == "prepare":
        cache_clips(args.clips, args.data, args.short_side)
        cache_films(args.data, args.films, args.short_side)
        return
    if args.out is None:
        parser.error(f"{args.command} needs --out")
    if (args.keep_latents or args.decoder_only) and not args.begin:
        parser.error("--keep-latents and --decoder-only need --begin: the weights whose latents are to be kept")
    add_comfyui_to_path(args.comfyui)
    train(args) if args.command == "train" else export(args)


if __name__ == "__main__":
    main()
