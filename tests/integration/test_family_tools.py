"""The tools that train and measure the tiny family: material, export, installation, tables."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from demo.clip import read_frames, write_frames
from demo.tiny_family import install, prepare
from demo.tiny_family.clips import Clip, list_clips
from demo.tiny_family.evaluate_family import Variant, add_variant_arguments, markdown, over_clips, table, variants
from demo.tiny_family.evaluate_film import MEASURES, film_table
from demo.tiny_family.export import export
from memory_encoder.evaluation.score import KINDS, ClipScore
from memory_encoder.storyboard import Storyboard


def test_a_training_film_comes_with_its_storyboard_and_is_made_once(tmp_path: Path) -> None:
    prepare.write_film(tmp_path, 3, long=False)
    path = tmp_path / "film_0000003.mp4"
    film = prepare.film_of(3, long=False)
    assert film.frames.shape == (81, 96, 128, 3)
    shown = read_frames(path, prepare.FPS, 81, (prepare.WIDTH, prepare.HEIGHT))
    assert np.abs(shown.astype(float) - film.frames).mean() < 4
    storyboard = Storyboard.from_dict(json.loads(path.with_suffix(".json").read_text()))
    assert [shot.prompt for shot in storyboard.shots] == [shot.prompt for shot in film.shots]
    assert [shot.start for shot in storyboard.shots] == pytest.approx([shot.start / 16 for shot in film.shots])
    written = path.stat().st_mtime_ns
    prepare.write_film(tmp_path, 3, long=False)
    assert path.stat().st_mtime_ns == written


def test_a_folder_without_clips_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing: --clips must name the clips folder"):
        list_clips(tmp_path / "clips")


def test_a_reel_follows_from_its_number_and_mixes_clips(tmp_path: Path) -> None:
    clips = []
    for value in (40, 200):
        path = tmp_path / f"{value}.mp4"
        write_frames(path, np.full((40, 144, 192, 3), value, np.uint8), 16)
        clips.append(Clip(path.name, path, 16.0, 40, ""))
    reels = prepare.Reels(clips)
    reel = reels.reel(1)
    assert reel.shape == (161, 96, 128, 3) and reel.dtype == np.uint8
    assert np.array_equal(reel, prepare.Reels(clips).reel(1)) and not np.array_equal(reel, reels.reel(2))
    means = reel.mean((1, 2, 3))
    assert (means < 100).any() and (means > 120).any()


def test_the_fast_codec_gives_nearly_what_cores_vae_gives(comfy: Any) -> None:
    made = prepare.TinyCodec(None)()
    pictures = torch.from_numpy(prepare.film_of(5, long=False).frames[:9]).float()[None] / 255
    checkpoint = comfy.module("memory_encoder.injection.hosts.comfy_models")
    with torch.inference_mode():
        core = checkpoint.codec_of(
            checkpoint.load_vae(install.WEIGHTS / install.VAE_NAME), checkpoint.latent_format_named("Wan21")
        )
        latents = core.encode(pictures)
        assert (made.encode(pictures) - latents).square().mean().sqrt() < 0.03 * latents.std()
        assert (made.decode(latents).clamp(0, 1) - core.decode(latents).clamp(0, 1)).abs().mean() < 0.01


def test_exported_weights_are_half_precision_and_keep_their_metadata(tmp_path: Path) -> None:
    save_file({"a": torch.randn(3, 4)}, tmp_path / "run.safetensors", {"config": "{}", "training": "x"})
    path = export(tmp_path / "run.safetensors", tmp_path / "weights" / "name.safetensors")
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata() == {"config": "{}", "training": "x"}
        assert file.get_tensor("a").dtype == torch.float16


def test_every_file_of_the_family_goes_where_core_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setattr(install, "WEIGHTS", weights)
    for name in install.FILES:
        with pytest.raises(FileNotFoundError, match=name):
            install.install_models(tmp_path / "models")
        (weights / name).write_bytes(name.encode())
    placed = install.install_models(tmp_path / "models")
    assert {path.parent.name for path in placed} == {"vae", "diffusion_models", "memory_encoders", "loras"}
    assert all(path.read_bytes() == path.name.encode() for path in placed)


def test_what_is_measured_is_the_family_by_rate_or_encoders_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_variant_arguments(parser)

    def asked(*arguments: str) -> list[Variant]:
        return variants(parser, parser.parse_args(arguments))

    files = [str(install.WEIGHTS / f"tiny_memory_{rate}.safetensors") for rate in install.RATES]
    assert [(str(v.encoders[0]), v.name) for v in asked()] == list(zip(files, install.RATES, strict=True))
    assert all(v.lora.is_file() for v in asked())
    own = ["--encoder", files[0], "--encoder", files[1], "--lora", "own.safetensors"]
    (both,) = asked(*own)
    assert both == Variant("4x4x2+2x2x2", (Path(files[0]), Path(files[1])), Path("own.safetensors"))
    assert asked(*own, "--name", "mine")[0].name == "mine"
    for incomplete in (own[:2], own[4:], ["--name", "mine"]):
        with pytest.raises(SystemExit):
            asked(*incomplete)
        assert "belong together" in capsys.readouterr().err


def test_the_table_shows_means_and_errors_over_clips_and_what_the_memory_has_more() -> None:
    """Noise alone is not what a mean of few clips is uncertain by; beside another row their common part is gone."""

    def score(name: str, psnr: float) -> ClipScore:
        values = {"psnr": psnr, "ssim": 0.5, "edges": 0.25}
        seen = torch.rand(9, 12, 16, 3, generator=torch.Generator().manual_seed(ord(name)))
        shown = {kind: seen for kind in ("original", *KINDS)}
        of_kinds: dict[str, dict[str, float]] = {
            metric: dict.fromkeys(map(str, KINDS), value) for metric, value in values.items()
        }
        of_kinds["psnr"]["none"] = psnr - (2 if name == "a" else 4)
        return ClipScore(name, of_kinds, shown, {})

    scores = {
        "real": [[score("a", 10), score("a", 12), score("a", 14)], [score("b", 20), score("b", 20), score("b", 20)]]
    }
    made = table(scores)
    assert made["real"]["psnr"]["memory"] == pytest.approx({"mean": 16, "standard_error": 4})  # of 12 and 20
    assert made["real"]["clips"]["a"]["psnr"]["none"] == pytest.approx(10)
    assert made["real"]["clips"]["b"]["identified"]["memory"] == 1
    above = made["real"]["above"]["psnr"]
    assert above["none"] == pytest.approx({"mean": 3, "standard_error": 1}) and above["flat"]["mean"] == 0
    assert "| 4x4x2 | real | memory | 16.00 ± 4.00 | 0.500 | 0.250 | 1.000 |" in markdown({"4x4x2": made})
    of_seeds = over_clips(np.array([[10.0, 14.0], [10.0, 14.0]]))
    assert of_seeds == pytest.approx({"mean": 12, "standard_error": 2}), "where clips are alike, that of the noise"


def test_a_table_of_films_keeps_each_film_and_pairs_them() -> None:
    values = {kind: [dict.fromkeys(MEASURES, base + step) for base in (10.0, 30.0)] for kind, step in
              (("memory", 5.0), ("other", 0.0), ("none", 1.0), ("host", 3.0), ("full", 2.0))}  # fmt: skip
    made = film_table(values)
    assert made["memory"]["clothes"] == {"mean": 25, "standard_error": pytest.approx(10), "films": [15, 35]}
    assert made["above"]["none"]["clothes"] == pytest.approx({"mean": 4, "standard_error": 0})
