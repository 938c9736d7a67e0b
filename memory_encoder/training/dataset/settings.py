"""What a dataset cache is made with: sizes, windows, rates, and the latent space that its latents live in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ...frames import frames_in, latents_in
from ...injection.hosts import Host
from ...phi.config import EncoderConfig, Padding
from ...phi.positions import grid_for
from .same_vae import identity_in, is_vae, vae_identity
from .scan import composed

OnBad = Literal["skip", "refuse"]
Split = Literal["train", "heldout"]

MAX_PIXELS = 16384  # along one side
MAX_FPS = 240.0
MAX_WINDOW_SECONDS = 600.0
ROUNDING = 1e-6  # in frames: times are sums of decimal fractions
INDEX = "index.json"  # the head of a dataset


class DatasetError(ValueError):
    """A dataset that cannot be made or read; the message names the file, what is wrong and what to do."""


class BadClip(DatasetError):
    """One clip (or its captions) that cannot be used; the message is the reason, without the clip's name."""


@dataclass(frozen=True)
class CacheSettings:
    """Choices of the user, in pixels, seconds and frames per second.

    window_seconds: longest length of one training window; it holds 1 + 4k frames. stride_seconds: from one window to
    the next, None for windows that touch. rates: LR latents are made for each. padding: as in the encoder. heldout:
    names of clips (as below the folder), or the share of clips, that never enter training. on_bad: what to do with
    clips that cannot be used. buckets: further sizes for clips of other aspect; "auto" for usual ones of about the area
    of width x height. min_window_seconds: a clip, or a scene, that is shorter than a window is one shorter window down
    to this length; 0 leaves it out. The paper leaves all of it open.
    """

    width: int
    height: int
    fps: float
    window_seconds: float = 5.0
    stride_seconds: float | None = None
    rates: tuple[str, ...] = ("4x4x2",)
    padding: Padding = "ceil"
    scene_cuts: bool = False
    heldout: tuple[str, ...] | float = 0.0
    on_bad: OnBad = "skip"
    buckets: tuple[tuple[int, int], ...] | Literal["auto"] = "auto"
    min_window_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name, value, highest in (
            ("width", self.width, MAX_PIXELS),
            ("height", self.height, MAX_PIXELS),
            ("fps", self.fps, MAX_FPS),
            ("window_seconds", self.window_seconds, MAX_WINDOW_SECONDS),
            ("stride_seconds", self.stride_seconds or 1.0, MAX_WINDOW_SECONDS),
            ("min_window_seconds", self.min_window_seconds or 1.0, MAX_WINDOW_SECONDS),
        ):
            if not 0 < value <= highest:  # also refuses NaN
                raise DatasetError(f"{name} is {value!r}; give a number above 0 and up to {highest:g}")
        if self.on_bad not in get_args(OnBad):
            raise DatasetError(f"on_bad is {self.on_bad!r}; choose skip or refuse")
        if isinstance(self.heldout, float) and not 0 <= self.heldout < 1:
            raise DatasetError(f"heldout is {self.heldout}; give names of clips, or a share from 0 up to but not 1")
        if not self.rates or len(set(self.rates)) < len(self.rates):
            raise DatasetError(f"rates are {', '.join(self.rates) or 'empty'}; name each once, such as 4x4x2,2x2x2")


@dataclass(frozen=True)
class LatentSpace:
    """The VAE and the host as far as cached tensors depend on them; datasets of equal spaces fit together.

    vae: identity of its weights, see `same_vae`. latent_format: name of core's class. temporal, spatial: pixels per
    latent.
    """

    host: str
    latent_format: str
    vae: str
    channels: int
    temporal: int
    spatial: int
    patch: tuple[int, int, int]
    text_width: int
    pooled_width: int | None

    def encoder_config(self, rate: str, padding: Padding) -> EncoderConfig:
        """A configuration that has this rate's grid; its width means nothing. ValueError for a malformed rate."""
        return EncoderConfig(
            self.host, 1, self.channels, rate=rate, variant="only_lr", padding=padding, patch=self.patch
        )


@dataclass(frozen=True)
class Geometry:
    """Settings on the latent lattice: pixels in whole host cells; latents, frames and stride in frames of a window."""

    width: int
    height: int
    latents: int
    frames: int
    stride: int


