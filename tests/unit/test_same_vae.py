"""Latents of one VAE are told from those of another, and not by the type that its weights were loaded in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memory_encoder.training.dataset.cache import build_cache
from memory_encoder.training.dataset.mixture import open_datasets
from memory_encoder.training.dataset.same_vae import fingerprint, identity_in, is_vae, vae_identity
from memory_encoder.training.dataset.settings import DatasetError, LatentSpace, latent_space, of_another_vae
from tests.unit.dataset_clips import SETTINGS, SPACE, CountingCodec, counting

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def weights(seed: int = 0, scale: float = 0.1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"conv.weight": (8, 4, 3, 3), "conv.bias": (8,), "out.weight": (4, 8)}
    return {name: torch.randn(size, generator=generator) * scale for name, size in sizes.items()}


def loaded(values: dict[str, Tensor], kind: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(kind) for name, value in values.items()}


def space_of(values: dict[str, Tensor], out: Path | None = None) -> LatentSpace:
    """As the cache gets it from core's VAE object."""
    host: Any = SimpleNamespace(
        name="wan", latent_channels=3, patch=(1, 2, 2), text_width=SPACE.text_width, pooled_width=None
    )
    return latent_space(host, type("Wan21", (), {})(), vae_of(values), out)


def vae_of(values: dict[str, Tensor]) -> Any:
    return SimpleNamespace(
        first_stage_model=SimpleNamespace(state_dict=lambda: values),
        temporal_compression_decode=lambda: SPACE.temporal,
        spacial_compression_encode=lambda: SPACE.spatial,
    )


@given(seed=st.integers(0, 2**31), exponent=st.integers(-9, 2), kind=st.sampled_from(TYPES))
def test_the_identity_of_a_vae_is_that_of_its_weights_in_every_type(
    seed: int, exponent: int, kind: torch.dtype
) -> None:
    """Also of values that fp16 rounds to zero."""
    values = weights(seed, 10.0**exponent)
    assert vae_identity(loaded(values, kind)) == vae_identity(values) != vae_identity(weights(seed + 1))


def test_other_names_shapes_and_a_trained_copy_are_another_vae() -> None:
    values = weights()
    generator = torch.Generator().manual_seed(1)
    trained = {name: value * (1 + torch.randn(value.shape, generator=generator)) for name, value in values.items()}
    others = (trained, {f"a.{name}": value for name, value in values.items()}, {n: v[:2] for n, v in values.items()})
    assert len({vae_identity(one) for one in (values, *others)}) == 4
    assert of_another_vae(space_of(values), vae_of(loaded(values, torch.bfloat16))) is None
    assert "not the one that the dataset was cached with" in (of_another_vae(space_of(values), vae_of(trained)) or "")


@pytest.mark.parametrize("then", TYPES, ids=str)
@pytest.mark.parametrize("now", TYPES, ids=str)
def test_a_cache_goes_on_with_its_vae_in_another_type_and_mixes_with_one_of_it(
    tmp_path: Path, then: torch.dtype, now: torch.dtype
) -> None:
    counting(tmp_path / "clips" / "one.mp4")
    values, codec = weights(), CountingCodec()
    for kind in (then, now):
        space = space_of(loaded(values, kind), tmp_path / "out")
        build_cache(tmp_path / "clips", tmp_path / "out", SETTINGS, space, codec.codec)
        once = codec.encoded
        codec.encoded = 0
    assert once == 0
    build_cache(tmp_path / "clips", tmp_path / "other", SETTINGS, space_of(loaded(values, now)), codec.codec)
    assert len(open_datasets([str(tmp_path / "out"), str(tmp_path / "other")])) == 2
    build_cache(tmp_path / "clips", tmp_path / "foreign", SETTINGS, space_of(weights(1)), codec.codec)
    with pytest.raises(DatasetError, match="same model, VAE and padding"):
        open_datasets([str(tmp_path / "out"), str(tmp_path / "foreign")])


@pytest.mark.parametrize("then", TYPES, ids=str)
def test_a_dataset_of_the_first_version_goes_on_and_mixes_with_one_of_today(tmp_path: Path, then: torch.dtype) -> None:
    """Its VAE has a hash of values, which is that of the type that it was loaded in."""
    counting(tmp_path / "clips" / "one.mp4")
    values, codec = weights(), CountingCodec()
    before = dataclasses.replace(space_of(values), vae=fingerprint(loaded(values, then)))
    build_cache(tmp_path / "clips", tmp_path / "out", SETTINGS, before, codec.codec)
    codec.encoded = 0
    assert is_vae(before.vae, values) and not is_vae(before.vae, weights(1))
    assert of_another_vae(before, vae_of(values)) is None and of_another_vae(before, vae_of(weights(1)))
    build_cache(tmp_path / "clips", tmp_path / "out", SETTINGS, space_of(values, tmp_path / "out"), codec.codec)
    assert codec.encoded == 0
    assert identity_in(tmp_path / "out" / "index.json", weights(1)) == vae_identity(weights(1))
    build_cache(tmp_path / "clips", tmp_path / "today", SETTINGS, space_of(values), codec.codec)
    assert len(open_datasets([str(tmp_path / "out"), str(tmp_path / "today")])) == 2
