"""What the commands do that need models: the nodes' work, with models loaded through an installed ComfyUI."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from ...injection.hosts import comfy_models as models
from ...injection.hosts import find_host
from ...pictures.codec import Codec
from .cache import build_cache
from .clips import Progress
from .disk_space import DiskSpace
from .settings import CacheSettings, DatasetError, latent_space, parse_buckets, parse_heldout, parse_rates
from .share import Share, use_own_device
from .text import TextEncoder


def run_cache(args: argparse.Namespace) -> None:
    """Raises ValueError with a message for people, also when it is stopped."""
    settings = CacheSettings(
        width=args.width,
        height=args.height,
        fps=args.fps,
        window_seconds=args.window_seconds,
        stride_seconds=args.stride_seconds or None,
        rates=parse_rates(args.rates),
        padding=args.padding,
        scene_cuts=args.scene_cuts,
        heldout=parse_heldout(args.heldout),
        on_bad=args.on_bad,
        buckets=parse_buckets(args.buckets),
        min_window_seconds=args.min_window_seconds,
    )
    share = Share.of_this_process()
    use_own_device()
    models.load_comfy(args.comfy)
    model = models.load_host_shape(args.host)
    host, vae = find_host(model.diffusion_model), models.load_vae(args.vae)
    space = latent_space(host, model.latent_format, vae, args.out)
    models.codec_of(vae, model.latent_format)  # refuses a VAE of another model
    text = None
    if args.text_encoder:
        kind = args.text_type or models.text_type_of(host)
        identity = models.text_encoder_identity(args.text_encoder, kind)
        text = TextEncoder(identity, lambda: models.load_text_encoder(args.text_encoder, kind))
    try:
        report = build_cache(
            args.clips,
            args.out,
            settings,
            space,
            _CodecFactory(args.comfy, args.vae, space.latent_format),
            text,
            args.jobs,
            _tell,
            share,
            lambda needed: _say_space(needed, args),
        )
    except _EnoughError:
        return
    except KeyboardInterrupt as stopped:
        raise DatasetError("stopped; run the same command again to go on") from stopped
    except OSError as error:
        raise DatasetError(str(error)) from error
    print(report)


@dataclass(frozen=True)
class _CodecFactory:
    """Makes the codec in whichever process asks; the host is not needed for it."""

    comfy: str | None
    vae: str
    latent_format: str

    def __call__(self) -> Codec:
        models.load_comfy(self.comfy)
        return models.codec_of(models.load_vae(self.vae), models.latent_format_named(self.latent_format))


class _EnoughError(Exception):
    """The estimate was all that was asked for."""


def _say_space(needed: DiskSpace, args: argparse.Namespace) -> None:
    sys.stderr.write(f"{needed}\n")
    if args.estimate:
        raise _EnoughError
    if not args.ignore_space:
        needed.check(args.out)


def _tell(progress: Progress) -> None:
    if progress.done:
        made = f"{progress.windows} windows, {progress.encoded} encoded now"
        sys.stderr.write(f"{progress.clip + 1} of {progress.clips}: {progress.name}: {made}\n")
