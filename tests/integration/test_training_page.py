"""The commands of docs/training.md as they stand there: cache, both stages, evaluate; from large files the same; in two
processes by `accelerate launch`; and those of the tiny family's card.

What differs is appended, and so comes last: sizes and steps for the tiny family on a CPU. The page's files are
links to that family's, and CLIPS holds a real clip where there is one (VIDEO_MEMORY_DATA, or ../shared/data).
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.clip import data_folder, write_frames
from demo.tiny_family.procedural import make_film
from memory_encoder.cli import main
from memory_encoder.training.run_files import facts_of, read_losses
from tests.launching import launched
from tools.environment import ROOT

from .test_training import variables

DATA = data_folder()
SIZE = "--width 64 --height 48 --fps 16"
WORDS = "--text-encoder demo.nodes.text_encoder:HashTextEncoder"
SMALLER = {
    "cache": f"{SIZE} --window-seconds 1.5 --rates 4x4x2,2x2x1 {WORDS}",
    "train": "--steps 2 --batch-size 2 --rank 4 --mixed-precision no",
    "evaluate": f"{SIZE} --frames 9 --steps 1 {WORDS}",
    "pack": "",
}
CARD = ROOT / "demo" / "tiny_family" / "README.md"
FAMILY = {"wan2.2_5b": "tiny_wan_host", "wan2.2_vae": "tiny_wan_vae"}


def commands(page: Path) -> list[list[str]]:
    """The commands of a page that are whole."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^python -m memory_encoder (.*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in found if "..." not in line]


def launches(page: Path) -> list[tuple[list[str], str]]:
    """How the page starts a command in several processes: options of the launcher, and which command."""
    found = re.findall(
        r"^accelerate launch (.*) --num_processes \d+ -m memory_encoder (\w+) \.\.\.$",
        page.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return [(shlex.split(how), command) for how, command in found]


def lines_of_card() -> list[list[str]]:
    """All that the card's blocks of commands say, what `vm` stands for left out, its aliases written out."""
    text = CARD.read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    lines = [shlex.split(line) for block in blocks for line in block.splitlines() if line]
    named = [line[1].partition("=") for line in lines if line[0] == "alias"]
    aliases = {"vm": [], **{name: shlex.split(meaning) for name, _, meaning in named}}
    found = []
    for line in (line for line in lines if line[0] != "alias"):
        while line[0] in aliases:
            line = [*aliases[line[0]], *line[1:]] if line[0] != "vm" else ["", *line[1:]]
        assert not line[0], f"{line} is no command of the card"
        found.append(line[1:])
    return found


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


def test_the_page_starts_several_processes_that_cache_as_one_does(comfy_environment: Any, trained: Path) -> None:
    """Its training in several processes is that of test_training and test_training_sharded."""
    launcher = pytest.importorskip("accelerate.commands.launch").launch_command_parser()
    page = ROOT / "docs" / "training.md"
    told = launches(page)
    assert [command for _, command in told] == ["train", "train", "cache"]
    for how, command in told:
        assert launcher.parse_args([*how, "-m", "memory_encoder", command]).module
    plain = {command[0]: command for command in reversed(commands(page))}  # the first of each
    (trained / "TWO").mkdir()
    for name in ("a", "b"):
        clip = next((trained / "CLIPS").iterdir())
        (trained / "TWO" / f"{name}{clip.suffix}").symlink_to(clip)
    others = {"CLIPS": "TWO", "DATA": "DATA2"}
    how = next(how for how, command in told if command == "cache")
    given = [others.get(word, word) for word in plain["cache"]] + shlex.split(SMALLER["cache"])
    done = subprocess.run(
        [sys.executable, *launched(*how), "-m", "memory_encoder", *given],
        env=variables(comfy_environment) | {"ACCELERATE_USE_CPU": "true"},
        cwd=trained,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(" windows of 2 clips") == 1  # by the last one to end its share


@pytest.mark.parametrize("number", [0, 1])
def test_of_several_processes_the_first_one_says_the_plan(
    trained: Path,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before they share a step, as the launcher starts each; what they agree on before is left as it is."""

    class Met(Exception):
        pass

    def meet(*_: Any) -> Any:
        raise Met

    monkeypatch.chdir(trained)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(number))
    monkeypatch.setattr("memory_encoder.training.run.least", lambda limits, *_: limits)
    monkeypatch.setattr("memory_encoder.training.run.Trainer", meet)
    given = f"--dataset DATA --dataset DATA --host wan2.2_5b.safetensors --stage retrieval {SMALLER['train']}"
    with pytest.raises(Met):
        main(["train", *shlex.split(f"{given} --out SEVERAL{number}")])
    said = capsys.readouterr().out + caplog.text
    for words in ("estimated memory", "on each of 2 devices", "datasets:", "no clip is held out"):
        assert (words in said) == (number == 0), words
    assert (trained / f"SEVERAL{number}" / "heldout.txt").exists() == (number == 0)


def test_every_command_of_the_card_can_be_copied_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own parser takes each, to the last word."""

    class Parsed(Exception):
        pass

    real = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *given: Any) -> Any:
        real(self, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    lines = lines_of_card()
    assert len(lines) > 30
    for module, *given in lines:
        assert not set("[]<>") & set("".join(given)) and not {"RATE", "CHANNELS", "RANK"} & set(given), given
        monkeypatch.setattr(sys, "argv", [module, *given])
        entry = importlib.import_module("memory_encoder.cli" if module == "memory_encoder" else module)
        with pytest.raises(Parsed):
            entry.main()


def test_the_commands_of_the_card_train_a_memory_at_2x2x1(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    for name, place in (("demo", ROOT / "demo"), ("REELS", trained / "DATA"), ("FILMS", trained / "DATA")):
        (trained / name).symlink_to(place)
    told = [given for module, *given in lines_of_card() if module == "memory_encoder" and "2x2x1" in "".join(given)]
    outs = [given[given.index("--out") + 1] for given in told]
    assert outs[:3] == ["ONE_2x2x1", "TWO_2x2x1", "THREE_2x2x1"]
    for given in told[:3]:
        assert main([*given, *shlex.split("--steps 2 --cooldown 1 --batch-size 2 --reconstruction 0")]) == 0
    facts = facts_of(trained / "THREE_2x2x1" / "encoder.safetensors")
    assert facts["stage"] == "continuation" and facts["rank"] == 64 and facts["shift"] == 3
