"""Settings of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Stage = Literal["host", "retrieval", "continuation"]


@dataclass(frozen=True)
class TrainOptions:
    """What a run does.

    stage: retrieval (Eq. 3), continuation (Eq. 4), or host: plain flow matching without memory, for a small host of
    one's own. train_host: train all weights of the host instead of a LoRA; meant for hosts of a few million parameters.
    rank is the paper's (section 4.1). Learning rate, weight decay, warm-up, clipping, EMA, dropout of history and
    captions are not from the paper. batch_size counts clips of one step over all processes; accumulate steps of that
    size make one update. section: latents of the section that Stage II makes. corruption: highest level of noise on the
    history in Stage II. shift: of the timestep distribution.
    """

    stage: Stage = "retrieval"
    steps: int = 10_000
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 5e-5
    weight_decay: float = 1e-3
    warmup: int = 100
    clip: float = 1.0
    rank: int = 128
    ema: float = 0.999
    shift: float = 3.0
    seed: int = 0
    section: int = 8
    history_dropout: float = 0.1
    corruption: float = 0.0
    caption_dropout: float = 0.1
    mixed_precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool = False
    train_encoder: bool = True
    train_host: bool = False
    checkpoint_every: int = 200
    heldout_every: int = 100
    picture_every: int = 500

    def __post_init__(self) -> None:
        if self.stage not in get_args(Stage):
            raise ValueError(f"stage {self.stage!r} is unknown; choose {', '.join(get_args(Stage))}")
        if self.stage == "host" and not self.train_host:
            raise ValueError("stage host trains the host itself: set train_host")
        for name in ("steps", "batch_size", "accumulate", "rank", "section", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("history_dropout", "caption_dropout", "corruption", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} must lie between 0 and 1")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate {self.learning_rate} must be positive")

    def that_shape_the_run(self) -> dict[str, Any]:
        """Settings that a resumed run must share; how long and how often to report may change."""
        free = {"steps", "checkpoint_every", "heldout_every", "picture_every"}
        return {name: value for name, value in asdict(self).items() if name not in free}

    def rate_at(self, step: int) -> float:
        """Learning rate of step number `step`, counted from 0: a linear warm-up, then constant."""
        return self.learning_rate * min(1.0, (step + 1) / max(self.warmup, 1))
