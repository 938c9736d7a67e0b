"""Film Report in the real ComfyUI: a film by its name, its latents or its pictures, and what connected models say."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from demo.clip import write_frames
from memory_encoder.evaluation.judge.instruments import VICLIP
from memory_encoder.evaluation.judge.likeness import COLOURS
from memory_encoder.evaluation.judge.marks import section_keys
from tests.unit.judged_films import FPS, ODD, drawn_film, embed, pictures_of

from .test_viclip import published
from .worlds import World, make_world

PACK = "video_memory_report_test"
NODE = "VideoMemoryFilmReport"
PROMPTS = ("a red door", "rain on a street", "the red door again")


@pytest.fixture(scope="module")
def world(
    comfy: Any, load_pack: Callable[..., ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    out = tmp_path_factory.mktemp("reports")
    before = {name: getattr(comfy.folder_paths, name) for name in ("output_directory", "temp_directory")}
    comfy.folder_paths.output_directory, comfy.folder_paths.temp_directory = str(out), str(out / "temp")
    yield make_world(comfy, load_pack, PACK, out)
    for name, value in before.items():
        setattr(comfy.folder_paths, name, value)


@pytest.fixture(scope="module")
def latent(world: World) -> dict[str, Any]:
    """Of a film of three sections, which lies on disk too."""
    return world.film("judged", *PROMPTS)[0]


class Vision:
    """In the place of core's CLIP_VISION: knows colours alone."""

    def encode_image(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image_embeds": embed(pictures)}


class Text:
    """In the place of core's CLIP: the colour that a text names first. padded: as core leaves room for another one."""

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def tokenize(self, text: str) -> int:
        return next((i for i, name in enumerate(COLOURS) if name in text), 0)

    def encode_from_tokens(self, tokens: int, return_pooled: bool) -> tuple[None, torch.Tensor]:
        colour = list(COLOURS.values())[(tokens + self.shift) % len(COLOURS)]
        vector = embed(torch.tensor(colour).expand(1, 8, 8, 3).float() / 255) + 1e-6
        return None, torch.cat([vector, torch.zeros(1, 7)], dim=1)


def judge(world: World, **values: Any) -> SimpleNamespace:
    output = world.run(NODE, **{"film": ""} | values)
    sheet, text, numbers = output.result
    return SimpleNamespace(sheet=sheet, text=text, data=json.loads(numbers), ui=output.ui)


def test_a_film_by_its_name_is_judged_beside_itself_for_the_sections_as_they_are(world: World, latent: Any) -> None:
    found = judge(world, film="judged", latent=latent)
    folder = world.out / "video_memory" / "judged"
    beside = json.loads((folder / "film_report.json").read_text())
    assert beside["keys"] == {str(number): key for number, key in section_keys(folder).items()}
    assert {name: beside[name] for name in found.data} == found.data
    assert (folder / "film_report.md").read_text() == found.text == found.ui["text"][0]
    assert (folder / "film_report.png").is_file() and len(found.ui["images"]) == 1
    assert [shot["sections"] for shot in found.data["shots"]] == [[1], [2], [3]]
    assert [shot["prompt"] for shot in found.data["shots"]] == list(PROMPTS) and "previews" in found.data["source"]
    assert found.sheet.ndim == 4 and found.sheet.shape[-1] == 3 and 0 <= found.sheet.min() < found.sheet.max() <= 1
    missing = {one["measure"] for one in found.data["missing"]}
    assert {"identity", "clothes", "objects", "semantic", "aesthetic"} <= missing


def test_the_own_pictures_of_a_film_are_the_same_from_disk_and_from_its_latents(world: World, latent: Any) -> None:
    vae = world.inputs["vae"]
    stored = judge(world, film="judged", vae=vae).data
    fresh = judge(world, latent=latent, vae=vae, storyboard=world.shots(*PROMPTS)).data
    assert stored["source"] == fresh["source"] == "" and stored["size"] == fresh["size"] == [64, 48]
    assert stored["seconds"] == pytest.approx(fresh["seconds"]) == pytest.approx(latent_frames(latent) / 16)
    assert stored["shots"] == fresh["shots"] and stored["seams"] == fresh["seams"]
    assert all("clarity" in shot["measures"] for shot in fresh["shots"])


def latent_frames(latent: dict[str, Any]) -> int:
    return 4 * latent["samples"].shape[2] - 3


def test_what_a_film_opens_with_is_not_judged_as_its_first_shot(world: World, latent: Any) -> None:
    branch = world.film("branch", *PROMPTS[:2], branch_film="judged", branch_section=1)[0]
    vae = world.inputs["vae"]
    stored = judge(world, film="branch", vae=vae).data
    previews = judge(world, film="branch").data
    fresh = judge(world, latent=branch, vae=vae, storyboard=world.shots(*PROMPTS[:2])).data
    assert stored["shots"] == fresh["shots"] and [shot["sections"] for shot in stored["shots"]] == [[1], [2]]
    for name in ("start", "seconds"):
        assert [shot[name] for shot in stored["shots"]] == pytest.approx([shot[name] for shot in previews["shots"]])


def test_of_pictures_the_blurred_shot_is_named_and_connected_models_are_heard(world: World, comfy: Any) -> None:
    film = drawn_film()
    shots = pictures_of(film)
    shots[ODD] = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in shots[ODD]])
    given = {
        "images": torch.from_numpy(np.concatenate(shots)).float() / 255,
        "storyboard": world.shots(*(shot.prompt for shot in film.shots), seconds=1.0, fps=float(FPS)),
    }
    asked: list[tuple[int, ...]] = []

    class Model:
        def tokenize(self, text: str, image: torch.Tensor, **options: Any) -> str:
            asked.append(tuple(image.shape))
            left, right = image[:, :, : image.shape[1]], image[:, :, -image.shape[1] :]
            return f"{text} {'Yes.' if left.equal(right) else 'No.'}"

        def generate(self, tokens: str, **options: Any) -> str:
            return "Yes." if "objects and places" in tokens else tokens.rpartition(" ")[2]

        def decode(self, tokens: str) -> str:
            return tokens

    found = judge(world, **given, clip_vision=Vision(), clip=Text(), language_model=Model())
    odd = [shot["number"] for shot in found.data["shots"] if any(o["measure"] == "clarity" for o in shot["falls_out"])]
    assert odd == [ODD + 1] and f"shot {ODD + 1}" in found.text
    assert all({"semantic", "objects"} <= set(shot["measures"]) for shot in found.data["shots"])
    assert {shot["measures"]["objects"]["value"] for shot in found.data["shots"]} == {1.0}
    assert len(asked) == 2 + 10 and len(set(asked)) == 1 and asked[0][0] == 1  # pairs of five shots, side by side
    other = judge(world, **given, clip_vision=Vision(), clip=Text(shift=1))
    (why,) = (one["needs"] for one in other.data["missing"] if one["measure"] == "semantic")
    assert "not of one CLIP" in why and not any("semantic" in shot["measures"] for shot in other.data["shots"])
    assert all("objects" in shot["measures"] for shot in other.data["shots"])
    viclip = comfy.base / "models" / "film_report" / VICLIP
    viclip.parent.mkdir(exist_ok=True)
    torch.save({"model": published()}, viclip)
    try:
        told = judge(world, **given)
    finally:
        viclip.unlink()
    assert {shot["measures"]["semantic"]["with"] for shot in told.data["shots"]} == {"ViCLIP"}


