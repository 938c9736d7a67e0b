"""The command that trains a small decoder for the tiny VAE: what it trains is what core loads from its file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from demo.tiny_family import train_taehv
from demo.tiny_family.wan_vae import save_weights


@pytest.fixture
def drawn(comfy: Any) -> Any:
    """A narrow decoder in which every weight counts."""
    model = train_taehv.narrow((6, 5, 4, 3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5)
    return model


@torch.inference_mode()
def test_core_loads_the_narrow_decoder_as_it_is(comfy: Any, drawn: Any, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_weights(train_taehv.widened(drawn), path, {})
    vae = comfy.module("comfy.sd").VAE(sd=load_file(path))
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = drawn.decode(latents)[0].movedim(0, -1)
    assert expected.shape == (9, 32, 48, 3) and expected.std() > 0.05
    shown = vae.decode(latents)[0]
    assert (shown - expected).abs().max() < 0.02 * expected.abs().max(), "half precision of the file, and no more"


def test_a_minute_of_training_writes_the_file(comfy: Any, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 9, 72, 96, 3), dtype=np.uint8)
    np.save(tmp_path / "real__clip.npy", frames)
    out = tmp_path / "small.safetensors"
    train_taehv.train(Namespace(data=tmp_path, out=out, minutes=1e-4, lr=0.02, seed=0, comfyui=None))
    assert comfy.module("comfy.sd").VAE(sd=load_file(out)).latent_channels == 16
