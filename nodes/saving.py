"""The node that writes a film of any length as a video file, decoding it piece by piece."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy.cli_args import args
from comfy_api.latest import InputImpl, io, ui
from torch import Tensor

from ..memory_encoder.files import FolderNameError, named_folder
from ..memory_encoder.film.loop import Film
from ..memory_encoder.film.opening import Opening, stored_film
from ..memory_encoder.film.sections import MANIFEST
from ..memory_encoder.pictures.codec import codec_of
from ..memory_encoder.pictures.decoding import Part, decode_film
from ..memory_encoder.pictures.movie import write_movie
from .runtime import folders
from .runtime.progress import SavingProgress
from .sockets import CATEGORY, vae_input, with_advanced

# What the sampler's LATENT says of its film: {"sections": latents of each part, "fps": ..., "lead": latents at the
# beginning that belong to the film before; they are decoded for the VAE to see, and not shown, "opens": how many parts
# are of what the film opens with, "repeated": of each part, in a film of several clips only, see Part}.
LAYOUT = "video_memory"
PREFIX_BYTES = 190  # file systems take 255 of a name; number, ending and those of a temporary file are added


@dataclass(frozen=True)
class FilmSource:
    """Latents of a film, part by part, wherever they are; `parts` may be called more than once.

    latents: of all parts. lead: those of them, at the beginning, that are not shown. visible: parts that are.
    """

    parts: Callable[[], Iterator[Part]]
    latents: int
    fps: float | None
    visible: int
    lead: int = 0

    @property
    def first(self) -> Tensor:
        return next(self.parts()).latents


class VideoMemorySaveFilm(io.ComfyNode):
    """Decodes and encodes section by section: the memory it takes does not grow with the film."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemorySaveFilm",
            display_name="Save Film",
            category=CATEGORY,
            description="Saves a film as MP4, decoded piece by piece: RAM and VRAM stay flat however long it is.",
            inputs=[
                vae_input(),
                io.String.Input(
                    "filename_prefix", default="video/film", tooltip="Name in the output folder; a number is added."
                ),
                io.Float.Input(
                    "fps", default=0.0, min=0.0, max=240.0, step=0.01,
                    tooltip="Frames in a second; 0 takes those of the storyboard.",
                ),
                io.Float.Input(
                    "crf", default=18.0, min=0.0, max=51.0, step=1.0,
                    tooltip="Lower is better and larger: 23 is what Save Video takes. 0 loses nothing, but browsers "
                    "and many players cannot show it; 1 is the best that all play.",
                ),
                io.Boolean.Input(
                    "match_colours", default=False,
                    tooltip="Moves brightness, contrast and tint of later sections gently towards the first one. "
                    "Against slow drift; decodes twice.",
                ),
                io.Latent.Input("latent", optional=True, tooltip="The film, from the Autoregressive Sampler."),
                io.String.Input(
                    "film", default="", optional=True,
                    tooltip="Instead of latent: name of a film in output/video_memory, finished or not.",
                ),
                io.Audio.Input("audio", optional=True, tooltip="Sound of the film; cut where the film ends."),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The saved file."),
                io.String.Output(display_name="report", tooltip="File, frames and length."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )  # fmt: skip
        return with_advanced(schema, "fps", "crf", "match_colours")

    @classmethod
    def fingerprint_inputs(cls, film: Any = "", **_: Any) -> str:
        """Changes when the film on disk does."""
        return film_stamp(film)

    @classmethod
    def validate_inputs(cls, filename_prefix: Any = "film") -> bool | str:
        """Before anything runs: a film takes hours, and its file name is read at the very end."""
        return prefix_fault(filename_prefix) or True

    @classmethod
    def execute(
        cls, vae, filename_prefix: str, fps: float, crf: float, match_colours: bool, latent: dict | None = None,
        film: str = "", audio: dict | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        if fault := prefix_fault(filename_prefix):  # one that came through a link
            raise ValueError(fault)
        source = film_source(latent, film, match_colours)
        rate = fps or source.fps
        if not rate:
            raise ValueError("fps: the film does not say at how many frames a second it runs; set fps")
        codec = codec_of(vae, film=source.first)
        height, width = (n * codec.spatial for n in source.first.shape[3:])
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        path = Path(folder) / f"{name}_{counter:05}_.mp4"
        progress = SavingProgress(source.latents - source.lead, codec.temporal)
        frames = write_movie(
            path, progress.watch(decode_film(source.parts(), codec, match_colours, lead=source.lead)), rate, crf,
            metadata_of(cls.hidden), audio, progress.frame,
        )  # fmt: skip
        report = f"{path.name}: {source.visible} parts, {frames} frames ({frames / rate:.2f} s) at {rate:g} fps"
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)]).as_dict()
        report += left_out(film)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), report, ui=shown | {"text": [report]})


