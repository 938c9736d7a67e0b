"""Settings of a training run."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

_LOG = logging.getLogger("video_memory")
Stage = Literal["host", "retrieval", "continuation"]
Precision = Literal["auto", "no", "bf16"]
SECTION_SECONDS = 5.0  # the Storyboard node's default
AUTOMATIC = ("shift", "section", "mixed_precision")  # where they are at their defaults: see `resolved`
EARLIER: dict[str, Any] = {  # defaults of 0.1.0 that are others now, and what it did where it had no option
    "shift": 3.0,
    "section": 8,
    "clean_share": 0.0,
    "window_share": 0.0,
    "shorter_share": 0.0,
    "per_clip": False,
    "mixed_precision": "no",
}
# How often a run reports and saves, and where weights and inputs wait: no loss follows from these.
REPORTS = frozenset({"checkpoint_every", "heldout_every", "picture_every", "keep_checkpoints", "max_skipped"})
NOT_LEARNED = REPORTS | {"resident_blocks", "offload_inputs"}


@dataclass(frozen=True)
class HostDefaults:
    """What a model itself says where options are automatic: the shift that core samples it with, and its precision."""

    shift: float = 3.0
    precision: Literal["no", "bf16"] = "no"


@dataclass(frozen=True)
class TrainOptions:
    """What a run does.

    stage: retrieval (Eq. 3), continuation (Eq. 4), or host: plain flow matching without memory, for a small host of
        one's own.
    train_host: train all weights of the host instead of a LoRA; meant for hosts of a few million parameters.
    batch_size, accumulate: clips of one step over all processes, and steps of that size that make one update.
    optimizer: muon moves the LoRA's matrices, or those of a host that is trained itself, AdamW all the rest. adamw8bit
        keeps its moments in 8 bits (bitsandbytes or torchao).
    encoder_rate: learning rate of the encoder as a share of the LoRA's; a step of AdamW moves wide convolutions more.
    warmup, cooldown: first steps in which the learning rate rises and last steps in which it falls to zero, linearly.
    rank: of the LoRA, the paper's (section 4.1).
    shift: of the timestep distribution; 0 for what the model is sampled with.
    min_t, max_t: range of the timestep, 1 for pure noise; the distribution is cut to it and keeps its shape inside. For
        experts: of Wan 2.2 14B the high-noise one samples above 0.875 (I2V 0.9), the other below.
    keep_checkpoints: of the last ones, how many stay.
    max_skipped: steps in a row whose loss or gradient is not finite, after which a run ends; each is left out.
    guidance: what a guidance-distilled host (HunyuanVideo) is told; core samples with 6 unless a node says otherwise.
    section: latents of the longest section that Stage II makes; 0 for what the sampler makes by default, 5 seconds, or
        less where clips or card have no room for it.
    shorter_share: share of Stage II's sections that have any smaller length, as those of short shots have.
    history_dropout: share of Stage II's steps without memory.
    corruption: highest level of noise on the history in Stage II, against drift.
    clean_share: share of retrieval steps that mask nothing, as it is when a film's memory is asked for its frames.
    retrieval_share: share of Stage II's steps that go on with retrieval, so that one encoder and one LoRA do both.
    window, window_share: the last `window` latents of the history stand uncompressed beside the memory in this share of
        Stage II's steps (paper section 4.5) but for aligned ones; in the others the memory is alone, as after a cut.
    reconstruction: steps before the first in which the encoder alone learns that its tokens hold their cells' latents,
        with no pass of the host; a few hundred save a good part of Stage I. Only at the beginning of a run.
    aligned: share of the sections that start where one of a film does, a whole number of sections after the first
        latent; in films whose shots have that length all but the first start with a cut. They see no sliding window.
    context: share of the steps of stage host that show other latents of the clip beside the section; a host trained so
        can read a memory before it has seen one.
    coarse: share of these that show the clip's LR latents at one of the dataset's rates, the whole clip or what comes
        before the section; the others show a random piece, uncompressed.
    before: share of these that end where the section starts, so that the host learns to use what it sees and not only
        to repeat it.

    per_clip: each clip of a batch has a task, an Omega or a history and a section, and dropout of its own, and a pass
        of the host of its own; otherwise all clips of a batch share them, and a pass, which is quicker for small hosts.
        Their length and size the clips of a batch share in any case.
    mixed_precision: auto is bf16 where the device computes in it.
    resident_blocks: blocks of the frozen host whose weights stay on the card; those of the others come from RAM when a
        block runs. -1 for all.
    offload_inputs: what gradient checkpointing keeps waits in RAM.
    ema_every: steps between updates of the averages.
    compile_blocks: torch.compile for each of the host's blocks.
    preset: name of the recipe that gave what was not asked for; changes nothing.

    Everything but rank and the two equations is not from the paper. The defaults train what the sampler asks for by
    default: a clean memory of everything, sections of all lengths up to 5 seconds, with and without a sliding window.
    """

    stage: Stage = "retrieval"
    steps: int = 10_000
    batch_size: int = 8
    accumulate: int = 1
    optimizer: Literal["adamw", "muon", "adamw8bit"] = "adamw"
    learning_rate: float = 5e-5
    encoder_rate: float = 1.0
    weight_decay: float = 1e-3
    warmup: int = 100
    cooldown: int = 0
    clip: float = 1.0
    rank: int = 128
    ema: float = 0.999
    shift: float = 0.0
    min_t: float = 0.0
    max_t: float = 1.0
    seed: int = 0
    section: int = 0
    history_dropout: float = 0.1
    corruption: float = 0.0
    clean_share: float = 0.5
    retrieval_share: float = 0.0
    window: int = 3
    window_share: float = 0.25
    aligned: float = 0.0
    context: float = 0.0
    coarse: float = 0.0
    before: float = 0.5
    caption_dropout: float = 0.1
    guidance: float = 6.0
    mixed_precision: Precision = "auto"
    gradient_checkpointing: bool = True
    train_encoder: bool = True
    train_host: bool = False
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    max_skipped: int = 5
    heldout_every: int = 100
    picture_every: int = 500
    shorter_share: float = 0.5
    resident_blocks: int = -1
    offload_inputs: bool = False
    ema_every: int = 1
    per_clip: bool = True
    reconstruction: int = 0
    compile_blocks: bool = False
    preset: str = ""

    def __post_init__(self) -> None:
        if self.stage not in get_args(Stage):
            raise ValueError(f"stage {self.stage!r} is unknown; choose {', '.join(get_args(Stage))}")
        if self.stage == "host" and not self.train_host:
            raise ValueError("stage host trains the host itself: set train_host")
        if self.resident_blocks >= 0 and self.train_host:
            raise ValueError("resident_blocks streams a frozen host's weights: leave it out with train_host")
        if self.offload_inputs and not self.gradient_checkpointing:
            raise ValueError("offload_inputs is for what gradient checkpointing keeps: set gradient_checkpointing")
        kept = ("checkpoint_every", "keep_checkpoints", "max_skipped")
        for name in ("steps", "batch_size", "accumulate", "rank", "window", "ema_every", *kept):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("section", "shift"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive, or 0 for the model's own")
        if self.reconstruction < 0:
            raise ValueError(f"reconstruction {self.reconstruction} must be a number of steps, or 0 for none")
        shares = ("history_dropout", "caption_dropout", "corruption", "clean_share", "retrieval_share", "context")
        for name in (*shares, "window_share", "shorter_share", "coarse", "aligned", "before", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} must lie between 0 and 1")
        if not 0 <= self.min_t < self.max_t <= 1:
            raise ValueError(f"min_t {self.min_t}, max_t {self.max_t} is no range: give 0 <= min_t < max_t <= 1")
        for name in ("learning_rate", "encoder_rate", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")
        for name, value in asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} {value} must be a finite number")

    def that_shape_the_run(self) -> dict[str, Any]:
        """Settings that a resumed run must share; how long and how often to report may change."""
        free = NOT_LEARNED | {"steps", "cooldown"}
        return {name: value for name, value in asdict(self).items() if name not in free}

    def going_on(self, begun: Mapping[str, Any]) -> TrainOptions:
        """These options for a run that was begun with others, so that it goes on by the command that it was begun with.

        What is automatic is as it was then, and what is at its default is as it was where the default was another one.
        begun: what `that_shape_the_run` gave then; empty for a new run.
        """
        kept: dict[str, Any] = {}
        for name, earlier in EARLIER.items() if begun else ():
            mine, default, then = getattr(self, name), _default(name), begun.get(name, earlier)
            if mine != default or then == mine:
                continue
            if name in AUTOMATIC:
                kept[name] = then
            elif then == earlier:
                kept[name] = then
                _LOG.info("%s stays %s, as the run began; by default it is %s now", name, then, default)
        return replace(self, **kept)

    def resolved(self, host: HostDefaults, fps: float, temporal: int, latents: int) -> TrainOptions:
        """These options with numbers for what is automatic, for clips of up to `latents` latents.

        fps, temporal: frames a second and frames a latent of the clips.
        """
        sampled = latents_sampled(fps, temporal)
        return replace(
            self,
            shift=self.shift or host.shift,
            mixed_precision=host.precision if self.mixed_precision == "auto" else self.mixed_precision,
            section=self.section or max(1, min(sampled, latents // 2)),
        )

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step number `step`, counted from 0: linear up, constant, linear down."""
        up, down = (step + 1) / max(self.warmup, 1), (self.steps - step) / max(self.cooldown, 1)
        return self.learning_rate * min(1.0, up, down)


def latents_sampled(fps: float, temporal: int) -> int:
    """Latents of the section that the sampler makes by default."""
    return max(1, math.ceil(SECTION_SECONDS * fps / temporal - 1e-6))


def _default(name: str) -> Any:
    return next(field.default for field in fields(TrainOptions) if field.name == name)
