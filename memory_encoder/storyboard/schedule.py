"""From shots to sections: pieces that are generated in one go and lie on the latent lattice of a causal VAE."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..frames import frames_in
from .model import MAX_SECONDS, TIME_TOLERANCE, Storyboard, StoryboardError, Transition

MAX_SECTIONS = 100_000
_ROUNDING = 1e-6  # in lattice steps: times are sums of decimal fractions


@dataclass(frozen=True)
class Section:
    """A piece of the film that is generated in one go, under one prompt.

    `start_frame` and `start_latent` count from the film's first frame, history included; `start_seconds` counts from
    the storyboard's beginning, which is where the history ends. `seed` is the shot's own, if it has one.
    """

    index: int
    shot_index: int
    prompt: str
    start_frame: int
    frames: int
    start_latent: int
    latents: int
    start_seconds: float
    seconds: float
    seed: int | None
    transition: Transition


def nearest_shot(storyboard: Storyboard, seconds: float) -> int:
    """Index of the shot that is on at `seconds`, else of the one nearest in time (paper 4.1: "only the prompt with the
    nearest timestamp is received"). In the middle of a gap the later shot wins, as shots include their start.

    Raises StoryboardError when `seconds` is not finite.
    """
    if not math.isfinite(seconds):
        raise StoryboardError(f"the time is {seconds}; give a finite number of seconds")
    shots = storyboard.shots
    index = bisect.bisect_right(shots, seconds, key=lambda shot: shot.start) - 1
    if index < 0:
        return 0
    end = shots[index].end
    if end is None or seconds < end or index + 1 == len(shots):
        return index
    return index if seconds < _middle(end, shots[index + 1].start) else index + 1


def plan_sections(
    storyboard: Storyboard,
    *,
    fps: float,
    section_seconds: float,
    temporal_stride: int = 4,
    total_seconds: float | None = None,
    history_latents: int = 0,
    after_clip: bool = False,
) -> tuple[Section, ...]:
    """Cuts the film into sections; every shot gets at least one, and no section belongs to two shots.

    One lattice step is `temporal_stride` frames or one latent. A causal VAE has one more latent, of a single frame, at
    the film's very beginning: with nothing before it the first section is that much longer (4k+1 frames, k+1 latents).
    Shots meet at the lattice point nearest to their boundary (a gap is shared at its middle); a shot too short for one
    step gets one, at the cost of the next. A shot longer than `section_seconds` is divided evenly, and no section is
    longer than `section_seconds` by a whole step. The paper (section 4.1) leaves all of this open.

    After a clip (`after_clip`) the first shot goes on from it unless the storyboard itself says that it is a cut.

    The film ends at `total_seconds`, else at the last shot's end, else one section after its start. Raises
    StoryboardError for values out of range and for a shot that begins or ends after `total_seconds`.
    """
    _check_plan(fps, section_seconds, temporal_stride, history_latents)
    boundaries = _boundaries(storyboard, section_seconds, total_seconds)
    steps = _snap([seconds * fps / temporal_stride for seconds in boundaries])
    longest = max(1, math.ceil(section_seconds * fps / temporal_stride - _ROUNDING))
    counts = [-(-(end - start) // longest) for start, end in pairwise(steps)]
    if sum(counts) > MAX_SECTIONS:
        raise StoryboardError(
            f"the film would have {sum(counts)} sections, at most {MAX_SECTIONS} are possible; "
            "use longer sections or split it"
        )
    first_latents = 1 if history_latents == 0 else 0  # the single-frame latent belongs to the first section
    history_frames = frames_in(history_latents, temporal_stride)
    goes_on = after_clip and not storyboard.shots[0].stated
    sections: list[Section] = []
    latent, frame = history_latents, history_frames
    for shot_index, (shot, count) in enumerate(zip(storyboard.shots, counts, strict=True)):
        length = steps[shot_index + 1] - steps[shot_index]
        for part in range(count):
            step_count = length * (part + 1) // count - length * part // count
            extra = 0 if sections else first_latents
            frames = temporal_stride * step_count + extra
            sections.append(
                Section(
                    index=len(sections),
                    shot_index=shot_index,
                    prompt=shot.prompt,
                    start_frame=frame,
                    frames=frames,
                    start_latent=latent,
                    latents=step_count + extra,
                    start_seconds=(frame - history_frames) / fps,
                    seconds=frames / fps,
                    seed=shot.seed,
                    transition="continue" if part or (goes_on and not sections) else shot.transition,
                )
            )
            latent, frame = latent + step_count + extra, frame + frames
    return tuple(sections)


def describe_schedule(sections: Sequence[Section], fps: float) -> str:
    """The plan as a table for people: one line per section in seconds and frames, then the sum."""
    if not sections:
        return "The film has no sections."
    rows = [("section", "shot", "seconds", "frames", "prompt")]
    for section in sections:
        end = section.start_seconds + section.seconds
        last = section.start_frame + section.frames - 1
        prompt = " ".join(section.prompt.split())
        if section.transition == "continue":
            prompt = f"(goes on) {prompt}"
        rows.append(
            (
                str(section.index + 1),
                str(section.shot_index + 1),
                f"{section.start_seconds:.2f} - {end:.2f}",
                f"{section.start_frame} - {last}",
                prompt if len(prompt) <= 60 else f"{prompt[:57]}...",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(row[c].rjust(widths[c]) for c in range(4)), row[4]]) for row in rows]
    frames = sum(section.frames for section in sections)
    shots = len({section.shot_index for section in sections})
    lines.append(
        f"{_count(len(sections), 'section')}, {_count(shots, 'shot')}, "
        f"{frames / fps:.2f} s, {frames} frames at {fps:g} fps"
    )
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _middle(end: float, start: float) -> float:
    return (end + start) / 2


def _check_plan(fps: float, section_seconds: float, temporal_stride: int, history_latents: int) -> None:
    for name, value, highest in (("fps", fps, 1000.0), ("section_seconds", section_seconds, MAX_SECONDS)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value <= highest:  # also refuses NaN
            raise StoryboardError(f"{name} is {value!r}; give a number above 0 and up to {highest:g}")
    if not isinstance(temporal_stride, int) or temporal_stride < 1:
        raise StoryboardError(f"temporal_stride is {temporal_stride!r}; give the VAE's frames per latent, 4 for Wan")
    if not isinstance(history_latents, int) or history_latents < 0:
        raise StoryboardError(
            f"history_latents is {history_latents!r}; give 0 or the number of latents before the film"
        )


def _boundaries(storyboard: Storyboard, section_seconds: float, total_seconds: float | None) -> list[float]:
    """Where each shot begins, in seconds, and where the film ends."""
    shots = storyboard.shots
    if total_seconds is not None:
        if (
            isinstance(total_seconds, bool)
            or not isinstance(total_seconds, (int, float))
            or not 0 < total_seconds <= MAX_SECONDS
        ):
            raise StoryboardError(
                f"total_seconds is {total_seconds!r}; give a number above 0 and up to {MAX_SECONDS:g}"
            )
        for number, shot in enumerate(shots, 1):
            if shot.start >= total_seconds or (shot.end or 0.0) > total_seconds + TIME_TOLERANCE:
                latest = shot.start if shot.start >= total_seconds else shot.end
                raise StoryboardError(
                    f"shot {number}: the time {latest:g} s is past the film's end ({total_seconds:g} s); "
                    "make the film longer or move the shot"
                )
    meet = [
        following.start if shot.end is None else _middle(shot.end, following.start)
        for shot, following in pairwise(shots)
    ]
    end = total_seconds
    if end is None:
        end = shots[-1].start + section_seconds if shots[-1].end is None else shots[-1].end
    return [0.0, *meet, end]


def _snap(positions: Sequence[float]) -> list[int]:
    """The nearest whole steps, pushed later where needed so that each lies at least one step after the one before."""
    steps = [0]
    for position in positions[1:]:
        steps.append(max(math.floor(position + 0.5 + _ROUNDING), steps[-1] + 1))
    return steps
