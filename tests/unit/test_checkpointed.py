"""What gradient checkpointing keeps of a block, and that nothing of a forward pass outlives it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from memory_encoder.injection.hosts import MemoryTokens
from memory_encoder.injection.hosts.hunyuan import _HunyuanPatch
from memory_encoder.injection.inject import checkpointed


def kept_by(function: Any, seen: set[int] | None = None) -> list[Tensor]:
    """All tensors that can be reached from a closure."""
    seen = set() if seen is None else seen
    if id(function) in seen:
        return []
    seen.add(id(function))
    if isinstance(function, Tensor):
        return [function]
    if isinstance(function, dict):
        inside = list(function.values())
    elif isinstance(function, (list, tuple)):
        inside = list(function)
    else:
        inside = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    return [tensor for each in inside for tensor in kept_by(each, seen)]


def arguments() -> dict[str, Any]:
    names = ("img", "txt", "vec", "pe")
    return {name: torch.randn(4, 4, requires_grad=True) for name in names} | {
        "attention_mask": None,
        "transformer_options": {},
    }


def block(args: dict[str, Any]) -> dict[str, Any]:
    img = torch.tanh(args["img"] * args["vec"]) * args["pe"]
    return {"img": img, "txt": args["txt"].sin()}


def in_place(args: dict[str, Any]) -> dict[str, Any]:
    img, txt = args["img"], args["txt"]
    img += args["vec"].sin()
    txt += 1
    return {"img": img.tanh(), "txt": txt.tanh()}


@pytest.mark.parametrize(("run", "copies"), [(block, False), (in_place, True)])
def test_hooks_on_saved_tensors_see_every_input_and_the_closure_holds_none(
    monkeypatch: pytest.MonkeyPatch, run: Any, copies: bool
) -> None:
    closures: list[Any] = []
    real = torch.utils.checkpoint.checkpoint

    def spy(function: Any, *args: Any, **kwargs: Any) -> Any:
        closures.append(function)
        return real(function, *args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", spy)
    args, packed = arguments(), []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor.data_ptr())
        return tensor

    middle = {name: value * 1 if isinstance(value, Tensor) else value for name, value in args.items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = checkpointed(run, copies)(middle)
    inputs = [value for value in middle.values() if isinstance(value, Tensor)]
    assert {value.data_ptr() for value in inputs} <= set(packed)
    assert closures and kept_by(closures[0]) == []
    if not copies:
        assert all(value._version == 0 for value in inputs)
    (out["img"].sum() + out["txt"].sum()).backward()


@pytest.mark.parametrize(("run", "copies"), [(block, False), (in_place, True)])
def test_gradients_are_those_of_the_block_itself(run: Any, copies: bool) -> None:
    torch.manual_seed(0)
    first = arguments()
    second = {n: v.detach().clone().requires_grad_(True) if isinstance(v, Tensor) else v for n, v in first.items()}
    for args, function in ((first, run), (second, checkpointed(run, copies))):
        middle = {name: value * 1 if isinstance(value, Tensor) else value for name, value in args.items()}
        out = function(middle)
        (out["img"].square().sum() + out["txt"].square().sum()).backward()
    for name, value in first.items():
        if isinstance(value, Tensor) and value.grad is not None:
            torch.testing.assert_close(value.grad, second[name].grad, rtol=0, atol=0)


def test_an_input_lives_no_longer_than_what_was_made_of_it() -> None:
    args = arguments()
    args["img"] = args["img"] * 1
    watch = weakref.ref(args["img"])
    gc.disable()
    try:
        out = checkpointed(block, False)(args)
        del args
        assert watch() is not None
        del out
        assert watch() is None
    finally:
        gc.enable()


def test_hunyuans_blocks_share_the_positions_of_a_pass() -> None:
    """Checkpointed blocks keep what they are given: positions of their own would be kept once a block."""
    patch, seen = _HunyuanPatch(MemoryTokens(torch.zeros(2, 3, 8), torch.zeros(1, 1, 3, 4, 2, 2), "same"), None), []

    def block(args: dict[str, Any]) -> dict[str, Any]:
        seen.append(args["pe"])
        return args

    for pe in [torch.zeros(2, 1, 5, 4, 2, 2)] * 2 + [torch.ones(2, 1, 5, 4, 2, 2)]:
        patch.single({"img": torch.zeros(2, 5, 8), "vec": torch.zeros(2, 8), "pe": pe}, block)
    assert seen[0] is seen[1] and seen[0].shape == (2, 1, 8, 4, 2, 2)
    assert bool((seen[2][:, :, :5] == 1).all())  # another pass, other positions
