"""Tokens and VRAM of a plan, before anything is run."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .frames import TEMPORAL
from .phi.config import RECENT_LATENTS, CompressionRate, EncoderConfig, Padding, parse_schedule
from .phi.trunk import layer_strides

GIB = 1024**3
RATES = ("4x4x2", "8x8x2", "8x8x4")  # to advise, from mild to strong
PICTURE_TOKENS = 27 * 27  # SigLIP's, of a picture of 384 pixels in patches of 14
RESERVED = 1.2 * GIB  # what ComfyUI keeps free for itself and the driver, and what an allocator loses to fragments
DRIVER, KEPT_FREE = 0.3 * GIB, 0.4 * GIB  # of RESERVED: the card's context, and core's EXTRA_RESERVED_VRAM
HALF, FULL = 2, 4  # bytes of a number of the memory, and of a latent
HORIZON_STEP = 500  # tokens, of the horizon that is advised
STREAMS = 2  # layers that wait on the card beside each other while weights are streamed: core's NUM_STREAMS


@dataclass(frozen=True)
class HostShape:
    """Sizes of a published host. parameters in billions; activation is core's memory factor (MB per 100 latents).

    blocks that attend to the video. What lives at the peak of a block, in numbers of `width` for each token: wide, of
    the sequence; cached, of the video and of a cached memory beside it, and of that memory while its keys and values
    are made. layer: weights of the largest layer in billions. picture: bytes for each pixel of a frame while its VAE
    decodes a piece of film. channels: of a latent.
    """

    width: int
    parameters: float
    temporal: int
    spatial: int
    activation: float
    patch: int = 2
    blocks: int = 0
    wide: float = 9.0
    cached: tuple[float, float, float] = (9.4, 6.1, 10.6)
    layer: float = 0.0
    picture: float = 0.0
    channels: int = 16


HOSTS: dict[str, HostShape] = {
    "wan-1.3b": HostShape(
        1536, 1.42, 4, 8, 1536 / 2222, blocks=30,
        wide=16.1, cached=(9.4, 6.1, 17.3), layer=0.014, picture=7500,
    ),
    "wan-5b": HostShape(
        3072, 5.0, 4, 16, 3072 / 2222, blocks=30,
        wide=13.9, cached=(9.4, 6.1, 14.9), layer=0.044, picture=8400, channels=48,
    ),
    "wan-14b": HostShape(
        5120, 14.3, 4, 8, 5120 / 2222, blocks=40,
        wide=9.13, cached=(9.4, 6.1, 10.6), layer=0.071, picture=7500,
    ),
    "hunyuan": HostShape(
        3072, 12.8, 4, 8, 1.8, blocks=60,
        wide=14.5, cached=(16.7, 7.4, 22.8), layer=0.066, picture=23600,
    ),
    "hunyuan-1.5": HostShape(
        2048, 8.3, 4, 16, 4.0, patch=1, blocks=54,
        wide=12.0, cached=(9.4, 6.1, 14.7), layer=0.025, picture=16000, channels=32,
    ),
    "tiny": HostShape(256, 0.0043, 4, 8, 256 / 2222, blocks=4),  # of the demo
}  # fmt: skip


def check_horizon(horizon: int) -> None:
    """Raises ValueError for a number of memory tokens that can be no horizon."""
    if horizon < 0:
        raise ValueError(f"horizon {horizon} must not be negative; 0 shows the whole memory")


@dataclass(frozen=True)
class Plan:
    """What a person wants to make; sizes in pixels, times in seconds.

    section_latents: a section's exact length, where the kind of memory says more of it than its seconds do. pictures:
    latents at full rate that every section sees beside it: whole pictures, an anchor. filled: a history that is shorter
    than what `rates` name is filled up; the host was trained to read it in this one way. image_tokens: of the film's
    first picture, in front of the text. horizon: the most tokens of the memory that a section sees, 0 for all.
    sliding_window: the history's last latents that a section which goes on sees uncompressed beside the memory.
    """

    host: HostShape
    width: int
    height: int
    fps: float
    history_seconds: float
    section_seconds: float = 5.0
    rates: tuple[str, ...] = ("4x4x2",)
    padding: Padding = "ceil"
    card_gib: float = 12.0
    bytes_per_weight: float = 1.0
    cached: bool = False
    section_latents: int = 0
    pictures: int = 0
    filled: bool = False
    image_tokens: int = 0
    horizon: int = 0
    sliding_window: int = 0

    def __post_init__(self) -> None:
        cell = self.host.spatial * self.host.patch
        for name, value in (("width", self.width), ("height", self.height)):
            if value <= 0 or value % cell:
                raise ValueError(
                    f"{name} {value} is not a multiple of {cell}; try {max(cell, round(value / cell) * cell)}"
                )
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps {self.fps} must lie between 0 and 1000")
        if not (0 <= self.history_seconds <= 86400 and 0 <= self.section_seconds <= 86400):
            raise ValueError("seconds must lie between 0 and 86400 (one day)")
        if not 0 < self.card_gib < math.inf:
            raise ValueError(f"card_gib {self.card_gib:g} must be a finite number above 0, for example 12")
        if not 0 < self.bytes_per_weight < math.inf:
            raise ValueError(
                f"bytes_per_weight {self.bytes_per_weight:g} must be a finite number above 0: 1 for fp8, 2 for bf16"
            )
        check_horizon(self.horizon)
        if not 0 <= self.sliding_window <= RECENT_LATENTS:
            raise ValueError(f"sliding_window {self.sliding_window} must lie between 0 and {RECENT_LATENTS}")
        if not self.rates and not self.pictures:
            raise ValueError("at least one rate is needed, for example 4x4x2")

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the host's token grid."""
        cell = self.host.spatial * self.host.patch
        return self.height // cell, self.width // cell

    def latents(self, seconds: float) -> int:
        """Latent frames of a length of film (20 s at 24 fps are 120 latents)."""
        return round(seconds * self.fps) // self.host.temporal


