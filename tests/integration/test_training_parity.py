"""What is trained is what samples: the training forward equals core's own `apply_model` for every tiny host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection.inject import DIFFUSION_MODEL, KEY, DiffusionModelWrapper
from memory_encoder.injection.selection import InjectedMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.dataset.text import Conditioning, stack
from memory_encoder.training.module import TrainingModule

from .models import BUILDERS, TinyModel

IMAGES = ("concat_latent_image", "concat_mask", "clip_vision_output")  # clips are trained on without a start image


@pytest.fixture(scope="module", params=list(BUILDERS))
def tiny(request: pytest.FixtureRequest, comfy: Any) -> TinyModel:
    return BUILDERS[request.param](comfy)


@pytest.fixture(scope="module", params=list(BUILDERS))
def half(request: pytest.FixtureRequest, comfy: Any) -> TinyModel:
    """A host whose weights are bf16 and which computes in it, as core loads such a file on a card."""
    management = comfy.model_management
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(management, "unet_dtype", lambda *args, **kwargs: torch.bfloat16)
        patch.setattr(management, "unet_manual_cast", lambda *args, **kwargs: None)
        model = BUILDERS[request.param](comfy)
    assert model.patcher.model.get_dtype_inference() == torch.bfloat16
    assert not any(getattr(m, "comfy_cast_weights", False) for m in model.diffusion_model.modules())
    return model


def texts_of(model: TinyModel, *seeds: int) -> list[list[Any]]:
    """Entries of CONDITIONING without a start image, of other lengths where seeds differ."""
    entries = [model.conditioning(seed)[0] for seed in seeds]
    texts = [[text, {name: value for name, value in extra.items() if name not in IMAGES}] for text, extra in entries]
    return [[torch.cat([text, text[:, :seed]], dim=1), extra] if "attention_mask" not in extra else [text, extra]
            for seed, (text, extra) in zip(seeds, texts, strict=True)]  # fmt: skip


def memory_of(model: TinyModel, batch: int) -> InjectedMemory:
    g = torch.Generator().manual_seed(11)
    places = torch.rand(7, 3, generator=g) * torch.tensor([5.0, 4.0, 6.0])
    return InjectedMemory(torch.randn(batch, 7, model.host.width, generator=g), places)


def core_velocity(model: TinyModel, x: Tensor, t: Tensor, text: list[Any], memory: InjectedMemory | None) -> Tensor:
    """The velocity that core's `apply_model` makes of one row, by its own reading of the conditioning."""
    base = model.patcher.model
    given = {"noise": x, "latent_image": torch.zeros_like(x), "device": x.device}
    conds = base.extra_conds(cross_attn=text[0], **text[1], **given)
    arguments = {name: cond.process_cond(batch_size=1, area=None).cond for name, cond in conds.items()}
    options: dict[str, Any] = {}
    if memory is not None:
        options = {"wrappers": {DIFFUSION_MODEL: {KEY: [DiffusionModelWrapper(memory)]}}}
    denoised = base.apply_model(x, t, transformer_options=options, **arguments)
    return (x - denoised) / t.reshape(-1, 1, 1, 1, 1)


def row_of(memory: InjectedMemory | None, row: int) -> InjectedMemory | None:
    if memory is None:
        return None
    return InjectedMemory(memory.tokens[row : row + 1], memory.coordinates, memory.history_timestep)


def module_of(model: TinyModel) -> TrainingModule:
    host = model.host
    config = EncoderConfig(host.name, host.width, host.latent_channels, channels=(8, 8, 8, 8), patch=host.patch)
    return TrainingModule(MemoryEncoder(config), model.diffusion_model)


def both(model: TinyModel, *seeds: int, memory: bool = False, autocast: bool = False) -> tuple[Tensor, Tensor]:
    """Velocities of training's forward pass for a batch of texts, and core's, row by row.

    autocast: training's is within bf16's, as Accelerate's mixed precision has it.
    """
    texts, count = texts_of(model, *seeds), len(seeds)
    x, t = model.noise(count), torch.tensor([0.7, 0.35])[:count]
    shown = memory_of(model, count) if memory else None
    made = stack([Conditioning.from_core(text) for text in texts])
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ours = module_of(model).predict(x, t, shown, 0, made)
        rows = [
            core_velocity(model, x[row : row + 1], t[row : row + 1], text, row_of(shown, row))
            for row, text in enumerate(texts)
        ]
    return ours, torch.cat(rows)


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("seeds", [(1,), (2, 2), (1, 4)])
def test_training_runs_the_host_as_core_does(tiny: TinyModel, seeds: tuple[int, ...], memory: bool) -> None:
    """Also in a batch whose captions have different lengths."""
    ours, core = both(tiny, *seeds, memory=memory)
    torch.testing.assert_close(ours, core, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("seeds", [(1,), (1, 4)])
def test_a_host_in_bf16_is_run_as_core_runs_it(half: TinyModel, seeds: tuple[int, ...], memory: bool) -> None:
    """As closely as in float32, within Accelerate's autocast and outside of any, as recalled pictures, evaluation and
    runs without mixed precision are."""
    for autocast in (False, True):
        ours, core = both(half, *seeds, memory=memory, autocast=autocast)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, core, atol=2e-5, rtol=1e-4)
