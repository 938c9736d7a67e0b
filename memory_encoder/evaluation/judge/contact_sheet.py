"""A film's report as one picture: a still of every shot with its numbers, what falls out in red."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .report import SEAMS, FilmReport, ShotReport, measure_order
from .report_text import number

COLUMNS, CELL, GAP, MARGIN = 4, 320, 16, 24  # cells a row, and pixels
LINE, SMALL, LARGE = 19, 14, 22  # pixels of a line, and sizes of letters
BACKGROUND, CARD, TEXT, FAINT, RED = (24, 24, 27), (39, 39, 42), (228, 228, 231), (161, 161, 170), (248, 113, 113)


def contact_sheet(report: FilmReport) -> Image.Image:
    """Shots in rows, their values below, and on top what falls out in words."""
    columns = max(1, min(COLUMNS, len(report.shots)))
    width = max(2 * MARGIN + columns * CELL + (columns - 1) * GAP, 720)
    taken = [name for name in measure_order(list(report.measures)) if name != SEAMS]
    small, large = ImageFont.load_default(SMALL), ImageFont.load_default(LARGE)
    heading = _heading(report, (width - 2 * MARGIN) // 7)
    top = MARGIN + LARGE + GAP + LINE * len(heading) + GAP
    high = max(round(CELL * still.shape[0] / still.shape[1]) for still in report.stills.values())
    cell = high + LINE * (2 + (len(taken) + 1) // 2) + GAP
    rows = -(-len(report.shots) // columns)
    legend = _legend(report, taken, (width - 2 * MARGIN) // 7)
    sheet = Image.new("RGB", (width, top + rows * (cell + GAP) + LINE * len(legend) + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), _drawable(report.film), TEXT, large)
    for index, (line, colour) in enumerate(heading):
        draw.text((MARGIN, MARGIN + LARGE + GAP + LINE * index), line, colour, small)
    for index, shot in enumerate(report.shots):
        at = MARGIN + index % columns * (CELL + GAP), top + index // columns * (cell + GAP)
        box = (*at, at[0] + CELL, at[1] + cell)
        draw.rectangle(box, CARD)
        _cell(sheet, draw, at, high, shot, report.stills.get(shot.number), taken, small)
        if shot.falls_out:
            draw.rectangle(box, None, RED, 3)
    for index, line in enumerate(legend):
        draw.text((MARGIN, top + rows * (cell + GAP) + LINE * index), line, FAINT, small)
    return sheet


def png(sheet: Image.Image) -> bytes:
    content = io.BytesIO()
    sheet.save(content, "PNG")
    return content.getvalue()


def _heading(report: FilmReport, characters: int) -> list[tuple[str, tuple[int, int, int]]]:
    facts = f"{len(report.shots)} shots, {report.seconds:.1f} s, {report.size[0]}x{report.size[1]}"
    lines = [(line, FAINT) for line in _wrapped(f"{facts}, {report.source}".rstrip(", "), characters)]
    remarks = report.remarks()
    for said in remarks:
        lines += [(line, RED) for line in _wrapped(said, characters)]
    if not remarks:
        lines += [(line, TEXT) for line in _wrapped(f"{report.nothing().capitalize()}.", characters)]
    return lines


def _legend(report: FilmReport, taken: Sequence[str], characters: int) -> list[str]:
    lines = []
    for name in taken:
        one = report.measures[name]
        better = "higher" if one.higher_is_better else "lower"
        lines += _wrapped(f"{one.label}: {better} is better; {one.unit}; {one.tool}", characters)
    if report.seams:
        jump = report.means()[SEAMS]
        lines += _wrapped(f"seams: {jump:.2f} steps of the film's own motion on average, 1 is no seam", characters)
    return lines


def _cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], high: int, shot: ShotReport,
    still: np.ndarray | None, taken: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:  # fmt: skip
    left, top = at
    if still is not None:
        picture = Image.fromarray(still)
        size = (CELL, round(CELL * picture.height / picture.width))
        sheet.paste(picture.resize(size, Image.Resampling.BICUBIC), (left, top))
    wrong = {one.measure for one in shot.falls_out}
    title = f"{shot.title}  {shot.start:.1f} s, {shot.seconds:.1f} s long"
    draw.text((left + 8, top + high + 4), _drawable(title), RED if wrong else TEXT, font)
    prompt = _wrapped(shot.prompt, CELL // 7)
    draw.text((left + 8, top + high + 4 + LINE), prompt[0] + ("..." if len(prompt) > 1 else ""), FAINT, font)
    for index, name in enumerate(taken):
        place = left + 8 + index % 2 * (CELL // 2), top + high + 4 + LINE * (2 + index // 2)
        text = f"{name.replace('_', ' ')} {number(shot.values.get(name))}"
        draw.text(place, text, RED if name in wrong else TEXT, font)


def _wrapped(text: str, characters: int) -> list[str]:
    return textwrap.wrap(_drawable(text), characters) or [""]


def _drawable(text: str) -> str:
    """Text in the letters that Pillow's own font has; others become question marks."""
    return text.replace("Δ", "delta ").encode("latin-1", "replace").decode("latin-1")
