"""The node that judges a film: which shot falls out, in numbers and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..memory_encoder.evaluation.judge.connected_judges import Asked, Seeing, Words
from ..memory_encoder.evaluation.judge.contact_sheet import contact_sheet
from ..memory_encoder.evaluation.judge.footage import (
    Decoded,
    Footage,
    footage_of_film,
    footage_of_movie,
    footage_of_pictures,
    footage_of_sections,
)
from ..memory_encoder.evaluation.judge.instruments import find_instruments, found_files
from ..memory_encoder.evaluation.judge.judge_command import write_report
from ..memory_encoder.evaluation.judge.judging import judge_film
from ..memory_encoder.evaluation.judge.marks import section_keys
from ..memory_encoder.evaluation.judge.report_text import markdown
from ..memory_encoder.files import named_folder
from ..memory_encoder.film.opening import stored_film
from ..memory_encoder.pictures.codec import codec_of
from ..memory_encoder.pictures.decoding import decode_film, shown_frames
from .runtime import folders
from .runtime.progress import stop_if_interrupted
from .saving import LAYOUT, FilmSource, film_source, film_stamp
from .sockets import CATEGORY, StoryboardSocket, with_lasting_view
from .storyboard_node import EncodedStoryboard


class VideoMemoryFilmReport(io.ComfyNode):
    """Measures every shot of a film and says which one to make again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryFilmReport",
            display_name="Film Report",
            category=CATEGORY,
            description="Measures every shot of a film (faces, clothes, clarity, motion, drift, joins) and says which "
            "ones fall out of it.",
            inputs=[
                io.String.Input(
                    "film", default="",
                    tooltip="Name of a film in output/video_memory, finished or not; its strip then marks what falls "
                    "out. Empty: latent or images.",
                ),
                io.Latent.Input(
                    "latent", optional=True,
                    tooltip="The film, from the Autoregressive Sampler, with vae and storyboard. With the name of a "
                    "film this node only waits for it.",
                ),
                io.Vae.Input(
                    "vae", optional=True,
                    tooltip="Decodes the film, so that its own pictures are judged. Without it a film is judged by its "
                    "small previews.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="Instead of film and latent: all pictures, with a storyboard."
                ),
                StoryboardSocket.Input(
                    "storyboard", optional=True,
                    tooltip="What the shots should show, and who is in them. A film by its name knows its prompts.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True, tooltip="Compares clothes and objects; without it they are left out."
                ),
                io.Clip.Input(
                    "clip", optional=True,
                    tooltip="Text encoder of the same CLIP as clip_vision, for how well pictures fit their prompts.",
                ),
                io.Clip.Input(
                    "language_model", optional=True,
                    tooltip="A vision-language model, as for Generate Text: is asked whether clothes and objects are "
                    "the same.",
                ),
                io.Video.Input(
                    "video", optional=True,
                    tooltip="Instead of film, latent and images: a video, of which no more than a shot is in RAM. "
                    "Without a storyboard each cut begins a shot.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet", tooltip="A picture of each shot with its numbers, what falls out in red."
                ),
                io.String.Output(
                    display_name="report", tooltip="What falls out, a table, and what could not be measured."
                ),
                io.String.Output(display_name="json", tooltip="All numbers."),
            ],
            is_output_node=True,
        )  # fmt: skip
        return with_lasting_view(schema)

    @classmethod
    def fingerprint_inputs(cls, film: Any = "", **_: Any) -> str:
        """Changes when the film on disk does, and when there are other models to judge it with."""
        return f"{film_stamp(film)} {[str(path) for path in found_files(folders.report_folders())]}"

    @classmethod
    def execute(
        cls, film: str, latent: dict | None = None, vae: Any = None, images: Tensor | None = None,
        storyboard: EncodedStoryboard | None = None, clip_vision: Any = None, clip: Any = None,
        language_model: Any = None, video: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        folder = named_folder(folders.film_root(), film, "film") if film.strip() else None
        keys = {} if folder is None else section_keys(folder)  # as they are before it is watched
        footage = footage_of(folder, latent, vae, images, storyboard, video)
        instruments = find_instruments(
            folders.report_folders(),
            embed=None if clip_vision is None else Seeing(clip_vision),
            embed_text=None if clip is None else Words(clip),
            ask=None if language_model is None else Asked(language_model),
            device=mm.get_torch_device(),
            core=True,
        )
        bar = comfy.utils.ProgressBar(len(footage.storyboard.shots))

        def watch(done: int, total: int) -> None:
            stop_if_interrupted()
            bar.update_absolute(done, total)

        report = judge_film(footage, instruments, watch)
        if folder is not None:
            write_report(report, folder, keys=keys)
        sheet = torch.from_numpy(np.asarray(contact_sheet(report).convert("RGB")).astype(np.float32) / 255)[None]
        text, numbers = markdown(report), json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False)
        shown = ui.PreviewImage(sheet).as_dict() | {"text": [text]}
        return io.NodeOutput(sheet, text, numbers, ui=shown)


