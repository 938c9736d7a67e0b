"""Films whose sections are clips of their own, in the real ComfyUI: made, saved, gone on from, branched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from memory_encoder.pictures.movie import write_movie

from .test_saving import frames_of, save, saved_path
from .worlds import World, make_world

PACK = "video_memory_clips_test"


@pytest.fixture(scope="module")
def world(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    out = tmp_path_factory.mktemp("clips")
    before, comfy.folder_paths.output_directory = comfy.folder_paths.output_directory, str(out)
    yield make_world(comfy, load_pack, PACK, out)
    comfy.folder_paths.output_directory = before


def encoder(world: World, **lattice: Any) -> Any:
    made = world.call("VideoMemoryEncoderNew", world.inputs["model"], "2x2x2", "without_lr", "frame", False, 0)[0]
    return type(made)(replace(made.config, **lattice), made.model.state_dict(), torch.float32)


@pytest.fixture(scope="module")
def clips(world: World) -> Any:
    """An encoder of sections that are clips; those that go on repeat five frames."""
    return encoder(world, clips="section", repeated_frames=5)


def shots(world: World, *transitions: str) -> Any:
    values = [
        {"start": i / 2, "end": (i + 1) / 2, "prompt": f"shot {i}", "transition": transition}
        for i, transition in enumerate(transitions)
    ]
    return world.call("VideoMemoryStoryboard", world.clip, json.dumps({"shots": values}), 16.0, 0.5)[0]


def film(world: World, name: str, *transitions: str, **changes: Any) -> tuple[Any, Any, str]:
    """LATENT, memory and report of a film of shots of half a second that begin so."""
    return world.film(name, "unused", storyboard=shots(world, *transitions), **changes)


def decoded_alone(world: World, path: Path, clips: list[tuple[torch.Tensor, int]]) -> np.ndarray:
    """What a file holds of clips that core's VAE decodes one by one; the first frames of each are left out."""
    with torch.inference_mode():
        pictures = [world.inputs["vae"].decode(latents)[0][repeated:] for latents, repeated in clips]
    write_movie(path, pictures, 16.0, 0.0)
    return frames_of(path)


def test_film_of_clips_is_saved_from_latent_and_disk_as_its_clips_one_after_the_other(
    world: World, clips: Any, tmp_path: Path
) -> None:
    latent, _, report = film(world, "clips", "cut", "continue", "cut", memory_encoder=clips)
    assert latent["video_memory"] == {"sections": [3, 4, 3], "fps": 16.0, "repeated": [0, 5, 0]}
    parts = list(zip(latent["samples"].split([3, 4, 3], dim=2), [0, 5, 0], strict=True))
    wanted = decoded_alone(world, tmp_path / "alone.mp4", parts)
    outputs = save(world, latent=latent), save(world, film="clips")
    for output in outputs:
        assert np.array_equal(frames_of(saved_path(world, output)), wanted)
        assert "3 parts, 26 frames (1.62 s) at 16 fps" in output.result[1]
    assert len(wanted) == 26 and "26 frames (1.62 s) at 16 fps" in report
    assert "Save Film joins 3 clips and leaves out 5 frames that were made once more" in report
    assert "VAE Decode takes the LATENT for one clip of 37 frames" in report
    matched = save(world, latent=latent, match_colours=True)
    assert len(frames_of(saved_path(world, matched))) == 26
    with pytest.raises(ValueError, match="film of several clips that another node has cut"):
        save(world, latent=latent | {"samples": latent["samples"][:, :, 1:]})


def test_branch_of_a_film_of_clips_keeps_their_borders(world: World, clips: Any, tmp_path: Path) -> None:
    first, _, _ = film(world, "source", "cut", "continue", memory_encoder=clips)
    latent, _, report = film(world, "branch", "continue", memory_encoder=clips, branch_film="source", branch_section=2)
    assert latent["video_memory"] == {"sections": [3, 4, 4], "fps": 16.0, "opens": 2, "repeated": [0, 5, 5]}
    assert torch.equal(latent["samples"][:, :, :7], first["samples"])
    parts = list(zip(latent["samples"].split([3, 4, 4], dim=2), [0, 5, 5], strict=True))
    wanted = decoded_alone(world, tmp_path / "alone.mp4", parts)
    assert np.array_equal(frames_of(saved_path(world, save(world, film="branch"))), wanted)
    assert "it opens with 17 frames" in report and "25 frames (1.56 s)" in report
    with pytest.raises(ValueError, match="several clips, and memory_encoder goes on from one clip only"):
        world.film("other", "rain", branch_film="source", branch_section=2)


