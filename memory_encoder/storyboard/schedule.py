"""From shots to sections: pieces that are generated in one go and lie on the latent lattice of a causal VAE."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from ..frames import frames_in
from .lattice import Form, Lattice
from .model import MAX_SECONDS, TIME_TOLERANCE, Storyboard, StoryboardError, Transition

MAX_SECTIONS = 100_000
ONE_CLIP = Lattice()
_ROUNDING = 1e-6  # in lattice steps: times are sums of decimal fractions


@dataclass(frozen=True)
class Section:
    """A piece of the film that is generated in one go, under one prompt.

    `frames` are those it adds to the film. `start_frame` and `start_latent` count from the film's first frame, history
    included; `start_seconds` counts from the storyboard's beginning, which is where the history ends. `seed` is the
    shot's own, if it has one. `repeated`: None for a piece of the film's one clip; else the section is a clip of its
    own, of `repeated` + `frames` frames, the first of which show the end of the section before once more.
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
    repeated: int | None = None

    def facts(self) -> dict[str, Any]:
        """The fields by name; without what a film of one clip does not have, so that its keys stay as they are."""
        facts = asdict(self)
        if self.repeated is None:
            del facts["repeated"]
        return facts


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
    lattice: Lattice = ONE_CLIP,
    total_seconds: float | None = None,
    history_latents: int = 0,
    history_frames: int | None = None,
    after_clip: bool = False,
    after_picture: bool = False,
) -> tuple[Section, ...]:
    """Cuts the film into sections; every shot gets at least one, and no section belongs to two shots.

    One lattice step is `temporal_stride` frames or one latent. A causal VAE has one more latent, of a single frame, at
    a clip's very beginning. Where the film is one clip, its first section is that much longer (4k+1 frames, k+1
    latents) unless a history comes before it; where each section is a clip, all are, but for those that go on and whose
    first frames are `repeated` ones. Shots meet at the lattice point nearest to their boundary (a gap is shared at its
    middle); a shot too short for one step gets one, at the cost of the next. A shot longer than `section_seconds` is
    divided evenly, and no section adds more than `section_seconds` by a whole step. The paper (section 4.1) leaves all
    of this open. Where the lattice gives the sections' length, shots meet at the nearest whole section instead.

    After a clip (`after_clip`) the first shot goes on from it unless the storyboard itself says that it is a cut, or
    gives it a picture; after a start image (`after_picture`) it begins with that in any case. history_frames: what the
    history shows, by default what its latents hold as one clip.

    The film ends at `total_seconds`, else at the last shot's end, else one section after its start. Raises
    StoryboardError for values out of range and for a shot that begins or ends after `total_seconds`.
    """
    _check_plan(fps, section_seconds, history_latents)
    storyboard = storyboard.expanded()
    stride = lattice.temporal_stride
    boundaries = _boundaries(storyboard, section_seconds, total_seconds)
    longest = max(1, math.ceil(section_seconds * fps / stride - _ROUNDING))
    before = frames_in(history_latents, stride)
    history_frames = before if history_frames is None else history_frames
    goes_on = after_clip and not storyboard.shots[0].stated and not storyboard.shots[0].picture
    latent, frame, ruler = history_latents, history_frames, _Ruler(lattice)
    sections: list[Section] = []
    for shot_index, (shot, end) in enumerate(zip(storyboard.shots, boundaries[1:], strict=True)):
        begins = "continue" if shot_index == 0 and goes_on else shot.transition
        given = begins == "continue" or (shot_index == 0 and after_picture)
        first = lattice.form(given, before)
        then = lattice.form(True, before + first.single + stride)
        parts = ruler.divide(end * fps / stride, first, then, longest)
        _check_count(len(sections) + len(parts))
        for part, steps in enumerate(parts):
            form = then if part else first
            frames, latents = stride * steps + form.single, form.latents(steps, stride)
            sections.append(
                Section(
                    index=len(sections),
                    shot_index=shot_index,
                    prompt=shot.prompt,
                    start_frame=frame,
                    frames=frames,
                    start_latent=latent,
                    latents=latents,
                    start_seconds=(frame - history_frames) / fps,
                    seconds=frames / fps,
                    seed=shot.seed,
                    transition="continue" if part else begins,
                    repeated=form.repeated,
                )
            )
            latent, frame, before = latent + latents, frame + frames, before + frames
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
    if sections[0].repeated is not None:
        repeated = sum(section.repeated or 0 for section in sections)
        dropped = f"; {_count(repeated, 'frame')} made once more at joins are left out" if repeated else ""
        lines.append(f"Each section is a clip of its own{dropped}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _middle(end: float, start: float) -> float:
    return (end + start) / 2


class _Ruler:
    """How far the shots so far reach, in lattice steps, and how the next one is divided.

    In a film of one clip the frame that opens it is not counted: times are those of the steps. Clips of their own would
    add up to a later and later film if theirs were not.
    """

    def __init__(self, lattice: Lattice) -> None:
        self.lattice, self.steps, self.singles = lattice, 0, 0

    def divide(self, end: float, first: Form, then: Form, longest: int) -> list[int]:
        """Steps of each section of a shot that is to end at `end` steps; at least one section, each of one at least."""
        lattice = self.lattice
        counted = 1 if lattice.clips == "section" else 0
        stride, begins, goes_on = lattice.temporal_stride, counted * first.single, counted * then.single

        def steps_for(count: int) -> int:
            """Steps that reach nearest to the end in so many sections; later where the shots before took too long."""
            singles = self.singles + begins + (count - 1) * goes_on
            return max(count, math.floor(end - singles / stride + 0.5 + _ROUNDING) - self.steps)

        if lattice.section_latents:
            steps = [lattice.locked_steps(form) for form in (first, then)]
            left = end - self.steps - self.singles / stride - steps[0] - begins / stride
            more = max(0, math.floor(left / (steps[1] + goes_on / stride) + 0.5 + _ROUNDING))
            _check_count(1 + more)
            parts = steps[:1] + steps[1:] * more
        else:
            count = max(1, math.floor(steps_for(1) / (longest + goes_on / stride)) - 1)
            while steps_for(count) > count * longest:
                count += 1
            _check_count(count)
            parts = [*_evenly_cut(steps_for(count), count)]
        self.steps += sum(parts)
        self.singles += begins + (len(parts) - 1) * goes_on
        return parts


def _evenly_cut(length: int, count: int) -> Iterator[int]:
    """`length` in `count` parts as equal as whole numbers allow."""
    for part in range(count):
        yield length * (part + 1) // count - length * part // count


def _check_count(sections: int) -> None:
    if sections > MAX_SECTIONS:
        raise StoryboardError(
            f"the film would have {sections} sections, at most {MAX_SECTIONS} are possible; "
            "use longer sections or split it"
        )


def _check_plan(fps: float, section_seconds: float, history_latents: int) -> None:
    for name, value, highest in (("fps", fps, 1000.0), ("section_seconds", section_seconds, MAX_SECONDS)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value <= highest:  # also refuses NaN
            raise StoryboardError(f"{name} is {value!r}; give a number above 0 and up to {highest:g}")
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
