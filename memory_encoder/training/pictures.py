"""What a run shows: the loss curve and frames recalled from memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from ..evaluation.baselines import flat_colour, thumbnail, thumbnail_size
from ..evaluation.recall import draw_frames
from ..files import write_bytes
from ..frames import evenly
from .draws import generator_for
from .module import Batch, TrainingModule
from .options import TrainOptions
from .source import BatchSource

Point = tuple[int, float]
SIZE, MARGIN = (720, 360), 48
BACKGROUND, GRID, TRAIN, HELDOUT, TEXT = (24, 24, 27), (63, 63, 70), (248, 189, 56), (94, 197, 34), (228, 228, 231)
WITHOUT = (60, 146, 251)
STEPS, FRAMES = 8, 4


def loss_plot(
    losses: Sequence[Point],
    heldout: Sequence[Point] = (),
    without_memory: Sequence[Point] = (),
    nothing: float | None = None,
) -> np.ndarray:
    """A picture [H,W,3] uint8 (BGR) of the smoothed training loss and the held-out loss over the steps.

    without_memory: held-out loss of the same without a memory. nothing: loss of predicting nothing, a line; one far
    above the curves is written at the top.
    """
    width, height = SIZE
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    curves = ([point for point in points if np.isfinite(point[1])] for points in (losses, heldout, without_memory))
    losses, heldout, without_memory = curves
    points = [*losses, *heldout, *without_memory]
    if not points:
        return canvas
    last = max(step for step, _ in points) or 1
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    high = high if high > low else low + 1

    def place(step: float, loss: float) -> tuple[int, int]:
        x = MARGIN + (width - 2 * MARGIN) * step / last
        y = height - MARGIN - (height - 2 * MARGIN) * (loss - low) / (high - low)
        return round(x), round(y)

    for share in np.linspace(0, 1, 5):
        value = low + (high - low) * share
        cv2.line(canvas, place(0, value), place(last, value), GRID, 1)
        label(canvas, f"{value:.3g}", (4, place(0, value)[1] + 4))
        label(canvas, f"{round(last * share)}", (place(last * share, low)[0] - 10, height - MARGIN + 18))
    _curve(canvas, [place(*point) for point in losses], (90, 75, 30), 1)
    _curve(canvas, [place(*point) for point in smoothed(losses)], TRAIN, 2)
    _curve(canvas, [place(*point) for point in heldout], HELDOUT, 2)
    label(canvas, "training loss", (MARGIN + 8, 22), TRAIN)
    label(canvas, "held-out loss", (MARGIN + 140, 22), HELDOUT)
    if without_memory:
        _curve(canvas, [place(*point) for point in without_memory], WITHOUT, 2)
        label(canvas, "held out, without memory", (MARGIN + 260, 22), WITHOUT)
    if nothing is not None and np.isfinite(nothing):
        inside = low <= nothing <= high
        if inside:
            cv2.line(canvas, place(0, nothing), place(last, nothing), TEXT, 1)
        at = place(0, nothing)[1] - 4 if inside else MARGIN + 12
        label(canvas, f"predicting nothing {nothing:.3g}" + ("" if inside else " (not on the scale)"), (MARGIN + 8, at))
    return canvas


def smoothed(losses: Sequence[Point], decay: float = 0.95) -> list[Point]:
    """Exponentially smoothed losses, without the bias of the first ones."""
    result, mean, weight = [], 0.0, 0.0
    for step, loss in losses:
        mean, weight = decay * mean + (1 - decay) * loss, decay * weight + 1 - decay
        result.append((step, mean / weight))
    return result


@torch.no_grad()
def recall(
    module: TrainingModule, batch: Batch, first: int, count: int, with_memory: bool, seed: int, shift: float = 3.0
) -> Tensor:
    """Draws latents first .. first+count-1 of a clip from the memory of the clean clip, or from none: Euler steps."""
    memory = module.compress(batch.hr, batch.lr) if with_memory else None
    shape = (*batch.hr.shape[:2], count, *batch.hr.shape[3:])
    noise = torch.randn(shape, generator=generator_for(seed, "recall")).to(batch.hr)
    return draw_frames(partial(module.predict, conditioning=batch.conditioning), memory, noise, first, STEPS, shift)


class Run(Protocol):
    """What a picture of a run is drawn with; `trainer.Trainer` is one."""

    options: TrainOptions
    source: BatchSource
    sampling_shift: float
    module: TrainingModule
    accelerator: Any


@torch.no_grad()
def recalled_rows(trainer: Run) -> list[tuple[str, Tensor]]:
    """Latents of a clip by name: original, recalled, without memory. Held out where there are such clips.

    Processes that hold the weights together must all make these passes of the host, though one alone shows them.
    """
    kind = "heldout" if trainer.options.heldout_every else "train"
    batch = trainer.source.rows(0, 0, 1, kind, lambda frames, row: (0, frames)).to(trainer.accelerator.device)
    count = min(FRAMES, batch.hr.shape[2])
    first = (batch.hr.shape[2] - count) // 2
    rows = [("original", batch.hr[:, :, first : first + count])]
    asked = (trainer.module, batch, first, count)
    if trainer.options.stage != "host":
        rows.append(("recalled", recall(*asked, True, trainer.options.seed, trainer.sampling_shift)))
    rows.append(("without memory", recall(*asked, False, trainer.options.seed, trainer.sampling_shift)))
    return rows


@torch.no_grad()
def recall_picture(trainer: Run, decode: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Rows of pictures [H,W,3] uint8 (BGR): those of `recalled_rows`, and what anyone could make of as few numbers: one
    flat colour a frame, and a thumbnail of as many pixels as a cell has tokens.
    """
    rows = recalled_rows(trainer)
    with unloaded_after():
        shown = [(name, decode(latents.cpu().float())[0].clamp(0, 1)) for name, latents in rows]
    configs = [encoder.config for encoder in trainer.module.encoders if encoder.config.variant != "recent"]
    original = shown[0][1].cpu()
    shown.append(("flat colour", flat_colour(original)))
    if configs:
        spatial = original.shape[1] // rows[0][1].shape[3]
        size = thumbnail_size(configs, original.shape[1], original.shape[2], spatial)
        shown.append(("thumbnail, a pixel for each token", thumbnail(original, size)))
    return np.concatenate([_strip(name, frames) for name, frames in shown], axis=0)


