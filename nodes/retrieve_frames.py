"""Nodes that ask a memory for frames and measure how well it remembers."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..memory_encoder.evaluation.baselines import (
    BEFORE,
    EQUAL_NUMBERS,
    FLAT,
    LOW_RESOLUTION,
    THUMBNAIL,
    baselines,
    equal_size,
    thumbnail_size,
)
from ..memory_encoder.evaluation.counted import counted
from ..memory_encoder.evaluation.identification import Lineup
from ..memory_encoder.evaluation.metrics import MetricUnavailable, edges, lpips, psnr, ssim
from ..memory_encoder.evaluation.recall import windows
from ..memory_encoder.evaluation.score import EQUAL
from ..memory_encoder.frames import evenly, latent_ranges
from ..memory_encoder.injection.fit import check_memory, check_recall
from ..memory_encoder.injection.selection import MemorySettings
from ..memory_encoder.memory.video_memory import VideoMemory
from ..memory_encoder.phi.config import EncoderConfig
from .inspection import recall_ui, timeline_ui
from .runtime.progress import FilmProgress
from .runtime.sampling import empty_conditioning, host_of, retrieve
from .sockets import (
    CATEGORY,
    guidance_input,
    memory_input,
    model_input,
    sampling_inputs,
    seed_input,
    strength_input,
    with_lasting_view,
)

MAX_COLUMNS, LABEL_HEIGHT = 8, 20  # of the picture side by side


class VideoMemoryRetrieve(io.ComfyNode):
    """Frame retrieval: the host draws frames of the history from the memory alone (paper section 3.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryRetrieve",
            display_name="Retrieve Frames",
            category=CATEGORY,
            description="Draws frames of the history from the memory alone, which shows what is remembered.",
            inputs=[
                model_input(),
                memory_input(),
                io.String.Input(
                    "frame_indices",
                    default="0-16",
                    tooltip="Frames: single (40) or ranges (0-16), with commas. A range comes out as a clip; "
                    "several entries come out as a batch and must be equally long.",
                ),
                *sampling_inputs(),
                seed_input(),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="Prompt of the frames; without it the text is empty."
                ),
                strength_input(optional=True, tooltip="0 shows what comes without memory."),
                guidance_input(
                    "Weight of the memory against what the model draws without it. 0 and 1: as it is; 2 to 3: nearer "
                    "to what is remembered, for one more pass a step."
                ),
            ],
            outputs=[io.Latent.Output(tooltip="Remembered frames, for VAE Decode.")],
        )
        return with_lasting_view(schema)

    @classmethod
    def execute(
        cls,
        model,
        memory: VideoMemory,
        frame_indices: str,
        sampler,
        sigmas,
        seed: int,
        positive=None,
        strength: float = 1.0,
        history_guidance: float = 0.0,
    ) -> io.NodeOutput:
        host = host_of(model)
        check_memory(memory, host, "Retrieve Frames")
        check_recall(memory)
        positive = positive or empty_conditioning(model)
        ranges = latent_ranges(frame_indices, memory.latents)
        passes = sum(len(list(windows(r, memory.latents))) for r in ranges)
        bar = FilmProgress(model, passes, len(sigmas) - 1)
        settings = MemorySettings(strength=strength, history_guidance=history_guidance)
        clips = [retrieve(model, memory, r, sampler, sigmas, seed, positive, settings, bar) for r in ranges]
        return io.NodeOutput({"samples": torch.cat(clips)}, ui=timeline_ui(memory, ranges))


