"""Which optimizer moves which weight, and how fast."""

from __future__ import annotations

import pytest
import torch

from memory_encoder.training.optimizers import make_optimizers
from memory_encoder.training.options import TrainOptions

LORA = [f"diffusion_model.blocks.0.self_attn.q.lora_{part}.video_memory.weight" for part in "AB"]
HOST = ["diffusion_model.double_blocks.1.img_mlp.0.weight"]
OTHERS = [
    "diffusion_model.blocks.0.self_attn.norm_q.weight",  # no matrix
    "diffusion_model.head.head.weight",  # outside the blocks
    "encoder.cross.blocks.0.k.weight",  # a path into the host, which learns at its rate, but is the encoder's
]
TRUNK = ["encoder.attention.qkv.weight", "others.0.trunk.layers.0.conv.weight"]
SHAPES = {OTHERS[0]: (8,), TRUNK[1]: (8, 4, 3, 3, 3)}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_muon_moves_the_matrices_of_the_blocks_and_adamw_all_else(optimizer: str) -> None:
    names = [*LORA, *HOST, *OTHERS, *TRUNK]
    parameters = {name: torch.nn.Parameter(torch.zeros(SHAPES.get(name, (8, 4)))) for name in names}
    options = TrainOptions(optimizer=optimizer, learning_rate=1e-3, encoder_rate=0.25)  # type: ignore[arg-type]
    found = {
        name: (type(one).__name__, group["share"])
        for one in make_optimizers(parameters, options)
        for group in one.param_groups
        for name, parameter in parameters.items()
        if any(parameter is moved for moved in group["params"])
    }
    by_muon = [*LORA, *HOST] if optimizer == "muon" else []
    assert found == {name: ("Muon" if name in by_muon else "AdamW", 0.25 if name in TRUNK else 1.0) for name in names}


def test_a_lora_that_is_trained_alone_has_nothing_for_adamw() -> None:
    parameters = {name: torch.nn.Parameter(torch.zeros(8, 4)) for name in LORA}
    (only,) = make_optimizers(parameters, TrainOptions(optimizer="muon"))
    assert type(only).__name__ == "Muon" and len(only.param_groups[0]["params"]) == 2


def test_one_learning_rate_serves_both() -> None:
    """A step of Muon is, in the root mean square, as long as one of AdamW is once its moments have settled: a fifth of
    the rate. AdamW's first is as long as the rate."""
    lengths = []
    for optimizer in ("adamw", "muon"):
        weight = torch.nn.Parameter(torch.zeros(32, 64))
        options = TrainOptions(optimizer=optimizer, learning_rate=1e-3, weight_decay=0.0)  # type: ignore[arg-type]
        _, *muon = both = make_optimizers({LORA[0]: weight, OTHERS[0]: torch.nn.Parameter(torch.zeros(4))}, options)
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        (muon or both)[0].step()
        lengths.append(float(weight.detach().square().mean().sqrt()))
    assert lengths[0] == pytest.approx(1e-3, rel=0.01) and lengths[1] == pytest.approx(2e-4, rel=0.15)
