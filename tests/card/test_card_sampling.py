"""Sampling with a memory at 832x480 and 81 frames: devices, and the bytes that it takes on the card."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from .films import Film, film, pack
from .hosts import SIZES, Steps
from .meter import GIB, Meter

BF16, FP16, FP8 = torch.bfloat16, torch.float16, torch.float8_e4m3fn
READ = {  # ways to read a memory: settings of the encoder, of the memory
    "joint": ({}, {}),
    "cached": ({"memory_attention": "cached"}, {}),
    "cross": ({"cross_blocks": -1}, {}),
    "cross cached": ({"cross_blocks": -1, "memory_attention": "cached"}, {}),
    "window": ({}, {"sliding_window": 3}),
    "guided": ({}, {"history_guidance": 1.5}),
    "same timestep": ({}, {"history_timestep": "same"}),
    "half": ({}, {"strength": 0.5}),
    "all": (
        {"cross_blocks": -1, "memory_attention": "cached"},
        {"sliding_window": 3, "history_guidance": 1.5, "strength": 0.7},
    ),
}

CLASSES = ("wan_5b", "hunyuan", "hunyuan15")  # one host of each kind


def made(card: Any, name: str, way: str, dtype: torch.dtype = BF16, layers: int | None = 2) -> tuple[Film, Any]:
    """A film of 20 s, and its model with the memory in it."""
    model, (encoder, settings) = card.model(name, dtype, layers), READ[way]
    if "cross_blocks" in encoder:
        encoder = encoder | {"cross_blocks": len(model.host.slots()), "head_dim": model.host.head_dim}
    made = film(model, **encoder)
    return made, made.remembering(**settings)


def meter_of(*filmed: Film) -> Meter:
    """A meter that knows what lies on the card before sampling."""
    meter = Meter()
    for one in filmed:
        meter.add_module(one.model.patcher.model)
        meter.add_module(one.encoder.model)
    return meter


@contextmanager
def nothing_kept(meter: Meter) -> Iterator[None]:
    """Asserts that as many bytes are alive afterwards as before."""
    before = meter.now
    with meter:
        yield
        gc.collect()
    assert meter.now == before, f"{(meter.now - before) / GIB:.3f} GiB are left on the card"


@pytest.mark.parametrize("name", SIZES)
def test_a_whole_model_reads_a_memory_on_the_card(card: Any, name: str) -> None:
    with card.on():
        filmed, patched = made(card, name, "joint", layers=None)
        meter = meter_of(filmed)
        print(f"{name}: weights {meter.now / GIB:.2f} GiB; above them", end=" ")
        for what, patcher in (("without memory", filmed.model.patcher), ("with one of 20 s", patched)):
            with meter.above():
                latent = filmed.model.sample(patcher, cfg=1.0)
            assert latent.device.type == "cpu" and latent.shape == (1, *filmed.model.latent)
            print(f"{meter.peak / GIB:.2f} GiB {what}", end=" ")
        print()


@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name in SIZES for way in (READ if name in CLASSES else ("cached", "all"))]
)
def test_every_way_to_read_a_memory_runs_on_the_card(card: Any, name: str, way: str) -> None:
    with card.on():
        filmed, patched = made(card, name, way)
        latent = filmed.model.sample(patched, steps=Steps(2))
        assert latent.device.type == "cpu" and latent.dtype == torch.float32


@pytest.mark.parametrize("way", ["joint", "all"])
@pytest.mark.parametrize("dtype", [FP16, FP8], ids=["fp16", "fp8"])
@pytest.mark.parametrize("name", ["wan_5b", "wan22_14b_i2v", "hunyuan"])
def test_half_and_fp8_models_read_a_memory_on_the_card(card: Any, name: str, dtype: torch.dtype, way: str) -> None:
    with card.on():
        filmed, patched = made(card, name, way, dtype)
        assert filmed.model.sample(patched).dtype == torch.float32


@pytest.mark.parametrize("way", ["joint", "cross cached"])
@pytest.mark.parametrize("films", [1, 2])
@pytest.mark.parametrize("name", ["wan_5b", "wan21_14b_i2v", "hunyuan"])
def test_a_large_card_runs_both_prompts_in_one_batch(
    card: Any, name: str, films: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "free", 1000 * GIB)
    batches = []

    def recorder(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        batches.append(x.shape[0])
        return executor(x, *args, **kwargs)

    with card.on():
        filmed, _ = made(card, name, way)
        patched = filmed.batch_of(films).remembering()
        patched.add_wrapper_with_key("diffusion_model", "recorder", recorder)
        filmed.model.sample(patched, batch=films)
    assert batches == [2 * films]


@pytest.mark.parametrize("name", ["wan_14b", "hunyuan"])
def test_cached_keys_and_values_wait_in_ram_on_a_small_card(
    card: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {}
    with card.on():
        for free in (80 * GIB, GIB // 16, 80 * GIB):  # the first run alone puts core's 1,000 noise levels on the card
            monkeypatch.setattr(card, "free", free)
            filmed, patched = made(card, name, "cached")
            meter = meter_of(filmed)
            before = meter.now

            def measure(meter: Meter = meter, before: int = before, free: int = free) -> None:
                gc.collect()
                kept[free] = meter.now - before

            with meter:
                filmed.model.sample(patched, steps=Steps(2, measure))
    small, large = kept[GIB // 16], kept[80 * GIB]
    blocks = len(filmed.model.host.slots())
    both_prompts = 2 * 2 * blocks * filmed.memory.token_count * filmed.model.host.width * 2  # keys and values
    assert large - small == both_prompts


# The promises about bytes are compared with each other, so that they hold on every build of torch.


@pytest.mark.parametrize("name", ["wan_14b", "wan_5b", "hunyuan"])
def test_less_strength_takes_no_more_of_the_card(card: Any, name: str) -> None:
    with card.on():
        filmed, patched = made(card, name, "joint")
        meter = meter_of(filmed)
        with meter.above():
            filmed.model.sample(patched)
        whole = meter.peak
        for strength in (0.36, 0.5, 0.99):
            with meter.above():
                filmed.model.sample(filmed.remembering(strength=strength))
            assert meter.peak <= 1.1 * whole, f"strength {strength}: {meter.peak / GIB:.2f} of {whole / GIB:.2f} GiB"


@pytest.mark.parametrize("tokens", [6239, 5003, 101])
def test_no_number_of_tokens_makes_a_step_expensive(card: Any, tokens: int) -> None:
    """Whatever divisors it has in common with the video's number of tokens: these have none."""
    with card.on():
        filmed, _ = made(card, "wan_14b", "joint")
        model, memory, meter = filmed.model, filmed.memory, meter_of(filmed)
        tail = memory.tail.shape[1]
        kept = {name: getattr(memory, name).until(tokens - tail) for name in ("tokens", "coordinates")}
        cut = replace(memory, **kept)
        with meter.above():
            model.sample(filmed.patcher)
        without = meter.peak
        with meter.above():
            model.sample(replace(filmed, memory=cut).remembering())
        video = model.latent[1] * model.latent[2] * model.latent[3] // 4
        joined = 2 * (video + tokens) * model.host.width  # tokens go behind a copy of the video's
        assert meter.peak <= 1.1 * without * (video + tokens) / video + joined


