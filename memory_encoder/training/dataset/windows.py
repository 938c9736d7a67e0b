"""Training windows: cut from a stream of pictures, and turned into the latents of both branches."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...frames import latents_in
from ...phi.config import EncoderConfig
from ...phi.low_resolution import downsample, encode_cells, lr_frame_indices
from ...phi.positions import cells_for, grid_for
from ...pictures.codec import Codec
from .settings import CacheSettings, DatasetError, Geometry, LatentSpace
from .video import Picture

IsCut = Callable[[Picture], bool]


@dataclass(frozen=True)
class Window:
    """Frames `start` .. `start` + F - 1 of a resampled clip: uint8 [F, H, W, 3]."""

    start: int
    pixels: np.ndarray


def cut_windows(
    pictures: Iterable[Picture],
    length: int,
    stride: int,
    is_cut: IsCut | None = None,
    shorter: Sequence[int] = (),
) -> Iterator[Window]:
    """Windows of `length` frames, `stride` apart, that never reach over a cut; what is left at the end is dropped.

    shorter: lengths, descending; a stretch without cuts that is shorter than `length` is one window of the first of
    them that it fills. Holds one window in memory, whatever the length of the clip.
    """
    held: list[np.ndarray] = []
    start = 0  # first frame of the next window
    whole = False  # whether the stretch had a window

    def rest() -> Iterator[Window]:
        fits = next((frames for frames in shorter if frames <= len(held)), None)
        if fits is not None and not whole:
            yield Window(start, np.stack(held[:fits]))

    for picture in pictures:
        if is_cut is not None and is_cut(picture):
            yield from rest()
            held, start, whole = [], picture.index, False
        if picture.index < start:
            continue
        held.append(picture.pixels)
        if len(held) == length:
            yield Window(start, np.stack(held))
            held, start, whole = held[stride:], start + stride, True
    yield from rest()


def scene_cuts() -> IsCut:
    """A detector of cuts by PySceneDetect for the pictures of one clip, in their order.

    It sees the resampled pictures, so that cuts lie on the same clock as windows. Raises DatasetError when it is not
    installed.
    """
    try:
        detectors = importlib.import_module("scenedetect.detectors")
    except ImportError as error:
        raise DatasetError(
            f"scene_cuts needs PySceneDetect ({error}); run: pip install 'scenedetect>=0.6.4,<0.7', or turn it off"
        ) from error
    detector = detectors.ContentDetector(min_scene_len=0)  # a cut is told at its own frame, not later
    return lambda picture: bool(detector.process_frame(picture.index, np.ascontiguousarray(picture.pixels[..., ::-1])))


def encode_window(
    window: Window, codec: Codec, settings: CacheSettings, geometry: Geometry, space: LatentSpace
) -> dict[str, Tensor]:
    """Latents of one window, which is taken for the beginning of a film.

    `hr` [C,T,H,W] and for each rate `lr.RATE` [C,t,h,w], float16, in the host's normalised space. Raises DatasetError
    when they are not what the VAE promised.
    """
    pictures = torch.from_numpy(window.pixels).float()[None].div_(255)
    tensors = {"hr": codec.encode(pictures)[0]}
    latents = latents_in(len(window.pixels), space.temporal)
    expected = (space.channels, latents, geometry.height // space.spatial, geometry.width // space.spatial)
    if tuple(tensors["hr"].shape) != expected:
        raise DatasetError(f"vae made latents of shape {tuple(tensors['hr'].shape)} instead of {expected}; report this")
    for rate in settings.rates:
        config = space.encoder_config(rate, settings.padding)
        tensors[f"lr.{rate}"] = low_resolution_latents(pictures, latents, config, codec)[0]
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise DatasetError(f"vae made NaN or infinite values ({name}, frame {window.start}); load it in float32")
    return {name: tensor.detach().cpu().half() for name, tensor in tensors.items()}


def lr_by_rate(
    pictures_BTHWC: Tensor, latents: int, configs: Iterable[EncoderConfig], codec: Codec
) -> dict[str, Tensor]:
    """LR latents of every encoder that has that branch, by rate; see `low_resolution_latents`."""
    return {
        config.rate: low_resolution_latents(pictures_BTHWC, latents, config, codec).float()
        for config in configs
        if config.has_lr
    }


def low_resolution_latents(pictures_BTHWC: Tensor, latents: int, config: EncoderConfig, codec: Codec) -> Tensor:
    """LR latents [1,C,t,h,w] of all cells of a clip of `latents` latents, from its original pictures [1,F,H,W,3].

    Exactly as the compressor makes them for a history of this length.
    """
    stride = config.stride[0]
    grid = grid_for(pictures_BTHWC.shape[2] // codec.spatial, pictures_BTHWC.shape[3] // codec.spatial, config)
    keep = lr_frame_indices(0, pictures_BTHWC.shape[1], stride)
    frames = downsample(pictures_BTHWC[:, keep], grid, config, codec.spatial)
    complete, started = cells_for(latents, stride)
    return encode_cells(frames, codec.encode, codec.temporal, 0, complete, started)[0]