def token_count(plan: Plan, rate: str) -> int:
    """Memory tokens of the plan's history at one rate (paper Figure 3: 5460 for 20 s at 832x480, 4x4x2, floor).

    A rate such as 1@1x1x1+2@2x2x2 is a schedule of the last latents, see `config.parse_schedule`.
    """
    latents, tokens = plan.latents(plan.history_seconds), 0
    if "@" not in rate:
        return _cells(plan, latents, CompressionRate.parse(rate))
    for piece in parse_schedule(rate):
        seen = piece.latents if plan.filled else min(piece.latents, latents)
        latents -= seen
        tokens += _cells(plan, seen, piece.rate)
    return tokens


def _cells(plan: Plan, latents: int, compression: CompressionRate) -> int:
    sizes = (latents, *plan.grid)
    divisors = (compression.time, compression.height, compression.width)
    total = 1
    for size, divisor in zip(sizes, divisors, strict=True):
        total *= _divided(size, divisor, plan.padding)
    return total


def full_tokens(plan: Plan, seconds: float) -> int:
    """Tokens of the same length of film without compression."""
    height, width = plan.grid
    return plan.latents(seconds) * height * width


@dataclass(frozen=True)
class Estimate:
    """Tokens and bytes of a plan. activation_bytes are within a tenth of what core's own models take at full size, see
    tests/card; planned_bytes are what core keeps free for them before it decides how many weights stay in RAM.
    decode_bytes are those of the VAE beside its weights, for which the model's leave the card. window_tokens: those of
    the sliding window, which are not among the memory's.
    """

    memory_tokens: int
    section_tokens: int
    history_tokens: int
    activation_bytes: float
    weight_bytes: float
    cache_bytes: float = 0.0
    buffer_bytes: float = 0.0
    planned_bytes: float = 0.0
    decode_bytes: float = 0.0
    window_tokens: int = 0

    @property
    def seen_tokens(self) -> int:
        """All that the model looks at in a step."""
        return self.section_tokens + self.memory_tokens + self.window_tokens

    @property
    def least_bytes(self) -> float:
        """With the weights streamed from system RAM."""
        return self.activation_bytes + self.buffer_bytes + RESERVED  # a cache that does not fit waits in system RAM

    @property
    def whole_bytes(self) -> float:
        """With all weights on the card."""
        return self.activation_bytes + RESERVED + self.weight_bytes + self.cache_bytes

    def streamed_bytes(self, card: float) -> float:
        """Weights that core leaves in RAM on a card of so many bytes, since it keeps `planned_bytes` free beside them
        (comfy.model_management.load_models_gpu; not with its dynamic VRAM, which finds out what there is room for).
        """
        room = card - DRIVER - KEPT_FREE - max(self.planned_bytes, 2 * KEPT_FREE)
        return min(max(self.weight_bytes - room, 0.0), self.weight_bytes)


