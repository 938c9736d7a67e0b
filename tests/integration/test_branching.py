"""Branches of films and of memories in the real ComfyUI: earlier sections are kept to the bit and not made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tools.comfy_server import ComfyServer
from tools.environment import ROOT

from .films import SAMPLER, film, write_models
from .films import report as reused
from .worlds import World, make_world

PACK = "video_memory_branching_test"


@pytest.fixture(scope="module")
def world(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    out = tmp_path_factory.mktemp("branching")
    before, comfy.folder_paths.output_directory = comfy.folder_paths.output_directory, str(out)
    yield make_world(comfy, load_pack, PACK, out)
    comfy.folder_paths.output_directory = before


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_memory(a: Any, b: Any) -> None:
    assert a.sections == b.sections
    for name in ("all_tokens", "all_coordinates"):
        assert torch.equal(getattr(a, name)(), getattr(b, name)()), name
    assert torch.equal(a.recent, b.recent)


@pytest.mark.parametrize("opened", [False, True])
def test_branch_keeps_the_first_sections_and_their_memory_and_makes_only_what_is_new(
    world: World, opened: bool
) -> None:
    clip = {"samples": torch.randn(1, 16, 3, 6, 8)} if opened else None
    name = f"first {opened}"
    latent, memory, _ = world.film(name, "a door", "rain", "a garden", history=clip)
    before = content(world.out / "video_memory" / name)
    world.vae_calls()
    other, branched, report = world.film(f"second {opened}", "an empty street", branch_film=name, branch_section=2)
    assert world.vae_calls() <= 3, "more than the new section was decoded and encoded"
    assert report.count("made") == 1 and "1 sections, 0 reused" in report
    kept = other["samples"].shape[2] - 2
    assert kept == latent["samples"].shape[2] - 2
    assert torch.equal(other["samples"][:, :, :kept], latent["samples"][:, :, :kept])
    assert not torch.equal(other["samples"][:, :, kept:], latent["samples"][:, :, kept:])
    cut = [world.call("VideoMemoryCut", m, -1)[0] for m in (memory, branched)]
    assert_same_memory(*cut)
    assert [record.prompt for record in branched.sections][-3:] == ["a door", "rain", "an empty street"]
    assert content(world.out / "video_memory" / name) == before, "the film that was branched off has changed"
    again = world.film(f"second {opened}", "an empty street", branch_film=name, branch_section=2)
    assert "reused" in again[2].splitlines()[0] and torch.equal(again[0]["samples"], other["samples"])
    assert world.vae_calls() == 0


def test_branch_of_a_branch_survives_the_first_film(world: World, comfy: Any) -> None:
    world.film("one", "a door", "rain")
    two, _, _ = world.film("two", "a street", branch_film="one", branch_section=1)
    for path in (world.out / "video_memory" / "one").rglob("*.safetensors"):
        path.unlink()
    three, memory, _ = world.film("three", "a bridge", branch_film="two", branch_section=1)
    assert torch.equal(three["samples"][:, :, :-2], two["samples"])
    assert [record.prompt for record in memory.sections] == ["a door", "a street", "a bridge"]
    assert two["video_memory"]["sections"] == [3, 2] and three["video_memory"] == {
        "sections": [5, 2], "fps": 16.0, "opens": 1,
    }  # fmt: skip


def test_branch_film_of_a_film_that_continues_a_memory_wants_the_same_memory(world: World) -> None:
    _, memory, _ = world.film("shelf", "a door")
    first, whole, _ = world.film("after", "rain", "a garden", memory=memory)
    other, branched, _ = world.film("other", "snow", memory=memory, branch_film="after", branch_section=1)
    assert torch.equal(other["samples"][:, :, :3], first["samples"][:, :, :3])
    assert_same_memory(*(world.call("VideoMemoryCut", m, -1)[0] for m in (whole, branched)))
    with pytest.raises(ValueError, match="connect the memory"):
        world.film("other", "snow", branch_film="after", branch_section=1)
    with pytest.raises(ValueError, match="disconnect memory"):
        world.film("other", "snow", branch_film="shelf", branch_section=1, memory=memory)


def test_branch_that_cannot_be_is_refused_with_what_differs(world: World) -> None:
    world.film("source", "a door", "rain")
    branch = {"branch_film": "source", "branch_section": 1}
    clip = {"samples": torch.randn(1, 16, 3, 6, 8)}
    for values, words in (
        ({"branch_film": "nowhere"}, "no film 'nowhere'.*there are.*source"),
        (branch | {"branch_section": 3}, "branch_section 3.*2 finished sections"),
        (branch | {"branch_section": 0}, "no opening clip"),
        (branch | {"width": 80}, "width 64, this one has 80"),
        (branch | {"storyboard": world.shots("snow", fps=8.0)}, "fps 16.0, this one has 8.0"),
        (branch | {"history": clip}, "two openings"),
        (branch | {"branch_film": "../source"}, "branch_film: the name"),
    ):
        with pytest.raises(ValueError, match=words):
            world.film("branch", "snow", **values)
    with pytest.raises(ValueError, match="another name"):
        world.film("source", "snow", **branch)
    assert not (world.out / "video_memory" / "branch").exists()


def test_film_of_another_kind_of_model_is_refused(world: World) -> None:
    """Hunyuan's latents have Wan's shape, so that only the latent space tells them apart."""
    from memory_encoder.film.sections import SectionStore

    world.film("wan", "a door")
    store = SectionStore(world.out / "video_memory", "wan")
    store.write_manifest([record | {"latent_format": "HunyuanVideo"} for record in store.manifest()])
    with pytest.raises(ValueError, match="latent space HunyuanVideo, this one has Wan21"):
        world.film("branch", "snow", branch_film="wan", branch_section=1)


def test_branched_film_is_made_anew_when_its_source_changes(world: World) -> None:
    fingerprint = world.nodes["VideoMemorySampler"].fingerprint_inputs
    world.film("changing", "a door", "rain")
    first = fingerprint(branch_film="changing")
    world.film("branch of it", "snow", branch_film="changing", branch_section=1)
    world.film("changing", "a window", "rain")
    assert fingerprint(branch_film="changing") != first and fingerprint(branch_film="") == ""
    assert "made" in world.film("branch of it", "snow", branch_film="changing", branch_section=1)[2].splitlines()[0]


def test_film_goes_on_from_joined_memories(world: World) -> None:
    clip = {"samples": torch.randn(1, 16, 3, 6, 8)}
    values = [world.inputs[name] for name in ("memory_encoder", "model", "vae")]
    introduction = world.call("VideoMemoryCompress", *values, clip)[0]
    _, memory, _ = world.film("joined", "a door", "rain")
    joined, text = world.call("VideoMemoryJoin", introduction, memory)
    assert joined.latents == 3 + memory.latents and "  1     3 latents  a door" in text and "  0     3" in text
    latent, longer, _ = world.film("joined on", "a garden", memory=joined)
    assert longer.latents == joined.latents + 2 and latent["samples"].shape[2] == 5 + 2  # the later film leads it in
    shorter, text = world.call("VideoMemoryCut", longer, 1)
    assert shorter.latents == 6 and text.splitlines()[-1] == f"6 latents, {shorter.token_count} tokens"
    assert_same_memory(world.call("VideoMemoryCut", longer, 2)[0], joined)


def test_cut_join_branch_and_save_work_through_the_api(
    comfy_environment: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("branch_server")
    write_models(work / "models")
    first = film("first", ("a door", "rain"))
    second = film("second", ("snow",), branch_film="first", branch_section=1)
    second |= {
        "cut": {"class_type": "VideoMemoryCut", "inputs": {"memory": [SAMPLER, 1], "section": -1}},
        "join": {"class_type": "VideoMemoryJoin", "inputs": {"memory": ["cut", 0], "memory_after": [SAMPLER, 1]}},
        "cut text": {"class_type": "PreviewAny", "inputs": {"source": ["cut", 1]}},
        "join text": {"class_type": "PreviewAny", "inputs": {"source": ["join", 1]}},
        "film": {
            "class_type": "VideoMemorySaveFilm",
            "inputs": {
                "vae": ["vae", 0], "latent": [SAMPLER, 0], "filename_prefix": "video/second", "fps": 0.0, "crf": 23.0,
                "match_colours": True,
            },
        },
        "copy": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["film", 0], "filename_prefix": "copy", "format": "auto", "codec": "auto"},
        },
    }  # fmt: skip
    with ComfyServer(work, environment=comfy_environment, custom_nodes=[ROOT / "demo" / "nodes"]) as server:
        server.run(first)
        entry = server.run(second)
        assert reused(entry) == [False]
        assert entry["outputs"]["cut"]["text"][0].splitlines()[-1].startswith("3 latents")
        assert entry["outputs"]["join"]["text"][0].splitlines()[-1].startswith("8 latents")
        names = sorted(path.name for path in server.files(entry) if path.suffix == ".mp4")
        assert names == ["copy_00001_.mp4", "second_00001_.mp4"]
        assert "17 frames" in entry["outputs"]["film"]["text"][0]


def test_a_film_is_no_branch_of_itself_however_its_name_is_composed(world: World) -> None:
    with pytest.raises(ValueError, match="is the film itself"):
        world.film("Caf\u00e9", "a street", branch_film="Cafe\u0301", branch_section=1)
