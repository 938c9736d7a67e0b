"""The recipe: defaults that train what films ask for, presets, and equal names in command, node and docs."""

from __future__ import annotations

import argparse
import logging
import math
import re
import shlex
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from benchmarks.training_days import (
    REPORTED_HOST,
    REPORTED_TOKENS,
    RUNS,
    SECONDS_A_TOKEN,
    Run,
    days_table,
    tokens,
)
from memory_encoder.budget import HOSTS
from memory_encoder.cli import _parser
from memory_encoder.film.plan import PlanRequest
from memory_encoder.training.arguments import OPTIONS
from memory_encoder.training.options import EARLIER, HostDefaults, TrainOptions
from memory_encoder.training.presets import PRESETS, as_begun, preset_named, preset_table
from memory_encoder.training.train_command import options_from

ROOT = Path(__file__).resolve().parents[2]
GIVEN = ["train", "--dataset", "d", "--host", "h", "--out", "o"]
HOST = HostDefaults(shift=8.0, precision="bf16")


def parsed(*more: str, stage: str = "continuation") -> TrainOptions:
    return options_from(_parser().parse_args([*GIVEN, "--stage", stage, *more]))


def commands() -> list[argparse.ArgumentParser]:
    subparsers = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return list(subparsers.choices.values())


def test_by_default_the_sections_of_films_are_trained_at_the_shift_that_they_are_sampled_with() -> None:
    """Wan 2.2 5B at 24 fps: 25 seconds are 151 latents, 5 seconds are 30."""
    options = parsed().resolved(HOST, 24.0, 4, 151)
    assert options.section == 30 and options.shift == 8.0 and options.mixed_precision == "bf16"
    assert options.section / 6 == PlanRequest.__dataclass_fields__["section_seconds"].default
    assert options.window == 3 and options.window_share > 0 and options.clean_share > 0 and options.shorter_share > 0


def test_the_section_leaves_half_of_a_short_clip_to_the_history() -> None:
    assert parsed().resolved(HOST, 24.0, 4, 21).section == 10
    assert parsed("--section", "8").resolved(HOST, 24.0, 4, 9).section == 8
    assert parsed("--shift", "5", "--mixed-precision", "no").resolved(HOST, 16.0, 4, 400).shift == 5.0


def test_a_run_of_an_earlier_version_goes_on_by_the_command_that_began_it() -> None:
    begun = TrainOptions(stage="continuation").that_shape_the_run() | EARLIER
    del begun["shorter_share"]  # it had no such option
    resumed = parsed().going_on(begun)
    assert {name: getattr(resumed, name) for name in EARLIER} == EARLIER
    assert resumed.resolved(HOST, 24.0, 4, 151) == resumed


def test_what_is_asked_for_is_not_what_the_run_began_with() -> None:
    begun = TrainOptions(stage="continuation").that_shape_the_run() | EARLIER
    resumed = parsed("--shift", "5", "--window-share", "0.4").going_on(begun)
    assert resumed.shift == 5.0 and resumed.window_share == 0.4
    assert parsed().going_on({}) == parsed()
    # Another value than the old default was chosen, and a run of it is another run.
    assert parsed().going_on(begun | {"clean_share": 0.7}).clean_share == TrainOptions().clean_share


@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
def test_a_run_goes_on_by_its_preset_when_a_later_version_has_changed_it(
    stage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """By the command that began it; what stands in the command beside the preset comes first, and another preset is
    another recipe."""
    caplog.set_level(logging.INFO)
    now = parsed("--preset", "12gb-5b", stage=stage)
    assert now.preset == "12gb-5b" and as_begun(now, {}) == now
    begun = now.that_shape_the_run() | {"clean_share": 0.7, "learning_rate": 3e-5, "encoder_rate": 0.5}
    resumed = as_begun(now, begun)
    assert (resumed.clean_share, resumed.learning_rate, resumed.encoder_rate) == (0.7, 3e-5, 0.5)
    assert "clean_share stays 0.7, as the run began; preset 12gb-5b says 1.0 now" in caplog.text
    given = as_begun(parsed("--preset", "12gb-5b", "--clean-share", "0.9", stage=stage), begun)
    assert given.clean_share == 0.9 and given.learning_rate == 3e-5
    same = parsed("--preset", "12gb-5b", "--learning-rate", str(now.learning_rate), stage=stage)
    assert as_begun(same, begun, {"learning_rate"}).learning_rate == now.learning_rate, "asked for, though the preset's"
    cut = as_begun(now, begun | {"batch_size": 1, "accumulate": 4})  # for its card
    larger = as_begun(now, begun | {"batch_size": 4, "accumulate": 2})
    assert (cut.batch_size, cut.accumulate) == (4, 1) and (larger.batch_size, larger.accumulate) == (4, 2)
    other = parsed("--preset", "24gb-14b", stage=stage)
    assert as_begun(other, begun) == other and as_begun(replace(now, preset=""), begun).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip", 0.0),
        ("clip", -1.0),
        ("learning_rate", -1e-4),
        ("shift", math.nan),
        ("clip", math.inf),
        ("ema", math.nan),
    ],
)
def test_numbers_with_which_nothing_would_be_learned_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} {value} must"):
        TrainOptions(**{name: value})  # type: ignore[arg-type]