def test_history_is_one_clip_unless_it_is_a_film_of_several(world: World, clips: Any) -> None:
    clip = {"samples": torch.randn(1, 16, 3, 6, 8)}
    latent, _, report = film(world, "continued", "continue", "cut", memory_encoder=clips, history=clip)
    assert latent["video_memory"]["sections"] == [3, 4, 3] and latent["video_memory"]["repeated"] == [None, 5, 0]
    assert "it opens with 9 frames" in report and "26 frames (1.62 s)" in report
    assert len(frames_of(saved_path(world, save(world, film="continued")))) == 26
    again, _, _ = film(world, "again", "cut", memory_encoder=clips, history=latent)
    assert again["video_memory"]["repeated"] == [None, 5, 0, 0]
    assert len(frames_of(saved_path(world, save(world, film="again")))) == 26 + 9
    cut = latent | {"samples": latent["samples"][:, :, 1:]}
    with pytest.raises(ValueError, match="history is a film of several clips that another node has cut"):
        film(world, "cut", "cut", memory_encoder=clips, history=cut)


def test_start_image_is_shown_once_and_a_memory_leads_no_clip_in(world: World, clips: Any) -> None:
    picture = torch.rand(1, 48, 64, 3)
    latent, memory, _ = film(world, "picture", "cut", memory_encoder=clips, start_image=picture)
    assert latent["video_memory"] == {"sections": [1, 3], "fps": 16.0, "opens": 1, "repeated": [None, 1]}
    assert len(frames_of(saved_path(world, save(world, film="picture")))) == 1 + 8
    latent, _, report = film(world, "after it", "continue", "cut", memory_encoder=clips, memory=memory)
    assert latent["video_memory"] == {"sections": [4, 3], "fps": 16.0, "repeated": [5, 0]}
    assert "before it lie" not in report
    assert len(frames_of(saved_path(world, save(world, film="after it")))) == 8 + 9


def test_sections_of_one_length_reach_the_sampler(world: World) -> None:
    two = encoder(world, section_latents=2)
    latent, _, _ = film(world, "two", "cut", "cut", memory_encoder=two)
    assert latent["video_memory"] == {"sections": [2, 2, 2], "fps": 16.0}
    helios = encoder(world, clips="section", section_latents=3)
    latent, _, _ = film(world, "helios", "cut", "continue", memory_encoder=helios)
    assert latent["video_memory"] == {"sections": [3, 3], "fps": 16.0, "repeated": [0, 0]}
    assert len(frames_of(saved_path(world, save(world, film="helios")))) == 18


def test_preview_of_a_clip_is_drawn_from_what_is_new(world: World, clips: Any, monkeypatch: Any) -> None:
    import sys

    module = next(module for name, module in sys.modules.items() if name.endswith(f"{PACK}.nodes.preview_clips"))
    seen = []
    drawn = module.latent_frames
    monkeypatch.setattr(
        module, "latent_frames", lambda p, latents, n: seen.append(latents.shape[2]) or drawn(p, latents, n)
    )
    film(world, "preview", "cut", "continue", memory_encoder=clips)
    assert seen[-1] == 2 and 3 in seen


def test_storyboard_with_the_encoder_tells_the_frames_that_the_film_will_have(world: World, clips: Any) -> None:
    text = json.dumps({"shots": [{"start": 0, "end": 0.5, "prompt": "a"}, {"start": 0.5, "end": 1, "prompt": "b"}]})
    _, frames, schedule = world.call("VideoMemoryStoryboard", world.clip, text, 16.0, 0.5, memory_encoder=clips)
    assert frames == 18 and "Each section is a clip of its own" in schedule
    assert world.call("VideoMemoryStoryboard", world.clip, text, 16.0, 0.5)[1] == 17
