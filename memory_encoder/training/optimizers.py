"""The optimizers of a run: AdamW, or Muon for the matrices of a host that is trained itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .options import TrainOptions


def make_optimizers(parameters: Mapping[str, nn.Parameter], options: TrainOptions) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or with `options.optimizer` muon for all but the matrices inside the host's blocks.

    AdamW comes first. Each group has a `share` of the run's learning rate. Raises ValueError where PyTorch has no Muon.
    """
    matrices = {name: p for name, p in parameters.items() if options.optimizer == "muon" and _is_matrix(name, p)}
    encoder = [p for name, p in parameters.items() if _is_trunk(name)]
    others = [p for name, p in parameters.items() if name not in matrices and not _is_trunk(name)]
    rate, decay = options.learning_rate, options.weight_decay
    groups = [{"params": others, "share": 1.0}, {"params": encoder, "share": options.encoder_rate}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, weight_decay=decay, betas=(0.9, 0.99))
    ]
    if matrices:
        kind: Any = getattr(torch.optim, "Muon", None)
        if kind is None:
            raise ValueError(f"optimizer muon needs PyTorch 2.9 or newer, this is {torch.__version__}; take adamw")
        # Its steps are scaled to the size of AdamW's, so that one learning rate serves both.
        group = {"params": list(matrices.values()), "share": 1.0}
        optimizers.append(kind([group], lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def _is_trunk(name: str) -> bool:
    """Whether a weight is of phi itself; its cross-attention is a path into the host and learns as the LoRA does."""
    return name.startswith(("encoder.", "others.")) and ".cross." not in name


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and "blocks." in name and ".lora_" not in name
