"""One training window as the trainer sees it, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...frames import first_frame
from ...storyboard import Storyboard
from .captions import prompt_at


@dataclass(frozen=True)
class Sample:
    """One window, taken for the beginning of a film. Times are seconds from the clip's beginning.

    hr [C,T,H,W]; lr: for each rate [C,t,h,w]. All float32, in the host's normalised space.
    """

    source: str
    start_seconds: float
    fps: float
    temporal: int
    captions: Storyboard | None
    hr: Tensor
    lr: Mapping[str, Tensor]

    @property
    def latents(self) -> int:
        return self.hr.shape[1]

    @property
    def prompt(self) -> str:
        """The caption nearest to the middle of the window; "" without captions."""
        return self.prompt_for(0, self.latents)

    def prompt_for(self, first: int, latents: int) -> str:
        """The caption nearest to the middle of the section of `latents` latents that starts at latent `first`."""
        return prompt_at(self.captions, (self.seconds_at(first) + self.seconds_at(first + latents)) / 2)

    def seconds_at(self, latent: int) -> float:
        """When a latent begins: latent 0 is one frame, every other one `temporal` frames."""
        return self.start_seconds + first_frame(latent, self.temporal) / self.fps


def collate(samples: Sequence[Sample], rates: Sequence[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
    """A batch of windows of one size: hr [B,C,T,H,W], and by rate the LR latents [B,C,t,h,w] of `rates`.

    A history that ends with a cell, after n latents, has the first `cells_for(n, stride)[0]` of them.
    """
    hr = torch.stack([sample.hr for sample in samples])
    return hr, {rate: torch.stack([sample.lr[rate] for sample in samples]) for rate in rates}