@pytest.mark.parametrize("way", ["joint", "cached", "cross", "window", "all"])
@pytest.mark.parametrize("name", ["wan_5b", "hunyuan"])
def test_live_bytes_are_the_same_after_every_step(card: Any, name: str, way: str) -> None:
    with card.on():
        filmed, patched = made(card, name, way)
        meter = meter_of(filmed)
        after: list[int] = []
        with meter:
            filmed.model.sample(patched, steps=Steps(4, lambda: after.append(meter.now)))
        assert len(set(after)) == 1, [f"{n / GIB:.3f} GiB" for n in after]


@pytest.mark.parametrize("way", ["joint", "cached", "cross", "window", "all"])
@pytest.mark.parametrize("name", ["wan_5b", "hunyuan"])
def test_a_run_leaves_nothing_of_the_memory_on_the_card(card: Any, name: str, way: str) -> None:
    with card.on():
        filmed, patched = made(card, name, way)
        meter = meter_of(filmed)
        for _run in range(2):
            with nothing_kept(meter):
                filmed.model.sample(patched)


def test_a_tensor_that_was_left_in_ram_is_found(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pack("memory_encoder.injection.selection").InjectedMemory, "on", lambda self, device, dtype: self.tokens
    )
    with card.on():
        filmed, patched = made(card, "wan_5b", "joint")
        with pytest.raises(RuntimeError, match="device"):
            filmed.model.sample(patched)


def test_the_meter_counts_what_is_alive_to_the_byte(card: Any) -> None:
    with card.on(), Meter() as meter:
        first = torch.zeros(1000, dtype=BF16, device="cuda", requires_grad=True)
        second = first.view(10, 100)  # no bytes of its own
        assert meter.now == 2000
        (first.float() * 2).sum().backward()
        assert meter.now == 2000 + 2000  # the gradient
        assert meter.peak >= 2000 + 2 * 4000
        del first, second
        assert meter.now == 0
    assert isinstance(card.mode, FakeTensorMode)
