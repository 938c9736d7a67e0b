"""The LoRA layer against peft's own, and what it keeps for the backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from memory_encoder.training.lora import ADAPTER
from memory_encoder.training.lora_layer import LoraLayer, plain_weight

BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn


class CastLinear(nn.Linear):
    """A layer as core makes it for narrow weights: they are cast to the type of its input."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input)
        return nn.functional.linear(input, self.weight.to(input), bias)


def layers(dtype: torch.dtype, width: int = 24, out: int = 40, rank: int = 4) -> tuple[Any, Any]:
    """peft's layer and ours over one base and with one LoRA."""
    torch.manual_seed(0)
    base = CastLinear(width, out).to(dtype).requires_grad_(False)
    made = []
    for kind in (None, LoraLayer):
        model = nn.Sequential(base)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"], bias="none")
        if kind is not None:
            config._register_custom_module({CastLinear: kind})
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
        layer: Any = model[0]
        torch.manual_seed(1)
        for side in (layer.lora_A, layer.lora_B):
            weight = side[ADAPTER].weight
            weight.data = torch.randn(weight.shape) * 0.2  # float32, as `add_lora` has it
        made.append(layer)
    return made[0], made[1]


def results(layer: Any, x: Tensor, half: bool) -> dict[str, Tensor]:
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", BF16, enabled=half):
        out = layer(x)
    (out.float() * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    named = {"out": out.detach(), "x": x.grad, "a": layer.lora_A[ADAPTER].weight.grad}
    return {**named, "b": layer.lora_B[ADAPTER].weight.grad}


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 3), tokens=st.integers(1, 9), half=st.booleans(), dtype=st.sampled_from([BF16, FP8]))
def test_values_and_gradients_are_those_of_pefts_layer(rows: int, tokens: int, half: bool, dtype: torch.dtype) -> None:
    theirs, ours = layers(dtype)
    x = torch.randn(rows, tokens, 24, generator=torch.Generator().manual_seed(tokens))
    expected = results(theirs, x, half)
    for name, value in results(ours, x, half).items():
        assert value.dtype == expected[name].dtype
        torch.testing.assert_close(value, expected[name], rtol=2e-2 if half else 1e-5, atol=2e-2 if half else 1e-5)


def kept(layer: Any, x: Tensor) -> dict[int, Tensor]:
    """What autograd keeps of one pass, the trained weights aside."""
    own = {p.untyped_storage().data_ptr() for p in layer.parameters() if p.requires_grad}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            found[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", BF16, cache_enabled=False):
        layer(x.requires_grad_(True))
    return found


def test_a_pass_keeps_its_input_once_and_the_fp8_weight_as_it_is() -> None:
    theirs, ours = layers(FP8, width=256, out=512)
    x = torch.randn(1, 16, 256, dtype=BF16)
    assert {(t.dtype, t.numel()) for t in kept(ours, x).values()} == {
        (BF16, 16 * 256), (BF16, 16 * 4), (FP8, 256 * 512)
    }  # fmt: skip
    theirs_kept, ours_kept = (sum(t.nbytes for t in kept(layer, x).values()) for layer in (theirs, ours))
    assert theirs_kept > 1.9 * ours_kept  # else peft needs no layer of ours


@pytest.mark.parametrize("change", ["weight_function", "scale_weight"])
def test_layers_that_change_their_weight_are_left_to_autograd(change: str) -> None:
    """The gradient of the input is then that of what the layer has really done."""
    layer, theirs = reversed(layers(BF16))
    for one in (layer, theirs):
        base = one.get_base_layer()
        setattr(base, change, [lambda w: 3 * w] if change == "weight_function" else torch.tensor(3.0))
        base.forward = lambda x, base=base: nn.functional.linear(x, 3 * base.weight.to(x))
    assert plain_weight(layer.get_base_layer()) is None
    x = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(0))
    expected = results(theirs, x, False)
    for name, value in results(layer, x, False).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
