"""Core's progress bars and previews; each stops when the user cancels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import comfy.utils
import latent_preview
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from ...memory_encoder.training.dataset.clips import Progress


def stop_if_interrupted() -> None:
    mm.throw_exception_if_processing_interrupted()


def stop_searching() -> None:
    """Raises InterruptedError when the user cancels, and leaves it to the run to say so."""
    if mm.processing_interrupted():
        raise InterruptedError


class FilmProgress:
    """One progress bar over all sections, with core's latent preview of the section being sampled."""

    def __init__(self, model: Any, sections: int, steps: int) -> None:
        self.previewer = latent_preview.get_previewer(model.load_device, model.get_model_object("latent_format"))
        self.steps, self.total, self.done = steps, sections * steps, 0
        self.bar = comfy.utils.ProgressBar(self.total)

    def step(self, index: int, denoised: Tensor, _x: Tensor, _total: int) -> None:
        stop_if_interrupted()
        preview = self.previewer.decode_latent_to_preview_image("JPEG", denoised) if self.previewer else None
        self.bar.update_absolute(min(self.done + index + 1, self.total), self.total, preview)

    def advance(self, steps: int) -> None:
        self.done += steps
        self.bar.update_absolute(min(self.done, self.total), self.total)


class CacheProgress:
    """Progress bar of a dataset cache, by clips and the part of the running one; stops when the user cancels."""

    STEPS = 100  # per clip

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, progress: Progress) -> None:
        stop_if_interrupted()
        total = self.STEPS * progress.clips
        self.bar = self.bar or comfy.utils.ProgressBar(total)
        part = min(1.0, progress.seconds / progress.length) if progress.length else float(progress.done)
        self.bar.update_absolute(min(int(self.STEPS * (progress.clip + part)), total), total)

    def rows(self, done: int, total: int) -> None:
        stop_if_interrupted()
        self.bar = self.bar or comfy.utils.ProgressBar(total)
        self.bar.update_absolute(done, total)


class SavingProgress:
    """The node's progress bar over the frames of a film; stops when the user cancels."""

    def __init__(self, latents: int, temporal: int) -> None:
        self.total = max(1, temporal * latents)
        self.bar = comfy.utils.ProgressBar(self.total)

    def watch(self, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same pieces, with a look at the cancel button before each is decoded."""
        while True:
            stop_if_interrupted()
            piece = next(pieces, None)
            if piece is None:
                return
            yield piece
            del piece

    def frame(self, written: int) -> None:
        """Called before each frame is written."""
        stop_if_interrupted()
        self.bar.update_absolute(min(written + 1, self.total), self.total)


class TrainingProgress:
    """Core's progress bar over the steps, with a picture now and then; stops the run when asked to."""

    def __init__(self, first: int, last: int) -> None:
        self.last = last
        self.bar = comfy.utils.ProgressBar(last)
        self.bar.update_absolute(first, last)

    def step(self, done: int) -> None:
        stop_if_interrupted()
        self.bar.update_absolute(done, self.last)

    def show(self, done: int, picture: Any) -> None:
        """picture: [H,W,3] uint8, BGR."""
        image = Image.fromarray(picture[..., ::-1])
        self.bar.update_absolute(done, self.last, ("JPEG", image, None))
