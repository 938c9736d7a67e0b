"""Whether encoders, memories and cached latents are for a host, and encoders for one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..memory.memory_file import Memory
from ..phi.config import EncoderConfig
from .hosts import Host

MASK_CHANNELS = 4  # beside those of the pictures that Wan's image-to-video models are given


class Kind(NamedTuple):
    """What decides on the tokens of a host and on its latents."""

    name: str
    width: int
    channels: int

    @classmethod
    def of(cls, source: Host | EncoderConfig) -> Kind:
        """Of a host, or of the one that an encoder was made for."""
        name = getattr(source, "host", "") or getattr(source, "name", "")  # whichever copy of the library made it
        return cls(name, source.width, source.latent_channels)


def check_kind(what: str, kind: Kind, model: Kind, cure: str, other: str = "model") -> None:
    """Raises ValueError that names `what` when it was made for another host than `model`, that of `other`."""
    if kind[:2] != model[:2]:
        raise ValueError(
            f"{what} was made for {kind.name} of width {kind.width}, but {other} is {model.name} of width "
            f"{model.width}; {cure}"
        )
    if kind != model:
        raise ValueError(f"{what} holds latents of {kind.channels} channels, {other} makes {model.channels}; {cure}")


def check_encoder(config: EncoderConfig, host: Host) -> None:
    """Raises ValueError when an encoder writes tokens for another model."""
    check_kind("memory_encoder", Kind.of(config), Kind.of(host), "choose an encoder trained for this model")
    if not config.has_tokens and host.image_channels != host.latent_channels + MASK_CHANNELS:
        raise ValueError(
            f"memory_encoder of variant {config.variant} needs an image-to-video model, and model is a text-to-video "
            "one; load Wan 2.2 I2V 14B, its high noise file as model and its low noise file as model_low_noise"
        )
    if config.cross_blocks and (config.cross_blocks, config.head_dim) != (len(host.slots()), host.head_dim):
        raise ValueError(
            f"memory_encoder has cross-attention to {config.cross_blocks} blocks with heads of {config.head_dim}, "
            f"but model has {len(host.slots())} blocks with heads of {host.head_dim}; choose one trained for it"
        )


def needs_tokens(config: EncoderConfig, what: str) -> None:
    """Raises ValueError for a memory without tokens; `what` reads or makes them."""
    if not config.has_tokens:
        raise ValueError(
            f"{what} works with memory tokens, and a memory of variant {config.variant} keeps whole pictures instead; "
            "use the Autoregressive Sampler, which puts them in front of every section"
        )


def check_memory(memory: Memory, host: Host, what: str = "Apply Video Memory") -> None:
    """Raises ValueError when a memory's tokens, or the latents it keeps, cannot enter this host by way of `what`."""
    needs_tokens(memory.config, what)
    for part in memory.parts:
        cure = "compress the history with an encoder for this model and its VAE"
        check_kind("memory", Kind.of(part.config), Kind.of(host), cure)


def check_latent_size(size: Sequence[int], noise_shape: Sequence[int], pixels: int | None = None) -> None:
    """Raises ValueError when latents [B,C,T,H,W] are not of the memory's `size`: its tokens lie on another grid.

    size: height and width in latents, zeros where not known. pixels: how many a latent has a side, where core says so.
    Other nodes may plan for more than the latents, with an area in place of height and width; that passes.
    """
    found = tuple(noise_shape[3:])
    if not any(size) or len(found) != 2 or found == (1, 1) or found == tuple(size):
        return

    def named(height: int, width: int) -> str:
        return f"{width}x{height} latents" + (f" ({width * pixels}x{height * pixels} pixels)" if pixels else "")

    raise ValueError(
        f"latent is of {named(*found)}, but memory was made of {named(*size)}; give the latent the width and height of "
        "the memory's history, or compress the history anew at those of the latent"
    )


def check_recall(memory: Memory) -> None:
    """Raises ValueError for a memory that cannot be asked for the film's frames."""
    if any(part.config.locked for part in memory.parts):
        raise ValueError(
            "memory holds the film's last latents, for a model that was trained to go on from them alone, and cannot "
            "be asked for frames; decode the film instead"
        )


def check_together(configs: Sequence[EncoderConfig]) -> None:
    """Raises ValueError when encoders cannot compress one history for one host, which reads them in one way."""
    for config in configs:
        needs_tokens(config, "training")
    first = configs[0]
    if any(config.locked for config in configs):
        raise ValueError(
            "this memory encoder was trained together with its model, in one way alone, and is not trained further "
            "here; train an encoder of variant recent instead"
        )
    for number, config in enumerate(configs[1:], 2):
        kinds = Kind.of(config), Kind.of(first)
        check_kind(f"encoder {number}", *kinds, "train encoders of one model together", "the first")
        if first.memory_attention != config.memory_attention:
            raise ValueError(
                f"encoder {number} has memory_attention {config.memory_attention}, the first {first.memory_attention}; "
                "encoders that are trained together need the same: both joint or both cached"
            )
