"""Models and memories that do not fit are refused with a message that names what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from memory_encoder.injection.fit import check_latent_size
from memory_encoder.injection.hosts import HostError, find_host
from memory_encoder.injection.inject import inject
from memory_encoder.injection.selection import MemorySettings
from memory_encoder.memory.video_memory import VideoMemory
from tests.integration.models import Recorder, TinyModel, TinyModels, hunyuan_patcher, random_memory, wan_patcher

# Modules of core with further classes that are built on WanModel.
WAN_MODULES = ["model", "ar_model", "model_animate", "model_wandancer"]


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


def bare(cls: type) -> Any:
    """An object of a class of core without its layers."""
    module: Any = object.__new__(cls)
    nn.Module.__init__(module)
    return module


def subclasses(cls: type) -> set[type]:
    return {found for child in cls.__subclasses__() for found in {child} | subclasses(child)}


def with_context_windows(comfy: Any, patcher: Any) -> Any:
    node = comfy.module("comfy_extras.nodes_context_windows").WanContextWindowsManualNode
    return node.execute(patcher, 9, 4, "standard_static", 1, False, "pyramid", False).args[0]


def test_cores_causal_autoregressive_wan_is_refused_by_name(comfy: Any) -> None:
    patcher = wan_patcher(comfy, 16, 16, causal_ar=True)
    assert type(patcher.model.diffusion_model).__name__ == "CausalWanModel"
    with pytest.raises(HostError, match=r"causal autoregressive CausalWanModel.*load a plain Wan"):
        inject(patcher, None)


def test_every_class_of_core_that_builds_on_wan_is_refused_by_name(comfy: Any) -> None:
    modules = [comfy.module(f"comfy.ldm.wan.{name}") for name in WAN_MODULES]
    found = subclasses(modules[0].WanModel)
    assert {"VaceWanModel", "CameraWanModel", "AnimateWanModel", "CausalWanModel"} <= {cls.__name__ for cls in found}
    for cls in found:
        with pytest.raises(HostError, match=rf"model .*\b{cls.__name__}\b"):
            find_host(bare(cls))


def test_image_models_are_refused_by_name(comfy: Any) -> None:
    flux = bare(comfy.module("comfy.ldm.flux.model").Flux)
    image = bare(comfy.module("comfy.ldm.hunyuan_video.model").HunyuanVideo)
    image.patch_size = [2, 2]  # HunyuanImage uses the class of HunyuanVideo
    for module, name in ((flux, "Flux"), (nn.Linear(2, 2), "Linear"), (image, "HunyuanVideo for images")):
        with pytest.raises(HostError, match=rf"model {name} cannot carry a video memory; load Wan .* or HunyuanVideo"):
            find_host(module)


def test_the_models_that_are_named_are_accepted(models: TinyModels) -> None:
    wanted = {"wan_t2v": ("wan", 128, 16), "wan_5b": ("wan", 128, 48), "hunyuan": ("hunyuan", 256, 16)}
    for name, features in wanted.items():
        host = models[name].host
        assert (host.name, host.width, host.latent_channels) == features and host.patch == (1, 2, 2)


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
def test_context_windows_are_refused_before_and_after_the_memory(comfy: Any, models: TinyModels, name: str) -> None:
    model = models[name]
    memory = random_memory(model.host, 7)
    windows = with_context_windows(comfy, model.patcher)
    with pytest.raises(HostError, match="context windows"):
        inject(windows, memory)
    with pytest.raises(HostError, match="context windows"):
        model.sample(with_context_windows(comfy, inject(model.patcher, memory)))


def test_context_windows_without_a_memory_are_no_business_of_ours(comfy: Any, models: TinyModels) -> None:
    model = models["wan_t2v"]
    windows = with_context_windows(comfy, model.patcher)
    results = [model.sample(inject(windows, None)), model.sample(windows)]
    assert torch.equal(*results)


def other(memory: VideoMemory, **changes: Any) -> VideoMemory:
    return replace(memory, config=replace(memory.config, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 64}, r"memory was made for wan of width 64, but model is wan of width 128; compress"),
        ({"host": "hunyuan"}, r"memory was made for hunyuan of width 128, but model is wan of width 128; compress"),
        ({"latent_channels": 48}, r"memory holds latents of 48 channels, model makes 16; compress"),
    ],
)
def test_a_memory_of_another_model_is_refused(models: TinyModels, changes: dict[str, Any], message: str) -> None:
    model: TinyModel = models["wan_t2v"]
    with pytest.raises(ValueError, match=message):
        inject(model.patcher, other(random_memory(model.host, 7), **changes))


def test_a_mean_flow_hunyuan_asks_for_the_timestep_it_can_take(comfy: Any) -> None:
    model = TinyModel(comfy, hunyuan_patcher(comfy, meanflow=True), (16, 2, 8, 8), pooled=768)
    memory = random_memory(model.host, 7)
    with pytest.raises(HostError, match="history_timestep to same"):
        model.sample(inject(model.patcher, memory))
    result = model.sample(inject(model.patcher, memory, MemorySettings(history_timestep="same")))
    assert result.isfinite().all()


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan15_t2v"])
def test_a_latent_of_another_size_than_the_memory_is_refused_before_sampling(models: TinyModels, name: str) -> None:
    model = models[name]
    recorder = Recorder()
    patcher = recorder.on(inject(model.patcher, random_memory(model.host, 7)))
    height, width = model.size[2:]
    turned = replace(model, size=(*model.size[:2], width, height + 2))
    side = 16 if name == "hunyuan15_t2v" else 8
    message = (
        rf"latent is of {height + 2}x{width} latents \({side * (height + 2)}x{side * width} pixels\), but memory was "
        rf"made of {width}x{height} latents \({side * width}x{side * height} pixels\); give the latent"
    )
    with pytest.raises(ValueError, match=message):
        turned.sample(patcher)
    assert not recorder.shapes
    assert model.sample(patcher).isfinite().all() and recorder.shapes


def test_a_latent_passes_where_its_size_or_the_memorys_is_not_known() -> None:
    for size, shape in (
        ((0, 0), (1, 16, 3, 8, 12)),
        ((12, 8), (1, 1, 4608)),  # nested latents, which core packs
        ((12, 8), (1, 16, 700, 1, 1)),
        ((8, 12), (1, 16, 3, 8, 12)),
    ):
        check_latent_size(size, shape, 8)
    with pytest.raises(ValueError, match=r"latent is of 12x8 latents, but memory was made of 8x12 latents; give"):
        check_latent_size((12, 8), (1, 16, 3, 8, 12))
