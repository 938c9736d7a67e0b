"""Trained memories that are published as LoRAs for Wan 2.2 I2V A14B, and what their files do not say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..phi.config import EncoderConfig


@dataclass(frozen=True)
class LoraKind:
    """A kind of published LoRA. trained: rank and scale of the released files, where they are known.

    picture_step: of the memory encoder that belongs to it (EncoderConfig), above 0 with the times of the film; None for
    a LoRA without a memory.
    left_out: how the names of tensors begin that are in its files and no part of its LoRA.
    """

    name: str
    licence: str
    called: str = ""
    trained: tuple[int, float] | None = None
    picture_step: int | None = None
    left_out: str = ""

    def encoder(self, width: int, five_frames: bool) -> EncoderConfig | None:
        """The memory encoder for a LoRA of a host of that width; five_frames: MM2V, a shot that goes on is given as
        many."""
        if self.picture_step is None:
            return None
        return EncoderConfig(
            host="wan",
            width=width,
            latent_channels=16,
            variant="keyframes",
            clips="section",
            repeated_frames=5 if five_frames else 1,
            picture_step=self.picture_step,
            film_times=self.picture_step > 0,
        )


RSLORA_128 = (128, 128 / 128**0.5)  # alpha / sqrt(rank)
KINDS = {
    kind.name: kind
    for kind in (
        LoraKind(
            "storymem",
            "StoryMem's weights: S-Lab License 1.0, for non-commercial use alone",
            r"storymem|m[im]2v",
            RSLORA_128,
            0,
        ),
        LoraKind(
            "memento",
            "Memento's weights: Apache-2.0, says its model card",
            r"memento",
            RSLORA_128,
            5,
            left_out="keyframe_query.",
        ),
        LoraKind("lora", "that of the file's authors; its model card names it"),
    )
}


def kind_of(path: Path) -> LoraKind:
    """The kind that the nearest name of a file and the folders around it speaks of, else a LoRA of no known kind."""
    names = [path.name, *(parent.name for parent in path.resolve().parents[:2])]
    known = [kind for kind in KINDS.values() if kind.called]
    spoken = (kind for name in names for kind in known if re.search(kind.called, name.lower()))
    return next(spoken, KINDS["lora"])
