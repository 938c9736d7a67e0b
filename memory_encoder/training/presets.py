"""Whole recipes by name: what fits a card, a model and a stage. One table for the command, the node and the docs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..frames import TEMPORAL, latents_in
from .options import Stage, TrainOptions, latents_sampled

_LOG = logging.getLogger("video_memory")
COOLDOWN = 0.2  # of the steps


@dataclass(frozen=True)
class Preset:
    """Options of both stages, those of Stage I (retrieval) alone and of Stage II (continuation) alone.

    purpose: for whom it is. model: what it is meant for. steps: of each stage. size, fps, seconds: of the windows that
    its clips are cached in, width and height in pixels; fps_note: what else may be. cools: whether the learning rate
    falls to zero over the last fifth of the steps.
    """

    name: str
    purpose: str
    model: str
    steps: int
    both: Mapping[str, Any]
    retrieval: Mapping[str, Any] = field(default_factory=dict)
    continuation: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (832, 480)
    fps: float = 24
    seconds: float = 25
    fps_note: str = ""
    cools: bool = True

    @property
    def data(self) -> str:
        """How to cache clips for it."""
        width, height = self.size
        return f"{width}x{height}, {self.fps:g} fps{self.fps_note}, windows of {self.seconds:g} s"

    @property
    def window(self) -> int:
        """Latents of a window."""
        return latents_in(round(self.seconds * self.fps))

    @property
    def section(self) -> int:
        """Latents of the longest section that is trained where none is asked for."""
        return latents_sampled(self.fps, TEMPORAL)

    def options(self, stage: Stage, steps: int | None = None) -> dict[str, Any]:
        """Fields of TrainOptions for a stage, the steps and what follows from them among them."""
        own = {"retrieval": self.retrieval, "continuation": self.continuation}.get(stage, {})
        steps = steps or self.steps
        cooldown = {"cooldown": int(steps * COOLDOWN)} if self.cools else {}
        return {"steps": steps, **cooldown, **self.both, **own}


# What the tiny family's memories were trained with (demo/tiny_family/README.md), in what a size does not change.
TRIED: dict[str, Any] = {"clean_share": 1.0}
TRIED_ONE: dict[str, Any] = {"reconstruction": 3000, "encoder_rate": 1.0}
TRIED_TWO: dict[str, Any] = {
    "encoder_rate": 0.3,
    "retrieval_share": 0.4,
    "history_dropout": 0.1,
    "window_share": 0.25,
}
# The same at the optimizer and learning rate of a LoRA of a large model, which nobody has tried.
FILMS: dict[str, Any] = {
    **TRIED,
    "rank": 128,
    "learning_rate": 1e-4,
    "mixed_precision": "bf16",
    "gradient_checkpointing": True,
    "offload_inputs": True,  # with these two, sections of 5 seconds have room, and no loss changes
    "resident_blocks": 0,
}
FILMS_TWO: dict[str, Any] = {**TRIED_TWO, "shorter_share": 0.5}
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "paper",
            "the paper's run, as far as it is written: eight cards of 80 GB",
            "HunyuanVideo or Wan 2.1 14B, bf16",
            100_000,
            {
                "batch_size": 64, "rank": 128, "learning_rate": 5e-5, "encoder_rate": 1.0, "clean_share": 0.0,
                "mixed_precision": "bf16", "gradient_checkpointing": True,
            },
            continuation={
                "section": 3, "retrieval_share": 0.0, "history_dropout": 0.1, "window_share": 0.0, "shorter_share": 0.0,
            },
            fps_note=" (Wan 14B: 16)",
            cools=False,
        ),
        Preset(
            "12gb-5b",
            "one card of 12 GB",
            "Wan 2.2 5B, fp8",
            10_000,
            {**FILMS, "batch_size": 4},
            retrieval=TRIED_ONE,
            continuation=FILMS_TWO,
        ),
        Preset(
            "24gb-14b",
            "one card of 24 GB",
            "Wan 2.2 T2V 14B, high-noise expert (I2V: --min-t 0.9), fp8",
            5_000,
            {**FILMS, "batch_size": 4, "min_t": 0.875, "max_t": 1.0},
            retrieval=TRIED_ONE,
            continuation=FILMS_TWO,
            fps=16,
        ),
        Preset(
            "24gb-14b-low",
            "the same card",
            "Wan 2.2 T2V 14B, low-noise expert (I2V: --max-t 0.9), fp8",
            5_000,
            {**FILMS, "batch_size": 4, "min_t": 0.0, "max_t": 0.875},
            retrieval=TRIED_ONE,
            continuation=FILMS_TWO,
            fps=16,
        ),
        Preset(
            "tiny",
            "a memory of the tiny family, on a CPU",
            "tiny_wan_host of demo/tiny_family, with --channels 64,256 at 2x2x1 and 48,128,256 at 2x2x2",
            2000,
            {
                **TRIED, "batch_size": 4, "rank": 64, "optimizer": "muon", "learning_rate": 3e-3, "shift": 3.0,
                "warmup": 30, "ema": 0.995, "caption_dropout": 0.5, "mixed_precision": "bf16",
                "gradient_checkpointing": False, "per_clip": False,
            },
            # Where noise hides all else, the memory alone can tell.
            retrieval={**TRIED_ONE, "shift": 30.0},
            continuation={
                **TRIED_TWO, "section": 4, "aligned": 0.7, "caption_dropout": 0.2, "shorter_share": 0.0, "ema": 0.99,
            },
            size=(128, 96),
            fps=16,
            seconds=5,
        ),
    )
}  # fmt: skip


def preset_named(name: str) -> Preset:
    """Raises ValueError that lists the names."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; choose {', '.join(PRESETS)}")
    return PRESETS[name]


def as_begun(options: TrainOptions, begun: Mapping[str, Any], given: Collection[str] = ()) -> TrainOptions:
    """These options for a run that was begun by the same preset with something else than it says now: as it was then.

    begun: what `that_shape_the_run` gave then; empty for a new run. given: options that were asked for by name, which
    are as asked for.
    """
    if not options.preset or begun.get("preset") != options.preset:
        return options
    kept = {}
    said = {"accumulate": 1, **preset_named(options.preset).options(options.stage, options.steps)}
    if begun["batch_size"] * begun["accumulate"] == options.batch_size * options.accumulate:
        said = {name: now for name, now in said.items() if name not in ("batch_size", "accumulate")}  # only cut
    for name, now in said.items():
        if name not in given and getattr(options, name) == now != begun.get(name, now):
            kept[name] = begun[name]
            _LOG.info("%s stays %s, as the run began; preset %s says %s now", name, begun[name], options.preset, now)
    return replace(options, **kept)


def preset_table() -> str:
    """The presets as a Markdown table, for docs/training.md."""
    rows = ["| preset | for | model | clips | steps of a stage | clips a step |", "|---|---|---|---|---|---|"]
    for preset in PRESETS.values():
        facts = (preset.purpose, preset.model, preset.data, f"{preset.steps:,}", str(preset.both["batch_size"]))
        rows.append(f"| `{preset.name}` | " + " | ".join(facts) + " |")
    return "\n".join(rows)
