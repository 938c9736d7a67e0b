"""The token counts of the paper's setting, every cell, and what the budget advises."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.budget import (
    GIB,
    HOSTS,
    HostShape,
    Plan,
    advice,
    changed_inputs,
    describe,
    disk,
    estimate,
    full_tokens,
    host_of_encoder,
    memory_fields,
    named_host,
)
from memory_encoder.cli import main
from memory_encoder.film.states import KeptStates, StateStore
from memory_encoder.memory.compressor import append_history
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder

from .test_compressor import CODEC

LARGE = {  # hosts with a VAE of 8x8: (floor, ceil) for 20 s at 24 fps, 832x480
    "4x4x2": (5460, 6240),
    "2x2x4": (11700, 11700),
    "2x2x2": (23400, 23400),
    "2x2x1": (46800, 46800),
    "2x2x8": (5850, 5850),
}
SMALL = {  # Wan 2.2 5B with a VAE of 16x16
    "4x4x2": (1080, 1680),
    "2x2x4": (2730, 3120),
    "2x2x2": (5460, 6240),
    "2x2x1": (10920, 12480),
    "2x2x8": (1365, 1560),
}
CELLS = [
    (host, rate, padding, counts[padding == "ceil"])
    for host, table in (("wan-14b", LARGE), ("hunyuan", LARGE), ("wan-5b", SMALL))
    for rate, counts in table.items()
    for padding in ("floor", "ceil")
]


def plan(host: str, **changes: object) -> Plan:
    values = {"width": 832, "height": 480, "fps": 24, "history_seconds": 20} | changes
    return Plan(host=HOSTS[host], **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("host", "rate", "padding", "expected"), CELLS)
def test_command_line_prints_the_token_counts_of_the_paper_setting(host, rate, padding, expected, capsys):
    arguments = f"tokens --host {host} --width 832 --height 480 --seconds 20 --fps 24 --rate {rate} --padding {padding}"
    assert main(arguments.split()) == 0
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(("host", "expected"), [("wan-14b", 187_200), ("hunyuan", 187_200), ("wan-5b", 46_800)])
def test_full_history_has_the_token_count_of_the_paper_setting(host, expected):
    assert full_tokens(plan(host), 20) == expected


def test_module_runs_as_a_command():
    command = [sys.executable, "-m", "memory_encoder", "tokens"]
    command += ["--host", "hunyuan", "--width", "832", "--height", "480"]
    command += ["--seconds", "20", "--fps", "24", "--rate", "4x4x2", "--padding", "floor"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stdout == "5460\n"


def test_the_settings_page_says_what_the_command_prints(capsys):
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    [words] = re.findall(r"python -m memory_encoder (budget .*)", text)
    for option, verb in (("--seconds 60", "gives"), ("--sliding-window 3", "sees")):
        said = rf"with `{option}`.*?{verb} ([\d,]+) tokens.*?([\d.]+ GiB) streamed"
        [(tokens, streamed)] = re.findall(said, text)
        assert main([*words.split(), *option.split()]) == 0
        printed = capsys.readouterr().out
        assert f" {tokens}" in printed and f"VRAM: {streamed} with streamed" in printed


def test_a_memory_of_several_rates_is_asked_for_rate_by_rate(capsys):
    words = "--host wan-14b --width 832 --height 480 --seconds 20 --fps 24 --rate 4x4x2 --rate 2x2x8"
    assert main(["tokens", *words.split()]) == 0 and capsys.readouterr().out == f"{6240 + 5850}\n"
    assert main(["budget", *words.split(), "--cached"]) == 0
    printed = capsys.readouterr().out
    assert "memory 4x4x2 + 2x2x8\n" in printed and "Cached keys and values" in printed
    assert "4,680 of them" in printed, "as the sampler has it unless it is told otherwise"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--width", "833", "multiple of 16; try 832"),
        ("--rate", "3x3x2", "power of two"),
        ("--rate", "fast", "HEIGHTxWIDTHxTIME"),
        ("--seconds", "-1", "seconds"),
        ("--fps", "0", "fps"),
    ],
)
def test_bad_plans_are_refused_with_the_cure(option, value, words, capsys):
    arguments = dict(
        zip(["--host", "--width", "--height", "--seconds", "--fps"], ["hunyuan", "832", "480", "20", "24"], strict=True)
    )
    arguments[option] = value
    assert main(["tokens", *(word for pair in arguments.items() for word in pair)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "words",
    [
        "budget --host hunyuan --width 832 --height 480 --seconds 20 --fps 24 --card-gib",
        "budget --host hunyuan --width 832 --height 480 --seconds 20 --fps 24 --bytes-per-weight",
        "train --stage retrieval --dataset nowhere --host nowhere --out nowhere --card-gib",
        "train --stage retrieval --dataset nowhere --host nowhere --out nowhere --learning-rate",
        "evaluate --clips nowhere --out nowhere --guidance",
        "evaluate --clips nowhere --out nowhere --history-guidance",
    ],
)
def test_what_is_no_number_is_refused_where_an_option_has_no_range_of_its_own(words, value, capsys):
    option = words.split()[-1]
    assert main([*words.split()[:-1], f"{option}={value}"]) == 2
    assert capsys.readouterr().err == f"error: {option} is {value}; give a finite number\n"


def test_plan_that_fits_needs_no_advice_and_one_that_does_not_says_what_to_change():
    fits = plan("wan-1.3b", fps=16, section_seconds=2)
    assert advice(fits, estimate(fits)) == []
    assert describe(fits, "wan-1.3b").endswith("Fits.")
    streams = plan("wan-14b")
    assert "streams" in advice(streams, estimate(streams))[0] and "GGUF" in advice(streams, estimate(streams))[0]
    small = plan("wan-14b", bytes_per_weight=0.6)
    assert "GGUF" not in advice(small, estimate(small))[0]
    close = plan("wan-5b", width=1280, height=704, card_gib=9)
    assert describe(close, "wan-5b").endswith("closely: close other programs.")
    too_large = plan("wan-14b", width=1920, height=1088)
    text = advice(too_large, estimate(too_large))[0]
    assert "section_seconds 2.5" in text and "1440x816" in text
    smaller = changed_inputs(too_large, estimate(too_large))
    assert (smaller["section_seconds"], smaller["width"], smaller["height"]) == (2.5, 1440, 816), "as numbers too"
    assert changed_inputs(fits, estimate(fits)) == changed_inputs(streams, estimate(streams)) == {}


@settings(deadline=None)
@given(seconds=st.floats(0, 86400), horizon=st.integers(1, 10**7), card=st.sampled_from([4, 8, 12, 24]))
def test_a_horizon_bounds_what_a_section_sees_and_the_advised_one_fits(seconds: float, horizon: int, card: int):
    long = plan("wan-14b", history_seconds=seconds, rates=("4x4x2", "2x2x8"), card_gib=card)
    seen = estimate(replace(long, horizon=horizon)).memory_tokens
    assert seen == min(horizon, estimate(long).memory_tokens)
    advised = re.search(r"a horizon of ([\d,]+) memory tokens", "".join(advice(long, estimate(long))))
    if advised:
        horizon = int(advised[1].replace(",", ""))
        assert estimate(replace(long, horizon=horizon)).least_bytes < card * GIB
        assert estimate(replace(long, horizon=horizon + 500)).least_bytes >= 0.9 * card * GIB


def test_a_horizon_is_advised_only_where_there_is_a_choice():
    ten_minutes = plan("wan-14b", fps=16, history_seconds=600)
    assert "horizon" in advice(ten_minutes, estimate(ten_minutes))[0]
    assert "horizon 20,000" in describe(replace(ten_minutes, horizon=20_000), "wan-14b")
    huge = plan("wan-14b", width=4096, height=4096)  # does not fit without a memory either
    assert "horizon" not in advice(huge, estimate(huge))[0]
    with pytest.raises(ValueError, match="horizon -1 must not be negative"):
        plan("wan-14b", horizon=-1)


def test_weights_that_fit_and_that_comfyui_may_still_leave_in_ram_are_named():
    tight, roomy = (plan("wan-14b", fps=16, bytes_per_weight=0.6, card_gib=card) for card in (13, 20))
    assert advice(tight, estimate(tight)) == [] and "of the weights in system RAM, though" in describe(tight, "wan-14b")
    assert "though all have room" not in describe(roomy, "wan-14b")
    assert estimate(tight).streamed_bytes(0) == estimate(tight).weight_bytes


@pytest.mark.parametrize("rate", ["1x1x1", "2x2x2", "4x4x2", "4x4x4", "8x8x2", "8x8x4"])
def test_a_compression_rate_is_advised_only_where_it_gives_fewer_tokens(rate):
    crowded = plan("wan-14b", rates=(rate,), history_seconds=3600, card_gib=2)
    now = estimate(crowded).memory_tokens
    found = re.findall(r"\d+x\d+x\d+", advice(crowded, estimate(crowded))[0])
    assert all(estimate(replace(crowded, rates=(other,))).memory_tokens < now for other in found), found
    assert bool(found) == (rate != "8x8x4")


def test_the_demos_film_fits_any_card():
    tiny = plan("tiny", width=128, height=96, fps=16, history_seconds=6, card_gib=2, bytes_per_weight=2)
    assert advice(tiny, estimate(tiny)) == []


def test_the_sliding_window_is_counted_beside_the_memory_and_said():
    bare, seen = (plan("wan-14b", fps=16, sliding_window=window) for window in (0, 3))
    more, less = estimate(seen), estimate(bare)
    assert more.memory_tokens == less.memory_tokens and more.window_tokens == 3 * 1560 and less.window_tokens == 0
    assert more.activation_bytes > less.activation_bytes and more.planned_bytes > less.planned_bytes
    assert f"each step sees {more.seen_tokens:,}, 4,680 of them in the last latents" in describe(seen, "wan-14b")
    cached = estimate(replace(seen, cached=True)).cache_bytes
    assert cached / estimate(replace(bare, cached=True)).cache_bytes == 1 + more.window_tokens / more.memory_tokens
    assert estimate(replace(seen, history_seconds=0)).window_tokens == 0, "a film begins without one"
    with pytest.raises(ValueError, match="sliding_window 9 must lie between 0 and 8"):
        plan("wan-14b", sliding_window=9)


@pytest.mark.parametrize("value", [0.0, -8.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["card_gib", "bytes_per_weight"])
def test_a_card_and_weights_of_no_size_are_refused(name: str, value: float):
    with pytest.raises(ValueError, match=rf"{name} {value:g} must be a finite number above 0"):
        plan("wan-14b", **{name: value})


def test_a_shorter_sliding_window_is_advised_only_where_the_plan_fits_with_it():
    many = [plan("wan-14b", fps=16, sliding_window=8, card_gib=card / 10) for card in range(40, 80)]
    texts = ["".join(advice(one, estimate(one))) for one in many]
    said = [re.search(r"sliding_window (\d)", text) for text in texts]
    assert len({found[1] for found in said if found}) > 3 and None in said
    for one, found in zip(many, said, strict=True):
        if found:
            fits = replace(one, sliding_window=int(found[1]))
            assert advice(fits, estimate(fits)) != advice(one, estimate(one))
            assert estimate(fits).least_bytes < one.card_gib * GIB <= estimate(one).least_bytes


def test_memory_of_several_rates_is_their_sum():
    both = plan("hunyuan", rates=("4x4x2", "2x2x8"), padding="floor")
    assert estimate(both).memory_tokens == 5460 + 5850


FRAMEPACK = EncoderConfig(
    "hunyuan", 3072, 16, "1@1x1x1+2@2x2x2+16@4x4x4", variant="recent", positions="pooled", section_latents=9,
    anchor=True, fill="zeros", history_timestep="same", section_start=20, picture_width=1152, start="picture",
)  # fmt: skip
HELIOS = EncoderConfig(
    "wan", 5120, 16, "1@1x1x1+2@2x2x2+16@4x4x4", variant="recent", positions="pooled", clips="section",
    section_latents=9, anchor=True, fill="zeros", history_timestep="zero", skips_text=True, start="zeros",
)  # fmt: skip
KEYFRAMES = EncoderConfig("wan", 5120, 16, variant="keyframes", clips="section", repeated_frames=5, max_pictures=8)


def planned(config: EncoderConfig, seconds: float = 5, history: float = 20, fps: float = 16) -> Plan:
    host, _ = host_of_encoder(config)
    memory = memory_fields([config], fps, seconds)
    return Plan(host=host, width=832, height=480, fps=fps, history_seconds=history, section_seconds=seconds, **memory)


@pytest.mark.parametrize("config", [FRAMEPACK, HELIOS, KEYFRAMES], ids=lambda config: config.variant + config.host)
def test_a_memory_that_the_sampler_gives_no_sliding_window_is_planned_without(config: EncoderConfig):
    assert memory_fields([config], 16, 5, 3)["sliding_window"] == 0
    assert memory_fields([EncoderConfig("wan", 5120, 16)], 16, 5, 3)["sliding_window"] == 3


FRAMEPACK_FILM = {"fps": 30, "section_seconds": 1.2} | memory_fields([FRAMEPACK], 30, 1.2)
STORYMEM_FILM = {"fps": 16} | memory_fields([KEYFRAMES], 16, 5)
TEMPLATES = {  # host, what is not at 832x480, and which of the budget's sizes the note says
    "02 Wan 2.2 5B": ("wan-5b", {"width": 1280, "height": 704}, 2),
    "03 Wan 2.2 14B": ("wan-14b", {"fps": 16}, 1),
    "04 HunyuanVideo": ("hunyuan", {"section_seconds": 3.0}, 1),
    "06 Guided film": ("wan-5b", {"width": 1280, "height": 704, "sliding_window": 3}, 2),
    "07 Cached and cross-attention": ("wan-5b", {"width": 1280, "height": 704, "cached": True}, 2),
    "17 FramePack-F1": ("hunyuan", FRAMEPACK_FILM, 1),
    "18 StoryMem": ("wan-14b", STORYMEM_FILM, 1),
    "19 StoryMem with references": ("wan-14b", STORYMEM_FILM, 1),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_says_the_sizes_of_the_budget(name: str):
    host, changes, count = TEMPLATES[name]
    result = estimate(plan(host, **changes))
    note = (Path(__file__).parents[2] / "workflows" / f"{name}.json").read_text(encoding="utf-8")
    said = re.findall(r"([\d.]+) GiB", note[note.index("**Size.**") :].partition("about ")[2])
    assert said == [f"{size / GIB:.1f}" for size in (result.least_bytes, result.whole_bytes)][:count]


@pytest.mark.parametrize("history", [0, 1, 20, 3600])
def test_history_of_published_models_has_as_many_tokens_however_long_the_film_is(history: float):
    framepack, helios = (estimate(planned(config, 1.2, history, 30)) for config in (FRAMEPACK, HELIOS))
    assert framepack.memory_tokens == 3926 + 729 and framepack.section_tokens == 14_040
    assert helios.memory_tokens == 3926 and helios.section_tokens == 14_040


@pytest.mark.parametrize("history", [0, 3600])
def test_whole_pictures_are_counted_as_latents_beside_the_section(history: float):
    result = estimate(planned(KEYFRAMES, 5, history))
    assert result.memory_tokens == 8 * 1560
    assert result.section_tokens == 22 * 1560, "81 frames, and five given ones take a latent more"
    bare = estimate(replace(planned(KEYFRAMES, 5, history), pictures=1))
    assert result.activation_bytes > bare.activation_bytes


def test_budget_says_what_a_memory_holds_and_advises_what_its_kind_can_change():
    text = describe(replace(planned(KEYFRAMES), card_gib=2), "wan-14b")
    assert "memory 8 whole pictures" in text and "fewer pictures (max_pictures 4)" in text
    assert "compression rate" not in text
    text = describe(replace(planned(FRAMEPACK, 5, fps=30), card_gib=2), "hunyuan")
    assert "memory 1@1x1x1+2@2x2x2+16@4x4x4 + 1 whole picture + 729 tokens of the first picture" in text
    assert "compression rate" not in text and "shorter sections" not in text and "a smaller picture" in text


@pytest.mark.parametrize("rate", ["4x4x2", "2x2x2", "2x2x1", "4x4x8"])
def test_disk_for_a_minute_is_what_a_film_leaves(rate: str, tmp_path: Path) -> None:
    """In small: a few sections of a host as wide as half of HunyuanVideo, at 320x192."""
    shape = HostShape(1536, 0.0, 4, 8, 1.0)
    made = Plan(shape, 320, 192, 16, 60, 2.5, (rate,))
    encoder = MemoryEncoder(EncoderConfig("hunyuan", 1536, 16, rate=rate, variant="without_lr"))
    states = KeptStates.of(StateStore(tmp_path), {})
    memory = VideoMemory.empty(encoder.config)
    with torch.inference_mode():
        encoder.reset_parameters(torch.Generator().manual_seed(0))
        encoder = encoder.to(torch.bfloat16)
        for number in range(5):
            x = torch.randn(1, 16, 10, 24, 40, generator=torch.Generator().manual_seed(number))
            append = partial(append_history, encoder, CODEC, memory, x, dtype=torch.bfloat16)
            memory = states.extended(memory, {"x": x}, append)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "memory").iterdir())][1:]  # the first has a short end
    assert disk(made).states == pytest.approx(24 * sum(sizes) / len(sizes), rel=0.1)
    assert disk(made).sections == 240 * 16 * 24 * 40 * 4
    assert "GB of what the memory keeps of them (kept_states)" in describe(made, "hunyuan")


def test_unknown_host_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="wan-14b"):
        named_host("sora")