def prefix_fault(prefix: Any) -> str:
    """Why a file cannot have this prefix, a path below the output folder; empty when it can."""
    if not isinstance(prefix, str) or not prefix.strip():
        return "filename_prefix is empty; write a name, such as video/film"
    if fault := re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", prefix):
        return f"filename_prefix {prefix[:80]!r} contains {fault[0]!r}, which no file name can have; remove it"
    for name in re.split(r"[/\\]", prefix):
        if len(name.encode()) > PREFIX_BYTES:
            return (
                f"filename_prefix: the name {name[:40]}... takes {len(name.encode())} bytes; use at most "
                f"{PREFIX_BYTES}, which are {PREFIX_BYTES} plain letters, or fewer of other scripts"
            )
    return ""


def film_latent(film: Film, fps: float, opening: Opening | None) -> dict[str, Any]:
    """LATENT of a whole film that also says where its parts begin and how fast it runs; other nodes do not mind."""
    opens = list(opening.parts()) if opening is not None else []
    clips = [part.repeated for part in opens] + [entry.section.repeated for entry in film.sections]
    sizes = [part.latents.shape[2] for part in opens] + [entry.section.latents for entry in film.sections]
    layout: dict[str, Any] = {"sections": sizes, "fps": fps}
    if opening is not None and opening.lead:
        layout["lead"] = opening.lead
    if opens:
        layout["opens"] = len(opens)
    if any(repeated is not None for repeated in clips):
        layout["repeated"] = clips
    samples, at = torch.empty(0), 0
    # Section by section from disk, so that no second copy of the whole film is in RAM.
    for size, latents in zip(sizes, itertools.chain((part.latents for part in opens), film.latents), strict=True):
        if not at:
            samples = latents.new_empty(*latents.shape[:2], sum(sizes), *latents.shape[3:])
        samples[:, :, at : at + size] = latents
        at += size
    return {"samples": samples, LAYOUT: layout}


def parts_of(latent: dict[str, Any], name: str = "latent") -> list[Part] | None:
    """The parts of a film that a LATENT of the sampler holds; None when it is another one, or was cut or joined since.

    Raises ValueError for the latter where a film of several clips can no longer be told apart.
    """
    layout, samples = latent.get(LAYOUT) or {}, latent["samples"]
    sizes = list(layout.get("sections", ()))
    repeated = layout.get("repeated") or [None] * len(sizes)
    if sum(sizes) == samples.shape[2]:
        return [Part(*part) for part in zip(samples.split(sizes, dim=2), repeated, strict=True)]
    if "repeated" in layout:
        raise ValueError(
            f"{name} is a film of several clips that another node has cut or joined since, so that it says no longer "
            "where they begin; connect the Autoregressive Sampler directly"
        )
    return None


def film_source(latent: dict[str, Any] | None, film: str, match_colours: bool = False) -> FilmSource:
    """Where the film comes from. Raises ValueError when that is not clear or it does not hold one film."""
    if (latent is None) == (not film.strip()):
        raise ValueError("connect latent, or write the name of a film in output/video_memory; one of the two")
    if latent is None:
        stored = stored_film(folders.film_root(), film)
        opening = stored.opening()
        sizes = [] if opening is None else [part.latents.shape[2] for part in opening.parts()]
        sizes += [record.get("latents", 0) for record in stored.records]
        return _source(stored.parts, sizes, stored.fact("fps"), 0 if opening is None else opening.lead)
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 5:
        raise ValueError("latent is not one of a video; connect the LATENT of the Autoregressive Sampler")
    if samples.shape[0] != 1:
        raise ValueError(f"latent holds a batch of {samples.shape[0]} clips; pick one with Latent From Batch")
    layout, parts = latent.get(LAYOUT) or {}, parts_of(latent)
    if parts is None:
        if match_colours:
            raise ValueError(
                "match_colours: this latent does not say where its sections begin; connect the Autoregressive Sampler "
                "directly, or give the name of the film instead of latent"
            )
        layout, parts = {"fps": layout.get("fps")}, [Part(samples)]
    sizes = [part.latents.shape[2] for part in parts]
    return _source(lambda: iter(parts), sizes, layout.get("fps"), layout.get("lead") or 0)


def _source(parts: Callable[[], Iterator[Part]], sizes: Sequence[int], fps: float | None, lead: int) -> FilmSource:
    visible = sum(end > lead for end in itertools.accumulate(sizes))
    return FilmSource(parts, sum(sizes), fps, visible, lead)


def metadata_of(hidden: Any) -> dict[str, Any]:
    """Workflow and prompt for the file, unless ComfyUI was started with --disable-metadata."""
    if args.disable_metadata:
        return {}
    prompt = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return dict(hidden.extra_pnginfo or {}) | prompt


def left_out(film: str) -> str:
    """What to add to the report when sections of an earlier run lie behind those of a film on disk."""
    count = len(stored_film(folders.film_root(), film).stale) if film.strip() else 0
    return f"; {count} of an earlier run left out" if count else ""


def film_stamp(film: Any) -> str:
    """Time and size of a film's manifest, empty where there is none."""
    if not isinstance(film, str) or not film.strip():
        return ""
    try:
        status = (named_folder(folders.film_root(), film, "film") / MANIFEST).stat()
    except (FolderNameError, OSError):
        return ""  # the run itself will say what is wrong
    return f"{status.st_size}-{status.st_mtime_ns}"


NODES = [VideoMemorySaveFilm]