def estimate(plan: Plan) -> Estimate:
    """Estimates one sampling step of a section beside the memory, one row at a time (core splits CFG when tight)."""
    height, width = plan.grid
    beside = plan.pictures * height * width + plan.image_tokens
    compressed = sum(token_count(plan, rate) for rate in plan.rates)
    memory = min(compressed, plan.horizon or compressed) + beside
    window = min(plan.sliding_window, plan.latents(plan.history_seconds)) * height * width
    length = plan.section_latents * height * width if plan.section_latents else full_tokens(plan, plan.section_seconds)
    section = max(length, 1)
    latents_area = (section + memory + window) * plan.host.patch**2
    planned = latents_area * 2 * 0.01 * plan.host.activation * 1024**2
    weights = plan.host.parameters * 1e9 * plan.bytes_per_weight
    cache = 2 * cache_bytes(plan.host.blocks, memory + window, plan.host.width) if plan.cached else 0.0  # both prompts
    return Estimate(
        memory,
        section,
        full_tokens(plan, plan.history_seconds),
        activation_bytes(plan, section, memory + window),
        weights,
        cache,
        STREAMS * plan.host.layer * 1e9 * plan.bytes_per_weight,
        planned,
        plan.host.picture * plan.width * plan.height,
        window,
    )


def activation_bytes(plan: Plan, section: int, memory: int) -> float:
    """The most that lives beside the weights in a step of one prompt, in half precision.

    Fitted to the fake card (benchmarks/results/real_size.md): all is in proportion to the tokens. Whole pictures are
    latents of the section itself. Tokens of a memory go behind a copy of the section's.
    """
    host, joined = plan.host, memory if plan.rates else 0
    wide = host.wide * (section + memory) + (section if joined else 0)
    if plan.cached and joined:
        video, beside, alone = host.cached
        wide = max(host.wide * section + 4 * memory, video * section + beside * memory, section + alone * memory)
    return 2 * host.width * wide


def cache_bytes(blocks: int, tokens: int, width: int, bytes_per_value: int = 2) -> int:
    """Keys and values of a cached memory in all blocks, for one prompt."""
    return 2 * blocks * tokens * width * bytes_per_value


@dataclass(frozen=True)
class Disk:
    """Bytes on disk for a minute of film: latents of its sections, and what each section added to the memory."""

    sections: float
    states: float


def disk(plan: Plan) -> Disk:
    """What a film leaves on disk, with a memory in half precision; pictures of a memory of those are not in it."""
    height, width = plan.height // plan.host.spatial, plan.width // plan.host.spatial
    latents = 60 * plan.fps / plan.host.temporal
    sections = latents / max(plan.section_latents or plan.latents(plan.section_seconds), 1)
    latent = plan.host.channels * height * width * FULL
    recent = sections * RECENT_LATENTS * latent
    states = sum(_state_bytes(plan, rate, latents, sections) + recent for rate in plan.rates)
    return Disk(latents * latent, states)


