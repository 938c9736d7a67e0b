"""Bytes that a training step lays on a card beside weights and moments, term by term.

What a block keeps is counted in tensors as long as the sequence, from core's blocks: the table below. Checked against
whole steps on a card that is not there (tests/card/test_card_plan.py, benchmarks/results/training_bytes.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from ..injection.hosts import find_host
from ..injection.hosts.base import host_blocks
from ..objectives.retrieval import OMEGA_SIZES
from ..phi.config import EncoderConfig
from ..phi.encoder import MemoryEncoder
from ..phi.positions import cells_for, grid_for
from ..phi.trunk import layer_strides
from .module import HALF, weights_type
from .options import TrainOptions
from .weight_parts import weight_bytes

FLOAT = 4  # bytes of a trained value, and of its gradient


@dataclass(frozen=True)
class Inside:
    """Tensors as long as the sequence that one block has alive, as wide as the host (width) and as its feed-forward.

    kept: for the backward pass. on_the_way: gradients and what lies beside them in the widest moment of that pass.
    text: tensors as long as the text, where the text is no part of the sequence.
    """

    kept_width: int
    kept_hidden: int
    on_the_way_width: int
    on_the_way_hidden: int
    text: int
    words: int


# Wan: modulated input, q, k and their norms, v, attention and two repeated modulations around self-attention; norm, q
# and its norm, attention and the sum around cross-attention; modulated input, modulations, both sides of GELU, the sum.
CROSS_BLOCK = Inside(17, 2, 2, 1, text=3, words=512)
# HunyuanVideo: copies of the norms' inputs, modulated input, q, k, v, turned q and k, attention and its output joined
# with the feed-forward's; on the way the gradient of all that one projection gave.
JOINT_BLOCK = Inside(10, 2, 6, 1, text=0, words=256)


@dataclass(frozen=True)
class StepBytes:
    """Of one clip, but for `once`.

    inputs: of all blocks, kept from the forward pass until a block's backward pass (gradient checkpointing).
    input: of one of them. kept: by one block for its backward pass. on_the_way: gradients in it. blocks: how many.
    outside: encoder, embeddings and positions. once: casts of weights and gradients of one layer. apart: each clip has
    passes of its own, so that only one is in a block.
    """

    inputs: int = 0
    input: int = 0
    kept: int = 0
    on_the_way: int = 0
    blocks: int = 1
    outside: int = 0
    once: int = 0
    checkpointed: bool = True
    offloaded: bool = False
    apart: bool = False

    def activations(self, clips: int) -> tuple[int, int]:
        """The highest of a step's backward pass: in its first block, without gradients; in the last of the clips that
        come first, with them all."""
        within = min(clips, 1) if self.apart else clips
        around = self.once + clips * self.outside + within * (self.on_the_way + self.kept)
        around += 0 if self.offloaded else clips * self.input  # of the first block, or of the last layers
        if not self.checkpointed:
            waiting = (clips - within) * self.blocks * self.kept
            return around + waiting + within * (self.blocks - 1) * self.kept, around + waiting
        waiting = 0 if self.offloaded else (clips - within) * self.inputs
        last = within * self.input
        return around + waiting + (last if self.offloaded else within * self.inputs), around + waiting + last


@dataclass(frozen=True)
class BeginningBytes:
    """Of the reconstruction before the first step, beside host and weights of the run, which has no moments yet.

    weights: encoders and readers with their moments and casts. gradients: theirs. clip: activations of one clip.
    batch: the clip itself. All clips of a step, of all processes, are there at once.
    """

    weights: int = 0
    gradients: int = 0
    clip: int = 0
    batch: int = 0

    def __call__(self, clips: int) -> int:
        """The higher of a step: its forward pass, or the optimizer."""
        return self.weights + clips * self.batch + max(clips * self.clip, self.gradients)


def step_bytes(
    model: nn.Module, configs: Sequence[EncoderConfig], options: TrainOptions, latents: tuple[int, ...], values: int
) -> StepBytes:
    """The terms for clips of `latents` (C, T, H, W). values: of the encoders, together."""
    host, blocks = find_host(model), host_blocks(model)
    inside = JOINT_BLOCK if host.adds_in_place else CROSS_BLOCK
    size, half = _compute_size(model, options), options.mixed_precision == "bf16"
    layers: list[Any] = [m for block in blocks[:1] for m in block.modules() if _is_linear(m)]
    hidden = max((layer.in_features for layer in layers), default=host.width)
    wide = max((layer.in_features + layer.out_features for layer in layers), default=0)
    largest = max((layer.in_features * layer.out_features for layer in layers), default=0)
    tokens = sequence(configs, options, latents) + (0 if inside.text else inside.words)
    one = size * tokens * host.width
    rank = 0 if options.train_host else options.rank
    # A quantized weight says that it has the type in which it computes.
    stored = (weight_bytes(layer.weight) / layer.weight.numel() for layer in layers if layer.weight.is_floating_point())
    narrow = min((weights_type(model).itemsize, *stored)) < size
    return StepBytes(
        inputs=len(blocks) * one,
        input=one,
        kept=inside.kept_width * one
        + size * tokens * (inside.kept_hidden * hidden + (len(layers) - 2) * rank)
        + size * inside.words * inside.text * host.width,
        on_the_way=inside.on_the_way_width * one + size * tokens * inside.on_the_way_hidden * hidden,
        blocks=len(blocks),
        outside=sum(_encoder_bytes(config, options, latents, host.width) for config in configs)
        + 8 * tokens * host.head_dim,
        once=8 * rank * wide + (size * largest if narrow else 0) + (2 * values if half else 0),
        checkpointed=options.gradient_checkpointing,
        offloaded=options.offload_inputs,
        apart=options.per_clip and options.stage != "host",
    )  # fmt: skip


def beginning_bytes(
    model: nn.Module,
    encoders: Sequence[MemoryEncoder],
    options: TrainOptions,
    latents: tuple[int, ...],
    teacher: MemoryEncoder | None = None,
) -> BeginningBytes:
    """The terms of `reconstruction.reconstruct` for clips of `latents` (C, T, H, W); nothing where it is left out."""
    learning = [encoder for encoder in encoders if encoder.attention is not None]
    if not (learning and options.reconstruction and options.train_encoder and options.stage != "host"):
        return BeginningBytes()
    host, half = find_host(model), options.mixed_precision == "bf16"
    inside = JOINT_BLOCK if host.adds_in_place else CROSS_BLOCK
    values = sum(_values(encoder) + host.width * latents[0] * prod(encoder.config.stride) for encoder in learning)
    moments = [_last_moments(encoder.config, options, latents, host.width) for encoder in learning]
    last = sum(both if teacher else max(both, loss) for both, loss in moments)
    others = sum(_values(encoder) for encoder in encoders) - sum(_values(encoder) for encoder in learning)
    if teacher is not None:  # its tokens are made while those that learn from it are kept
        last = max(last, _taught(teacher.config, options, latents, host.width))
        others += _values(teacher)
    return BeginningBytes(
        weights=(FLOAT + 8) * values + FLOAT * others + (2 * (values + others) if half else 0),
        gradients=FLOAT * values,
        clip=sum(_encoder_bytes(encoder.config, options, latents, host.width) for encoder in learning) + last,
        batch=FLOAT * (prod(latents) + inside.words * host.text_width),
    )


def _values(encoder: MemoryEncoder) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


def _last_moments(
    config: EncoderConfig, options: TrainOptions, latents: tuple[int, ...], width: int
) -> tuple[int, int]:
    """Of one clip, beside an encoder's activations: where both branches are added, and where the loss is taken of what
    was read from the tokens, which lies there in float32 beside the latents in cells."""
    tokens = _tokens(config, latents)
    both = (8 if options.mixed_precision == "bf16" else 12) * tokens * width + FLOAT * prod(latents)
    return both, 4 * FLOAT * latents[0] * prod(config.stride) * tokens


def _taught(config: EncoderConfig, options: TrainOptions, latents: tuple[int, ...], width: int) -> int:
    """Of one clip in a teacher, which keeps nothing: the higher of its attention and the sum of both branches."""
    size, tokens = (2 if options.mixed_precision == "bf16" else 4), _tokens(config, latents)
    attends = 2 * size * _scores(config, latents) + 5 * size * tokens * config.channels[-1]
    return FLOAT * prod(latents) + (FLOAT + size) * tokens * width + max(attends, 2 * size * tokens * width)


def _scores(config: EncoderConfig, latents: tuple[int, ...]) -> int:
    """Values of the attention's weights, which `frame` has as a tensor and other scopes leave to a kernel."""
    cells = prod(grid_for(latents[2], latents[3], config))
    has = config.has_hr and config.variant != "large_patchifier" and config.attention == "frame"
    return config.heads * cells * _tokens(config, latents) if has else 0


