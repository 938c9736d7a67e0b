"""Judges a film: every shot is seen once, then all pairs of shots, joins and outliers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from .clarity import DETAIL, NIQE, by_detail, detail
from .drift import film_drift, mean_colour
from .faces import Person, identity_measure, people_of, same_people
from .footage import Clip, Footage
from .instruments import Instruments
from .likeness import (
    AESTHETIC,
    CLOTHES_QUESTION,
    NO_QUESTIONS,
    OBJECTS_QUESTION,
    SEMANTIC,
    clothes_alike,
    clothes_measure,
    clothes_pictures,
    cosine,
    fits_prompt,
    objects_measure,
    says_yes,
    vectors_of,
    without_people,
)
from .niqe import BLOCK, large_enough
from .outliers import Company, Pairs, companies, like_own, odd_ones, strangers
from .report import SEAMS, FilmReport, Measure, Missing, PairReport, ShotReport
from .seams import MEASURE as SEAM_MEASURE
from .seams import Seams

ASKED_PAIRS = 40  # pairs of shots that a model is asked about, those nearest in time; each takes seconds
STILL = 320  # pixels across of the picture of a shot that is kept
Watch = Callable[[int, int], None]  # shots done, and of how many; may raise to stop


@dataclass
class Seen:
    """What is kept of a shot: numbers, and small pictures for questions."""

    number: int
    prompt: str
    names: frozenset[str]
    people: list[Person]
    clothes: dict[int, dict[float, np.ndarray]]  # by number of the person: vectors [N,D] of parts of what is worn
    clothes_stills: dict[int, np.ndarray]
    rest: np.ndarray | None
    rest_still: np.ndarray | None


def judge_film(footage: Footage, instruments: Instruments, watch: Watch = lambda done, total: None) -> FilmReport:
    """Measures a film. Raises ValueError for one without pictures, and whatever reading it raises."""
    report = FilmReport(footage.name, footage.fps, footage.seconds, footage.size, source=footage.source)
    instruments = _fitting(instruments, footage)
    report.missing = list(instruments.missing)
    seams, seen = Seams(footage.joins), []
    means: list[tuple[list[float], float]] = []
    total = len(footage.storyboard.shots)
    for clip in footage.clips():
        seams.see(clip)
        people = [] if instruments.faces is None else people_of(list(clip.looked_at), instruments.faces)
        seen.append(_seen(clip, people, instruments))
        report.shots.append(_shot(clip, instruments, report.measures))
        report.stills[clip.number] = _still(clip)
        middle = clip.looked_at[len(clip.looked_at) // 2]
        means.append((mean_colour(middle), detail(middle)))
        watch(clip.number, total)
    if not seen:
        raise ValueError(f"film {footage.name!r} shows no picture; give another one")
    report.missing += _not_shown(footage, seen)
    alike, groups = _compare(report, seen, instruments)
    report.seams = seams.reports()
    if report.seams:
        report.measures[SEAMS] = SEAM_MEASURE
    elif not footage.joins:
        report.missing.append(
            Missing(SEAMS, "no section goes on without a cut", "a film's folder or its storyboard says where that is")
        )
    colours, details = zip(*means, strict=True)
    report.drift = film_drift([shot.start for shot in report.shots], colours, details)
    _fall_out(report, alike, groups, instruments)
    return report


def _not_shown(footage: Footage, seen: list[Seen]) -> Iterator[Missing]:
    """Shots of the storyboard that the film does not have."""
    total, last = len(footage.storyboard.shots), seen[-1].number
    if last < total:
        those = f"shots {last + 1} to {total}" if last + 1 < total else f"shot {total}"
        yield Missing(
            those, f"the film ends at {footage.seconds:.1f} s, before they begin", "is it this film's storyboard?"
        )


def _fitting(instruments: Instruments, footage: Footage) -> Instruments:
    """The instruments, with a lesser one where the pictures are too small for a better one."""
    if instruments.clarity.measure.unit != NIQE.unit or large_enough(*footage.size):
        return instruments
    needs = f"measured by {DETAIL.tool}: pictures of {footage.size[0]}x{footage.size[1]} are too small for NIQE"
    others = tuple(one for one in instruments.missing if one.measure != DETAIL.name)
    missing = (*others, Missing(DETAIL.name, needs, f"judge pictures of {2 * BLOCK}x{2 * BLOCK} or more"))
    return replace(instruments, clarity=by_detail(), missing=missing)


def _shot(clip: Clip, instruments: Instruments, measures: dict[str, Measure]) -> ShotReport:
    """The shot with what it is by itself; measures that were taken are added to `measures`."""
    shot = ShotReport(clip.number, clip.start, clip.seconds, clip.prompt, clip.name, clip.sections)
    for taker in (instruments.clarity, instruments.dynamics, *instruments.drifts):
        _put(shot, taker.measure, taker.take(clip), measures)
    if instruments.video_clip is not None:
        _put(shot, replace(SEMANTIC, tool=instruments.video_clip.tool), instruments.video_clip.take(clip), measures)
    if instruments.embed is not None:
        vectors = vectors_of(instruments.embed, list(clip.looked_at))
        if instruments.embed_text is not None:
            fits = fits_prompt(instruments.embed_text, clip.prompt, vectors)
            _put(shot, replace(SEMANTIC, tool=instruments.clip_name), fits, measures)
        if instruments.aesthetic is not None:
            measure = replace(AESTHETIC, tool=f"LAION's head on {instruments.clip_name}")
            _put(shot, measure, instruments.aesthetic.score(vectors), measures)
    return shot


def _put(shot: ShotReport, measure: Measure, value: float | None, measures: dict[str, Measure]) -> None:
    if value is not None and np.isfinite(value):
        shot.values[measure.name] = value
        measures[measure.name] = measure


def _seen(clip: Clip, people: list[Person], instruments: Instruments) -> Seen:
    worn = {number: clothes_pictures(clip, person) for number, person in enumerate(people)}
    worn = {number: parts for number, parts in worn.items() if parts}
    rest = without_people(clip, people)
    embed = instruments.embed
    return Seen(
        clip.number, clip.prompt, clip.names, people,
        {number: {} if embed is None else {reach: vectors_of(embed, pictures) for reach, pictures in parts.items()}
         for number, parts in worn.items()},
        {number: pictures[len(pictures) // 2] for number, parts in worn.items() for pictures in [parts[max(parts)]]},
        None if embed is None else vectors_of(embed, rest),
        None if instruments.ask is None else rest[len(rest) // 2],
    )  # fmt: skip


def _compare(report: FilmReport, seen: list[Seen], instruments: Instruments) -> tuple[Pairs, list[Company]]:
    """Pairs of shots, and of each shot what its pairs say of it: the median, so that one odd shot moves no other.

    Returns how alike the faces of two shots are, and which shots should show the same person.
    """
    found: dict[tuple[int, int], dict[str, float]] = {}
    pairs = sorted(combinations(range(len(seen)), 2), key=lambda pair: pair[1] - pair[0])
    for rank, (i, j) in enumerate(pairs):
        values = dict(_pair(seen[i], seen[j], instruments, rank < ASKED_PAIRS))
        if values:
            found[i, j] = values
    report.pairs = [PairReport((seen[i].number, seen[j].number), values) for (i, j), values in sorted(found.items())]
    alike = {pair: values["identity"] for pair, values in found.items() if "identity" in values}
    same = 0.0 if instruments.faces is None else instruments.faces.same
    groups = companies([one.names for one in seen], alike, same)
    for measure in _comparing(instruments):
        of_pairs = {pair: values[measure.name] for pair, values in found.items() if measure.name in values}
        of_shots: list[list[float]] = [[] for _ in seen]
        for pair, value in of_pairs.items():
            if measure.name != "identity" or _may_be_one(seen, pair):
                for index in pair:
                    of_shots[index].append(value)
        for index, (shot, of_shot) in enumerate(zip(report.shots, of_shots, strict=True)):
            own = like_own(index, groups, alike) if measure.name == "identity" else None
            median = statistics.median_high(of_shot) if of_shot else None
            _put(shot, measure, median if own is None else own, report.measures)
        if any(measure.name in values for values in found.values()):
            report.measures[measure.name] = measure
    return alike, groups


def _comparing(instruments: Instruments) -> Iterator[Measure]:
    asked = instruments.asker_name if instruments.ask is not None else ""
    unasked = NO_QUESTIONS if instruments.clip_name == "CLIP" else f"{instruments.clip_name}: {NO_QUESTIONS}"
    if instruments.faces is not None:
        yield identity_measure(instruments.faces)
    for measure in (clothes_measure(asked), objects_measure(asked)):
        yield measure if asked else replace(measure, tool=unasked)


def _may_be_one(seen: list[Seen], pair: tuple[int, int]) -> bool:
    """Whether faces of two shots can be one person's: those of shots that name different people should differ."""
    first, second = (seen[index].names for index in pair)
    return bool(first & second) or not (first and second)