def _state_bytes(plan: Plan, rate: str, latents: float, sections: float) -> float:
    """Of one encoder for a minute of `latents` in so many sections, but for its last latents."""
    token = plan.host.width * HALF
    if "@" in rate:  # all tokens are made anew with every section
        return sections * token_count(replace(plan, history_seconds=86400.0), rate) * token
    config = EncoderConfig("wan", plan.host.width, plan.host.channels, rate=rate, padding=plan.padding)
    compression = config.compression
    height, width = (
        _divided(side, by, plan.padding)
        for side, by in zip(plan.grid, (compression.height, compression.width), strict=True)
    )
    stride = config.stride[0]
    tokens = height * width * (latents / stride + sections * (1 - 1 / stride))  # and those of cells that are unfinished
    end, channels, size = 0.0, plan.host.channels, (height * config.stride[1], width * config.stride[2])
    for number, steps in enumerate(layer_strides(config)):  # each keeps two inputs, before a stride mostly one
        end += channels * math.prod(size) * (1 if steps[0] == 2 else 2) * HALF
        channels = config.channels[min(number, len(config.channels) - 1)]
        size = (size[0] // steps[1], size[1] // steps[2])
    return tokens * token + sections * end


def _divided(size: int, by: int, padding: Padding) -> int:
    return size // by if padding == "floor" else -(-size // by)


def changed_inputs(plan: Plan, result: Estimate) -> dict[str, float]:
    """Inputs whose values would make a plan that does not fit smaller, each of them alone; empty when it fits, if only
    with streamed weights. width and height are one change."""
    if result.least_bytes <= plan.card_gib * GIB:
        return {}
    found: dict[str, float] = {}
    if plan.section_seconds > 2 and not plan.filled:
        found["section_seconds"] = round(plan.section_seconds / 2, 2)
    if (window := _window_that_fits(plan)) is not None:
        found["sliding_window"] = window
    if horizon := _horizon_that_fits(plan):
        found["horizon"] = horizon
    cell = plan.host.spatial * plan.host.patch
    width, height = (max(cell, int(side * 0.75) // cell * cell) for side in (plan.width, plan.height))
    return found | {"width": width, "height": height}


def advice(plan: Plan, result: Estimate) -> list[str]:
    """What to change when the plan does not fit the card; empty when it fits."""
    card = plan.card_gib * GIB
    if result.whole_bytes <= card:
        return []
    if result.least_bytes <= card:
        cure = (
            "A smaller quantisation (GGUF Q4 or Q5) or a smaller model"
            if plan.bytes_per_weight > 0.7
            else "A smaller model"
        )
        return [
            "All weights do not fit on the card: ComfyUI streams part of them from system RAM, which is slower. "
            f"{cure} avoids that."
        ]
    smaller = changed_inputs(plan, result)
    changes = []
    if "section_seconds" in smaller:
        changes.append(f"shorter sections (section_seconds {smaller['section_seconds']:g})")
    stronger = [rate for rate in RATES if token_count(plan, rate) < result.memory_tokens]
    large = result.memory_tokens > result.section_tokens / 4
    if stronger and large and plan.rates and not plan.filled:
        changes.append("a higher compression rate such as " + " or ".join(stronger[:2]))
    if not plan.rates and large and plan.pictures > 1:
        changes.append(f"fewer pictures (max_pictures {plan.pictures // 2})")
    if "sliding_window" in smaller:
        changes.append(f"a shorter sliding window (sliding_window {smaller['sliding_window']})")
    if "horizon" in smaller:
        changes.append(
            f"a horizon of {smaller['horizon']:,} memory tokens (horizon), beyond which the far past is thinned"
        )
    changes.append(f"a smaller picture, for example {smaller['width']}x{smaller['height']}")
    return ["Does not fit even with streamed weights. Change one or more of: " + "; ".join(changes) + "."]


def describe(plan: Plan, name: str) -> str:
    """The budget as text for people."""
    result = estimate(plan)
    share = result.memory_tokens / max(result.history_tokens, 1)
    lines = [
        f"{name}, {plan.width}x{plan.height}, {plan.fps:g} fps, memory {_contents(plan)}",
        f"History {plan.history_seconds:g} s: {result.history_tokens:,} tokens, "
        f"in memory {result.memory_tokens:,} ({share:.1%})" + (f", horizon {plan.horizon:,}" if plan.horizon else ""),
        f"Section {plan.section_seconds:g} s: {result.section_tokens:,} tokens; each step sees "
        f"{result.seen_tokens:,}"
        + (
            f", {result.window_tokens:,} of them in the last latents as they are (sliding_window {plan.sliding_window})"
            if result.window_tokens
            else ""
        ),
        f"Estimated VRAM: {result.least_bytes / GIB:.1f} GiB with streamed weights, {result.whole_bytes / GIB:.1f} GiB "
        f"with all weights on the card (bytes a weight: {plan.bytes_per_weight:g}); card {plan.card_gib:g} GiB. "
        "VAE and text encoder take turns with the model and are not counted.",
    ]
    if result.cache_bytes:
        lines.append(
            f"Cached keys and values of the memory: {result.cache_bytes / GIB:.1f} GiB for both prompts, on the card "
            "or, when it is tight, in system RAM"
        )
    if result.decode_bytes:
        lines.append(
            f"The VAE takes {result.decode_bytes / GIB:.1f} GiB to decode a piece of the film; where that is too much, "
            "ComfyUI decodes it in tiles"
        )
    kept = disk(plan)
    lines.append(
        f"Disk for a minute of film: {kept.sections / 1e9:.2f} GB of sections, {kept.states / 1e9:.2f} GB of what the "
        "memory keeps of them (kept_states)"
    )
    left_out = result.streamed_bytes(plan.card_gib * GIB)
    if left_out and result.whole_bytes <= plan.card_gib * GIB:
        lines.append(
            f"ComfyUI plans {result.planned_bytes / GIB:.1f} GiB for a step: unless it uses dynamic VRAM, it leaves "
            f"{left_out / GIB:.1f} GiB of the weights in system RAM, though all have room"
        )
    verdict = "Fits." if result.whole_bytes < 0.9 * plan.card_gib * GIB else "Fits, but closely: close other programs."
    return "\n".join([*lines, *(advice(plan, result) or [verdict])])


def _contents(plan: Plan) -> str:
    """What the memory holds, in words."""
    parts = list(plan.rates)
    if plan.pictures:
        parts.append(f"{plan.pictures} whole picture{'' if plan.pictures == 1 else 's'}")
    if plan.image_tokens:
        parts.append(f"{plan.image_tokens} tokens of the first picture")
    return " + ".join(parts)


def memory_fields(
    configs: Sequence[EncoderConfig], fps: float, section_seconds: float, sliding_window: int = 0
) -> dict[str, Any]:
    """The fields of a Plan that follow from its encoders; the section is one of `section_seconds`.

    sliding_window: as the sampler is told. A memory of pictures has none, nor has a host that was trained to read its
    history in one way.
    FramePack at 832x480: 3,926 tokens of history and 729 of the picture, however long the film is.
    """
    first = configs[0]
    clip = 1 + math.ceil(section_seconds * fps / TEMPORAL - 1e-6) + (1 if first.repeated_frames > 1 else 0)
    return {
        "rates": tuple(config.rate for config in configs if config.has_tokens),
        "padding": first.padding,
        "cached": all(config.memory_attention == "cached" for config in configs),
        "section_latents": first.section_latents or (clip if first.clips == "section" else 0),
        "pictures": sum(config.anchor if config.has_tokens else config.max_pictures for config in configs),
        "filled": any(config.fill == "zeros" for config in configs),
        "image_tokens": PICTURE_TOKENS if any(config.picture_width for config in configs) else 0,
        "sliding_window": sliding_window if all(one.has_tokens and not one.locked for one in configs) else 0,
    }


def named_host(name: str) -> HostShape:
    """Looks up a host; raises ValueError that lists the names."""
    if name not in HOSTS:
        raise ValueError(f"host {name[:80]!r} is unknown; choose one of {', '.join(HOSTS)}")
    return HOSTS[name]


def nearest_host(family: str, width: int, candidates: Sequence[str] = tuple(HOSTS)) -> str | None:
    """The published host of a family with this width, if any."""
    return next((name for name in candidates if name.startswith(family) and HOSTS[name].width == width), None)


def host_of_encoder(config: EncoderConfig) -> tuple[HostShape, str]:
    """Sizes and name of the host that an encoder was made for.

    For a host that is not in the table: core's activation factor by width, weights unknown and not counted.
    """
    name = nearest_host(config.host, config.width)
    if name is not None:
        return HOSTS[name], name
    spatial = 16 if config.latent_channels == 48 else 8
    shape = HostShape(config.width, 0.0, 4, spatial, config.width / 2222)
    return shape, f"{config.host} of width {config.width} (its weights are not counted)"


def _horizon_that_fits(plan: Plan) -> int:
    """The largest round horizon with which the plan fits on its card with streamed weights; 0 where none would help."""
    if not plan.rates or plan.filled:
        return 0
    room = 0.9 * plan.card_gib * GIB

    def too_much(horizon: int) -> bool:
        return estimate(replace(plan, horizon=horizon)).least_bytes >= room

    sizes = range(HORIZON_STEP, estimate(plan).memory_tokens, HORIZON_STEP)
    return HORIZON_STEP * bisect_left(sizes, True, key=too_much)


def _window_that_fits(plan: Plan) -> int | None:
    """The longest shorter sliding window with which the plan fits with streamed weights; None where none would help."""

    def fits(window: int) -> bool:
        return estimate(replace(plan, sliding_window=window)).least_bytes < 0.9 * plan.card_gib * GIB

    return next(filter(fits, reversed(range(plan.sliding_window))), None)
