"""What of a memory enters the host, and how: settings, the choice of tokens, and their places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..budget import check_horizon
from ..memory.video_memory import VideoMemory
from ..phi.config import DEFAULT_WINDOW, EncoderConfig, HistoryTimestep
from ..phi.cross_attention import CrossMemory
from ..phi.positions import lattice_coordinates
from .cached import KeyValueCache
from .horizon import seen_tokens, spread_order, within_horizon
from .hosts import Host
from .hosts.base import Constants, Reading, scaling_of

AttentionMode = Literal["auto", "joint", "cached"]


@dataclass(frozen=True)
class MemorySettings:
    """How a memory enters the host.

    strength: 0 leaves the host untouched, 1 uses every memory token. In between, that share of the tokens is used,
        evenly spread over space and time: the memory's share of the attention fades with it, at no cost and without a
        mask. Not from the paper.
    history_timestep: `zero` marks memory as clean, `same` gives it the section's timestep. Not from the paper.
    sliding_window: last latent frames that are shown uncompressed beside the memory (paper section 4.5).
    attention_mode: `joint`, memory and video attend to each other, or `cached`, see `cached`; `auto` is what the
        encoder was trained for.
    cache_on: device on which cached keys and values wait between steps; None leaves them on the model's.
    history_guidance: weight of the memory in the guidance relative to the prompt's, 0 for none; see `guidance`.
    horizon: the most tokens of the memory that enter, 0 for all; see `horizon`.
    """

    strength: float = 1.0
    history_timestep: HistoryTimestep = "zero"
    sliding_window: int = 0
    history_guidance: float = 0.0
    attention_mode: AttentionMode = "auto"
    cache_on: torch.device | None = None
    horizon: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength {self.strength} must lie between 0 and 1")
        if not 0 <= self.history_guidance < math.inf:
            raise ValueError(f"history_guidance {self.history_guidance} must be finite and not negative; 0 is off")
        check_horizon(self.horizon)
        if self.history_timestep not in ("zero", "same"):
            raise ValueError(f"history_timestep {self.history_timestep!r} is unknown; choose zero or same")
        if self.attention_mode not in get_args(AttentionMode):
            raise ValueError(f"attention_mode {self.attention_mode!r} is unknown; choose auto, joint or cached")
        if self.attention_mode == "cached" and self.history_timestep != "zero":
            raise ValueError("attention_mode cached needs history_timestep zero; nothing else stays the same")

    def facts(self) -> dict[str, Any]:
        """The settings by name, for keys; without a horizon they are those of before there was one."""
        return {name: value for name, value in vars(self).items() if name != "horizon" or value}


@dataclass
class InjectedMemory:
    """Tokens [B,M,D] and coordinates relative to the section being made, whose first latent is at time 0.

    coordinates: [M,3], or [M,P,3] (see `phi.recent`). cache: makes the memory a cached one. cross: what encoders with
    cross-attention add. reading: what the host was trained to have beside it; its section_start is in the coordinates.
    size: height and width of the latents that it was made of, zeros where that is not known.
    constants: what the steps of a run have in common. changing_weights: the host's weights are others in other steps.
    """

    tokens: Tensor
    coordinates: Tensor
    history_timestep: HistoryTimestep = "zero"
    cache: KeyValueCache | None = None
    cross: tuple[CrossMemory, ...] = ()
    reading: Reading = field(default_factory=Reading)
    size: tuple[int, int] = (0, 0)
    constants: Constants = field(default_factory=Constants, repr=False)
    changing_weights: bool = field(default=False, repr=False)

    @property
    def hooks_modules(self) -> bool:
        """Whether hooks on modules of a block do part of the work, which nothing guards in what is compiled."""
        return self.reading.skips_text or self.reading.key_scale is not None

    def on(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Tokens on a device, moved once and kept for the other steps of the run."""
        return self.constants.get(("tokens", device, dtype), lambda: self.tokens.to(device=device, dtype=dtype))

    def rotary(self, host: Host, device: torch.device, options: Mapping[str, Any]) -> Tensor:
        """Rotary embedding of all tokens."""
        key = ("rotary", device, scaling_of(options))
        return self.constants.get(key, lambda: host.rotary(self.coordinates.to(device), options))

    def reading_on(self, device: torch.device, dtype: torch.dtype) -> Reading:
        """`reading`, with its picture on a device."""
        picture = self.reading.picture
        if picture is None:
            return self.reading
        placed = self.constants.get(("picture", device, dtype), lambda: picture.to(device=device, dtype=dtype))
        return replace(self.reading, picture=placed)

    def forget(self, *_: Any) -> None:
        """Lets go of what a run of the sampler left on the device (CallbacksMP.ON_CLEANUP)."""
        self.constants.forget()
        if self.cache is not None:
            self.cache.forget()

    def offset_by(self, time: float) -> InjectedMemory:
        """The same memory seen from another time; `time` is added to all coordinates."""
        offset = self.coordinates.new_tensor([time, 0, 0])
        cross = tuple(replace(one, coordinates=one.coordinates + offset) for one in self.cross)
        return replace(self, coordinates=self.coordinates + offset, cross=cross, constants=Constants())


