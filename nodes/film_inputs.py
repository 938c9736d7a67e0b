"""What the Autoregressive Sampler is given: its sizes, checked, and what a section's key says of it."""

from __future__ import annotations

from typing import Any

from ..memory_encoder.identity import conditioning as hashable
from ..memory_encoder.identity import upstream
from ..memory_encoder.memory import VideoMemory
from . import runtime


def models_of(hidden: Any) -> dict[str, str] | None:
    """Digests of what feeds the model inputs of the node that runs."""
    inputs = ("model", "memory_encoder", "vae", "sampler", "model_low_noise", "clip_vision")
    return upstream(hidden.prompt, hidden.unique_id, inputs, runtime.file_stamp)


def latent_size(host: Any, codec: Any, width: int, height: int) -> tuple[int, int, int]:
    """Channels, height and width of the latents; raises ValueError for sizes the host cannot patchify."""
    cell_h, cell_w = codec.spatial * host.patch[1], codec.spatial * host.patch[2]
    for name, value, cell in (("width", width, cell_w), ("height", height, cell_h)):
        if value % cell:
            raise ValueError(f"{name} {value} is not a multiple of {cell}; try {max(cell, round(value / cell) * cell)}")
    return host.latent_channels, height // codec.spatial, width // codec.spatial


def check_size(opening: Any, memory: VideoMemory | None, size: tuple[int, int, int]) -> None:
    """Raises ValueError when the film's size differs from its history's."""
    for name, found in (
        ("history", None if opening is None else tuple(opening.shape[3:])),
        ("memory", memory.state.size if memory is not None and memory.latents else None),
    ):
        if found is not None and found != size[1:]:
            raise ValueError(
                f"{name} has latents of {found[1]}x{found[0]}, but width and height give {size[2]}x{size[1]}; "
                "set width and height to those of the history"
            )
    for name, batch in (
        ("history", 1 if opening is None else opening.shape[0]),
        ("memory", 1 if memory is None else memory.tokens.shape[0]),
    ):
        if batch != 1:
            raise ValueError(f"{name} holds a batch of {batch} clips; a film continues one: use Latent From Batch")


def describe_sampler(sampler: Any) -> list[Any]:
    """Name and options of a SAMPLER, as far as they can be hashed."""
    function = getattr(sampler, "sampler_function", None)
    return [
        type(sampler).__qualname__,
        getattr(function, "__name__", None),
        hashable(getattr(sampler, "extra_options", {})),
    ]
