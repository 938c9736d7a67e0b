"""What a film opens with: a clip, the end of a memory, or the first sections of another film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..memory_encoder.digests import section_key
from ..memory_encoder.files import named_folder
from ..memory_encoder.film.opening import Opening, OpeningSection, StoredFilmError, stored_film
from ..memory_encoder.film.sections import SectionStore
from ..memory_encoder.film.states import KeptStates, appended_section
from ..memory_encoder.frames import frames_in
from ..memory_encoder.memory.memory_file import Memory, holds_pictures
from ..memory_encoder.memory.picture_choice import PictureChoice, PictureMarks
from ..memory_encoder.pictures.codec import CONTEXT, Codec
from ..memory_encoder.storyboard import ONE_CLIP, Lattice
from .film_inputs import check_size
from .lead import resized
from .runtime import folders
from .runtime.compress import compress, latents_of, normalised_history
from .runtime.managed import ManagedEncoder
from .runtime.progress import stop_if_interrupted
from .saving import parts_of

HISTORY = "history"  # what a manifest and a memory say of a clip that opens a film, in the place of its prompt


@dataclass(frozen=True)
class FilmFacts:
    """What the manifest of a film says of it, so that another film can begin with its sections."""

    width: int
    height: int
    fps: float
    latent_format: str
    memory: str  # digest of the memory that the film continues, if any


@dataclass(frozen=True)
class BeginningRequest:
    """The inputs that say what a film begins with."""

    history: dict[str, Any] | None
    memory: Memory | None
    start_image: Tensor | None
    film: str
    branch_film: str
    branch_section: int
    references: Tensor | None = None


@dataclass(frozen=True)
class Beginning:
    """What a film begins with, checked. clip: the history, normalised. picture: the start image at the film's size.
    branch: key of the other film's sections. opening: latents before the first section.
    """

    clip: Tensor | None
    picture: Tensor | None
    branch: str | None
    opening: Opening | None
    facts: FilmFacts

    def history(self, lattice: Lattice) -> dict[str, Any]:
        """What `plan_sections` is told of it."""
        frames = 0 if self.opening is None else self.opening.frames
        return {
            "after_clip": self.clip is not None and self.picture is None,
            "after_picture": self.picture is not None,
            "history_frames": None if lattice.clips == "film" else frames,  # as those of one clip with the memory's
        }

    def write_opening(self, store: SectionStore) -> dict[str, Any]:
        """Puts the opening on disk beside the sections; returns what each record of the manifest says of the film."""
        return vars(self.facts) | {"opening": "" if self.opening is None else self.opening.keep(store)}


def beginning_of(
    request: BeginningRequest,
    model: Any,
    vae: Any,
    size: tuple[int, int, int],
    pixels: tuple[int, int],
    fps: float,
    lattice: Lattice = ONE_CLIP,
    states: KeptStates | None = None,
) -> Beginning:
    """size: channels, height and width of the latents; pixels: width and height. states: what the VAE made before.

    Raises ValueError that names the input for two openings, or for one that does not fit the film.
    """
    history, memory, picture = request.history, request.memory, None
    if request.start_image is not None:
        refuse_two_openings(history, memory, request.branch_film)
        picture = resized(request.start_image[:1], *pixels)
        encoded = (states or KeptStates()).tensor({"picture": picture}, lambda: vae.encode(picture))
        history = {"samples": encoded}
    clip = None if history is None else normalised_history(model, history, "history")
    check_size(clip, memory, size)
    facts = facts_of(model, memory, *pixels, fps, request.references)
    branch = branch_of(folders.film_root(), request.film, facts, request.branch_film, request.branch_section, history)
    check_branch_size(branch, size)
    opening = opening_of(model, history, memory, branch, lattice)
    check_clips(opening, lattice)
    return Beginning(clip, picture, None if branch is None else branch.key, opening, facts)


def facts_of(
    model: Any, memory: Memory | None, width: int, height: int, fps: float, references: Tensor | None = None
) -> FilmFacts:
    seen = {} if memory is None else {"tokens": memory.contents()}
    seen |= {} if references is None else {"references": references}
    digest = section_key("", seen) if seen else ""
    return FilmFacts(width, height, fps, type(model.get_model_object("latent_format")).__name__, digest)


def opening_of(
    model: Any,
    history: dict[str, Any] | None,
    memory: Memory | None,
    branch: Opening | None,
    lattice: Lattice = ONE_CLIP,
) -> Opening | None:
    """Latents before the first section: another film's, the history, the end of the memory, or None.

    A causal VAE sees earlier latents when it decodes, and turns the first one of all into a single frame. Without the
    end of the memory in front the first frames after it would be a flash, and three of them would be missing; not so
    where every section is a clip of its own. A history is one clip, unless it is a film of several.
    """
    if branch is not None:
        return branch
    if history is not None:
        latents = history["samples"].cpu().float()
        sections = (OpeningSection(latents.shape[2], HISTORY),)
        if (parts := parts_of(history, "history")) and any(part.repeated is not None for part in parts):
            sections = tuple(OpeningSection(part.latents.shape[2], HISTORY, None, part.repeated) for part in parts)
        return Opening(latents, sections)
    if memory is not None and not holds_pictures(memory) and memory.recent.shape[2] and lattice.clips == "film":
        latents = latents_of(model, memory.recent[:, :, -CONTEXT:]).cpu().float()
        return Opening(latents, lead=latents.shape[2])
    return None


def opening_report(opening: Opening, fps: float, goes_on: bool) -> list[str]:
    """What a film opens with, in lines for people. goes_on: the first section is no cut."""
    lines = []
    if opening.lead:
        lines.append(
            f"before it lie {opening.lead} latents of the film that it continues: Save Film does not show them, "
            f"VAE Decode does, as the first {frames_in(opening.lead)} frames"
        )
    if opening.frames:
        count = "1 frame" if opening.frames == 1 else f"{opening.frames} frames"
        line = f"it opens with {count} ({opening.frames / fps:.2f} s at {fps:g} fps)"
        if opening.frames > 1 and opening.sections and opening.sections[0].prompt == HISTORY:
            line += ", from which the first shot goes on" if goes_on else ""
            line += "; a clip of another frame rate is slowed down or sped up by that, see Clip for History"
        lines.append(line)
    return lines


def branch_of(
    root: Path, film: str, facts: FilmFacts, branch_film: str, branch_section: int, history: dict[str, Any] | None
) -> Opening | None:
    """The first sections of another film, or None when none is named. That film is only read.

    Raises StoredFilmError that names the input for a film that is not there, not whole or does not fit.
    """
    if not branch_film.strip():
        return None
    if _same_folder(root, branch_film, film):
        raise StoredFilmError(f"branch_film: {film!r} is the film itself; give `film` another name for the branch")
    if history is not None:
        raise StoredFilmError("history and branch_film are two openings; disconnect history or empty branch_film")
    source = stored_film(root, branch_film, "branch_film")
    for name, what in (("width", "width"), ("height", "height"), ("fps", "fps"), ("latent_format", "latent space")):
        theirs, ours = source.fact(name), getattr(facts, name)
        if theirs is not None and theirs != ours:
            raise StoredFilmError(
                f"branch_film: film {branch_film!r} has {what} {theirs}, this one has {ours}; a branch keeps "
                "the size, the fps and the kind of model of the film that it comes from"
            )
    continued = source.fact("memory")
    if continued is not None and continued != facts.memory:
        cure = "it has neither: disconnect memory and references"
        cure = "connect the memory that it continues, and its references" if continued else cure
        raise StoredFilmError(
            f"branch_film: film {branch_film!r} was made after another memory or other references; {cure}"
        )
    return source.until(branch_section)


def _same_folder(root: Path, branch_film: str, film: str) -> bool:
    """Whether two names are of one film: as they are composed, and as the disk tells capitals apart."""
    first, second = named_folder(root, branch_film, "branch_film"), named_folder(root, film, "film")
    return first == second or (first.exists() and second.exists() and first.samefile(second))


def check_clips(opening: Opening | None, lattice: Lattice) -> None:
    """Raises StoredFilmError for a film of several clips before one that is to be a single clip."""
    if opening is not None and lattice.clips == "film" and sum(1 for _ in opening.parts()) > 1:
        raise StoredFilmError(
            "what the film begins with consists of several clips, and memory_encoder goes on from one clip only; use "
            "the kind of encoder with which it was made, or give its last section alone as history"
        )


def append_opening(
    encoder: ManagedEncoder,
    codec: Codec,
    memory: Any,
    model: Any,
    opening: Opening | None,
    choice: PictureChoice | None = None,
    as_seen: Callable[[Tensor, OpeningSection], Tensor] = lambda latents, piece: latents,
    states: KeptStates | None = None,
) -> Any:
    """The memory with the opening in it, appended piece by piece as its film did, which gives the same bits.

    as_seen: normalised latents of a piece as the memory gets them. states: those of the memory, which come along.
    """
    if choice is not None:  # pins and bans name the pictures that come out of this, and do not change them
        choice = replace(choice, marks=PictureMarks(before=choice.marks.before))
    states, before = states or KeptStates(), None
    for latents, piece in opening.appended() if opening is not None else ():
        stop_if_interrupted()
        normalised, seen = normalised_history(model, {"samples": latents}, "history"), codec
        if choice is not None and piece.repeated is None:  # pictures are of the clip that goes on
            seen = replace(codec, decode=partial(codec.decode_after, before))
        before = normalised[:, :, -CONTEXT:]

        def append(memory=memory, normalised=normalised, piece=piece, seen=seen) -> Any:
            shown, repeated = as_seen(normalised, piece), piece.repeated or 0
            return compress(encoder, seen, memory, shown, piece.prompt, piece.seed, repeated, choice)

        facts = appended_section(latents, piece.prompt, piece.seed, piece.repeated)
        memory = states.extended(memory, facts, append)
    return memory


def check_branch_size(branch: Opening | None, size: tuple[int, int, int]) -> None:
    """Raises StoredFilmError when the latents of a branch are not of the film's channels, height and width."""
    if branch is None:
        return
    found = tuple(branch.latents.shape[i] for i in (1, 3, 4))
    if found != size:
        raise StoredFilmError(
            f"branch_film: its latents have {found[0]} channels and the size {found[2]}x{found[1]}, this film's have "
            f"{size[0]} and {size[2]}x{size[1]}; use its model, width and height"
        )


def refuse_two_openings(history: Any, memory: Memory | None, branch_film: str) -> None:
    """Raises StoredFilmError when a start image is not the only thing that the film begins with."""
    for name, connected in (
        ("history", history is not None),
        ("memory", memory is not None),
        ("branch_film", branch_film),
    ):
        if connected:
            raise StoredFilmError(f"start_image and {name} are two openings; a film begins with one of them")
