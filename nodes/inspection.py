"""What the memory inspector shows: pairs of true and remembered frames with PSNR, and the timeline of a memory."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..memory_encoder.evaluation.metrics import psnr
from ..memory_encoder.frames import evenly, first_frame, last_frame
from ..memory_encoder.memory.branching import section_numbers
from ..memory_encoder.memory.video_memory import VideoMemory

MAX_PAIRS = 96  # kept as pictures in ComfyUI's temporary folder; PSNR is given for every frame
MAX_SIDE = 640
FOLDER = "video_memory_recall"


def recall_ui(original: Tensor, retrieved: Tensor) -> dict[str, Any]:
    """Frames [N,H,W,3] in 0..1 -> `ui` entry: PSNR of every frame, and pictures of at most `MAX_PAIRS` of them.

    PSNR of identical frames is infinite, which JSON does not have: None stands for it.
    """
    values = [float(value) for value in psnr(original, retrieved)]
    run = uuid.uuid4().hex[:12]
    folder = Path(folder_paths.get_temp_directory()) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for index in evenly(len(values), min(MAX_PAIRS, len(values))):
        names = {kind: f"{run}_{index:05}_{kind}.webp" for kind in ("original", "recalled")}
        _save(folder / names["original"], original[index])
        _save(folder / names["recalled"], retrieved[index])
        pairs.append({"frame": index, **names})
    finite = [value if math.isfinite(value) else None for value in values]
    return {"video_memory_recall": [{"subfolder": FOLDER, "type": "temp", "psnr": finite, "pairs": pairs}]}


def timeline_ui(memory: VideoMemory, ranges: Sequence[range], temporal: int = 4) -> dict[str, Any]:
    """`ui` entry of what a memory holds, in frames: its length, its sections, and the frames that were asked for.

    Sections have the numbers that Cut Memory and the strip of the film count by; 0 is the opening.
    """
    sections = [
        {
            "number": number,
            "first": first_frame(record.start_latent, temporal),
            "last": last_frame(record.start_latent + record.latents - 1, temporal),
            "prompt": record.prompt,
        }
        for number, record in zip(section_numbers(memory.sections), memory.sections, strict=True)
    ]
    asked = [[first_frame(r.start, temporal), last_frame(r.stop - 1, temporal)] for r in ranges]
    frames = last_frame(memory.latents - 1, temporal) + 1
    return {"video_memory_timeline": [{"frames": frames, "sections": sections, "asked": asked}]}


def _save(path: Path, frame: Tensor) -> None:
    data = (frame.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    image = Image.fromarray(np.ascontiguousarray(data))
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    image.save(path, "WEBP", quality=92, method=2)