def footage_of(
    folder: Path | None, latent: dict | None, vae: Any, images: Tensor | None, storyboard: EncodedStoryboard | None,
    video: Any = None,
) -> Footage:  # fmt: skip
    """The film on disk, as latents, as pictures [T,H,W,3], or as a VIDEO.

    Raises ValueError where none of them or more than one is given, and for pictures and latents without what they need.
    """
    told = None if storyboard is None else storyboard.storyboard
    if sum((folder is not None or latent is not None, images is not None, video is not None)) != 1:
        raise ValueError("film: give the name of a film, or connect latent, or images, or video; one of them")
    if folder is not None:
        return footage_of_film(folder, told, None if vae is None else _stored(folder, vae))
    fps = 0.0 if storyboard is None else storyboard.fps
    if video is not None:
        source = video.get_stream_source()
        if isinstance(source, str) and video.get_active_trim_window() == (0.0, 0.0):
            return footage_of_movie(Path(source), told)
        parts = video.get_components()  # cut, or never on disk
        images, fps = parts.images, float(parts.frame_rate)
    if storyboard is None or told is None:
        raise ValueError("storyboard: latent and images do not say where each shot begins; connect the storyboard too")
    if images is not None:
        count, height, width = images.shape[:3]
        return footage_of_pictures(lambda: [images], count, (width, height), fps, told)
    if vae is None:
        raise ValueError("vae: connect the VAE too, which makes pictures of latent")
    return _sampled(latent or {}, vae, storyboard)


def _sampled(latent: dict[str, Any], vae: Any, storyboard: EncodedStoryboard) -> Footage:
    """A LATENT of the sampler with the sections that it tells of; another one by the storyboard's times alone."""
    source, layout = film_source(latent, ""), latent.get(LAYOUT) or {}
    frames = shown_frames(source.parts(), codec_of(vae, film=source.first).temporal, source.lead)
    fps = source.fps or storyboard.fps
    opens = int(layout.get("opens", 0)) if len(frames) == len(layout.get("sections", ())) else 0
    decoded = _decoded(source, vae, sum(frames[:opens]))
    if len(frames) > 1:
        return footage_of_sections(decoded, frames[opens:], fps, storyboard.storyboard)
    return footage_of_pictures(decoded.pieces, sum(frames), decoded.size, fps, storyboard.storyboard)


def _stored(folder: Path, vae: Any) -> Decoded:
    opening = stored_film(folder.parent, folder.name).opening()
    return _decoded(film_source(None, folder.name), vae, 0 if opening is None else opening.frames)


def _decoded(source: FilmSource, vae: Any, before: int = 0) -> Decoded:
    """Pictures as Save Film makes them, with a look at the cancel button before each piece."""
    first = source.first
    codec = codec_of(vae, film=first)
    height, width = (n * codec.spatial for n in first.shape[3:])

    def pieces() -> Iterator[Tensor]:
        for piece in decode_film(source.parts(), codec, lead=source.lead):
            stop_if_interrupted()
            yield piece

    return Decoded(pieces, (width, height), before)


NODES = [VideoMemoryFilmReport]
