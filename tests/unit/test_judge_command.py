"""The command `judge` and where its films come from: videos, folders of ours, and films side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.clip import write_frames
from memory_encoder.cli import main
from memory_encoder.evaluation.judge import judge_command
from memory_encoder.evaluation.judge.against import Estimate, compare
from memory_encoder.evaluation.judge.footage import Join, footage_of_film, footage_of_movie
from memory_encoder.evaluation.judge.instruments import (
    SFACE,
    VICLIP,
    YUNET,
    Instruments,
    find_instruments,
    find_model,
)
from memory_encoder.evaluation.judge.judging import judge_film
from memory_encoder.evaluation.judge.report import REPORT_JSON, REPORT_SHEET, REPORT_TEXT, FilmReport, Measure
from memory_encoder.evaluation.judge.report import ShotReport as Judged
from memory_encoder.film.sections import SectionStore
from memory_encoder.injection.hosts.comfy_models import CheckpointError
from memory_encoder.storyboard import CastLine, Shot, Storyboard

from .judged_films import FPS, drawn_film, pictures_of


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """film.mp4 with a frozen third shot, its storyboard, and the same film as it should be in a folder."""
    folder = tmp_path_factory.mktemp("movies")
    film = drawn_film(19)
    shots = pictures_of(film)
    (folder / "good").mkdir()
    write_frames(folder / "good" / "film.mp4", np.concatenate(shots), FPS, quality=18)
    shots[2][:] = shots[2][0]
    write_frames(folder / "film.mp4", np.concatenate(shots), FPS, quality=18)
    entries = [f"[{shot.start / FPS:g}s: {shot.prompt}]" for shot in film.shots]
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "storyboard.txt").write_text(" ".join(entries), encoding="utf-8")
    return folder


def test_the_command_names_the_frozen_shot_and_stands_the_film_beside_another(
    movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["judge", str(movies / "film.mp4"), "--storyboard", str(movies / "storyboard.txt")]
    assert main([*arguments, "--against", f"good={movies / 'good'}", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / REPORT_JSON).read_text(encoding="utf-8"))
    assert [shot["number"] for shot in found["shots"] if shot["falls_out"]] == [3]
    assert "shot 3: hardly moves" in shown and "shot 3: hardly moves" in (tmp_path / REPORT_TEXT).read_text("utf-8")
    (other,) = found["against"]
    gap = other["differences"]["dynamics"]
    assert gap["n"] == 5 and gap["low"] <= gap["mean"] < 0 and other["values"]["dynamics"]["n"] == 5
    missing = {one["measure"]: one for one in found["missing"]}
    assert YUNET in missing["identity"]["where"] and SFACE in missing["identity"]["where"]
    assert "models/film_report" in missing["identity"]["where"] and "missing: identity" in shown
    assert "clip_vision" in missing["objects"]["where"]
    with Image.open(tmp_path / REPORT_SHEET) as sheet:
        assert sheet.width > 4 * 320 and sheet.height > 2 * 240


def test_a_report_is_kept_where_the_film_beside_it_is_broken(
    movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["judge", str(movies / "film.mp4"), "--storyboard", str(movies / "storyboard.txt")]
    assert main([*arguments, "--against", f"other={movies / 'broken.mp4'}", "--out", str(tmp_path)]) == 2
    assert "broken.mp4 cannot be read as a video" in capsys.readouterr().err
    assert "shot 3: hardly moves" in (tmp_path / REPORT_TEXT).read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.mp4"], "nothing.mp4 is not there"),
        (["{movies}/storyboard.txt", "--storyboard", "{movies}/storyboard.txt"], "storyboard.txt is no video"),
        (["{movies}/broken.mp4", "--storyboard", "{movies}/storyboard.txt"], "cannot be read as a video"),
        (["{movies}/film.mp4", "--against", "film.mp4"], "write a name and a film"),
        (["{movies}/film.mp4", "--against", "none={empty}"], "holds none"),
        (["{movies}/film.mp4", "--models", "{movies}/nowhere"], "is no folder"),
        (["{movies}/film.mp4", "--storyboard", "{movies}/film.mp4"], "storyboard film.mp4 is damaged or not one"),
        (["{movies}/film.mp4", "--storyboard", "{movies}/none.txt"], "cannot read {movies}/none.txt"),
        (["{movies}/film.mp4", "--against", "a={movies}/good", "--against", "a={movies}/film.mp4"], "the same name"),
        (["{movies}/film.mp4", "--device", "toaster"], "--device toaster cannot be used"),
        (["{movies}/good"], "no film 'good' with finished sections"),
    ],
)
def test_what_cannot_be_judged_is_named(
    movies: Path, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [text.format(movies=movies, empty=tmp_path) for text in arguments]
    assert main(["judge", *filled]) == 2
    assert said.format(movies=movies) in capsys.readouterr().err


def test_without_comfyui_a_film_is_judged_by_the_rest_and_clip_that_was_asked_for_is_refused(
    movies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_comfy(path: str | None) -> None:
        raise CheckpointError("ComfyUI was not found; set COMFYUI_PATH to its folder, or give --comfy FOLDER")

    monkeypatch.setattr(judge_command, "load_comfy", load_comfy)
    (tmp_path / VICLIP).touch()
    given = ["judge", str(movies / "film.mp4"), "--storyboard", str(movies / "storyboard.txt"), "--out", str(tmp_path)]
    assert main([*given, "--models", str(tmp_path)]) == 0
    assert f"missing: semantic: {VICLIP} is read by ComfyUI's parts of CLIP; give --comfy" in capsys.readouterr().out
    for option in ("--clip-vision", "--clip", "--comfy"):
        assert main([*given, option, "somewhere"]) == 2 and "ComfyUI was not found" in capsys.readouterr().err


def test_a_film_without_a_storyboard_needs_cuts_and_one_with_it_none(
    movies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memory_encoder.evaluation.judge import footage

    monkeypatch.setattr(footage, "scene_cuts", lambda: lambda picture: picture.index in (9, 17))
    found = footage_of_movie(movies / "film.mp4")
    assert [shot.start for shot in found.storyboard.shots] == [0, 9 / FPS, 17 / FPS]
    clips = list(found.clips())
    assert [len(clip.frames) for clip in clips] == [9, 8, 24] and found.seconds == pytest.approx(41 / FPS)


def test_a_film_of_ours_is_read_by_its_previews_with_its_joins_and_its_cast(tmp_path: Path) -> None:
    keys = [f"{number:064x}" for number in range(1, 4)]
    store = SectionStore(tmp_path, "night")
    records = []
    for index, key in enumerate(keys):
        prompt = "Mira waves" if index < 2 else "Mira sits"
        path = store.put(key, index, {"latents": torch.zeros(1, 4, 2, 4, 4)}, {})
        frames = [Image.new("RGB", (64, 48), (40 * index, 8 * number, 90)) for number in range(6)]
        frames[0].save(path.with_suffix(".webp"), save_all=True, append_images=frames[1:], lossless=True, duration=80)
        chain = {"previous": f"{index}", "chain": f"{index + 1}", "fps": 16.0}
        records.append({"index": index, "key": key, "status": "stored", "prompt": prompt, "seconds": 2.0} | chain)
    store.write_manifest(records)
    cast = (CastLine("a girl with red hair", "Mira"),)
    storyboard = Storyboard((Shot("Mira waves", 0, name="hello"), Shot("Mira sits", 4)), cast=cast)
    found = footage_of_film(tmp_path / "night", storyboard)
    assert found.joins == (Join(2, 1, 2.0),) and found.sections == ((1, 2), (3,)) and found.seconds == 6
    first, second = found.clips()
    assert (len(first.frames), len(second.frames)) == (12, 6) and second.start == 4.0
    assert first.names == second.names == {"Mira"} and first.name == "hello"
    assert first.times[5] == pytest.approx(2 - 1 / 16) and first.times[6] == 2.0
    report = judge_film(found, Instruments())
    assert "previews" in report.source and [seam.section for seam in report.seams] == [2]
    frozen = tmp_path / "night" / "section_0001_0000000000000000.webp"
    frames = [Image.new("RGB", (64, 48), (level, 0, 0)) for level in (0, 0, 0, 90, 90, 200)]
    for kept, whole in ((frames, [0, 0, 0, 90, 90, 200]), (frames[:1] * 6, [0] * 24)):  # as WebP keeps equal ones once
        kept[0].save(frozen, save_all=True, append_images=kept[1:], lossless=True, duration=80)
        assert [int(picture[0, 0, 0]) for _, picture in footage_of_film(tmp_path / "night").read()][6:-6] == whole
    (tmp_path / "night" / "section_0000_0000000000000000.webp").unlink()
    with pytest.raises(ValueError, match="section 1 has no preview; save the film and judge the MP4"):
        footage_of_film(tmp_path / "night")


def test_models_are_found_below_a_models_folder_by_any_of_their_names(tmp_path: Path) -> None:
    assert find_model([tmp_path], YUNET) is None
    (tmp_path / "detection").mkdir()
    other = tmp_path / "detection" / "yunet_n_640_640.onnx"
    other.touch()
    assert find_model([tmp_path], YUNET) == other
    (tmp_path / "film_report").mkdir()
    (tmp_path / "film_report" / YUNET).touch()
    assert find_model([tmp_path / "none", tmp_path], YUNET) == tmp_path / "film_report" / YUNET
    (missing,) = (one for one in find_instruments([tmp_path]).missing if one.measure == "identity")
    assert SFACE in missing.where and YUNET not in missing.where


def a_report(values: list[float], tool: str = "a rule", prompt: str = "Mira") -> FilmReport:
    shots = [Judged(i + 1, i, 1, f"{prompt} {i}", values={"clarity": value}) for i, value in enumerate(values)]
    return FilmReport("a", 16, 9, (64, 48), {"clarity": Measure("clarity", "points", True, tool, "")}, shots)


def test_pairs_of_shots_show_what_means_hide_and_only_equal_tools_compare() -> None:
    ours = a_report([1.0, 5.0, 9.0, 13.0])
    paired = compare(ours, "without", [a_report([0.5, 4.4, 8.5, 12.4])])
    gap = paired.differences["clarity"]
    reach = 3.182 * 0.0577 / 2  # Student's t of three degrees of freedom, the deviation of 0.5, 0.6, 0.5 and 0.6
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.55, 0.55 - reach, 0.55 + reach), abs=1e-4)
    assert paired.values["clarity"].low < ours.means()["clarity"] < paired.values["clarity"].high
    other = compare(ours, "other story", [a_report([0.5, 4.4, 8.5], prompt="Tom")])
    assert other.differences == {} and "storyboards differ" in other.note
    assert compare(ours, "x", [a_report([1.0], tool="another")]).values == {}
    films = compare(ours, "films", [a_report([2.0, 4.0]), a_report([6.0])])
    assert films.values["clarity"].mean == pytest.approx(4.5) and films.values["clarity"].count == 2


def test_an_interval_holds_the_mean_and_narrows_with_more_values() -> None:
    few, many = (Estimate.of(np.random.default_rng(0).normal(3, 1, count).tolist()) for count in (5, 200))
    assert few.low < few.mean < few.high and many.high - many.low < 0.3 < few.high - few.low
    # The normal approximation, which is met where there are many values.
    assert many.high - many.low == pytest.approx(2 * 1.96 / 200**0.5, rel=0.15)
    assert Estimate.of([2.0]) == Estimate(2.0, 2.0, 2.0, 1)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_an_interval_of_few_shots_holds_their_mean_as_often_as_it_says(count: int) -> None:
    draws = np.random.default_rng(count).normal(3, 1, (2000, count))
    held = [one.low <= 3 <= one.high for one in map(Estimate.of, draws.tolist())]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