def _tokens(config: EncoderConfig, latents: tuple[int, ...]) -> int:
    return cells_for(latents[1], config.stride[0])[1] * prod(grid_for(latents[2], latents[3], config))


def sequence(configs: Sequence[EncoderConfig], options: TrainOptions, latents: tuple[int, ...]) -> int:
    """The most tokens of a step: section or Omega, the memories of what it may see, and the sliding window."""
    _, frames, height, width = latents
    patch = configs[0].patch
    latent = (height // patch[1]) * (width // patch[2])

    def memory(count: int) -> int:
        return sum(cells_for(count, c.stride[0])[1] * prod(grid_for(height, width, c)) for c in configs)

    stride = max((c.stride[0] for c in configs), default=1)
    omega = min(-(-max(OMEGA_SIZES) // stride) * stride, frames) * latent + memory(frames)
    if options.stage == "retrieval":
        return omega
    if options.stage == "host":
        return options.section * latent
    window = min(options.window, frames - options.section) * latent if options.window_share else 0
    section = options.section * latent + memory(frames - options.section) + window
    return max(section, omega) if options.retrieval_share else section


def _compute_size(model: nn.Module, options: TrainOptions) -> int:
    """Bytes of a value where the host computes."""
    weights = weights_type(model)
    return 2 if weights in HALF or (weights.itemsize < 2 and options.mixed_precision == "bf16") else 4


def _is_linear(module: nn.Module) -> bool:
    return hasattr(module, "in_features") and hasattr(module, "out_features") and not hasattr(module, "lora_A")


def _encoder_bytes(config: EncoderConfig, options: TrainOptions, latents: tuple[int, ...], width: int) -> int:
    """Of one encoder: its padded input, each layer's output before and after SiLU, its attention, and its tokens."""
    if options.stage == "host":
        return 0
    size = 2 if options.mixed_precision == "bf16" else 4
    cells, total = [float(n) for n in latents[1:]], 0.0
    if config.has_hr:
        total += prod(latents) * size
        channels = [*config.channels, *[config.channels[-1]] * len(layer_strides(config))]
        for stride, channel in zip(layer_strides(config), channels, strict=False):
            cells = [n / s for n, s in zip(cells, stride, strict=True)]
            total += 2 * channel * prod(cells) * size
        total += size * (10 * config.channels[-1] * _tokens(config, latents) + _scores(config, latents))
    return int(total + _tokens(config, latents) * width * size)
