"""Batches of a cached dataset, the same for the same step, on however many processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ..phi.config import EncoderConfig
from .dataset.dataset import collate
from .dataset.mixture import Data
from .dataset.settings import DatasetError
from .dataset.text import EMPTY, stack
from .draws import generator_for
from .module import Batch
from .options import TrainOptions

Target = Callable[[int, int], tuple[int, int]]


class BatchSource(Protocol):
    """Where clips come from; the same arguments give the same clips."""

    def rows(self, step: int, first: int, last: int, kind: str, target: Target) -> Batch:
        """Rows first .. last-1 of step number `step`; kind is `train` or `heldout`.

        `target` says which latents (first, number) the text should speak of, of clips of a given length in a given row.
        """
        ...


class DatasetBatches:
    """Clips, LR latents at the encoders' rates, and the caption nearest to what the step asks for."""

    def __init__(
        self, dataset: Data, config: EncoderConfig, options: TrainOptions, others: Sequence[EncoderConfig] = ()
    ) -> None:
        """config, others: the encoders. Raises DatasetError when one does not fit or nothing is left to train on."""
        for each in (config, *others):
            dataset.check_encoder(each)
        self.options, self.all_rates = options, dataset.rates
        self.rates = tuple(dict.fromkeys(each.rate for each in (config, *others) if each.has_lr))
        self.splits = {"train": dataset.split("train"), "heldout": dataset.split("heldout")}
        if not len(self.splits["train"]):
            raise DatasetError("the dataset holds no window to train on; hold out less, or add clips")

    @property
    def identity(self) -> str:
        """What tells the windows that are trained on from others, for a run that goes on."""
        return self.splits["train"].identity

    @property
    def content(self) -> str:
        """What changes with what those windows hold, or with their captions."""
        return self.splits["train"].content

    @property
    def has_heldout(self) -> bool:
        return len(self.splits["heldout"]) > 0

    def rows(self, step: int, first: int, last: int, kind: str, target: Target) -> Batch:
        """See `trainer.BatchSource`."""
        split = self.splits[kind]
        chosen = split.draw(self.options.batch_size, generator_for(self.options.seed, kind, "clips", step))[first:last]
        samples = [split.sample(index) for index in chosen]
        hr, lr = collate(samples, self._rates(step, kind))
        dropout = self.options.caption_dropout if kind == "train" else 0.0
        texts, cuts = [], []
        for row, sample in enumerate(samples, first):
            kept = torch.rand((), generator=generator_for(self.options.seed, kind, "text", step, row)) >= dropout
            asked = target(hr.shape[2], row)
            texts.append(sample.text(sample.prompt_for(*asked) if kept else EMPTY))
            cuts.append(sample.is_cut(asked[0]))
        return Batch(hr, lr, stack(texts), tuple(cuts))

    def _rates(self, step: int, kind: str) -> tuple[str, ...]:
        """The encoders' rates; a host that is pretrained sees all rates of the dataset in turn."""
        if self.options.stage != "host":
            return self.rates
        place = torch.randint(len(self.all_rates), (), generator=generator_for(self.options.seed, kind, "rate", step))
        return (self.all_rates[int(place)],)
