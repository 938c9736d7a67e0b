"""The commands of docs/training.md as they stand there: cache, both stages, evaluate; and from large files the same.

What differs is appended, and so comes last: sizes and steps for the tiny family on a CPU. The page's files are
links to that family's, and CLIPS holds a real clip where there is one (VIDEO_MEMORY_DATA, or ../shared/data).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from demo.clip import write_frames
from demo.tiny_family.procedural import make_film
from memory_encoder.cli import main
from memory_encoder.training.run_files import facts_of, read_losses
from tools.environment import ROOT

DATA = Path(os.environ.get("VIDEO_MEMORY_DATA", ROOT.parent / "shared" / "data"))
SIZE = "--width 64 --height 48 --fps 16"
WORDS = "--text-encoder demo.nodes.text_encoder:HashTextEncoder"
SMALLER = {
    "cache": f"{SIZE} --window-seconds 1.5 {WORDS}",
    "train": "--steps 2 --batch-size 2 --rank 4 --mixed-precision no",
    "evaluate": f"{SIZE} --frames 9 --steps 1 {WORDS}",
    "pack": "",
}
FAMILY = {"wan2.2_5b": "tiny_wan_host", "wan2.2_vae": "tiny_wan_vae"}


def commands(page: Path) -> list[list[str]]:
    """The commands of a page that are whole."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^python -m memory_encoder (.*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in found if "..." not in line]


def run(command: list[str]) -> None:
    assert main([*command, *shlex.split(SMALLER[command[0]])]) == 0, command


def real_clip() -> Path | None:
    """The smallest one."""
    manifest = DATA / "manifest.json"
    clips = json.loads(manifest.read_text())["clips"] if manifest.is_file() else []
    paths = (next(DATA.rglob(clip["name"]), None) for clip in sorted(clips, key=lambda clip: clip["bytes"]))
    return next((path for path in paths if path is not None), None)


@pytest.fixture(scope="module")
def trained(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page's commands have run, one after the other."""
    importlib.import_module("demo.nodes.text_encoder")
    folder = tmp_path_factory.mktemp("page")
    for name, own in FAMILY.items():
        (folder / f"{name}.safetensors").symlink_to(ROOT / "demo" / "tiny_family" / "weights" / f"{own}.safetensors")
    (folder / "CLIPS").mkdir()
    clip = real_clip()
    if clip is None:
        write_frames(folder / "CLIPS" / "clip.mp4", make_film(0, shots=2, width=64, height=48).frames, 16)
    else:
        (folder / "CLIPS" / clip.name).symlink_to(clip)
    told = [
        command for command in commands(ROOT / "docs" / "training.md") if command[0] in ("cache", "train", "evaluate")
    ]
    assert [command[0] for command in told] == ["cache", "train", "train", "evaluate"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in told:
            run(command)
    return folder


def test_the_commands_of_the_page_train_both_stages_and_say_how_well_the_memory_recalls(trained: Path) -> None:
    for name, stage in (("RUN1", "retrieval"), ("RUN2", "continuation")):
        assert facts_of(trained / name / "encoder.safetensors")["stage"] == stage
        assert [entry["step"] for entry in read_losses(trained / name / "losses.jsonl") if "loss" in entry] == [0, 1]
        assert (trained / name / "lora.safetensors").is_file() and (trained / name / "recalled.png").is_file()
    report = json.loads((trained / "REPORT" / "report.json").read_text())
    assert len(report["clips"]) == 1 and (trained / "REPORT" / "sheet.png").is_file()


def test_from_large_files_the_losses_are_those_of_the_plain_cache(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("litdata", reason="pip install litdata")
    monkeypatch.chdir(trained)
    page = commands(ROOT / "docs" / "training.md")
    run(next(command for command in page if command[0] == "pack"))
    train = next(command for command in page if command[0] == "train")
    run([{"DATA": "PACKED", "RUN1": "RUN3"}.get(word, word) for word in train])
    one, three = (read_losses(trained / name / "losses.jsonl") for name in ("RUN1", "RUN3"))
    assert one == three and (trained / "RUN3" / "encoder.safetensors").is_file()


def test_stage_two_from_scratch_says_that_its_encoder_is_untrained(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    begun = f"--dataset DATA --host wan2.2_5b.safetensors --stage continuation --warmup 1 {SMALLER['train']} --steps 1"
    for out, encoder, warned in (
        ("RUN4", "--from-scratch", True),
        ("RUN5", "--encoder RUN1/encoder.safetensors", False),
    ):
        assert main(["train", *shlex.split(f"{begun} --out {out} {encoder}")]) == 0
        assert ("the encoder has not been trained" in capsys.readouterr().out) == warned