class VideoMemoryRetrievalReport(io.ComfyNode):
    """Original and remembered frames side by side, with numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryRetrievalReport",
            display_name="Retrieval Report",
            category=CATEGORY,
            description="Compares remembered frames with the originals by PSNR, SSIM, edges and, if installed, LPIPS, "
            "beside pictures that need no memory: one flat colour, the frame before, a thumbnail, the LR picture.",
            inputs=[
                io.Image.Input("original", tooltip="The true frames."),
                io.Image.Input("retrieved", tooltip="The remembered frames, as many and as large."),
                memory_input(
                    optional=True,
                    tooltip="Adds a thumbnail with as many pixels as this memory has tokens for a frame, one of as "
                    "many numbers as it keeps, and the LR picture.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="Up to eight frames: original above, remembered below."),
                io.String.Output(display_name="report", tooltip="The metrics, and what needs no memory."),
            ],
        )
        return with_lasting_view(schema)

    @classmethod
    def execute(cls, original: Tensor, retrieved: Tensor, memory: VideoMemory | None = None) -> io.NodeOutput:
        if original.shape[1:3] != retrieved.shape[1:3]:
            raise ValueError(
                f"retrieved frames are {retrieved.shape[2]}x{retrieved.shape[1]}, the originals "
                f"{original.shape[2]}x{original.shape[1]}; compare frames of one size"
            )
        if original.shape[0] != retrieved.shape[0]:
            raise ValueError(
                f"original has {original.shape[0]} frames, retrieved {retrieved.shape[0]}; "
                "pick the same frames with Image From Batch"
            )
        original = original[..., :3]
        report = quality_report(original, retrieved[..., :3], memory)
        shown = {"text": [report]} | recall_ui(original, retrieved[..., :3])
        return io.NodeOutput(side_by_side(original, retrieved[..., :3]), report, ui=shown)


def quality_report(original: Tensor, retrieved: Tensor, memory: VideoMemory | None = None) -> str:
    """Mean and worst of each metric over frames [N,H,W,3], then the same of pictures that need no memory.

    Of frames that tell something, see `counted`. LPIPS when its weights are installed.
    """
    asked = counted(original)
    measured = asked.measured
    remark = f"; {asked} and are not measured" if asked.frames and str(asked) else ""
    lines = [f"{len(measured)} of {len(original)} frames{remark}" if remark else f"{len(original)} frames"]
    true = original[measured]
    for name, values in _metrics(true, retrieved[measured]).items():
        lines.append(f"{name} {values.mean():.3f} (worst frame {values.min():.3f})")
    try:
        lines.append(f"LPIPS {lpips(true, retrieved[measured]).mean():.3f}")
    except (MetricUnavailable, ValueError) as reason:  # ValueError: frames too small for its network
        lines.append(f"LPIPS not measured: {reason}")
    shown = {"remembered": retrieved} | _without_memory(original, memory)
    lineup = Lineup()
    lineup.add(original, shown)
    if rates := lineup.rates():
        lines.append(f"nearest to its own frame among these: {rates['remembered']:.2f} (a guess: {lineup.chance:.2f})")
    for kind, pictures in list(shown.items())[1:]:
        means = (f"{name} {values.mean():.3f}" for name, values in _metrics(true, pictures[measured]).items())
        known = f", nearest {rates[kind]:.2f}" if rates else ""
        lines.append(f"{kind}: {', '.join(means)}{known}")
    return "\n".join(lines)


def _metrics(original: Tensor, shown: Tensor) -> dict[str, Tensor]:
    """Values [N] by the metric's name; equal pictures are EQUAL dB apart."""
    return {
        "PSNR": psnr(original, shown).clamp(max=EQUAL),
        "SSIM": ssim(original, shown),
        "edges": edges(original, shown),
    }


def _without_memory(original: Tensor, memory: VideoMemory | None) -> dict[str, Tensor]:
    """What a memory has to beat to have remembered anything."""
    named = {FLAT: "one flat colour", BEFORE: "the frame before", LOW_RESOLUTION: "the LR picture, blown up"}
    configs: list[EncoderConfig] = []
    spatial, numbers, (height, width) = 1, 0, original.shape[1:3]
    if memory is not None and memory.latents:
        configs = [part.config for part in memory.parts if part.config.variant != "recent"]
        spatial = height // memory.state.size[0]
        numbers = _numbers_for(memory, len(original))
        small = equal_size(numbers, original)
        named[EQUAL_NUMBERS] = f"a thumbnail of {small[1]}x{small[0]} pixels, as many numbers as the memory has"
    if configs:
        size = thumbnail_size(configs, height, width, spatial)
        named[THUMBNAIL] = f"a thumbnail of {size[1]}x{size[0]} pixels"
    made = dict(baselines(original, configs, spatial, numbers))
    return {named[kind]: baseline.pictures for kind, baseline in made.items()}


def _numbers_for(memory: VideoMemory, frames: int) -> int:
    """How many numbers a memory keeps for so many of its frames."""
    return round(memory.token_count * memory.parts[0].config.width * min(1.0, frames / memory.frames))


def side_by_side(original: Tensor, retrieved: Tensor) -> Tensor:
    """One picture [1,H,W,3]: a row of originals [N,h,w,3] above a row of remembered frames, evenly chosen."""
    columns = evenly(retrieved.shape[0], min(MAX_COLUMNS, retrieved.shape[0]))
    rows = [
        _labelled_row(frames[columns].clamp(0, 1), label)
        for frames, label in ((original, "original"), (retrieved, "remembered"))
    ]
    return torch.from_numpy(np.concatenate(rows, axis=0))[None]


def _labelled_row(frames: Tensor, label: str) -> np.ndarray:
    pictures = np.concatenate(list(frames.cpu().float().numpy()), axis=1)
    band = np.full((LABEL_HEIGHT, pictures.shape[1], 3), 30, dtype=np.uint8)
    cv2.putText(band, label, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([band.astype(np.float32) / 255, pictures], axis=0)


NODES = [VideoMemoryRetrieve, VideoMemoryRetrievalReport]