def plan_geometry(settings: CacheSettings, space: LatentSpace) -> Geometry:
    """Sizes rounded down to whole cells of the host, windows to 1 + 4k frames no longer than asked for.

    Raises DatasetError when nothing would be left, and ValueError for a rate that is malformed or leaves no cell.
    """
    cell_h, cell_w = whole_cells(space)
    width, height = settings.width // cell_w * cell_w, settings.height // cell_h * cell_h
    if not width or not height:
        raise DatasetError(
            f"{settings.width}x{settings.height} is smaller than one cell of the model, {cell_w}x{cell_h} pixels; "
            "give a larger width and height"
        )
    asked = settings.window_seconds * settings.fps + ROUNDING
    latents = latents_in(int(asked), space.temporal)
    if latents < 2:
        raise DatasetError(
            f"window_seconds {settings.window_seconds:g} at {settings.fps:g} fps is {int(asked)} frames, less than the "
            f"{frames_in(2, space.temporal)} of two latents; give longer windows"
        )
    frames = frames_in(latents, space.temporal)
    stride = frames if settings.stride_seconds is None else max(1, round(settings.stride_seconds * settings.fps))
    for rate in settings.rates:
        grid_for(height // space.spatial, width // space.spatial, space.encoder_config(rate, settings.padding))
    return Geometry(width, height, latents, frames, stride)


def whole_cells(space: LatentSpace) -> tuple[int, int]:
    """Height and width in pixels of one cell of the host, of which pictures are whole multiples."""
    return space.spatial * space.patch[1], space.spatial * space.patch[2]


def latent_space(host: Host, latent_format: Any, vae: Any, out: Path | None = None) -> LatentSpace:
    """The space of a host and core's VAE object. out: folder of a dataset, which may have been begun."""
    weights = vae.first_stage_model.state_dict()
    return LatentSpace(
        host=host.name,
        latent_format=type(latent_format).__name__,
        vae=vae_identity(weights) if out is None else identity_in(out / INDEX, weights),
        channels=host.latent_channels,
        temporal=vae.temporal_compression_decode() or 4,
        spatial=vae.spacial_compression_encode(),
        patch=host.patch,
        text_width=host.text_width,
        pooled_width=host.pooled_width,
    )


def of_another_vae(space: LatentSpace, vae: Any) -> str | None:
    """What to say of core's VAE object where the latents of a space were not made with it, else None."""
    if is_vae(space.vae, vae.first_stage_model.state_dict()):
        return None
    return (
        "the VAE is not the one that the dataset was cached with: recalled pictures may show wrong colours and "
        "details, while losses stay what they are; give the dataset's VAE"
    )


def parse_rates(text: str) -> tuple[str, ...]:
    """Reads "4x4x2,2x2x2"."""
    return tuple(rate.strip() for rate in text.split(",") if rate.strip())


def parse_heldout(text: str) -> tuple[str, ...] | float:
    """Reads a share such as "0.1", or names with commas; an empty text holds nothing out."""
    try:
        return float(text.strip() or 0)
    except ValueError:
        return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_buckets(text: str) -> tuple[tuple[int, int], ...] | Literal["auto"]:
    """Reads "auto", or "480x832,640x640"; "none" or an empty text is no further size. Raises DatasetError."""
    text = text.strip().lower()
    if text == "auto":
        return "auto"
    sizes = [re.fullmatch(r"(\d{1,5})\s*x\s*(\d{1,5})", part.strip()) for part in text.split(",") if part.strip()]
    if text in ("", "none"):
        return ()
    if any(size is None for size in sizes):
        raise DatasetError(f"buckets are {text[:80]!r}; write auto, none, or sizes such as 480x832,640x640")
    return tuple((int(size[1]), int(size[2])) for size in sizes if size)


def heldout_names(names: Iterable[str], heldout: tuple[str, ...] | float) -> set[str]:
    """Which clips are held out: those named (by path below the folder or by file name), or those whose name hashes
    below the share, so that a clip stays on its side when others are added.

    Raises DatasetError for a name that no clip has.
    """
    names = list(names)
    if not isinstance(heldout, tuple):
        return {name for name in names if _unit_hash(name) < heldout}
    known: dict[str, set[str]] = {}
    for name in names:
        for called in {composed(name), composed(name.rsplit("/", 1)[-1])}:
            known.setdefault(called, set()).add(name)
    chosen: set[str] = set()
    for wanted in heldout:
        found = known.get(composed(wanted), set())
        if not found:
            raise DatasetError(f"heldout names {wanted[:120]!r}, which is not among the clips; correct the name")
        chosen |= found
    return chosen


def _unit_hash(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
