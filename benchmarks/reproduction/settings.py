"""What the protocol fixes: sizes, steps, and the rows of the tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from memory_encoder.evaluation.baselines import BEFORE, EQUAL_NUMBERS, FLAT, LOW_RESOLUTION, LR_LATENTS, THUMBNAIL
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.presets import PRESETS

RATES = ("4x4x2", "2x2x4", "2x2x2", "2x2x1")
SECOND_RATE = "2x2x8"  # beside 4x4x2
SECONDS = (1, 2, 3, 4, 8)
FRAMEPACK, SLIDING_WINDOW, WHOLE = "1@1x1x1+2@2x2x2+16@4x4x4", "1@1x1x1", "21@1x1x1"
CFG = 2.5
RECIPE = PRESETS["tiny"]
# As the preset was when the protocol was written; what it has since (Muon, a longer beginning) is another recipe.
THEN: dict[str, dict[str, Any]] = {
    "retrieval": {"optimizer": "adamw", "reconstruction": 300},
    "continuation": {"optimizer": "adamw", "learning_rate": 2e-3},
}
SHARES = (("reels", 0.35), ("films", 0.65))  # of the clips of Stage II


@dataclass(frozen=True)
class Protocol:
    """Sizes of one reproduction. films, solo_films, reels: what is trained on. steps of both stages."""

    name: str
    films: int = 60
    solo_films: int = 60
    reels: int = 200
    channels: tuple[int, ...] = (48, 128, 256)
    first_steps: int = 1500
    second_steps: int = 1200
    seeds: tuple[int, ...] = (0, 1, 2)
    real_windows: int = 100  # at most
    retrieval_films: int = 8
    use_films: int = 16
    drawing_steps: int = 12

    def options(self, row: Row, seed: int) -> TrainOptions:
        """Of a row's run: the recipe of the tiny family, without the sliding window that nothing is measured with."""
        steps = row.steps(self)
        recipe = RECIPE.options(row.stage, steps) | THEN[row.stage] | {"window_share": 0.0}
        recipe["reconstruction"] = min(recipe.get("reconstruction", 0), steps)
        quiet = {"heldout_every": 0, "checkpoint_every": 200, "picture_every": 0}
        return TrainOptions(**{"stage": row.stage, "seed": seed, **recipe, **quiet, **dict(row.changed)})


CPU = Protocol("cpu")
FULL = replace(
    CPU, name="full", films=250, solo_films=350, reels=400, channels=(64, 128, 256), first_steps=6000, second_steps=5000
)
QUICK = replace(
    CPU, name="quick", films=1, solo_films=1, reels=1, first_steps=2, second_steps=2, seeds=(0,), real_windows=1,
    retrieval_films=1, use_films=1, drawing_steps=2,
)  # fmt: skip
PROTOCOLS = {protocol.name: protocol for protocol in (CPU, FULL, QUICK)}


@dataclass(frozen=True)
class Row:
    """One row of a table: a memory and how it is trained.

    start: the row whose encoder Stage II begins with; without one it begins with a new one. others: rates of further,
    new encoders beside it. memory: False for nothing beside the section. cross_attention: a branch from phi into every
    block. cached: memory tokens as keys and values alone. changed: other options of its training.
    """

    name: str
    stage: Literal["retrieval", "continuation"] = "retrieval"
    rate: str = "4x4x2"
    variant: str = "proposed"
    start: str = ""
    others: tuple[str, ...] = ()
    memory: bool = True
    cross_attention: bool = False
    cached: bool = False
    changed: tuple[tuple[str, Any], ...] = ()

    def steps(self, protocol: Protocol) -> int:
        return protocol.first_steps if self.stage == "retrieval" else protocol.second_steps


PROPOSED, FINEST = "Proposed 4x4x2", "Proposed 2x2x1"
TABLE_1 = (
    Row("Large Patchifier 4x4x2", variant="large_patchifier"),
    Row("Only LR 4x4x2", variant="only_lr"),
    Row("Without LR 4x4x2", variant="without_lr"),
    Row(PROPOSED),
    Row("Proposed 2x2x4", rate="2x2x4"),
    Row("Proposed 2x2x2", rate="2x2x2"),
    Row(FINEST, rate="2x2x1"),
    Row("Whole history", rate=WHOLE, variant="recent"),
)
# What only the last latents are given to has no frames of before to give back: all of its steps go on with a film.
LAST: Any = {"stage": "continuation", "variant": "recent"}
USE = (
    Row("Memory 2x2x1", "continuation", rate="2x2x1", start=FINEST),
    Row("Memory 2x2x2", "continuation", rate="2x2x2", start="Proposed 2x2x2"),
    Row("Memory 4x4x2", "continuation", start=PROPOSED),
    Row("Two rates", "continuation", start=PROPOSED, others=(SECOND_RATE,)),
    Row("Cross-attention", "continuation", rate="2x2x1", start=FINEST, cross_attention=True),
    Row("Cached memory", "continuation", rate="2x2x1", start=FINEST, cached=True),
    # A new encoder learns at the LoRA's own rate, as in Stage I; the others have learned already.
    Row("Without Stage I", "continuation", rate="2x2x1", changed=(("encoder_rate", 1.0),)),
    Row("Sliding window", **LAST, rate=SLIDING_WINDOW, changed=(("retrieval_share", 0.0),)),
    Row("FramePack's schedule", **LAST, rate=FRAMEPACK, changed=(("retrieval_share", 0.0),)),
    Row("Nothing", **LAST, rate=SLIDING_WINDOW, memory=False,
        changed=(("retrieval_share", 0.0), ("history_dropout", 1.0))),
)  # fmt: skip
ROWS = {row.name: row for row in (*TABLE_1, *USE)}
# Encoders of the same form that learned nothing, through the LoRA of the row of their rate.
UNTRAINED = {rate: f"Untrained {rate}" for rate in RATES}
# Pictures without a model that a memory has to beat; those that show as much as a memory are there for each rate.
BASELINE_ROWS = {
    "Flat colour": (FLAT, RATES[0]),
    "The frame before": (BEFORE, RATES[0]),
    **{f"Thumbnail {rate}": (THUMBNAIL, rate) for rate in RATES},
    **{f"Equal thumbnail {rate}": (EQUAL_NUMBERS, rate) for rate in RATES},
    **{f"LR picture {rate}": (LOW_RESOLUTION, rate) for rate in RATES},
    **{f"LR latents {rate}": (LR_LATENTS, rate) for rate in RATES},
}