def test_a_video_is_judged_from_its_file_and_a_cut_one_from_its_pictures(
    world: World, comfy: Any, tmp_path: Path
) -> None:
    film = drawn_film()
    write_frames(tmp_path / "shown.mp4", np.concatenate(pictures_of(film)), FPS, quality=18)
    video = comfy.module("comfy_api.latest").InputImpl.VideoFromFile(str(tmp_path / "shown.mp4"))
    told = world.shots(*(shot.prompt for shot in film.shots), seconds=1.0, fps=float(FPS))
    whole = judge(world, video=video, storyboard=told).data
    cut = judge(world, video=video.as_trimmed(0, 3.0), storyboard=told).data
    assert whole["film"] == "shown" and len(whole["shots"]) == 5 and len(cut["shots"]) == 3
    assert [shot["seconds"] for shot in cut["shots"]] == [shot["seconds"] for shot in whole["shots"][:3]]
    assert cut["size"] == whole["size"] == [128, 96] and cut["missing"][-2]["measure"] == "shots 4 to 5"
    with pytest.raises(ValueError, match="storyboard: latent and images do not say"):
        judge(world, video=video.as_trimmed(0, 3.0))


def test_a_section_that_the_node_finds_odd_is_marked_in_the_films_strip(world: World, latent: Any) -> None:
    folder = world.out / "video_memory" / "spoilt"
    shutil.copytree(folder.with_name("judged"), folder)
    film = drawn_film()
    for number, path in enumerate(sorted(folder.glob("section_*.webp"))):  # in the place of untrained models' noise
        frames = [Image.fromarray(frame) for frame in pictures_of(film)[0][:8]]  # of which Pillow keeps equal ones once
        if number == 1:
            frames = frames[:1] * 8
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True, duration=60)
    judge(world, film="spoilt")
    routes = importlib.import_module(f"{PACK}.nodes.routes")
    sections = routes.film_state("spoilt")["sections"]
    assert [[one["measure"] for one in section.get("falls_out", ())] for section in sections] == [[], ["dynamics"], []]
    assert sections[1]["falls_out"][0]["said"].startswith("shot 2: hardly moves")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "give the name of a film, or connect latent, or images"),
        (("film", "images"), "one of them"),
        (("latent", "images"), "one of them"),
        (("images", "video"), "one of them"),
        (("images",), "storyboard: latent and images do not say"),
        (("latent", "vae"), "storyboard: latent and images do not say"),
        (("latent", "storyboard"), "vae: connect the VAE too"),
        (("images", "storyboard", "language_model"), "language_model cannot write text"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_cure(
    world: World, latent: Any, given: tuple[str, ...], message: str
) -> None:
    everything = {
        "film": "judged", "latent": latent, "vae": world.inputs["vae"], "images": torch.zeros(2, 8, 8, 3),
        "storyboard": world.shots(*PROMPTS), "language_model": object(), "video": object(),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        judge(world, **{name: everything[name] for name in given})


def test_a_film_is_judged_again_when_it_has_changed_or_there_are_other_models(
    world: World, latent: Any, comfy: Any
) -> None:
    fingerprint = world.nodes[NODE].fingerprint_inputs
    before = fingerprint(film="judged", vae=None)
    assert before == fingerprint(film="judged") != fingerprint(film="none")
    model = comfy.base / "models" / "film_report" / "niqe_pris_params.npz"
    model.parent.mkdir(exist_ok=True)
    model.touch()
    try:
        assert fingerprint(film="judged") != before
    finally:
        model.unlink()
