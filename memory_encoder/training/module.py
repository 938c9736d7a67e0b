"""Encoders and host as one module whose forward is a loss, so that Accelerate can prepare it for many processes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..injection.cached import OVERRIDE, KeyValueCache
from ..injection.fit import check_together
from ..injection.horizon import near_and_far
from ..injection.hosts import find_host
from ..injection.hosts.base import Constants, HistoryTimestep, host_blocks, non_blocking
from ..injection.hosts.encoder_file import new_encoder
from ..injection.inject import DIFFUSION_MODEL, KEY, DiffusionModelWrapper
from ..injection.selection import InjectedMemory
from ..objectives.continuation import Context, ContinuationDraw, continuation_loss
from ..objectives.retrieval import RetrievalDraw, retrieval_loss, time_stride
from ..phi.cross_attention import CrossAttention, CrossMemory
from ..phi.encoder import MemoryEncoder
from ..phi.positions import cell_coordinates, cells_for, grid_for, lattice_coordinates
from .dataset.rows import MASK, Rows, moved, passes
from .gradient_attention import GradientAttention
from .streaming import inputs_in_ram

TIMESTEP_SCALE = 1000.0  # core hands flow models t * 1000


@dataclass(frozen=True)
class Batch:
    """Clips of one training step.

    hr: normalised latents [B,C,T,H,W]. lr: normalised LR latents [B,C,t,h,w] by rate. conditioning: arguments of the
    host's forward by name, such as context [B,N,D], or one [1,N,D] for each row where captions differ in length. cuts:
    for each clip whether what is asked of it begins with a cut; empty where nobody knows.
    """

    hr: Tensor
    lr: Mapping[str, Tensor]
    conditioning: Mapping[str, Rows]
    cuts: tuple[bool, ...] = ()

    def rows(self, start: int, stop: int) -> Batch:
        """The clips of one process."""
        conditioning = {name: value[start:stop] for name, value in self.conditioning.items()}
        lr = {rate: value[start:stop] for rate, value in self.lr.items()}
        return replace(self, hr=self.hr[start:stop], lr=lr, conditioning=conditioning, cuts=self.cuts[start:stop])

    def to(self, device: torch.device) -> Batch:
        conditioning = {name: moved(value, device) for name, value in self.conditioning.items()}
        apart = non_blocking(device)  # waits unless it is pinned
        lr = {rate: value.to(device, non_blocking=apart) for rate, value in self.lr.items()}
        return replace(self, hr=self.hr.to(device, non_blocking=apart), lr=lr, conditioning=conditioning)


class TrainingModule(nn.Module):
    """phi and G of the two equations; only the encoders and the host's LoRA have gradients."""

    def __init__(
        self,
        encoder: MemoryEncoder,
        diffusion_model: nn.Module,
        history_timestep: HistoryTimestep = "zero",
        gradient_checkpointing: bool = False,
        others: Sequence[MemoryEncoder] = (),
        guidance: float = 6.0,
        offload_inputs: bool = False,
    ) -> None:
        """others: further encoders of the same history (paper section 4.5); the host sees the tokens of all.

        guidance: what a guidance-distilled host (HunyuanVideo) is told beside the text, by default what core tells it.
        offload_inputs: what gradient checkpointing keeps waits in RAM.

        Raises ValueError when the encoders are not for one host, or not to be read in one way.
        """
        super().__init__()
        check_together([encoder.config, *(other.config for other in others)])
        self.encoder, self.diffusion_model = encoder, diffusion_model
        self.others = nn.ModuleList(others)
        self.history_timestep: HistoryTimestep = history_timestep
        self.gradient_checkpointing = gradient_checkpointing
        self.guidance, self.offload_inputs = guidance, offload_inputs
        # Whether any process says so: where weights are split, all must make as many passes of the host.
        self.agreed: Callable[[bool], bool] = bool
        # The half type in which core computes with narrower weights where no autocast says it; None leaves the inputs'.
        self.cast: torch.dtype | None = None

    @property
    def encoders(self) -> tuple[MemoryEncoder, ...]:
        others: Any = self.others
        return (self.encoder, *others)

    @property
    def stride(self) -> int:
        """Latents in time after which a cell of every encoder ends."""
        return math.lcm(*(encoder.config.stride[0] for encoder in self.encoders))

    def forward(
        self, batch: Batch, drawn: RetrievalDraw | ContinuationDraw | tuple[RetrievalDraw | ContinuationDraw, ...]
    ) -> Tensor:
        """The loss of Eq. 3 or Eq. 4, by the kind of `drawn`; of a tuple the mean over rows, each with its own."""
        if isinstance(drawn, tuple):
            return torch.stack([self.forward(batch.rows(i, i + 1), one) for i, one in enumerate(drawn)]).mean()

        def predict(x_t: Tensor, t: Tensor, memory: InjectedMemory | None, first: int) -> Tensor:
            return self.predict(x_t, t, memory, first, batch.conditioning)

        if isinstance(drawn, RetrievalDraw):
            return retrieval_loss(batch.hr, batch.lr, drawn, self.compress, predict)
        if drawn.context is not None:
            shown = self.context(batch, drawn.context)
            return continuation_loss(batch.hr, {}, drawn, lambda hr, lr: shown, predict)
        lr = {rate: value[:, :, : cells_for(drawn.history, time_stride(rate))[0]] for rate, value in batch.lr.items()}

        def compress(hr: Tensor, lr: Mapping[str, Tensor]) -> InjectedMemory:
            memory = self.compress(hr, lr)
            return self.with_window(memory, hr, drawn.window) if drawn.window else memory

        return continuation_loss(batch.hr, lr, drawn, compress, predict)

    def compress(self, hr: Tensor, lr: Mapping[str, Tensor], horizon: int = 0) -> InjectedMemory:
        """phi(H) of all encoders with the coordinates of its tokens, times counted from the clip's first latent.

        lr: LR latents by rate. horizon: the most tokens that are left of it, 0 for all (see `injection.horizon`).
        """
        parts = [self._compress(encoder, hr, lr.get(encoder.config.rate)) for encoder in self.encoders]
        if 0 < horizon < sum(tokens.shape[1] for tokens, *_ in parts):
            times = [coordinates[:, 0] for _, coordinates, _ in parts]
            chosen = near_and_far(times, [encoder.config.stride[0] for encoder in self.encoders], horizon)
            parts = [_part_at(part, indices) for part, indices in zip(parts, chosen, strict=True)]
        tokens, coordinates, cross = zip(*parts, strict=True)
        cache = KeyValueCache() if self.encoder.config.memory_attention == "cached" else None
        return InjectedMemory(
            torch.cat(tokens, dim=1), torch.cat(coordinates), self.history_timestep, cache, sum(cross, ())
        )

    def tokens_of(self, encoder: MemoryEncoder, batch: Batch) -> Tensor:
        """Memory tokens [B,M,D] of whole clips, of one of the encoders alone."""
        return self._compress(encoder, batch.hr, batch.lr.get(encoder.config.rate))[0]

    def _compress(
        self, encoder: MemoryEncoder, hr: Tensor, lr: Tensor | None
    ) -> tuple[Tensor, Tensor, tuple[CrossMemory, ...]]:
        """Tokens and coordinates of one encoder, and what its cross-attention needs."""
        weight = next(encoder.parameters(), hr)
        embedded = None
        if lr is not None and encoder.config.has_lr:
            embedded = find_host(self.diffusion_model).embed(lr).to(weight)
        encoded = encoder.append(hr.to(weight), embedded)
        coordinates = torch.cat([encoded.coordinates, encoded.tail_coordinates])
        hidden, cross = encoded.all_hidden(), ()
        if hidden is not None and encoder.cross is not None:
            branches: Any = _OwnTypes(encoder.cross)
            cross = (CrossMemory(branches, hidden, coordinates),)
        return encoded.all_tokens(), coordinates, cross

    def with_window(self, memory: InjectedMemory, hr: Tensor, count: int) -> InjectedMemory:
        """The memory with the last `count` latents of its clip beside it, uncompressed (paper section 4.5)."""
        last = self.uncompressed(hr[:, :, -count:], max(hr.shape[2] - count, 0))
        tokens = torch.cat([memory.tokens, last.tokens.to(memory.tokens)], dim=1)
        return replace(memory, tokens=tokens, coordinates=torch.cat([memory.coordinates, last.coordinates]))

    def context(self, batch: Batch, context: Context) -> InjectedMemory:
        """What a host that is pretrained sees beside its section."""
        if not context.coarse or not batch.lr:
            return self.uncompressed(batch.hr[:, :, context.start : context.stop], context.start)
        rate, lr = next(iter(batch.lr.items()))
        config = replace(self.encoder.config, rate=rate)
        cells = cells_for(context.stop, config.stride[0])[0]
        tokens = find_host(self.diffusion_model).embed(lr[:, :, :cells]).flatten(2).transpose(1, 2)
        grid = grid_for(batch.hr.shape[3], batch.hr.shape[4], config)
        coordinates = cell_coordinates(0, cells, grid, config, batch.hr.shape[2])
        return InjectedMemory(tokens.to(batch.hr), coordinates, self.history_timestep)

    def uncompressed(self, hr: Tensor, first: int = 0) -> InjectedMemory:
        """Clean latents [B,C,T,H,W] of a clip, from its latent `first` on, as tokens of the host's own patchifier."""
        tokens = find_host(self.diffusion_model).embed(hr)
        coordinates = lattice_coordinates(*tokens.shape[2:], start=first)
        return InjectedMemory(tokens.flatten(2).transpose(1, 2).to(hr), coordinates, self.history_timestep)

    def predict(
        self, x_t: Tensor, t: Tensor, memory: InjectedMemory | None, first: int, conditioning: Mapping[str, Rows]
    ) -> Tensor:
        """The host's velocity for latents x_t [B,C,T,H,W] whose first frame has the true time `first`.

        The host runs as core runs it when it samples: in the type of its weights, with what core gives beside the text,
        rows of other lengths of text on their own, and no start image.
        """
        host, count = find_host(self.diffusion_model), x_t.shape[0]
        if memory is None:
            # Without tokens there is no timestep of theirs to add.
            memory = InjectedMemory(x_t.new_zeros(1, 0, host.width), torch.zeros(0, 3), "same")
        memory = memory.offset_by(-float(first))
        given = {name: value for name, value in conditioning.items() if name != MASK or host.masks_text}
        runs = passes(given, count, single=MASK in given)
        if self.agreed(len(runs) > 1):
            runs = passes(given, count, single=True)
        if len(runs) <= 1:
            return self._run(x_t, t, memory, dict(runs[0][1]))
        made = [self._run(x_t[rows], t[rows], _rows_of(memory, rows), arguments) for rows, arguments in runs]
        order = [row for rows, _ in runs for row in rows]
        return torch.cat(made)[torch.tensor(order).argsort().to(x_t.device)]

    def _run(self, x_t: Tensor, t: Tensor, memory: InjectedMemory, arguments: dict[str, Tensor]) -> Tensor:
        """One pass of the host over rows whose arguments have equal shapes."""
        host, kind = find_host(self.diffusion_model), x_t.device.type
        half = computing_type(self.diffusion_model, kind, self.cast)
        x = x_t if half is None else x_t.to(half)
        constants = {name: x.new_full((x.shape[0],), value) for name, value in host.constants(self.guidance).items()}
        # Masks of whole numbers are for core to read.
        given = {n: v.to(x.dtype) if v.is_floating_point() else v for n, v in (constants | arguments).items()}
        x = torch.nn.functional.pad(x, (0,) * 7 + (host.image_channels,))  # as core does where no image is given
        wrapper = DiffusionModelWrapper(memory, self.gradient_checkpointing)
        options: dict[str, Any] = {"wrappers": {DIFFUSION_MODEL: {KEY: [wrapper]}}}
        attention = GradientAttention() if torch.is_grad_enabled() else None
        if attention is not None:
            options[OVERRIDE] = attention
        # Autocast would compute the host's norms and sums in float32, which core does not, and the backward pass keeps.
        # The LoRA casts by itself. Weights of the other half type cannot do without.
        other = weights_type(self.diffusion_model) in HALF and weights_type(self.diffusion_model) != half
        with contextlib.ExitStack() as around:
            if half is not None:
                around.enter_context(torch.autocast(kind, half, other, cache_enabled=False))
            if self.offload_inputs:
                around.enter_context(inputs_in_ram())
            out = self.diffusion_model(x, t * TIMESTEP_SCALE, transformer_options=options, **given)
        if attention is not None:
            attention.check(self.diffusion_model)
        return out.to(x_t.dtype)