def _pair(first: Seen, second: Seen, instruments: Instruments, asked: bool) -> Iterator[tuple[str, float]]:
    """What two shots have in common, by measure."""
    ask = instruments.ask
    if instruments.faces is not None:
        best, same = same_people(first.people, second.people, instruments.faces.same)
        if best is not None:
            yield "identity", best
        worn = [(first.people.index(a), second.people.index(b)) for a, b in same]
        clothes: list[float | None] = []
        if ask is not None and asked:
            clothes = [
                says_yes(ask, first.clothes_stills[a], second.clothes_stills[b], CLOTHES_QUESTION)
                for a, b in worn
                if a in first.clothes_stills and b in second.clothes_stills
            ]
        elif ask is None:
            both = [(a, b) for a, b in worn if a in first.clothes and b in second.clothes]
            clothes = [clothes_alike(first.clothes[a], second.clothes[b]) for a, b in both]
        known = [value for value in clothes if value is not None]
        if known:
            yield "clothes", min(known)
    if ask is not None and asked and first.rest_still is not None and second.rest_still is not None:
        question = OBJECTS_QUESTION.format(first=first.prompt, second=second.prompt)
        answer = says_yes(ask, first.rest_still, second.rest_still, question)
        if answer is not None:
            yield "objects", answer
    elif ask is None and first.rest is not None and second.rest is not None:
        yield "objects", cosine(first.rest, second.rest)


def _fall_out(report: FilmReport, alike: Pairs, groups: list[Company], instruments: Instruments) -> None:
    titles = [shot.title for shot in report.shots]
    if instruments.faces is not None:
        for index, found in strangers(titles, groups, alike, instruments.faces.same).items():
            report.shots[index].falls_out.append(found)
    for name, measure in report.measures.items():
        if name not in ("identity", SEAMS):
            values = [shot.values.get(name) for shot in report.shots]
            for index, found in odd_ones(titles, values, measure).items():
                report.shots[index].falls_out.append(found)


def _still(clip: Clip) -> np.ndarray:
    """The middle one of the frames looked at, small, as it is kept for the contact sheet."""
    picture = clip.looked_at[len(clip.looked_at) // 2]
    scale = min(1.0, STILL / picture.shape[1])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
