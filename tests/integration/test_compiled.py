"""A memory is seen, and no other one, by a model that core's torch.compile helper compiles, in whatever order."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.injection import compiled
from memory_encoder.injection.hosts import HostError
from memory_encoder.injection.inject import inject
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from tests.integration.models import TinyModel, TinyModels, random_memory

BLOCKS = [f"diffusion_model.blocks.{i}" for i in range(3)]


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def memory(model: TinyModel, tokens: int = 25, mode: Any = "joint", seed: int = 5) -> VideoMemory:
    made = random_memory(model.host, tokens, seed=seed)
    return replace(made, config=replace(made.config, memory_attention=mode))


def by_core(model: TinyModel, keys: list[str] | None = None, filtered: bool = True, backend: Any = "eager") -> Any:
    """What core's TorchCompileModel does, or a node that compiles the blocks."""
    helpers = importlib.import_module("comfy_api.torch_helpers")
    node = importlib.import_module("comfy_extras.nodes_torch_compile")
    patcher = model.patcher.clone()
    options = {"guard_filter_fn": node.skip_torch_compile_dict} if filtered else None
    helpers.set_torch_compile_wrapper(patcher, backend=backend, options=options, keys=keys or ["diffusion_model"])
    return patcher


def sampled(model: TinyModel, patcher: Any = None) -> Tensor:
    return model.sample(patcher, cfg=1.0, steps=1)


Step = Callable[[Any], Any]


@pytest.mark.parametrize("order", ["plain first", "memory first"])
@pytest.mark.parametrize("mode", ["joint", "cached"])
@pytest.mark.parametrize(("keys", "filtered"), [(None, True), (BLOCKS, True), (BLOCKS, False)])
def test_what_is_compiled_sees_the_memory_it_is_given(
    models: TinyModels, keys: list[str] | None, filtered: bool, mode: str, order: str
) -> None:
    model = models["wan_t2v"]
    memories = [memory(model, mode=mode), memory(model, 31, mode, seed=6)]
    expected = [sampled(model, inject(model.patcher, one)) for one in memories]
    plain, patcher = sampled(model), by_core(model, keys, filtered)
    assert not torch.allclose(plain, expected[0], atol=1e-3)
    runs: list[tuple[Any, Tensor]] = [(inject(patcher, m), e) for m, e in zip(memories, expected, strict=True)]
    runs.insert(0 if order == "plain first" else 1, (patcher, plain))
    for one, wanted in runs:
        torch.testing.assert_close(sampled(model, one), wanted, atol=1e-5, rtol=1e-5)


def trained(model: TinyModel) -> VideoMemory:
    """A memory with what is not in the blocks' arguments (Wan), or in front of the text (HunyuanVideo)."""
    host, wan = model.host, model.host.name == "wan"
    config = EncoderConfig(
        host.name, host.width, host.latent_channels, rate="1@1x1x1", variant="recent",
        skips_text=wan, section_start=0 if wan else 5,
    )  # fmt: skip
    picture = None if wan else random_memory(host, 7, seed=9).all_tokens()
    return replace(random_memory(host, 25), config=config, picture=picture)


@pytest.mark.parametrize("name", ["wan_t2v", "hunyuan"])
@pytest.mark.parametrize("filtered", [True, False])
def test_what_is_compiled_reads_a_history_as_it_was_trained(models: TinyModels, name: str, filtered: bool) -> None:
    model = models[name]
    expected = sampled(model, inject(model.patcher, trained(model)))
    plain = replace(trained(model), config=random_memory(model.host, 1).config, picture=None)
    patcher = by_core(model, filtered=filtered)
    for one, wanted in ((plain, sampled(model, inject(model.patcher, plain))), (trained(model), expected)):
        torch.testing.assert_close(sampled(model, inject(patcher, one)), wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(sampled(model, inject(model.patcher, plain)), expected, atol=1e-3)


def test_rows_skip_the_text_also_where_another_pack_has_replaced_it(models: TinyModels) -> None:
    model, rows = models["wan_t2v"], []
    attention = model.diffusion_model.blocks[0].cross_attn

    def replaced(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rows.append(x.shape[1])
        return type(attention).forward(attention, x, *args, **kwargs)

    patcher = model.patcher.clone()
    patcher.add_object_patch("diffusion_model.blocks.0.cross_attn.forward", replaced)
    got = sampled(model, inject(patcher, trained(model)))
    assert rows == [model.video_tokens]
    assert torch.equal(got, sampled(model, inject(model.patcher, trained(model))))


def test_hunyuan_is_compiled_by_its_two_kinds_of_blocks(models: TinyModels) -> None:
    model = models["hunyuan"]
    patcher = inject(by_core(model), memory(model))
    assert not compiled.compiles_whole(patcher)
    expected = sampled(model, inject(model.patcher, memory(model)))
    torch.testing.assert_close(sampled(model, patcher), expected, atol=1e-5, rtol=1e-5)


def test_the_next_section_compiles_nothing_again(models: TinyModels) -> None:
    model, graphs = models["wan_t2v"], []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    patcher = by_core(model, backend=backend)
    sampled(model, inject(patcher, memory(model)))
    made = len(graphs)
    sampled(model, inject(patcher, memory(model, seed=6)))
    assert 0 < made == len(graphs)


@pytest.mark.parametrize(("keys", "mode"), [(None, "joint"), (BLOCKS, "cached")])
def test_a_model_compiled_after_the_memory_is_refused(models: TinyModels, keys: list[str] | None, mode: str) -> None:
    model = models["wan_t2v"]
    late = replace(model, patcher=inject(model.patcher, memory(model, mode=mode)))
    with pytest.raises(HostError, match="put the node that compiles the model before Apply Video Memory"):
        sampled(model, by_core(late, keys))


def centred(args: dict[str, Any]) -> Tensor:
    """Another node's patch within a block, which mixes all rows that it sees."""
    return args["x"] - 0.3 * args["x"].mean(dim=1, keepdim=True)


def patched(patcher: Any) -> Any:
    patcher = patcher.clone()
    patcher.set_model_patch(centred, "attn2_patch")
    return patcher


@pytest.mark.parametrize("order", ["patch first", "memory first"])
@pytest.mark.parametrize(("keys", "filtered"), [(None, True), (BLOCKS, True), (BLOCKS, False)])
def test_a_patch_within_what_is_compiled_sees_the_video_alone(
    models: TinyModels, keys: list[str] | None, filtered: bool, order: str
) -> None:
    model = models["wan_t2v"]
    memories = [memory(model), memory(model, 31, seed=6)]
    expected = [sampled(model, inject(patched(model.patcher), one)) for one in memories]
    assert not torch.allclose(expected[0], sampled(model, inject(model.patcher, memories[0])), atol=1e-3)
    patcher = by_core(model, keys, filtered)
    for one, wanted in zip(memories, expected, strict=True):
        got = inject(patched(patcher), one) if order == "patch first" else patched(inject(patcher, one))
        torch.testing.assert_close(sampled(model, got), wanted, atol=1e-5, rtol=1e-5)


def test_blocks_compiled_without_guards_after_the_memory_are_refused_beside_patches(models: TinyModels) -> None:
    model = models["wan_t2v"]
    late = replace(model, patcher=patched(inject(model.patcher, memory(model))))
    with pytest.raises(HostError, match="put the node that compiles the model before Apply Video Memory"):
        sampled(model, by_core(late, BLOCKS))
