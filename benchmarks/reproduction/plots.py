"""Pictures of a reproduction: rate against PSNR, recall against seconds of history, and frames side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from memory_encoder.files import write_bytes

from .claims import Measure, larger_error
from .jobs import SHOWN
from .material import load_material
from .report import REPORTED, collected, measures, seeds_done
from .returns import CHOICES, PARTS
from .runs import Workshop
from .settings import PROPOSED, SECONDS, TABLE_1, Protocol

TOKENS = {"4x4x2": 32, "2x2x4": 16, "2x2x2": 8, "2x2x1": 4}  # uncompressed tokens in one token of memory
REMEMBER = ("Memory 2x2x1", "Memory 2x2x2", "Memory 4x4x2", "Two rates")
LINES = (*REMEMBER, "FramePack's schedule", "Sliding window", "Nothing")  # dashed: no memory that was trained
GRID = ("Large Patchifier 4x4x2", "Only LR 4x4x2", "Without LR 4x4x2", "Proposed 4x4x2", "Proposed 2x2x2",
        "Proposed 2x2x1", "Whole history")  # fmt: skip


def write_plots(protocol: Protocol, workshop: Workshop, out: Path) -> None:
    """Writes ``reproduction_NAME_{rate,recall,grid}``."""
    values = measures(collected(workshop, seeds_done(protocol, workshop), REPORTED))
    _save(out / f"reproduction_{protocol.name}_rate.png", rate_figure(values))
    _save(out / f"reproduction_{protocol.name}_recall.png", recall_figure(values))
    picture: Any = cv2.imencode(".jpg", grid(workshop))[1]
    write_bytes(out / f"reproduction_{protocol.name}_grid.jpg", picture.tobytes())


def rate_figure(values: dict[str, Measure]) -> Any:
    """PSNR of the variants over their compression, with the controls as lines."""
    figure, axes = _figure(1, (7.2, 4.2))
    axis = axes[0]
    psnr = values["psnr"].rows
    others = [row for row in TABLE_1 if row.variant in ("only_lr", "without_lr", "large_patchifier")]
    for index, row in enumerate(others, 1):  # a little to the left of each other: they share a rate
        _point(axis, TOKENS[row.rate] * 0.93**index, values["psnr"], row.name, marker="s", label=row.name)
    proposed = [row for row in TABLE_1 if row.variant == "proposed"]
    axis.plot([TOKENS[row.rate] for row in proposed], [psnr[row.name].mean() for row in proposed], color="C3")
    for row in proposed:
        _point(axis, TOKENS[row.rate], values["psnr"], row.name, marker="o", color="C3",
               label="Proposed" if row.name == PROPOSED else None)  # fmt: skip
    for name, style in (("Whole history", "-"), ("VAE alone", "--"), ("Flat colour", "-."), ("No memory", ":")):
        axis.axhline(psnr[name].mean(), ls=style, color="0.45", lw=1, label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(TOKENS.values()), [f"{rate}\n1 : {n}" for rate, n in TOKENS.items()])
    axis.margins(y=0.08)
    axis.set(xlabel="compression beyond the token grid", ylabel="PSNR of recalled frames (dB)")
    axis.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def _point(axis: Any, x: float, measure: Measure, row: str, **style: Any) -> None:
    values = measure.rows[row]
    axis.errorbar([x], [values.mean()], [larger_error(values, measure.sources)], capsize=3, ls="", **style)


def recall_figure(values: dict[str, Measure]) -> Any:
    """Share of films in which the part was recalled, over the length of the history."""
    figure, axes = _figure(len(PARTS), (10.5, 3.6))
    for axis, part in zip(axes, PARTS, strict=True):
        for index, name in enumerate(LINES):
            at = [s + (index - len(LINES) // 2) * 0.08 for s in SECONDS]  # beside each other, to tell them apart
            found = [values[f"{part} at {s} s"] for s in SECONDS]
            errors = [100 * larger_error(one.rows[name], one.sources) for one in found]
            axis.errorbar(at, [100 * one.rows[name].mean() for one in found], errors, marker="o", ms=3, capsize=2,
                          ls="-" if name in REMEMBER else "--", label=name)  # fmt: skip
        axis.axhline(100 / CHOICES, color="0.45", ls=":", lw=1)
        axis.set_xticks(SECONDS)
        axis.set(title=part, xlabel="seconds of history", ylim=(0, 100))
    axes[0].set_ylabel("recalled (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=len(LINES), loc="outside upper center")
    return figure


def grid(workshop: Workshop) -> np.ndarray:
    """One line of pictures for each method: a frame of every second clip."""
    clips = load_material(workshop.material)["retrieval"]
    original = clips.pictures[::2, SHOWN[2]].numpy()[..., ::-1]
    lines = [_labelled("Original", list(original))]
    for name in (*GRID, "No memory"):
        sheet: Any = cv2.imread(str(workshop.picture(name)))
        height, width = original.shape[1:3]
        cells = sheet.reshape(-1, height, len(SHOWN), width, 3)[::2, :, 2]
        lines.append(_labelled(name, list(cells)))
    return np.concatenate(lines)


def _labelled(name: str, cells: list[np.ndarray]) -> np.ndarray:
    label = np.full((cells[0].shape[0], 190, 3), 255, np.uint8)
    cv2.putText(label, name, (6, label.shape[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([label, *cells], axis=1)


def _figure(columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # an extra of benchmarks

    figure = Figure(figsize=size, layout="constrained")
    axes: Any = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _save(path: Path, figure: Any) -> None:
    from memory_encoder.files import write_atomically

    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))