def test_gradient_checkpointing_may_be_turned_on_in_a_run_that_began_without() -> None:
    begun = TrainOptions(stage="continuation").that_shape_the_run() | EARLIER | {"gradient_checkpointing": False}
    assert parsed("--offload-inputs").going_on(begun).offload_inputs  # which needs it


def test_a_run_goes_on_with_the_section_that_its_first_card_had_room_for() -> None:
    begun = parsed().resolved(HOST, 24.0, 4, 151).that_shape_the_run() | {"section": 5}
    assert parsed().going_on(begun).section == 5


@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_made_of_options_and_what_is_given_beside_it_comes_first(name: str, stage: Any) -> None:
    options = parsed("--preset", name, stage=stage)
    chosen = preset_named(name).options(stage)
    assert {key: getattr(options, key) for key in chosen} == chosen
    other = parsed("--preset", name, "--rank", "7", "--steps", "50", "--no-per-clip", stage=stage)
    assert (other.rank, other.steps, other.per_clip) == (7, 50, False)
    assert other.cooldown == (10 if PRESETS[name].cools else 0)


@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
@pytest.mark.parametrize("name", ["12gb-5b", "24gb-14b", "24gb-14b-low"])
def test_the_presets_for_cards_are_the_recipe_of_the_tiny_familys_memories(name: str, stage: Any) -> None:
    """What a size of model does not change; 3,000 steps of reconstruction, at 1 and then 0.3 of the LoRA's rate."""
    tiny, card = (parsed("--preset", one, stage=stage) for one in ("tiny", name))
    shared = ("clean_share", "encoder_rate", "reconstruction")
    if stage == "continuation":
        shared += ("retrieval_share", "history_dropout", "window_share")
    assert {key: getattr(card, key) for key in shared} == {key: getattr(tiny, key) for key in shared}
    first = stage == "retrieval"
    assert (tiny.clean_share, tiny.encoder_rate, tiny.reconstruction) == (1.0, *((1.0, 3000) if first else (0.3, 0)))


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'huge' is unknown; choose paper, 12gb-5b"):
        preset_named("huge")


def test_the_table_of_presets_in_the_docs_is_that_of_the_code() -> None:
    assert preset_table() in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_days_in_the_docs_are_those_of_the_presets_own_draws() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert days_table() in text
    for run in RUNS:  # as the page says
        assert f"{run.host.parameters / REPORTED_HOST.parameters:.1f}" in ("1.0", "2.9", "2.6")
    assert f"is {1000 * SECONDS_A_TOKEN:.2f} ms a token" in text and f"({REPORTED_TOKENS:,} tokens" in text


def test_a_clip_has_in_the_mean_what_its_preset_draws() -> None:
    """Wan 2.2 5B: 390 tokens a latent, 28 of the memory for each two, of 150 latents."""
    first = Run("12gb-5b", HOSTS["wan-5b"], "retrieval", "")
    assert 76 * 28 + 2 * 390 < mean(tokens(first)) < 76 * 28 + 4 * 390  # Omega is one or two cells of two latents
    whole = {"shorter_share": 0.0, "retrieval_share": 0.0, "window_share": 1.0, "history_dropout": 0.0, "section": 8}
    made = list(tokens(Run("12gb-5b", HOSTS["wan-5b"], "continuation", "", options=whole)))
    assert (8 + 1) * 390 + 28 <= min(made) < max(made) <= (8 + 3) * 390 + 72 * 28
    without = mean(
        tokens(Run("12gb-5b", HOSTS["wan-5b"], "continuation", "", options=whole | {"history_dropout": 1.0}))
    )
    assert without == 8 * 390


def test_every_option_of_training_is_in_the_command_with_help() -> None:
    assert set(OPTIONS) | {"stage", "train_encoder", "preset"} == {field.name for field in fields(TrainOptions)}
    assert all(text.strip() for text in OPTIONS.values())


def test_every_option_of_every_command_has_help_and_says_its_default() -> None:
    for command in commands():
        for action in command._actions:
            where = f"{command.prog} {' '.join(action.option_strings)}"
            assert action.help and action.help != argparse.SUPPRESS, where
            if action.default not in (None, False, [], argparse.SUPPRESS):
                assert "default" in action.help, where
    train = next(command for command in commands() if command.prog.endswith("train"))
    helps = {action.dest: action.help or "" for action in train._actions}
    for name, value in asdict(TrainOptions()).items():
        if name in OPTIONS:
            shown = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
            assert f"(default {shown})" in helps[name], name


@pytest.mark.parametrize("page", ["docs/training.md", "demo/tiny_family/README.md"])
def test_the_commands_of_a_page_are_understood(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    found = 0
    for line in text.splitlines():
        match = re.match(r"(?:(?:python -m|vm) memory_encoder )?(train|cache|evaluate) (--.*)", line.strip())
        if match is None or "..." in line:
            continue
        given = re.sub(r"\[.*", "", match[2])
        given = re.sub(r"\b(?:BEGIN|RANK|STEPS[123]|COOL[12]?)\b", "9", given).replace("CHANNELS", "64,256")
        _parser().parse_args([match[1], *shlex.split(given)])
        found += 1
    assert found >= 3
