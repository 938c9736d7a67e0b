"""Batches of a cached dataset, the same for the same step, on however many processes."""

from __future__ import annotations

import torch

from ..config import EncoderConfig
from .dataset import MemoryDataset
from .draws import generator_for
from .listener import Target
from .module import Batch
from .options import TrainOptions
from .sample import collate
from .settings import DatasetError
from .text import EMPTY, stack


class DatasetBatches:
    """Clips, LR latents at the encoder's rate, and the caption nearest to what the step asks for."""

    def __init__(self, dataset: MemoryDataset, config: EncoderConfig, options: TrainOptions) -> None:
        """Raises DatasetError when the dataset does not fit the encoder or has nothing to train on."""
        dataset.check_encoder(config)
        self.rates = dataset.rates
        self.options, self.rate = options, config.rate if config.has_lr else None
        self.splits = {"train": dataset.split("train"), "heldout": dataset.split("heldout")}
        if not len(self.splits["train"]):
            raise DatasetError("the dataset holds no window to train on; hold out less, or add clips")

    @property
    def has_heldout(self) -> bool:
        return len(self.splits["heldout"]) > 0

    def rows(self, step: int, first: int, last: int, kind: str, target: Target) -> Batch:
        """See `trainer.BatchSource`."""
        split = self.splits[kind]
        chosen = split.draw(self.options.batch_size, generator_for(self.options.seed, kind, "clips", step))[first:last]
        samples = [split.sample(index) for index in chosen]
        rate = self._rate(step, kind)
        hr, lr = collate(samples, rate)
        dropout = self.options.caption_dropout if kind == "train" else 0.0
        texts = []
        for row, sample in enumerate(samples, first):
            kept = torch.rand((), generator=generator_for(self.options.seed, kind, "text", step, row)) >= dropout
            texts.append(split.conditioning(sample.prompt_for(*target(hr.shape[2])) if kept else EMPTY))
        return Batch(hr, lr, stack(texts), rate)

    def _rate(self, step: int, kind: str) -> str | None:
        """The encoder's rate; a host that is pretrained sees all rates of the dataset in turn."""
        if self.options.stage != "host":
            return self.rate
        place = torch.randint(len(self.rates), (), generator=generator_for(self.options.seed, kind, "rate", step))
        return self.rates[int(place)]
