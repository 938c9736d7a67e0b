"""What moves the weights after a step: AdamW, or Muon for the matrices of a LoRA or host, and moving averages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from .distributed.shards import from_shard, gathered, own_shard, put_whole, shard_of
from .options import TrainOptions

EIGHT_BIT = (("bitsandbytes", "bitsandbytes.optim"), ("torchao", "torchao.optim"))


def make_optimizers(
    parameters: Mapping[str, nn.Parameter], options: TrainOptions, fused: bool = False
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or with `options.optimizer` muon for all but the matrices inside the host's blocks: those
    of its LoRA, or its own where it is trained itself.

    fused: for a card, where AdamW would otherwise make a copy of all second moments in each step.
    AdamW comes first where it moves anything. Each group has a `share` of the run's learning rate. Raises ValueError
    where PyTorch has no Muon, or nothing has AdamW of 8 bits.
    """
    matrices = {name: p for name, p in parameters.items() if options.optimizer == "muon" and _is_matrix(name, p)}
    encoder = [p for name, p in parameters.items() if _is_trunk(name)]
    others = [p for name, p in parameters.items() if name not in matrices and not _is_trunk(name)]
    rate, decay = options.learning_rate, options.weight_decay
    groups = [{"params": others, "share": 1.0}, {"params": encoder, "share": options.encoder_rate}]
    chosen = [group for group in groups if group["params"]]
    if options.optimizer == "adamw8bit":
        return [adamw_8bit(fused)(chosen, lr=rate, weight_decay=decay, betas=(0.9, 0.99))]
    optimizers: list[torch.optim.Optimizer] = []
    if chosen:  # a LoRA that is trained alone has nothing but matrices
        optimizers.append(torch.optim.AdamW(chosen, lr=rate, weight_decay=decay, betas=(0.9, 0.99), fused=fused))
    if matrices:
        kind: Any = getattr(torch.optim, "Muon", None)
        if kind is None:
            raise ValueError(f"optimizer muon needs PyTorch 2.9 or newer, this is {torch.__version__}; take adamw")
        # Its steps are scaled to the size of AdamW's, so that one learning rate serves both.
        group = {"params": list(matrices.values()), "share": 1.0}
        optimizers.append(kind([group], lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def adamw_8bit(card: bool) -> Any:
    """AdamW whose moments are 8 bits, scaled by blocks: that of bitsandbytes for a card, else torchao's.

    Raises ValueError where neither is installed.
    """
    for name, path in EIGHT_BIT if card else EIGHT_BIT[::-1]:
        if find_spec(name) is not None:
            return import_module(path).AdamW8bit
    raise ValueError(
        "optimizer adamw8bit needs bitsandbytes (or torchao): `pip install bitsandbytes`; or take adamw, with "
        "resident_blocks where the card has no room"
    )


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Gives a group its learning rate; torchao's optimizers hold it in a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _is_trunk(name: str) -> bool:
    """Whether a weight is of phi itself; its cross-attention is a path into the host and learns as the LoRA does."""
    return name.startswith(("encoder.", "others.")) and ".cross." not in name


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and "blocks." in name and not name.startswith(("encoder.", "others."))


class Ema:
    """Averages of named parameters, float32, in system RAM, since a card has better uses for its memory.

    The decay is lower in the first steps, so that the start is forgotten. Of parameters that are split over processes
    each has the averages of its own part.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float, every: int = 1) -> None:
        """every: steps between updates; the decay of an update is then that of all its steps."""
        self.parameters, self.decay, self.every = dict(parameters), decay, every
        self.restart()

    def restart(self) -> None:
        """The averages begin with the parameters as they are."""
        self.averages = {name: _in_ram(parameter) for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the averages towards the parameters after step number `step`, counted from 1."""
        if step % self.every:
            return
        decay = math.prod(min(self.decay, (1 + n) / (10 + n)) for n in range(step - self.every + 1, step + 1))
        for name, parameter in self.parameters.items():
            self.averages[name].lerp_(own_shard(parameter).to(self.averages[name]), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the parameters hold their averages."""
        kept = {name: _in_ram(parameter) for name, parameter in self.parameters.items()}
        self._assign(self.averages)
        try:
            yield
        finally:
            self._assign(kept)

    def assign(self) -> None:
        """The parameters become their averages for good."""
        self._assign(self.averages)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Whole parameters and averages, as `parts.gathered` gives them."""
        averages = {name: from_shard(self.averages[name], parameter) for name, parameter in self.parameters.items()}
        return {"parameters": gathered(self.parameters), "averages": gathered(averages)}

    @torch.no_grad()
    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Inverse of `state`, in all processes."""
        for name, parameter in self.parameters.items():
            put_whole(state["parameters"][name], parameter)
            self.averages[name].copy_(own_shard(shard_of(state["averages"][name], parameter)))

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            own_shard(parameter).copy_(values[name])


def _in_ram(parameter: Tensor) -> Tensor:
    return own_shard(parameter).to(device="cpu", dtype=torch.float32, copy=True)
