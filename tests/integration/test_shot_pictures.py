"""Pictures of shots and of the cast in films of tiny models: which section is given which, and what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from tests.integration.models import TinyModels

from .test_keyframe_films import Inputs, encoder, faces
from .worlds import World, make_world

PACK = "video_memory_shot_pictures_test"
COLOURS = {"red.png": (200, 20, 20), "green.png": (20, 200, 20), "blue.png": (20, 20, 200)}


@pytest.fixture(scope="module")
def models(comfy: Any) -> TinyModels:
    return TinyModels(comfy)


@pytest.fixture
def world(comfy: Any, load_pack: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(comfy.folder_paths, "input_directory", str(tmp_path / "input"))
    (tmp_path / "input").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (64, 48), colour).save(tmp_path / "input" / name)
    return make_world(comfy, load_pack, PACK, tmp_path / "output")


def board(world: World, *shots: dict[str, Any], cast: tuple[dict[str, str], ...] = ()) -> Any:
    entries = [
        {"start": i / 2, "end": (i + 1) / 2, "prompt": f"shot {i}", "transition": "cut"} | shot
        for i, shot in enumerate(shots)
    ]
    text = json.dumps({"version": 1, "shots": entries, "cast": list(cast)})
    return world.call("VideoMemoryStoryboard", world.clip, text, 16.0, 0.5)[0]


def pixels(name: str) -> torch.Tensor:
    return torch.tensor(COLOURS[name], dtype=torch.float32).div(255).expand(1, 48, 64, 3)


def in_latents(world: World, model: Any, name: str, frames: int) -> torch.Tensor:
    """The first latent of a clip that begins with the picture, as the model is shown it."""
    with torch.inference_mode():
        seen = world.inputs["vae"].encode(torch.cat([pixels(name), torch.full((frames - 1, 48, 64, 3), 0.5)]))
    return model.get_model_object("latent_format").process_in(seen)[:, :, :1].float()


@pytest.mark.parametrize("kind", ["tokens", "keyframes"])
def test_a_shot_begins_with_its_picture_and_only_it_is_made_anew_for_another(
    world: World, models: TinyModels, kind: str
) -> None:
    inputs = Inputs()
    model = inputs.on(models["wan22_i2v"].patcher)
    if kind == "tokens":
        new = world.call("VideoMemoryEncoderNew", model, "2x2x2", "proposed", "frame", False, 0)[0]
        more: dict[str, Any] = {"memory_encoder": new}
    else:
        more = {"memory_encoder": encoder(world, model), "references": faces()}

    def made(picture: str) -> tuple[Any, str]:
        inputs.seen.clear()
        shots = board(world, {}, {"picture": picture} if picture else {}, {})
        latent, _, report = world.film("film", "a", model=model, cfg=1.0, storyboard=shots, **more)
        return latent["samples"], report

    plain, _ = made("")
    red, report = made("red.png")
    assert "3 sections, 1 reused" in report, "the shot itself, and what saw it"
    x = inputs.seen[0]
    assert x.shape[2] == (3 if kind == "tokens" else x.shape[2])
    place = x.shape[2] - 3
    wanted = in_latents(world, model, "red.png", 9)
    torch.testing.assert_close(x[:, 20:, place : place + 1].float(), wanted, atol=1e-4, rtol=1e-3)
    assert x[0, 16:20, place].flatten().tolist() == [1.0] * x[0, 16:20, place].numel()
    assert red.shape == plain.shape, "no shot is longer for its picture"
    first = plain.shape[2] - 2 * ((plain.shape[2] - 1) // 3) if kind == "tokens" else 3
    assert torch.equal(red[:, :, :first], plain[:, :, :first])
    assert not torch.equal(red[:, :, first:], plain[:, :, first:])
    blue, report = made("blue.png")
    assert "3 sections, 1 reused" in report and not torch.equal(blue, red)
    again, report = made("red.png")
    assert "3 sections, 3 reused" in report and torch.equal(again, red)


def test_the_first_shots_picture_is_the_films_first_frame_with_every_model(world: World) -> None:
    film, _, report = world.film("film", "a", storyboard=board(world, {"picture": "red.png"}, {}))
    by_socket, _, _ = world.film("other", "a", storyboard=board(world, {}, {}), start_image=pixels("red.png"))
    assert torch.equal(film["samples"], by_socket["samples"]) and "opens with 1 frame" in report
    with pytest.raises(ValueError, match="start_image and the picture of shot 1 are two first frames"):
        world.film("film", "a", storyboard=board(world, {"picture": "red.png"}), start_image=pixels("red.png"))


def test_who_is_named_is_seen_and_who_is_not_is_not(world: World, models: TinyModels) -> None:
    model = models["wan22_i2v"].patcher
    cast = (
        {"name": "Mira", "look": "a girl", "picture": "red.png"},
        {"name": "Leo", "look": "a boy", "picture": "green.png"},
    )
    shots = [{"prompt": "Mira waves"}, {"prompt": "Leo waves"}, {"prompt": "Mira meets Leo"}, {"prompt": "a street"}]

    def made(name: str, cast: tuple[dict[str, str], ...], **more: Any) -> tuple[list[list[str]], str]:
        values = {"model": model, "cfg": 1.0, "memory_encoder": encoder(world, model)}
        _, _, report = world.film(name, "a", storyboard=board(world, *shots, cast=cast), **values | more)
        path = world.out / "video_memory" / name / "manifest.json"
        return [
            [one for one in record["pictures"] if one < "1"] for record in json.loads(path.read_text())["sections"]
        ], report

    seen, _ = made("film", cast)
    assert seen == [["0:1"], ["0:2"], ["0:1", "0:2"], []]
    _, report = made("film", (cast[0], cast[1] | {"picture": "blue.png"}))
    assert "4 sections, 1 reused" in report, "shots from the first on that names Leo"
    style = {"look": "watercolour", "picture": "blue.png"}
    assert made("all", (*cast, style))[0] == [["0:1", "0:3"], ["0:2", "0:3"], ["0:1", "0:2", "0:3"], ["0:3"]]
    assert made("pinned", cast, pictures="0:2")[0] == [["0:1", "0:2"], ["0:2"], ["0:1", "0:2"], ["0:2"]]
    given = made("given", cast, references=torch.cat([faces(1), pixels("green.png")]))[0]
    assert given == [["0:1", "0:3"], ["0:1", "0:2"], ["0:1", "0:2", "0:3"], ["0:1"]], "one that is there is not added"


def test_a_picture_for_someone_makes_no_section_anew_that_does_not_name_them(world: World, models: TinyModels) -> None:
    model, plain = models["wan22_i2v"].patcher, {"name": "Mira", "look": "a girl"}
    shots = [{"prompt": "a street"}, {"prompt": "rain"}, {"prompt": "Mira waves"}]

    def made(**more: Any) -> tuple[Any, str]:
        cast = (plain | more.pop("mira", {}),)
        values = {"model": model, "cfg": 1.0, "memory_encoder": encoder(world, model), "start_image": faces(1)}
        latent, _, report = world.film("film", "a", storyboard=board(world, *shots, cast=cast), **values | more)
        return latent["samples"], report

    without, _ = made()
    given, report = made(mira={"picture": "red.png"})
    assert "3 sections, 2 reused" in report and torch.equal(given[:, :, :6], without[:, :, :6])
    assert not torch.equal(given, without)
    banned, _ = made(pictures="-0:1")
    same, report = made(pictures="-0:1", mira={"picture": "red.png"})
    assert "3 sections, 2 reused" in report and torch.equal(same[:, :, :6], banned[:, :, :6]), "still the start image"


def test_what_cannot_be_used_is_refused_before_anything_is_made(world: World, models: TinyModels) -> None:
    cast = ({"name": "Mira", "look": "a girl", "picture": "red.png"},)
    for shots, message in (
        (board(world, {}, {"picture": "red.png"}, {}, {"picture": "red.png"}), "shots 2, 4: its picture .* text alone"),
        (board(world, {}, cast=cast), "cast: the picture of Mira .* variant proposed holds no pictures"),
    ):
        with pytest.raises(ValueError, match=message):
            world.film("film", "a", storyboard=shots)
    model = models["wan22_i2v"].patcher
    names = [{"name": f"N{n}x", "look": f"look {n}.", "picture": f"{n}.png"} for n in range(4)]
    for n in range(4):
        Image.new("RGB", (64, 48), (n, 99, 9)).save(world.out.parent / "input" / f"{n}.png")
    crowd = board(world, {"prompt": "N0x"}, {"prompt": "N0x N1x N2x N3x"}, cast=tuple(names))
    with pytest.raises(ValueError, match=r"section 2 sees 4 references: .* keeps 3"):
        world.film("film", "a", model=model, storyboard=crowd, memory_encoder=encoder(world, model, max_pictures=3))
    assert not list(world.out.rglob("manifest.json"))


@pytest.mark.parametrize("name", ["none.png", "../secret.png", "text.png"])
def test_a_picture_that_is_none_is_named(world: World, name: str) -> None:
    Image.new("RGB", (4, 4)).save(world.out.parent / "secret.png")
    (world.out.parent / "input" / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=f"shot 2: picture '{name}' (is not in|cannot be read).*choose another"):
        board(world, {}, {"picture": name})


def test_another_file_of_the_same_name_is_noticed(world: World) -> None:
    node = world.nodes["VideoMemoryStoryboard"]
    text = json.dumps({"version": 1, "shots": [{"start": 0, "prompt": "a", "picture": "red.png"}]})
    before = node.fingerprint_inputs(storyboard=text)
    Image.new("RGB", (640, 480), (1, 2, 3)).save(world.out.parent / "input" / "red.png")
    assert before and node.fingerprint_inputs(storyboard=text) != before
    others = (
        json.dumps({"shots": [{"duration": 5, "prompt": "a", "picture": "red.png"}]}),
        f"```json\n{text}\n```",
        json.dumps(
            {"shots": [{"start": 0, "prompt": "a"}], "characters": [{"name": "M", "look": "m", "picture": "red.png"}]}
        ),
    )
    for other in others:  # forms that are not our own, and are read all the same
        assert node.fingerprint_inputs(storyboard=other) == node.fingerprint_inputs(storyboard=text), other
    assert node.fingerprint_inputs(storyboard="[0s: a kitchen]") == node.fingerprint_inputs(storyboard=None) == ""
