"""Save Film in the real ComfyUI: the pictures core makes, in pieces, from latent or disk, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from demo.tiny_family.clips import HELD_OUT_SEED
from demo.tiny_family.install import VAE_NAME, install_models
from demo.tiny_family.procedural import make_film
from memory_encoder.pictures.codec import Codec
from memory_encoder.pictures.decoding import Part, decode_film

from .worlds import World, make_world

PACK = "video_memory_saving_test"


@pytest.fixture(scope="module")
def world(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    out = tmp_path_factory.mktemp("saving")
    before, comfy.folder_paths.output_directory = comfy.folder_paths.output_directory, str(out)
    yield make_world(comfy, load_pack, PACK, out)
    comfy.folder_paths.output_directory = before


@pytest.fixture(scope="module")
def trained(comfy: Any) -> Any:
    """The tiny family's VAE through core's loader."""
    install_models(comfy.base / "models")
    with torch.inference_mode():
        return comfy.nodes.VAELoader().load_vae(VAE_NAME)[0]


@pytest.fixture(scope="module")
def latents(trained: Any) -> torch.Tensor:
    """17 latents of a film that was never trained on, with cuts, at 64x48."""
    frames = make_film(HELD_OUT_SEED + 51, shots=4).frames[:65, ::2, ::2]
    with torch.inference_mode():
        return trained.encode(torch.from_numpy(frames.astype(np.float32) / 255))


def save(world: World, **values: Any) -> Any:
    """What Save Film returns. Without loss, since x264 does not make the same bits twice."""
    defaults = {"vae": world.inputs["vae"], "filename_prefix": "video/film", "fps": 0.0, "crf": 0.0}
    return world.run("VideoMemorySaveFilm", **defaults | {"match_colours": False} | values)


BT709 = 1


def frames_of(path: str | Path) -> np.ndarray:
    """Pictures, read by the matrix that the file names; FFmpeg takes files that name none for BT.601."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def tags_of(path: Path) -> tuple[int, ...]:
    """Matrix, primaries, transfer and range."""
    with av.open(str(path)) as file:
        codec = file.streams.video[0].codec_context
        return codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range


def saved_path(world: World, output: Any) -> Path:
    shown = output.ui["images"][0]
    return world.out / shown["subfolder"] / shown["filename"]


def test_pieces_are_the_whole_decode_within_an_eighth_of_a_level(trained: Any, latents: torch.Tensor) -> None:
    decoder = Codec(
        decode=trained.decode,
        temporal=trained.temporal_compression_decode(),
        spatial=trained.spacial_compression_decode(),
    )
    with torch.inference_mode():
        whole = trained.decode(latents)[0]
        pieces = torch.cat(list(decode_film([Part(latents)], decoder, length=7)))
    assert pieces.shape == whole.shape == (65, 48, 64, 3)
    assert (pieces - whole).abs().max() < 0.125 / 255


def test_file_has_the_pictures_of_decode_create_and_save_video(
    comfy: Any, world: World, trained: Any, latents: torch.Tensor, tmp_path: Path
) -> None:
    """A film of one piece, so that nothing but the encoding could differ from core's three nodes.

    Older cores write BT.601 and say nothing: then the same pictures come out for who knows that; newer ones write what
    Save Film writes.
    """
    output = save(world, vae=trained, latent={"samples": latents}, fps=16.0)
    api = comfy.module("comfy_api.latest")
    with torch.inference_mode():
        components = api.Types.VideoComponents(images=trained.decode(latents)[0], frame_rate=Fraction(16))
    api.InputImpl.VideoFromComponents(components).save_to(str(tmp_path / "core.mp4"), crf=0.0)
    ours, cores = saved_path(world, output), tmp_path / "core.mp4"
    assert frames_of(ours).shape == (65, 48, 64, 3)
    assert output.result[0].get_dimensions() == (64, 48)
    if tags_of(cores)[0] == BT709:
        assert tags_of(ours) == tags_of(cores)
        assert np.array_equal(frames_of(ours), frames_of(cores))
    else:
        difference = np.abs(frames_of(ours).astype(int) - frames_of(cores))
        assert difference.mean() < 1 and np.quantile(difference, 0.999) <= 4  # roundings of two matrices


def test_film_from_its_latent_and_from_disk_is_the_same_with_its_own_fps(world: World) -> None:
    latent, _, _ = world.film("saved", "a door", "rain", "a garden")
    first = save(world, latent=latent)
    second = save(world, film="saved")
    paths = [saved_path(world, output) for output in (first, second)]
    assert paths[0] != paths[1] and all(path.parent == world.out / "video" for path in paths)
    assert np.array_equal(frames_of(paths[0]), frames_of(paths[1]))
    with av.open(str(paths[1])) as file:
        assert file.streams.video[0].average_rate == 16 and file.streams.video[0].frames == 25
    assert "3 parts, 25 frames (1.56 s) at 16 fps" in second.result[1] and second.ui["text"] == [second.result[1]]


