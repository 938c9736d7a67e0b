"""benchmarks/README.md shows what its results hold."""

from __future__ import annotations

import json

import pytest

from benchmarks import lr_vae, recall_guidance
from benchmarks.readme import BLOCK, PAGE, RESULTS, long_film, page, resumed
from benchmarks.report import text
from benchmarks.training_step import apart
from demo.tiny_family.clips import HELD_OUT
from demo.tiny_family.install import RATES
from memory_encoder.training.arguments import GUIDANCE

TRAINING = "training_step_2-core"
NAMES = sorted(path.stem for path in RESULTS.glob("step_time-*.json"))


def test_the_page_is_made_of_the_results() -> None:
    shown = PAGE.read_text(encoding="utf-8")
    assert page(shown) == shown, "python tools/environment.py run -m benchmarks.readme"


def test_every_run_is_shown() -> None:
    marks = [match[2] for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
    assert len(NAMES) >= 6 and sorted(marks) == sorted([*NAMES, TRAINING, "long_film", "lr_vae", "resume"])


def test_what_saves_memory_or_time_changes_a_run_less_than_chance_does() -> None:
    ways = json.loads((RESULTS / f"{TRAINING}.json").read_text(encoding="utf-8"))["ways"]
    losses = {way["way"]: way["losses"] for way in ways}
    plain = losses["plain"]
    by_chance = apart(losses["another seed"], plain)
    names = ("--mixed-precision bf16, fp8 host", "bf16 host of the fp8 host's values")
    fp8, its_values = (losses.pop(way) for way in names)
    assert fp8 == its_values and apart(fp8, plain) < by_chance * 2 / 3  # another host, whose weights are rounded
    of_other_steps = ("plain", "another seed", "--per-clip")
    remedies = {way: apart(found, plain) for way, found in losses.items() if way not in of_other_steps}
    assert len(remedies) >= 9 and max(remedies.values()) < by_chance / 3, remedies


@pytest.mark.parametrize("name", NAMES)
def test_another_result_is_another_table(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    shown = text(result)
    for row in result["rows"]:
        row["tokens"] += 1
    assert text(result) != shown and result["date"][:10] in shown


def test_a_film_that_grows_and_a_second_run_that_computes_are_said() -> None:
    run = {name: [float(n) for n in range(100)] for name in ("rss_mib", "files", "append_s", "read_s")} | {"cpu_s": 8.0}
    column = {"runs": {"first": run, "second": run | {"cpu_s": 2.0}}}
    table = long_film({"loop_before": column, "loop": column})
    assert "| 15 to 95 MiB | 15 to 95 MiB |" in table and table.endswith("| 25.0 % | 25.0 % |")
    said = {"sections": 4, "first": {"all": 9e9, "sampling": 2e9}, "second": {"all": 1e9, "sampling": 0}, "ratio": 0.5}
    assert "1.000 in a second one that reuses all: 0.5000" in resumed(said)


def test_what_a_small_vae_costs_is_a_mean_over_clips_and_an_error_over_seeds() -> None:
    values = {"psnr": 20.0, "ssim": 0.5, "edges": 0.25, "shown": 30.0}
    clips = [{"vae": values, "small": values}, {"vae": values, "small": values | {"psnr": 16.0}}]
    better = [{"vae": values, "small": values | {"psnr": 22.0}}] * 2
    facts = {"rate": "2x2x1", "frames": 49, "films": 4}
    one = lr_vae.table(facts | {"seeds": 1, "clips": lr_vae.summary({"real": [clips]})})
    assert "one seed" in one and "| real | a small VAE | 30.0 | 18.00 | 0.500 | 0.250 |" in one
    two = lr_vae.table(facts | {"seeds": 2, "clips": lr_vae.summary({"real": [clips, better]})})
    assert (
        "| real | a small VAE | 30.0 | 20.00 ± 2.00 |" in two
        and "| real | the model's own VAE |  | 20.00 ± 0.00" in two
    )


def test_the_weight_of_recall_is_better_than_none_at_the_steps_and_at_the_passes_of_evaluate() -> None:
    """On clips and films other than those that the family's tables are measured on. Six guided steps are as many passes
    as twelve plain ones."""
    result = json.loads((RESULTS / "recall_guidance.json").read_text(encoding="utf-8"))
    assert (RESULTS / "recall_guidance.md").read_text(encoding="utf-8") == recall_guidance.report(result)
    rows = {(row["rate"], row["group"], row["steps"], row["weight"]): row for row in result["rows"]}
    assert len(rows) == len(RATES) * 2 * len(recall_guidance.WAYS)
    assert not set(result["clips"]["real"]) & set(HELD_OUT)
    for rate, group in {row[:2] for row in rows}:
        for steps in (6, 12):
            for measure in ("psnr", "ssim", "edges", "identified"):
                plain, guided = (
                    rows[rate, group, 12, 1][measure]["mean"],
                    rows[rate, group, steps, GUIDANCE][measure]["mean"],
                )
                one = 0.025  # a frame of the forty that are asked for
                better = guided >= plain - one if measure == "identified" else guided > plain
                assert better, (rate, group, steps, measure)