def _part_at(
    part: tuple[Tensor, Tensor, tuple[CrossMemory, ...]], indices: Tensor
) -> tuple[Tensor, Tensor, tuple[CrossMemory, ...]]:
    """The tokens of one encoder at some indices, with what goes with them."""
    tokens, coordinates, cross = part
    there = indices.to(tokens.device)
    hidden = tuple(replace(one, hidden=one.hidden[:, there], coordinates=coordinates[indices]) for one in cross)
    return tokens[:, there], coordinates[indices], hidden


def _rows_of(memory: InjectedMemory, rows: list[int]) -> InjectedMemory:
    """The memory of some rows of a batch; one of a single row is that of all."""
    if memory.tokens.shape[0] == 1:
        return memory
    cross = tuple(replace(one, hidden=one.hidden[rows]) for one in memory.cross)
    return replace(memory, tokens=memory.tokens[rows], cross=cross, constants=Constants())


class _OwnTypes:
    """The float32 branches of an encoder's cross-attention, for a host that computes in a half type."""

    def __init__(self, cross: CrossAttention) -> None:
        self.blocks = [partial(self._run, block) for block in cross.blocks]

    @staticmethod
    def _run(block: nn.Module, video: Tensor, *others: Tensor) -> Tensor:
        with torch.autocast(video.device.type, video.dtype, video.dtype in HALF, cache_enabled=False):
            return block(video, *others).to(video.dtype)