def test_film_that_opens_with_a_clip_is_saved_from_disk_with_it(world: World, trained: Any) -> None:
    clip = {"samples": torch.randn(1, 16, 3, 6, 8)}
    latent, _, _ = world.film("continued", "a door", history=clip)
    outputs = save(world, latent=latent), save(world, film="continued")
    first, second = (frames_of(saved_path(world, output)) for output in outputs)
    assert np.array_equal(first, second)
    assert len(second) == 1 + 4 * (latent["samples"].shape[2] - 1)


def test_film_after_a_memory_begins_as_if_the_film_before_had_never_stopped(world: World, trained: Any) -> None:
    """What Save Film writes is compared with both films decoded as one; a flash at the join would be 25 levels."""
    before, memory, _ = world.film("first half", "a door", "rain")
    after, whole, report = world.film("second half", "a garden", "a street", memory=memory)
    lead = before["samples"].shape[2]
    lead = min(lead, 6)
    assert torch.allclose(after["samples"][:, :, :lead], before["samples"][:, :, -lead:], atol=1e-5)
    new = after["samples"][:, :, lead:]
    joined = {"samples": torch.cat([before["samples"], new], dim=2)}
    wanted = frames_of(saved_path(world, save(world, vae=trained, latent=joined, fps=16.0)))[-4 * new.shape[2] :]
    for source in ({"latent": after}, {"film": "second half"}):
        output = save(world, vae=trained, **source)
        found = frames_of(saved_path(world, output)).astype(int)
        assert found.shape == wanted.shape == (16, 48, 64, 3)
        assert np.abs(found - wanted).max() <= 2
        assert "2 parts, 16 frames (1.00 s) at 16 fps" in output.result[1]
    assert "2 sections, 0 reused, 16 frames (1.00 s) at 16 fps" in report
    assert "5 latents of the film that it continues" in report and "first 17 frames" in report
    assert whole.latents == before["samples"].shape[2] + new.shape[2]
    again = world.film("second half", "a garden", "a street", memory=memory)
    assert torch.equal(again[0]["samples"], after["samples"]) and "2 reused, 16 frames" in again[2]
    branch, _, _ = world.film("other half", "snow", memory=memory, branch_film="second half", branch_section=1)
    assert torch.equal(branch["samples"][:, :, : lead + 2], after["samples"][:, :, : lead + 2])
    assert len(frames_of(saved_path(world, save(world, vae=trained, latent=branch)))) == 16
    assert len(frames_of(saved_path(world, save(world, vae=trained, film="other half")))) == 16
    matched = save(world, vae=trained, latent=after, match_colours=True)
    assert len(frames_of(saved_path(world, matched))) == 16


def test_reports_of_sampler_and_save_film_count_the_frames_of_the_file(world: World) -> None:
    clip, image = {"samples": torch.randn(1, 16, 3, 6, 8)}, torch.rand(1, 48, 64, 3)
    for name, opening in (("alone", {}), ("after a clip", {"history": clip}), ("from image", {"start_image": image})):
        latent, _, report = world.film(name, "a door", **opening)
        output = save(world, latent=latent)
        frames = len(frames_of(saved_path(world, output)))
        assert frames == 1 + 4 * (latent["samples"].shape[2] - 1)
        assert f" {frames} frames ({frames / 16:.2f} s) at 16 fps" in report.splitlines()[-1]
        assert f" {frames} frames ({frames / 16:.2f} s) at 16 fps" in output.result[1]
        assert ("Clip for History" in report) == ("history" in opening)


def test_prompt_and_workflow_are_in_the_file_unless_switched_off(comfy: Any, world: World, monkeypatch: Any) -> None:
    hidden = SimpleNamespace(prompt={"1": {"class_type": "A"}}, extra_pnginfo={"workflow": {"nodes": []}})
    monkeypatch.setattr(world.nodes["VideoMemorySaveFilm"], "hidden", hidden)
    latent = {"samples": torch.randn(1, 16, 2, 6, 8)}

    def tags() -> dict[str, Any]:
        with av.open(str(saved_path(world, save(world, latent=latent, fps=8.0)))) as file:
            return {name: json.loads(file.metadata[name]) for name in ("prompt", "workflow") if name in file.metadata}

    assert tags() == {"prompt": hidden.prompt, "workflow": {"nodes": []}}
    monkeypatch.setattr(comfy.module("comfy.cli_args").args, "disable_metadata", True)
    assert tags() == {}


