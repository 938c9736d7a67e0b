"""What the sampler tells the page while a film is made: the plan, each section, steps, moving previews, time left.

Beside every section's file lies a small animated preview of it, and `plan.json` beside the manifest says which sections
the film is to have, so that a page that is loaded later sees the same strip. Nothing here may fail the film.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..memory_encoder.files import write_bytes
from ..memory_encoder.film.clock import FilmClock
from ..memory_encoder.film.loop import ExpectedSection
from ..memory_encoder.film.sections import SectionStore, is_record
from ..memory_encoder.frames import latents_in
from ..memory_encoder.memory.keyframe_memory import KeyframeMemory
from ..memory_encoder.memory.picture_choice import PictureChoice
from ..memory_encoder.pictures.codec import Codec
from ..memory_encoder.storyboard import Section, Shot
from . import preview_clips
from .events import running_node, running_prompt, send
from .picture_strip import PICTURES, PictureStrip

log = logging.getLogger("video_memory")
PLAN = "plan.json"
PLAN_VERSION = 1
STEP_EVERY = 0.4  # seconds between messages of progress
PREVIEW_EVERY = 1.2  # seconds between moving previews, which are some 20 KB each
PREVIEW_SHARE = 0.05  # most of the time that drawing previews may take


def _harmless(method: Callable[..., None]) -> Callable[..., None]:
    """Turns errors into one warning: a preview that cannot be drawn is no reason to lose a film."""

    @functools.wraps(method)
    def guarded(self: FilmEvents, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            if not self.warned:
                kind = type(error).__name__
                log.warning("film %s: the render view is not told (%s: %s)", self.store.film, kind, error)
            self.warned = True

    return guarded


RUNNING: dict[str, FilmEvents] = {}  # films that are being made, by name; each is there while its run goes on
RAN: dict[str, str | None] = {}  # the prompt of each film's last run, which has no other run of it to come


class FilmEvents:
    """Tells the page about one run of one film.

    model: MODEL whose latents are previewed, by core's `previewer` or else its cheapest. steps: sampling steps of a
    section. A section is locked through its shot or by its index in `locks`. before: sections that the film goes on
    from.
    """

    def __init__(
        self,
        store: SectionStore,
        plan: Sequence[Section],
        model: Any,
        steps: int,
        shots: Sequence[Shot],
        locks: Collection[int],
        previewer: Any = None,
        before: int = 0,
    ) -> None:
        self.store, self.plan, self.model, self.steps = store, plan, model, steps
        self.shots, self.locks, self.before = shots, locks, before
        self.clock, self.warned = FilmClock(steps), False
        self.to_make: set[int] = set()  # sections that are not on disk yet
        self.last: dict[str, Any] | None = None  # what the page was told last, but for pictures
        self.previewer, self.strip = previewer, PictureStrip(store.film)
        self.section: Section | None = None
        self.frames: list[Image.Image] = []  # of the section that was decoded last
        self.again: Callable[[], Any] | None = None  # decodes it
        self.message_time, self.preview_time, self.preview_cost = 0.0, 0.0, 0.0

    def locked(self, section: Section) -> bool:
        """Whether the section keeps what was made in its place before."""
        return section.index in self.locks or self.shots[section.shot_index].locked

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """While it is open a page that asks for the film is told how far it is."""
        RUNNING[self.store.film] = self
        try:
            yield
        finally:
            RUNNING.pop(self.store.film, None)

    @_harmless
    def started(self, expected: Sequence[ExpectedSection]) -> None:
        """The film begins: the plan, with what is expected of each section, is written and sent."""
        self.to_make = {entry.section.index for entry in expected if not entry.kept}
        sections = [plan_record(entry, self.shots[entry.section.shot_index].locked) for entry in expected]
        content = {"version": PLAN_VERSION, "film": self.store.film, "before": self.before, "sections": sections}
        write_bytes(self.store.folder / PLAN, json.dumps(content, ensure_ascii=False).encode())
        RAN[self.store.film] = running_prompt()
        self._send("started", sections=sections, before=self.before)
        self.previewer = self.previewer or preview_clips.cheapest_previewer(self.model)

    @_harmless
    def sampling(self, section: Section) -> None:
        """A section starts to be sampled."""
        self.section, self.message_time, self.preview_time = section, 0.0, 0.0
        self.clock.begin()
        self._send("sampling", index=section.index, left=self._left())

    @_harmless
    def step(self, done: int, denoised: Tensor) -> None:
        """A step of the running section is done; `denoised` is the normalised guess of the clean latents."""
        self.clock.step, now = done, time.monotonic()
        if self.section is None or (now - self.message_time < STEP_EVERY and done < self.steps):
            return
        self.message_time = now
        values = {"index": self.section.index, "step": done, "steps": self.steps, "left": self._left()}
        self._send("step", **values)
        if (
            now - self.preview_time >= max(PREVIEW_EVERY, self.preview_cost / PREVIEW_SHARE)
            and self.previewer is not None
        ):
            image = self._live(denoised)
            self.preview_time = time.monotonic()
            self.preview_cost = self.preview_time - now
            self._send("preview", index=self.section.index, image=image)

    @_harmless
    def pictures(self, memory: KeyframeMemory, choice: PictureChoice, following: int) -> None:
        """Which pictures the section `following` sees, of a memory of pictures: written beside the plan, and sent."""
        pictures = self.strip.pictures(memory, choice, following)
        write_bytes(self.store.folder / PICTURES, self.strip.content(pictures))
        self._send("pictures", pictures=pictures)

    def watch_decoding(self, section: Section, codec: Codec, again: Callable[[Codec], Any]) -> Codec:
        """The codec; what it decodes of a section on the way into the memory is kept for its preview clip.

        again: decodes the section once more, for a clip that is not there though nothing was decoded.
        """
        self.section, self.frames = section, []

        def decode(latents: Tensor) -> Tensor:
            pictures = codec.decode(latents)
            self._keep(pictures)
            return pictures

        watched = replace(codec, decode=decode)
        self.again = partial(again, watched)
        return watched

    @_harmless
    def done(self, section: Section, latents: Tensor) -> None:
        """A section is on disk and in the memory; its preview clip is written when there is none."""
        took = self.clock.finish()
        record = next((r for r in self.store.manifest() if r.get("index") == section.index), None)
        if record is not None:
            self._write_clip(section, latents, clip_path(self.store, record))
        self.section, self.frames, self.again = None, [], None
        self._send("done", index=section.index, took=took, left=self._left(section.index + 1))

    @_harmless
    def _keep(self, pictures: Tensor) -> None:
        # Fewer pictures than the section has frames means that it is decoded in pieces: latents serve instead.
        if self.section is not None and pictures.shape[1] >= self.section.frames:
            self.frames = preview_clips.picture_frames(pictures[0, -self.section.frames :], preview_clips.CLIP_FRAMES)

    def _write_clip(self, section: Section, latents: Tensor, path: Path) -> None:
        if path.is_file():
            return
        if not self.frames and self.again is not None:
            self.again()
        frames = self.frames
        if not frames and self.previewer is not None:
            shown = latents[:, :, latents_in(section.repeated) if section.repeated else 0 :]
            normalised = self.model.get_model_object("latent_format").process_in(shown)
            frames = preview_clips.latent_frames(self.previewer, normalised, preview_clips.CLIP_FRAMES)
        if frames:
            write_bytes(path, preview_clips.animated_webp([preview_clips.fitted(f) for f in frames], section.seconds))

    def _live(self, denoised: Tensor) -> str:
        assert self.section is not None
        frames = preview_clips.latent_frames(self.previewer, denoised, preview_clips.LIVE_FRAMES)
        fitted = [preview_clips.fitted(frame) for frame in frames]
        content = preview_clips.animated_webp(fitted, min(self.section.seconds, 4.0), quality=60)
        return "data:image/webp;base64," + base64.b64encode(content).decode()

    def _left(self, following: int | None = None) -> float | None:
        """Seconds left; sections before `following`, by default those up to the running one, are done."""
        if following is None:
            following = 0 if self.section is None else self.section.index + 1
        return self.clock.left(sum(index >= following for index in self.to_make))

    def _send(self, state: str, **values: Any) -> None:
        data = {"node": running_node(), "film": self.store.film, "count": len(self.plan), "state": state}
        if state not in ("preview", "pictures"):
            self.last = data | values
        send("video_memory.section", data | values)


def plan_record(entry: ExpectedSection, shot_locked: bool) -> dict[str, Any]:
    """What the strip shows of a section before its turn; kept, take: what the run is going to do with it."""
    section = entry.section
    return {
        "index": section.index,
        "shot": section.shot_index,
        "prompt": section.prompt,
        "start_seconds": section.start_seconds,
        "seconds": section.seconds,
        "frames": section.frames,
        "locked": shot_locked,
        "kept": entry.kept,
        "take": entry.take,
    }


def clip_path(store: SectionStore, record: Mapping[str, Any]) -> Path:
    """Where the preview of a manifest's section lies; raises ValueError for a record that is not one of ours.

    The record's own `file` is not trusted: a film's folder may come from elsewhere.
    """
    if not is_record(record):
        raise ValueError("the manifest has a record without key and index; render the film again")
    return store.path(record["key"], record["index"]).with_suffix(".webp")
