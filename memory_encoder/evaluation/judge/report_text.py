"""A film's report as markdown: what falls out, a table of all shots, what is missing; and films side by side."""

from __future__ import annotations

from collections.abc import Sequence

from .against import Compared
from .report import SEAMS, FilmReport, Measure, measure_order

_PROMPT = 60  # characters of a prompt in a table


def markdown(report: FilmReport, against: Sequence[Compared] = ()) -> str:
    """The report for people; `REPORT_TEXT` is its usual file."""
    facts = [f"{len(report.shots)} shots", f"{report.seconds:.1f} s", f"{report.size[0]}x{report.size[1]}"]
    lines = [f"# {report.film}", "", f"{', '.join(facts)}, {report.fps:g} fps."]
    lines += [f"Measured on {report.source}."] if report.source else []
    remarks = report.remarks()
    lines += ["", "## What falls out", ""]
    lines += [f"- {said}" for said in remarks] or [f"{report.nothing().capitalize()}."]
    lines += ["", "## Shots", "", *_shots(report)]
    if report.drift:
        colour, sharpness = report.drift["colour"], report.drift["sharpness"]
        slides = f"colour {colour:.1f} ΔE a minute, sharpness {sharpness:+.1f} % a minute"
        lines += ["", f"Over the whole film: {slides} (0 where the shots show no sure slope)."]
    lines += ["", "## How it was measured", "", *_measures(report)]
    if against:
        lines += ["", "## Against", "", *comparison_table(report, against)]
    if report.missing:
        lines += ["", "## Not measured, or with a lesser tool", "", *(f"- {one.said}" for one in report.missing)]
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """A value as it stands in a table; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _shots(report: FilmReport) -> list[str]:
    taken = [name for name in measure_order(list(report.measures)) if name != SEAMS]
    marked = {(shot.number, one.measure) for shot in report.shots for one in shot.falls_out}
    lines = [_row(["shot", "at", *(_head(report.measures[name]) for name in taken), "prompt"])]
    lines.append("|---" * (len(taken) + 3) + "|")
    for shot in report.shots:
        values = [
            f"**{number(shot.values.get(name))}**" if (shot.number, name) in marked else number(shot.values.get(name))
            for name in taken
        ]
        name = f"{shot.number} {shot.name}".strip()
        lines.append(_row([name, f"{shot.start:.1f} s", *values, _short(shot.prompt)]))
    means = report.means()
    lines.append(_row(["mean", "", *(number(means.get(name)) for name in taken), ""]))
    if report.seams:
        worst = max(report.seams, key=lambda seam: seam.jump)
        lines += [
            "",
            f"{len(report.seams)} seams: the picture changes there by {means[SEAMS]:.2f} steps of the film's own "
            f"motion, at most by {worst.jump:.2f} (section {worst.section}, {worst.at:.1f} s).",
        ]
    return lines


def _measures(report: FilmReport) -> list[str]:
    lines = [_row(["measure", "what it is", "unit", "better", "with"]), "|---" * 5 + "|"]
    for name in measure_order(list(report.measures)):
        one = report.measures[name]
        lines.append(_row([one.label, one.says, one.unit, _direction(one), one.tool]))
    return lines


def comparison_table(report: FilmReport, against: Sequence[Compared]) -> list[str]:
    """Lines of a table: each measure of this film and of the others, means with their 95 % intervals."""
    names = measure_order([name for name in report.measures if any(name in other.values for other in against)])
    lines = [_row(["measure", "better", report.film, *(other.name for other in against)])]
    lines.append("|---" * (3 + len(against)) + "|")
    for name in names:
        one = report.measures[name]
        own = next(other.own[name] for other in against if name in other.values)
        cells = [str(other.values[name]) if name in other.values else "-" for other in against]
        lines.append(_row([one.label, _direction(one), str(own), *cells]))
        gaps = [str(other.differences.get(name) or "-") for other in against]
        if any(gap != "-" for gap in gaps):
            lines.append(_row([f"{one.label}: this film minus the other, shot by shot", "", "", *gaps]))
    lines += ["", "Mean [95 % interval by Student's t]; n shots or films. A difference whose interval holds 0 is none."]
    return lines + [f"- {other.name}: {other.note}" for other in against if other.note]


def _head(measure: Measure) -> str:
    return f"{measure.label} {'↑' if measure.higher_is_better else '↓'}"


def _direction(measure: Measure) -> str:
    return "higher" if measure.higher_is_better else "lower"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _short(text: str) -> str:
    return text if len(text) <= _PROMPT else f"{text[: _PROMPT - 1]}…"
