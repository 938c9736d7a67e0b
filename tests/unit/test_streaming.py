"""Weights of blocks and inputs of checkpointed ones in RAM: what is pinned, for how long, and where it cannot be."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memory_encoder.injection.hosts.base import non_blocking
from memory_encoder.training.prefetch import pinned
from memory_encoder.training.streaming import inputs_in_ram, streamed_blocks
from memory_encoder.training.weight_parts import taken_apart
from tests.pinning import Registrations, registering

WIDTH, BLOCKS = 72, 4  # a matrix of 20 KB: a power of two would be 32


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(BLOCKS))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def weights(host: Host) -> list[Tensor]:
    layers: Any = [block[0] for block in host.blocks]  # type: ignore[index]
    return [getattr(layer, name) for layer in layers for name in ("weight", "bias")]


def test_the_ram_of_a_block_is_pinned_in_one_piece_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ram, host, x = registering(monkeypatch), Host(), torch.randn(3, WIDTH)
    expected, size = host(x), sum(weight.nbytes for weight in weights(Host()))
    with streamed_blocks(host, 1):
        assert len(ram.ranges) == BLOCKS - 1
        assert [ram.holds(weight) for weight in weights(host)] == [False] * 2 + [True] * 2 * (BLOCKS - 1)
        assert all(weight.data_ptr() % 64 == 0 for weight in weights(host))
        assert ram.most < 1.25 * size * (BLOCKS - 1) / BLOCKS  # whole pages, no powers of two
        assert torch.equal(host(x), expected)
    assert not ram.ranges and torch.equal(host(x), expected)
    assert len(list(host.parameters())) == 2 * BLOCKS and not any(p.requires_grad for p in host.parameters())


def test_ram_is_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ram, host = registering(monkeypatch), Host()
    with pytest.raises(RuntimeError, match="stop"), streamed_blocks(host, 0):
        raise RuntimeError("stop")
    assert ram.most and not ram.ranges and len(list(host.parameters())) == 2 * BLOCKS


def test_weights_keep_their_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    registering(monkeypatch)
    host = Host()
    layer: Any = host.blocks[0][0]  # type: ignore[index]
    layer.weight = nn.Parameter(layer.weight.t(), requires_grad=False)
    with streamed_blocks(host, 0):
        assert layer.weight.stride() == (1, WIDTH)


def test_ram_that_cannot_be_pinned_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host, x = Host(), torch.randn(3, WIDTH)
    expected = host(x)
    ram = registering(monkeypatch, limit=1.5 * (WIDTH + 1) * WIDTH * 4 + 8192)
    with caplog.at_level(logging.WARNING, "video_memory"), streamed_blocks(host, 0):
        assert len(ram.ranges) == 1 and ram.calls == 2  # the first fits, the second does not, no other is tried
        assert torch.equal(host(x), expected)
        refuse_pinning(monkeypatch)
        assert_inputs_come_back()
    assert [record.message.split(";")[0] for record in caplog.records] == ["system RAM cannot be pinned for 0 MiB"]
    assert not ram.ranges and torch.equal(host(x), expected)


def refuse_pinning(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own pinned memory is used up. Copies from `meta`, which stands for a card, bring nothing."""
    empty = torch.empty

    def nothing(self: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        assert not non_blocking  # into plain RAM
        return self

    def refused(*size: Any, **kwargs: Any) -> Tensor:
        if kwargs.pop("pin_memory", False):
            raise RuntimeError("CUDA error: out of memory")
        return empty(*size, **kwargs)

    monkeypatch.setattr(torch, "empty", refused)
    monkeypatch.setattr(Tensor, "copy_", nothing)


def assert_inputs_come_back() -> None:
    x = torch.zeros(4, 5, device="meta", requires_grad=True)
    with inputs_in_ram():
        out = (2 * x).sin()
    out.sum().backward()
    assert x.grad is not None and x.grad.shape == (4, 5)


def test_inputs_that_cannot_be_pinned_wait_in_plain_ram(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registering(monkeypatch)
    refuse_pinning(monkeypatch)
    with caplog.at_level(logging.WARNING, "video_memory"), streamed_blocks(Host(), -1):
        for _ in range(3):
            assert_inputs_come_back()
    assert len(caplog.records) == 1


def test_the_ram_of_inputs_is_given_back_when_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = pytest.importorskip("torch.accelerator")
    registering(monkeypatch)
    empty, given_back = torch.empty, []
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **kwargs: empty(*size, **kwargs))
    monkeypatch.setattr(Tensor, "copy_", lambda self, source, non_blocking=False: self)
    monkeypatch.setattr(accelerator, "empty_host_cache", lambda: given_back.append(1), raising=False)
    for inputs in (0, 2):
        with streamed_blocks(Host(), -1):
            for _ in range(inputs):
                assert_inputs_come_back()
            assert not given_back
    assert given_back == [1]


def test_a_batch_that_cannot_be_pinned_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(Tensor, "pin_memory", refused)
    assert pinned([torch.ones(2)])[0].tolist() == [1, 1]


def test_nothing_is_pinned_without_a_card() -> None:
    host = Host()
    before = [weight.data_ptr() for weight in weights(host)]
    with streamed_blocks(host, 0):
        assert [weight.data_ptr() for weight in weights(host)] == before


class Packed(Tensor):
    """A weight with an attribute beside its bytes, like a GGUF loader's."""

    kind: str


def test_a_weight_with_attributes_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ram: Registrations = registering(monkeypatch)
    host = Host()
    layer: Any = host.blocks[0][0]  # type: ignore[index]
    packed: Any = torch.arange(6, dtype=torch.uint8).as_subclass(Packed)
    packed.kind = "Q4_0"
    layer.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
    monkeypatch.setattr(Packed, "detach", lambda self: self, raising=False)  # as such a loader's does
    layer._parameters["weight"] = packed
    with streamed_blocks(host, 0):
        assert vars(layer.weight)["kind"] == "Q4_0" and ram.holds(layer.weight) and layer.weight.tolist() == [*range(6)]
    assert taken_apart(packed)[0][0].data_ptr() == packed.data_ptr()


def test_only_cudas_copies_are_left_to_run_by_themselves() -> None:
    found = {name: non_blocking(torch.device(name)) for name in ("cuda", "mps", "cpu", "xpu")}
    assert found == {"cuda": True, "mps": False, "cpu": False, "xpu": False}