@contextmanager
def unloaded_after() -> Iterator[None]:
    """What core has put on a device meanwhile, such as the VAE, leaves it again: no step of a run has room for it."""
    management = sys.modules.get("comfy.model_management")  # there if core decodes
    before = [] if management is None else list(management.current_loaded_models)
    try:
        yield
    finally:
        if management is not None:
            devices = {loaded.device for loaded in management.current_loaded_models if loaded not in before}
            for device in devices:
                management.free_memory(1e30, device, before)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a PNG atomically."""
    encoded: Any = cv2.imencode(".png", picture)[1]
    write_bytes(path, encoded.tobytes())


def _strip(name: str, frames: Tensor) -> np.ndarray:
    pictures = (frames * 255).round().byte().cpu().numpy()[..., ::-1]
    row = np.concatenate(list(pictures[evenly(len(pictures), min(FRAMES, len(pictures)))]), axis=1)
    band = np.full((22, row.shape[1], 3), BACKGROUND, np.uint8)
    label(band, name, (6, 16))
    return np.concatenate([band, row], axis=0)


def _curve(canvas: np.ndarray, points: Sequence[tuple[int, int]], colour: tuple[int, int, int], width: int) -> None:
    if points:
        cv2.polylines(canvas, [np.array(points, np.int32)], False, colour, width, cv2.LINE_AA)


def label(canvas: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int] = TEXT) -> None:
    """Writes small letters into a picture, their lower left corner at `at`."""
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
