"""What the protocol fixes: sizes, steps, and the rows of the tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from memory_encoder.evaluation.baselines import BEFORE, FLAT, LOW_RESOLUTION, THUMBNAIL
from memory_encoder.training.options import TrainOptions

RATES = ("4x4x2", "2x2x4", "2x2x2", "2x2x1")
SECONDS = (1, 2, 3, 4, 8)
FRAMEPACK, SLIDING_WINDOW, WHOLE = "1@1x1x1+2@2x2x2+16@4x4x4", "1@1x1x1", "21@1x1x1"
STEPS, CFG, SHIFT = 12, 2.5, 3.0
EFFORT = 4  # times the steps of the rows that train longer


@dataclass(frozen=True)
class Protocol:
    """Sizes of one reproduction. films, solo_films, reels: what is trained on. steps of the host and of both stages."""

    name: str
    films: int = 60
    solo_films: int = 120
    reels: int = 60
    width: int = 128
    heads: int = 4
    channels: tuple[int, ...] = (32, 64, 96, 128)
    rank: int = 32
    host_steps: int = 1200
    host_batch: int = 24
    first_steps: int = 400
    second_steps: int = 300
    batch: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)
    real_windows: int = 100  # at most
    retrieval_films: int = 8
    use_films: int = 16

    def host_options(self) -> TrainOptions:
        return TrainOptions(
            stage="host", train_host=True, optimizer="muon", steps=self.host_steps, batch_size=self.host_batch,
            learning_rate=1.5e-3, weight_decay=0.01, warmup=min(60, self.host_steps), cooldown=self.host_steps // 2,
            ema=0.998, section=4, context=0.8, coarse=0.5, before=0.5, aligned=0.5, caption_dropout=0.2,
            mixed_precision="bf16", gradient_checkpointing=False, shift=SHIFT, per_clip=False,
            heldout_every=200, checkpoint_every=100, picture_every=0,
        )  # fmt: skip

    def options(self, stage: str, steps: int, seed: int, **changed: Any) -> TrainOptions:
        """Options of a run of either stage."""
        options = TrainOptions(
            stage="retrieval", steps=steps, batch_size=self.batch, learning_rate=1e-3, encoder_rate=0.2, rank=self.rank,
            warmup=20, cooldown=steps // 2, ema=0.98, seed=seed, clean_share=0.5, caption_dropout=0.4,
            mixed_precision="bf16", gradient_checkpointing=False, shift=SHIFT, section=8, window_share=0.0,
            shorter_share=0.0, per_clip=False, heldout_every=0, checkpoint_every=200, picture_every=0,
        )  # fmt: skip
        if stage == "continuation":
            options = replace(
                options, stage="continuation", section=4, aligned=0.7, history_dropout=0.15, caption_dropout=0.15
            )
        return replace(options, **changed)


CPU = Protocol("cpu")
FULL = replace(
    CPU, name="full", films=250, solo_films=350, reels=130, width=256, channels=(64, 128, 256, 512), rank=40,
    host_steps=3000, first_steps=2000, second_steps=1500, batch=32,
)  # fmt: skip
QUICK = replace(
    CPU, name="quick", films=1, solo_films=1, reels=1, host_steps=2, host_batch=2, first_steps=2, second_steps=2,
    batch=2, seeds=(0,), real_windows=1, retrieval_films=1, use_films=1,
)  # fmt: skip
PROTOCOLS = {protocol.name: protocol for protocol in (CPU, FULL, QUICK)}


@dataclass(frozen=True)
class Row:
    """One row of a table: a memory and how it is trained.

    start: the row whose encoder and LoRA Stage II begins with; without one it begins anew, with the steps of both
    stages. memory: False for nothing beside the section. cross_attention: a branch from phi into every block. effort:
    how many times the protocol's steps it takes. changed: other options of its training.
    """

    name: str
    stage: str = "retrieval"
    rate: str = "4x4x2"
    variant: str = "proposed"
    start: str = ""
    memory: bool = True
    cross_attention: bool = False
    config: tuple[tuple[str, Any], ...] = ()
    random_output: bool = False
    history_timestep: str = "zero"
    effort: int = 1
    changed: tuple[tuple[str, Any], ...] = ()

    def steps(self, protocol: Protocol) -> int:
        if self.stage == "retrieval":
            return self.effort * protocol.first_steps
        return self.effort * (protocol.second_steps + (0 if self.start else protocol.first_steps))


PROPOSED = "Proposed 4x4x2"
TABLE_1 = (
    Row("Large Patchifier 4x4x2", variant="large_patchifier"),
    Row("Only LR 4x4x2", variant="only_lr"),
    Row("Without LR 4x4x2", variant="without_lr"),
    Row(PROPOSED),
    Row("Proposed 2x2x4", rate="2x2x4"),
    Row("Proposed 2x2x2", rate="2x2x2"),
    Row("Proposed 2x2x1", rate="2x2x1"),
    Row("Whole history", rate=WHOLE, variant="recent"),
)
ABLATIONS = (
    Row("Positions by index", config=(("positions", "index"),)),
    Row("Timestep of the section", history_timestep="same"),
    Row("Attention causal", config=(("attention", "causal"),)),
    Row("Attention full", config=(("attention", "full"),)),
    Row("Output not zero at first", random_output=True),
)
USE = (
    Row("Memory 4x4x2", "continuation", start=PROPOSED),
    Row("Memory 2x2x2", "continuation", rate="2x2x2", start="Proposed 2x2x2"),
    Row("Memory Only LR", "continuation", variant="only_lr", start="Only LR 4x4x2"),
    Row("Memory Without LR", "continuation", variant="without_lr", start="Without LR 4x4x2"),
    Row("Without Stage I", "continuation"),
    Row("Encoder frozen", "continuation", start=PROPOSED, changed=(("train_encoder", False),)),
    Row("Sliding window", "continuation", rate=SLIDING_WINDOW, variant="recent"),
    Row("FramePack's schedule", "continuation", rate=FRAMEPACK, variant="recent"),
    Row("Nothing", "continuation", rate=SLIDING_WINDOW, variant="recent", memory=False,
        changed=(("history_dropout", 1.0),)),
)  # fmt: skip
PLANNED = {row.name: row for row in (*TABLE_1, *ABLATIONS, *USE)}  # before the first run
# Pictures without a model that a memory has to beat; those that show as much as a memory are there for each rate.
BASELINE_ROWS = {
    "Flat colour": (FLAT, RATES[0]),
    "The frame before": (BEFORE, RATES[0]),
    **{f"Thumbnail {rate}": (THUMBNAIL, rate) for rate in RATES},
    **{f"LR picture {rate}": (LOW_RESOLUTION, rate) for rate in RATES},
}
BRANCHES = ("Only LR 4x4x2", "Without LR 4x4x2", PROPOSED)


def longer(name: str) -> Row:
    """The planned row with EFFORT times the steps, Stage I included."""
    row = PLANNED[name]
    return replace(row, name=f"{name} longer", start=row.start and f"{row.start} longer", effort=EFFORT)


LONGER = {name: longer(name) for name in (*BRANCHES, "Memory 4x4x2", "Without Stage I")}
FURTHER = {
    row.name: row
    for row in (
        *LONGER.values(),
        Row("Without Stage I 2x2x2", "continuation", rate="2x2x2"),
        Row("Cross-attention", cross_attention=True),
        Row("Cached memory", config=(("memory_attention", "cached"),)),
    )
}
ROWS = {**PLANNED, **FURTHER}
# What further rows are compared with: the same with fewer steps, the single branches, the plain memory, no Stage I.
PAIRS = (
    *((LONGER[name].name, name) for name in BRANCHES),
    *((LONGER[PROPOSED].name, LONGER[name].name) for name in BRANCHES[:2]),
    ("Cross-attention", PROPOSED),
    ("Cached memory", PROPOSED),
)
USE_PAIRS = (
    ("Memory 2x2x2", "Without Stage I 2x2x2"),
    ("Memory 4x4x2 longer", "Without Stage I longer"),
    ("Memory 4x4x2 longer", "Memory 4x4x2"),
    ("Without Stage I longer", "Without Stage I"),
)