def as_trained(configs: Sequence[EncoderConfig], settings: MemorySettings) -> MemorySettings:
    """The settings that a host was trained with, where that is one way alone; the defaults of nodes mean it.

    Raises ValueError that names the first setting which was changed to something else.
    """
    config = next((config for config in configs if config.locked), None)
    if config is None or config.history_timestep == "":
        return settings
    trained = replace(MemorySettings(), history_timestep=config.history_timestep, cache_on=settings.cache_on)
    trained, meant = replace(trained, attention_mode="joint"), replace(MemorySettings(), sliding_window=DEFAULT_WINDOW)
    for name, value in vars(trained).items():
        if getattr(settings, name) not in (value, getattr(meant, name)):
            raise ValueError(
                f"{name} {getattr(settings, name)}: the model of this memory encoder was trained to read its history "
                f"in one way, with {name} {value}; leave it at {getattr(meant, name)}"
            )
    return trained


def reading_of(model: Any, memory: VideoMemory) -> Reading:
    """What the host was trained to have beside the memory; raises ValueError when some of it is not there."""
    config, scale = memory.config, None
    if config.picture_width and memory.picture is None:
        raise ValueError(
            "memory was made without the film's first picture, which the model was trained to be shown throughout; "
            "use the Autoregressive Sampler, with clip_vision, and the memory that it gives"
        )
    if config.key_scale:
        scale = _attached(model, memory, "factors on keys").key_scale
    return Reading(config.section_start, memory.picture, config.skips_text, scale)


def select_tokens(memory: VideoMemory, host: Host, settings: MemorySettings, time_offset: float) -> InjectedMemory:
    """Chooses and places the tokens that enter the host.

    time_offset is added to all times: minus the film's latents so far to continue the film, minus i to ask for frame i.
    """
    tokens, coordinates = seen_tokens(memory, settings.horizon)
    count = min(settings.sliding_window, memory.recent.shape[2])
    if count:
        window = host.embed(memory.recent[:, :, -count:])
        lattice = lattice_coordinates(*window.shape[2:], start=memory.latents - count)
        tokens = torch.cat([tokens, window.flatten(2).transpose(1, 2).to(tokens)], dim=1)
        coordinates = torch.cat([coordinates, lattice])
    if settings.strength < 1:
        keep = kept_tokens(len(coordinates), settings.strength)
        tokens, coordinates = tokens[:, keep], coordinates[keep]
    cache = KeyValueCache(settings.cache_on) if attention_mode(memory, settings) == "cached" else None
    start = memory.config.section_start
    made = InjectedMemory(tokens, coordinates, settings.history_timestep, cache, size=memory.size)
    return made.offset_by(time_offset + start)


def kept_tokens(count: int, strength: float) -> Tensor:
    """Indices of the tokens used at `strength`; a higher strength only adds to them."""
    return torch.nonzero(spread_order(count) < strength).flatten()


def attention_mode(memory: VideoMemory, settings: MemorySettings) -> AttentionMode:
    """How the host shall read the memory; raises ValueError for `cached` where an encoder was not trained for it."""
    trained = {part.config.memory_attention for part in memory.parts}
    if settings.attention_mode == "cached" and trained != {"cached"}:
        raise ValueError(
            "attention_mode cached needs an encoder trained for it, and this memory's was trained joint; choose joint"
        )
    if settings.attention_mode == "auto":
        return "cached" if trained == {"cached"} and settings.history_timestep == "zero" else "joint"
    return settings.attention_mode


def cross_memories(
    model: Any, memory: VideoMemory, settings: MemorySettings, time_offset: float
) -> tuple[CrossMemory, ...]:
    """What the cross-attention of the memory's encoders needs; they travel with the model (`set_additional_models`).

    Horizon and strength hold for this path by the tokens they keep, as in `select_tokens`. Raises ValueError when an
    encoder is not attached to the model.
    """
    found = []
    chosen = within_horizon(memory, settings.horizon)
    for number, part in enumerate(memory.parts):
        if not part.config.cross_blocks or part.hidden is None or part.tail_hidden is None:
            continue
        hidden = part.hidden.followed_by(part.tail_hidden)
        coordinates = part.coordinates.followed_by(part.tail_coordinates)
        seen = None if chosen is None else chosen[number]
        if settings.strength < 1:
            kept = kept_tokens(coordinates.length if seen is None else len(seen), settings.strength)
            seen = kept if seen is None else seen[kept]
        picked = coordinates.picked(seen)
        places = picked + picked.new_tensor([time_offset, 0, 0])
        found.append(CrossMemory(_attached(model, part, "cross-attention").cross, hidden.picked(seen), places))
    return tuple(found)


def _attached(model: Any, memory: VideoMemory, what: str) -> Any:
    """The encoder of a memory, which brings `what` into the host; raises ValueError when model does not carry it."""
    patchers = model.get_additional_models_with_key(encoder_key(memory.encoder_id))
    if not patchers:
        raise ValueError(
            f"memory was made by an encoder with {what} that is not attached to model; connect the MODEL of the Load "
            "Memory Encoder that loads it, or the encoder itself"
        )
    return patchers[0].model


def encoder_key(encoder_id: str) -> str:
    """Name under which an encoder is attached to a ModelPatcher."""
    return f"video_memory_encoder.{encoder_id}"