HALF = (torch.bfloat16, torch.float16)


def computing_type(model: nn.Module, device: str, cast: torch.dtype | None = None) -> torch.dtype | None:
    """The half type in which a host runs on a kind of device, or None where its inputs stay as they are.

    A host of half weights takes no other inputs, as core loads it on a card that computes in the file's type; one of
    narrower weights (fp8) computes in `cast`, else in the type of its inputs. An autocast that is on, such as
    Accelerate's, decides.
    """
    weights = weights_type(model)
    if weights.itemsize > 2:
        return None
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    if weights not in HALF:
        return cast if cast in HALF else None
    # Gradients would vanish in fp16, whose smallest numbers are too large for them; bf16 has float32's range.
    return torch.bfloat16 if torch.is_grad_enabled() else weights


def weights_type(model: nn.Module) -> torch.dtype:
    """Type of the weights of the blocks' linear layers, those of a LoRA aside."""
    for block in host_blocks(model):
        for name, layer in block.named_modules():
            weight = getattr(layer, "weight", None)  # no parameter where the block's weights wait in RAM
            if isinstance(weight, Tensor) and weight.ndim == 2 and ".lora_" not in name:
                return weight.dtype
    return torch.float32


def untrained(module: TrainingModule, seed: int) -> TrainingModule:
    """The same host beside encoders of the same form that learned nothing; seed: of their weights."""
    host = find_host(module.diffusion_model)
    first, *others = (new_encoder(encoder.config, host, seed).requires_grad_(False) for encoder in module.encoders)
    return TrainingModule(first, module.diffusion_model, others=others, guidance=module.guidance)
