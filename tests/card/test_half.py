"""Half precision on small real tensors: the types of a matrix product, which fake tensors do not check.

Core is told that this processor computes in half precision, as a card does, so that it loads hosts without casts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.module import Batch, TrainingModule
from memory_encoder.training.pictures import recall
from tests.integration import models
from tests.integration.models import BUILDERS, TinyModel, random_memory

BF16, FP16 = torch.bfloat16, torch.float16
HOSTS = pytest.mark.parametrize(("name", "dtype"), [*((name, BF16) for name in BUILDERS), ("wan_t2v", FP16)])
WAYS = [("joint", name, BF16) for name in BUILDERS]  # a processor is slow at this
WAYS += [(way, "wan_t2v", dtype) for way in ("cached", "window") for dtype in (BF16, FP16)]


@pytest.fixture
def half(comfy: Any, dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyModel]:
    """A tiny host whose weights, and all that it computes, are of `dtype`."""
    load, wanted = models.load, dtype

    def loaded(comfy: Any, module: Any, metadata: Any = None, dtype: Any = None) -> Any:
        return load(comfy, module, metadata, wanted)

    monkeypatch.setattr(models, "load", loaded)
    for supported in ("should_use_bf16", "should_use_fp16"):
        monkeypatch.setattr(comfy.model_management, supported, lambda *_, **__: True)
    model = BUILDERS[name](comfy)
    assert model.patcher.model.manual_cast_dtype is None
    assert {p.dtype for p in model.diffusion_model.parameters()} <= {dtype, torch.float32}  # Wan's first projection
    assert model.patcher.model.get_dtype_inference() == dtype
    yield model


@pytest.mark.parametrize(("way", "name", "dtype"), WAYS)
def test_a_half_host_samples_with_a_memory(half: TinyModel, dtype: torch.dtype, way: str) -> None:
    memory = random_memory(half.host, 12)
    if way == "cached":
        memory = replace(memory, config=replace(memory.config, memory_attention="cached"))
    patched = inject(half.patcher, memory, MemorySettings(sliding_window=2 if way == "window" else 0))
    latent = half.sample(patched)
    assert latent.isfinite().all() and not torch.equal(latent, half.sample())


@HOSTS
def test_pictures_are_recalled_from_a_half_host(half: TinyModel, dtype: torch.dtype) -> None:
    """Outside of Accelerate, whose autocast surrounds the training step alone."""
    host, channels = half.host, half.size[0]
    config = EncoderConfig(
        host.name, host.width, channels, rate="2x2x2", channels=(8, 8, 8, 16), patch=(1, *host.patch[1:])
    )
    encoder = MemoryEncoder(config)
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    with torch.inference_mode(False):
        module = TrainingModule(encoder, half.diffusion_model)
        hr = torch.randn(1, channels, 5, 8, 8, generator=torch.Generator().manual_seed(1))
        lr = {config.rate: torch.randn(1, channels, 3, 4, 4, generator=torch.Generator().manual_seed(2))}
        conditioning = {"context": torch.zeros(1, 6, host.text_width)}
        if host.pooled_width is not None:
            conditioning["y"] = torch.zeros(1, host.pooled_width)
        batch = Batch(hr, lr, conditioning)
        for with_memory in (True, False):
            drawn = recall(module, batch, 1, 2, with_memory, 0)
            assert drawn.shape == (1, channels, 2, 8, 8) and drawn.isfinite().all()
