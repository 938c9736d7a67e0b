"""Train a small decoder of the tiny VAE's latents, in the format of core's TAEHV: a file for the input `lr_vae`.

    python -m demo.tiny_family.train_taehv --data CACHE --out FILE [--minutes M]

CACHE is what ``train_vae prepare`` makes. The decoder learns to make the pictures again whose latents the tiny VAE's
encoder gives. Core's class has one width, 11 million numbers, far too many for some minutes of a CPU: a narrow network
of the same layers is trained, and its weights stand among zeros in the file, which changes no value.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clips import WindowSampler
from .prepare import TinyCodec
from .train_vae import Run, learning_rate_factor, make_optimizers, reconstruction_loss
from .wan_vae import LATENT_CHANNELS, save_weights

WIDTHS = (64, 48, 24, 16)  # core's: 256, 128, 64, 64
FRAMES, SIDE, CLIPS = 9, 64, 2  # of a batch
LAST = "decoder.22.weight"


def narrow(widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> Any:
    """Core's TAEHV with a decoder of these widths; it takes latents of the VAE, as core's loader would hand them over.

    A file of half precision is read by core as one for HunyuanVideo's scale; the decoder is trained for that.
    """
    import comfy.latent_formats
    from comfy.taesd import taehv

    model = taehv.TAEHV(LATENT_CHANNELS, parallel=True, latent_format=comfy.latent_formats.HunyuanVideo)
    del model.encoder
    first, second, third, last = widths
    act, around = nn.ReLU(inplace=True), (first, second, third)
    layers: list[nn.Module] = [taehv.Clamp(), taehv.conv(LATENT_CHANNELS, first), act]
    for width, then, grown in zip(around, (second, third, last), (1, 2, 2), strict=True):
        layers += [taehv.MemBlock(width, width, act) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), taehv.TGrow(width, grown), taehv.conv(width, then, bias=False)]
    model.decoder = nn.Sequential(*layers, act, taehv.conv(last, model.image_channels))
    _initialise(model, torch.Generator().manual_seed(seed))
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def _initialise(model: Any, generator: torch.Generator) -> None:
    """He's, blocks near the identity, and pictures that are grey at first; not from the paper."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.5 if name == LAST.replace("weight", "bias") else 0.0)
        elif parameter.shape[2] == 1:  # TGrow: a picture becomes copies of itself
            width = parameter.shape[1]
            parameter.copy_(torch.eye(width).repeat(parameter.shape[0] // width, 1)[..., None, None])
        else:
            gain = 0.3 if name.endswith("conv.4.weight") else 0.2 if name == LAST else 1.0
            parameter.normal_(0.0, gain * math.sqrt(2 / parameter[0].numel()), generator=generator)


@torch.no_grad()
def widened(model: Any) -> dict[str, Tensor]:
    """The decoder's weights in the shapes of core's TAEHV, zeros where the narrow one ends; the same function."""
    from comfy.taesd.taehv import TAEHV, TGrow

    shapes = {name: value.shape for name, value in TAEHV(LATENT_CHANNELS).state_dict().items()}
    state = {}
    for name, small in model.state_dict().items():
        layer = model.decoder[int(name.split(".")[1])]
        pictures = layer.stride if isinstance(layer, TGrow) else 1  # that it makes, side by side
        seen = 2 if name.endswith("conv.0.weight") else 1  # a MemBlock sees a picture and the one before it
        large = torch.zeros(shapes[name])
        out, given = (one.unflatten(0, (pictures, -1)) for one in (large, small))
        if small.ndim > 1:
            out, given = (one.unflatten(2, (seen, -1)) for one in (out, given))
            out = out[:, :, :, : given.shape[3]]
        out[:, : given.shape[1]].copy_(given)
        state[name] = large
    return state


def there_and_back(pixels: Tensor) -> Tensor:
    """A clip [B,3,T,H,W] and after it the same backwards: 2T-1 pictures without a jump, longer than what is seen."""
    return torch.cat([pixels, pixels.flip(2)[:, :, 1:]], dim=2)


def train(args: argparse.Namespace) -> None:
    codec = TinyCodec(args.comfyui)()
    from comfy.latent_formats import Wan21

    sampler, vae_space = WindowSampler(args.data), Wan21().process_out
    model = narrow(seed=args.seed)
    ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
    run = Run(model, make_optimizers(model, args.lr, (LAST,)), ema)
    begun, recent = time.monotonic(), []
    while (progress := (time.monotonic() - begun) / 60 / args.minutes) < 1:
        rng = np.random.default_rng((args.seed, run.step))
        pixels = there_and_back(torch.from_numpy(sampler.batch(rng, CLIPS, FRAMES, SIDE))) / 2 + 0.5
        latents = vae_space(codec.encode(pixels.movedim(1, -1)))
        with torch.autocast("cpu", torch.bfloat16):
            output = model.decode(latents).float()
        run.update(reconstruction_loss(output, pixels), learning_rate_factor(run.step, progress))
        recent.append(float(F.mse_loss(output.detach().clamp(0, 1), pixels)))
        if run.step % 25 == 0:
            psnr = -10 * math.log10(sum(recent) / len(recent))
            print(f"step {run.step} psnr {psnr:.2f} dB {(time.monotonic() - begun) / 60:.1f} min", flush=True)
            recent.clear()
    model.load_state_dict(run.ema)
    save_weights(widened(model), args.out, {"steps": str(run.step), "widths": "-".join(map(str, WIDTHS))})
    print(f"wrote {args.out} after {run.step} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="cache folder of train_vae's prepare")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--lr", type=float, default=0.02, help="of Muon; AdamW beside it has a tenth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--comfyui", help="ComfyUI folder (default: COMFYUI_PATH)")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
