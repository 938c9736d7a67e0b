"""The node that judges a film: which shot falls out, in numbers and in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..memory_encoder.evaluation.judge.contact_sheet import contact_sheet
from ..memory_encoder.evaluation.judge.footage import Footage, footage_of_film, footage_of_pictures
from ..memory_encoder.evaluation.judge.instruments import find_instruments
from ..memory_encoder.evaluation.judge.judge_command import write_report
from ..memory_encoder.evaluation.judge.judging import judge_film
from ..memory_encoder.evaluation.judge.marks import section_keys
from ..memory_encoder.evaluation.judge.report_text import markdown
from ..memory_encoder.files import named_folder
from .film_pictures import ClipLook
from .runtime import folders
from .runtime.progress import stop_if_interrupted
from .saving import film_stamp
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
                    tooltip="Name of a film in output/video_memory; its strip then marks what falls out. Empty: images.",
                ),
                io.Image.Input("images", optional=True, tooltip="Instead of film: all its pictures, with a storyboard."),
                StoryboardSocket.Input(
                    "storyboard", optional=True, tooltip="What the shots should show, and who is in them."
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True, tooltip="Compares clothes and objects; without it they are left out."
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="The sampler's LATENT: lets this node wait for the film."
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="A picture of each shot with its numbers, what falls out in red."),
                io.String.Output(display_name="report", tooltip="What falls out, a table, and what could not be measured."),
                io.String.Output(display_name="json", tooltip="All numbers."),
            ],
            is_output_node=True,
        )  # fmt: skip
        return with_lasting_view(schema)

    @classmethod
    def fingerprint_inputs(cls, film: Any = "", **_: Any) -> str:
        """Changes when the film on disk does."""
        return film_stamp(film)

    @classmethod
    def execute(
        cls, film: str, images: Tensor | None = None, storyboard: EncodedStoryboard | None = None,
        clip_vision: Any = None, latent: dict | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        folder = named_folder(folders.film_root(), film, "film") if film.strip() else None
        keys = {} if folder is None else section_keys(folder)
        footage = footage_of(folder, images, storyboard)
        instruments = find_instruments(
            [Path(folder_paths.models_dir)], embed=None if clip_vision is None else ClipLook(clip_vision)
        )
        bar = comfy.utils.ProgressBar(len(footage.storyboard.shots))

        def watch(done: int, total: int) -> None:
            stop_if_interrupted()
            bar.update_absolute(done, total)

        report = judge_film(footage, instruments, watch)
        if folder is not None:
            write_report(report, folder, keys=keys)
        sheet = torch.from_numpy(np.asarray(contact_sheet(report).convert("RGB")).astype(np.float32) / 255)[None]
        text = "\n".join([*(report.remarks() or ["nothing falls out"]), "", markdown(report)])
        return io.NodeOutput(sheet, text, json.dumps(report.to_dict(), ensure_ascii=False), ui={"text": [text]})


def footage_of(folder: Path | None, images: Tensor | None, storyboard: EncodedStoryboard | None) -> Footage:
    """The film on disk, or as pictures [T,H,W,3]. Raises ValueError for both, neither, and pictures without shots."""
    if (folder is None) == (images is None):
        raise ValueError("film: give the name of a film or connect images, and not both")
    if folder is not None:
        return footage_of_film(folder, None if storyboard is None else storyboard.storyboard)
    if storyboard is None:
        raise ValueError("images: connect the storyboard too, which says where each shot begins")
    assert images is not None
    count, height, width = images.shape[:3]
    return footage_of_pictures(lambda: [images], count, (width, height), storyboard.fps, storyboard.storyboard)


NODES = [VideoMemoryFilmReport]
