"""What `evaluate` says of the files that it is given, and shows of what it has."""

from __future__ import annotations

import unicodedata
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from memory_encoder.evaluation.score import ClipScore
from memory_encoder.phi.trained_on import TrainedOn
from memory_encoder.training import evaluate_notes
from memory_encoder.training.evaluate_command import caption, drawing_shift, sheet
from memory_encoder.training.evaluate_notes import remarks_on, what_is_measured

PATCHER = SimpleNamespace(get_model_object=lambda name: SimpleNamespace(shift=8.0))
ASKED = Namespace(host="", text_encoder=[])


def trained(stage: str = "continuation", **more: float) -> TrainedOn:
    return TrainedOn(stage, 20.0, 5.0, 24.0, 3, more.pop("shift", 5.0), **more)  # type: ignore[arg-type]


def test_frames_are_drawn_as_films_are_and_by_the_models_own_shift_where_no_film_was_trained() -> None:
    assert drawing_shift([trained(shift=5.0)], PATCHER) == 5.0
    assert drawing_shift([trained("retrieval", shift=30.0)], PATCHER) == 8.0
    assert drawing_shift([None, trained(shift=3.0)], PATCHER) == 3.0
    assert drawing_shift([None], PATCHER) == 8.0


def test_a_clip_that_was_trained_on_is_named_however_its_accents_are_composed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [unicodedata.normalize(kind, "café.mp4") for kind in ("NFC", "NFD")]
    monkeypatch.setattr(evaluate_notes, "read_trained_on", lambda path: trained())
    (tmp_path / "trained.txt").write_text(f"{names[1]}\n", encoding="utf-8")
    for name in names:
        [remark] = remarks_on(ASKED, [tmp_path / "encoder.safetensors"], tmp_path / "lora.safetensors", [name, "b.mp4"])
        assert remark.startswith("1 of 2 clips have the names of clips that were trained on")


def test_a_memory_without_its_lora_and_one_of_half_the_timesteps_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder, lora = tmp_path / "high.safetensors", tmp_path / "lora.safetensors"
    monkeypatch.setattr(evaluate_notes, "read_trained_on", lambda path: trained(min_t=0.875))
    without, _ = remarks_on(ASKED, [encoder], None, ["a.mp4"])
    assert without.startswith("without --lora")
    (half,) = remarks_on(ASKED, [encoder], lora, ["a.mp4"])
    assert half.startswith("high.safetensors was trained at timesteps 0.875 to 1 alone")
    monkeypatch.setattr(evaluate_notes, "read_trained_on", lambda path: trained())
    assert remarks_on(ASKED, [encoder], lora, ["a.mp4"]) == []
    monkeypatch.setattr(evaluate_notes, "not_a_pair", lambda encoder, lora: "of two training runs")
    assert remarks_on(ASKED, [encoder], lora, ["a.mp4"]) == ["of two training runs"]


def test_what_is_measured_is_said_and_what_the_memory_was_trained_for() -> None:
    asked = Namespace(frames=81, fps=24.0, width=832, height=480)
    long = trained(width=832, height=480)
    said = what_is_measured(asked, [long])
    assert said.startswith("of each clip the first 3.4 s (81 frames), 832x480, 24 fps\n")
    assert "--frames 480 (20.0 s)" in said
    assert "--fps" not in said and "--width" not in said
    other = what_is_measured(Namespace(frames=480, fps=16.0, width=128, height=96), [None, long])
    assert "--frames" not in other and "--fps 24, --width 832 --height 480" in other
    assert "note" not in what_is_measured(Namespace(frames=480, fps=24.0, width=832, height=480), [long])


def test_a_memory_without_a_thumbnail_has_a_sheet_too() -> None:
    shown = {kind: torch.rand(5, 24, 32, 3) for kind in ("original", "memory", "none")}
    score = ClipScore("clip", {"psnr": {"memory": 20.0, "none": 9.0}}, shown, {})
    assert sheet([score]).shape == (3 * (24 + 20), 6 * 32, 3)
    said = [caption(score, kind) for kind in shown]
    assert said == ["clip  original", "clip  memory  20.00 dB", "clip  no memory (made up)  9.00 dB"]