def test_colours_are_matched_only_on_request_and_need_the_sections(world: World) -> None:
    latent, _, _ = world.film("colours", "a door", "rain on a street")
    plain, matched = (save(world, latent=latent, match_colours=on) for on in (False, True))
    frames = [frames_of(saved_path(world, output)).astype(int) for output in (plain, matched)]
    cut = 9  # frames of the first section
    assert np.array_equal(frames[0][:cut], frames[1][:cut])
    assert np.abs(frames[0][cut:] - frames[1][cut:]).mean() > 1
    means = [frame[:cut].mean() for frame in frames], [frame[cut:].mean() for frame in frames]
    assert abs(means[1][1] - means[0][1]) < abs(means[1][0] - means[0][0])
    with pytest.raises(ValueError, match="where its sections begin"):
        save(world, latent={"samples": latent["samples"]}, fps=16.0, match_colours=True)


def test_cancel_while_a_film_is_saved_stops_at_once_and_leaves_no_file(comfy: Any, world: World) -> None:
    management = comfy.model_management
    vae, calls = world.inputs["vae"], []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        calls.append(latents.shape)
        if len(calls) == 2:
            management.interrupt_current_processing(True)
        return vae.decode(latents)

    watched = SimpleNamespace(
        decode=decode,
        latent_dim=3,
        latent_channels=16,
        temporal_compression_decode=lambda: 4,
        spacial_compression_decode=lambda: 8,
    )
    before = sorted(world.out.rglob("*"))
    with pytest.raises(management.InterruptProcessingException):
        save(world, vae=watched, latent={"samples": torch.randn(1, 16, 100, 6, 8)}, fps=16.0)
    assert len(calls) == 2 and sorted(world.out.rglob("*")) == before


def test_what_cannot_be_saved_is_refused_with_the_cure(world: World) -> None:
    latent = {"samples": torch.randn(1, 16, 2, 6, 8)}
    for values, words in (
        ({}, "one of the two"),
        ({"latent": latent, "film": "saved"}, "one of the two"),
        ({"latent": latent}, "set fps"),
        ({"latent": {"samples": torch.zeros(2, 16, 2, 6, 8)}, "fps": 8.0}, "batch of 2"),
        ({"latent": {"samples": torch.zeros(1, 4, 6, 8)}, "fps": 8.0}, "not one of a video"),
        ({"latent": {"samples": torch.zeros(1, 48, 2, 6, 8)}, "fps": 8.0}, "48"),
        ({"film": "never made"}, "no film 'never made'"),
        ({"film": "../saved"}, "film: the name"),
        ({"latent": latent, "fps": 8.0, "filename_prefix": "a\0b"}, r"filename_prefix 'a\\x00b' contains"),
        ({"latent": latent, "fps": 8.0, "filename_prefix": "video/" + "x" * 300}, "takes 300 bytes"),
        ({"latent": latent, "fps": 8.0, "filename_prefix": "\u6620" * 80}, "takes 240 bytes"),
        ({"latent": latent, "fps": 8.0, "filename_prefix": " "}, "filename_prefix is empty"),
    ):
        before = sorted(world.out.rglob("*"))
        with pytest.raises(ValueError, match=words):
            save(world, **values)
        assert sorted(world.out.rglob("*")) == before
        if "filename_prefix" in values:  # known before anything runs
            check = world.nodes["VideoMemorySaveFilm"].validate_inputs
            assert re.search(words, str(check(values["filename_prefix"])))
    assert save(world, latent=latent, fps=8.0, filename_prefix="x" * 190)


def test_memory_whose_file_name_would_be_too_long_is_refused_before_anything_runs(world: World) -> None:
    check = world.nodes["VideoMemorySave"].validate_inputs
    assert check("\u6620" * 60) is True and check() is True
    assert "240 bytes" in check("\u6620" * 80) and "plain name" in check("a/b")


def test_a_film_on_disk_is_saved_again_when_it_has_changed(world: World) -> None:
    fingerprint = world.nodes["VideoMemorySaveFilm"].fingerprint_inputs
    assert fingerprint(film="") == fingerprint(film="never made") == fingerprint(film="a/b") == ""
    world.film("growing", "a door")
    first = fingerprint(film="growing")
    world.film("growing", "a door", "rain")
    assert first and fingerprint(film="growing") not in ("", first)


def test_sections_of_an_earlier_run_are_left_out_and_counted(world: World) -> None:
    world.film("begun anew", "a", "b", "c")
    manifest = world.out / "video_memory" / "begun anew" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["sections"][1]["previous"] = "made after another section"
    manifest.write_text(json.dumps(data))
    _, report = save(world, film="begun anew").result
    assert report.endswith("; 2 of an earlier run left out") and "1 parts" in report
