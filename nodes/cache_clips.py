"""The node that turns clips into a dataset: the command line's `cache` inside ComfyUI."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..memory_encoder.files import FolderNameError, named_folder
from ..memory_encoder.training.dataset.cache import build_cache
from ..memory_encoder.training.dataset.dataset import MemoryDataset
from ..memory_encoder.training.dataset.disk_space import DiskSpace
from ..memory_encoder.training.dataset.in_memory import dataset_from_latents
from ..memory_encoder.training.dataset.mixture import Data, mixed
from ..memory_encoder.training.dataset.same_vae import fingerprint
from ..memory_encoder.training.dataset.scan import folder_stamp
from ..memory_encoder.training.dataset.settings import (
    CacheSettings,
    DatasetError,
    latent_space,
    parse_buckets,
    parse_heldout,
    parse_rates,
)
from ..memory_encoder.training.dataset.text import TextEncoder
from .dataset_files import FilesOfDatasets
from .events import show_text
from .runtime import folders
from .runtime.compress import codec_for, normalised_history
from .runtime.progress import CacheProgress, stop_if_interrupted, stop_searching
from .runtime.sampling import empty_conditioning, host_of
from .sockets import CATEGORY, MemoryDatasetSocket, fps_input, model_input, size_inputs, vae_input, with_advanced

log = logging.getLogger("video_memory")
FILES = FilesOfDatasets()
UNUSED_CLIP = (
    "clip is for the captions of a folder, and latents bring theirs as conditioning; disconnect clip, and encode the "
    "captions with CLIP Text Encode or core's Make Training Dataset"
)
UNUSED_CONDITIONING = "conditioning is of latents, and a folder has its captions beside its clips; disconnect it"


class VideoMemoryDataset(io.ComfyNode):
    """Caches a folder of videos and captions as latents, or takes the latents of core's dataset nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryDataset",
            display_name="Cache Training Clips",
            category=CATEGORY,
            description="Encodes a folder of videos once, for training a memory encoder; the next run only checks it.",
            is_input_list=True,  # core's dataset nodes give lists
            inputs=[
                vae_input(),
                model_input(),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="Folder of videos below ComfyUI's input folder, or in one that the server's owner "
                    "allows. Captions: a .txt or storyboard .json of the same name, or captions.json or captions.jsonl "
                    "for all. Empty when latents are connected.",
                ),
                io.String.Input(
                    "name", default="my_clips", tooltip="Name of the dataset, a folder in output/video_memory_datasets."
                ),
                io.String.Input(
                    "rates", default="4x4x2", tooltip="Compression rates of the encoders to train, with commas."
                ),
                *size_inputs("; clips are cropped"),
                fps_input(),
                io.Float.Input(
                    "window_seconds",
                    default=25.0,
                    min=0.1,
                    max=600.0,
                    step=0.05,
                    tooltip="Longest piece trained on at once.",
                ),
                io.Float.Input(
                    "stride_seconds",
                    default=0.0,
                    min=0.0,
                    max=600.0,
                    step=0.05,
                    tooltip="From one piece to the next; 0 puts them end to end.",
                ),
                io.String.Input(
                    "heldout",
                    default="0.1",
                    tooltip="Clips that are never trained on: file names with commas, or a share such as 0.1.",
                ),
                io.Combo.Input(
                    "on_bad",
                    options=["skip", "refuse"],
                    default="skip",
                    tooltip="Clips that cannot be used: skip names them in the report, refuse stops.",
                ),
                io.Boolean.Input(
                    "scene_cuts", default=False, tooltip="No window over a cut. Needs PySceneDetect (scenedetect)."
                ),
                io.Clip.Input("clip", optional=True, tooltip="Text encoder; without it all captions are empty."),
                io.Latent.Input(
                    "latents", optional=True, tooltip="Instead of a folder: clips from core's Make Training Dataset."
                ),
                io.Conditioning.Input("conditioning", optional=True, tooltip="Captions of these latents."),
                io.String.Input(
                    "buckets",
                    default="auto",
                    optional=True,
                    tooltip="Sizes for clips of other aspect, such as portrait: auto for usual ones of about the same "
                    "area, none, or a list such as 480x832, 640x640.",
                ),
                io.Float.Input(
                    "min_window_seconds",
                    default=1.0,
                    min=0.0,
                    max=600.0,
                    step=0.05,
                    optional=True,
                    tooltip="A clip or scene shorter than window_seconds is one shorter piece, down to this length; "
                    "0 leaves it out.",
                ),
            ],
            outputs=[
                MemoryDatasetSocket.Output(display_name="dataset", tooltip="For Train Memory Encoder."),
                io.String.Output(display_name="report", tooltip="What was cached and what was left out."),
            ],
        )
        return with_advanced(
            schema, "window_seconds", "stride_seconds", "heldout", "on_bad", "scene_cuts", "buckets",
            "min_window_seconds",
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, folder: Any, name: Any = None, **_: Any) -> str:
        """Changes with the files of the folder, so that new clips are seen, and when the dataset was deleted or changed
        since it was made, so that the cache can be run again."""
        folder, name = (value[0] if isinstance(value, list) and value else value for value in (folder, name))
        if not isinstance(folder, str) or not folder.strip():
            return ""
        try:
            clips = folder_stamp(folders.clips_folder(folder), stop_searching)
            return f"{clips} {FILES.losses(_dataset_folder(name), stop_searching)}"
        except InterruptedError:
            return ""  # core would take it for an error of ours; the run that follows stops at once

    @classmethod
    def execute(
        cls,
        vae: list[Any],
        model: list[Any],
        folder: list[str],
        name: list[str],
        rates: list[str],
        width: list[int],
        height: list[int],
        fps: list[float],
        window_seconds: list[float],
        stride_seconds: list[float],
        heldout: list[str],
        on_bad: list[str],
        scene_cuts: list[bool],
        clip: list[Any] | None = None,
        latents: list[dict[str, Any]] | None = None,
        conditioning: list[Any] | None = None,
        buckets: list[str] | None = None,
        min_window_seconds: list[float] | None = None,
    ) -> io.NodeOutput:
        if bool(latents) == bool(folder[0].strip()):
            raise DatasetError("give either a folder of clips or latents with their conditioning, not both or neither")
        if latents and clip:
            raise DatasetError(UNUSED_CLIP)
        if conditioning and not latents:
            raise DatasetError(UNUSED_CONDITIONING)
        if latents:
            dataset, report = from_latents(vae[0], model[0], latents, conditioning, rates[0], fps[0], heldout[0])
            return io.NodeOutput(dataset, report, ui={"text": [report]})
        settings = CacheSettings(
            width=width[0],
            height=height[0],
            fps=fps[0],
            window_seconds=window_seconds[0],
            stride_seconds=stride_seconds[0] or None,
            rates=parse_rates(rates[0]),
            scene_cuts=scene_cuts[0],
            heldout=parse_heldout(heldout[0]),
            on_bad=on_bad[0],  # type: ignore[arg-type]
            buckets=parse_buckets(buckets[0] if buckets else "auto"),
            min_window_seconds=min_window_seconds[0] if min_window_seconds else 1.0,
        )
        out = named_folder(folders.dataset_root(), name[0], "name")
        report = str(
            build_cache(
                folders.clips_folder(folder[0]),
                out,
                settings,
                latent_space(host_of(model[0]), model[0].get_model_object("latent_format"), vae[0], out),
                lambda: codec_for(model[0], vae[0]),
                text_encoder(clip[0]) if clip else None,
                watch=CacheProgress(),
                before=lambda needed: say_space(needed, out),
                looking=stop_if_interrupted,
            )
        )
        FILES.record(out, stop_if_interrupted)
        return io.NodeOutput(MemoryDataset.open(out, settings.on_bad), report, ui={"text": [report]})


def _dataset_folder(name: Any) -> Path | None:
    """The folder of a dataset; None for a name that comes through a link, or that the run will refuse."""
    try:
        return named_folder(folders.dataset_root(), name, "name") if isinstance(name, str) else None
    except FolderNameError:
        return None


def say_space(needed: DiskSpace, out: Path) -> None:
    """Shows what the dataset will take on disk; raises DatasetError when that is more than there is."""
    log.info("%s", needed)
    show_text(str(needed))
    needed.check(out)


def from_latents(
    vae: Any,
    model: Any,
    latents: list[dict[str, Any]],
    conditioning: list[Any] | None,
    rates: str,
    fps: float,
    heldout: str,
) -> tuple[MemoryDataset, str]:
    """A dataset in memory of core's LATENTs, one for each clip, and a report."""
    if not conditioning:
        conditioning = [empty_conditioning(model)]
    dataset = dataset_from_latents(
        [normalised_history(model, latent, f"latents: entry {n}") for n, latent in enumerate(latents)],
        conditioning,
        latent_space(host_of(model), model.get_model_object("latent_format"), vae),
        codec_for(model, vae),
        parse_rates(rates),
        fps,
        heldout=parse_heldout(heldout),
        watch=CacheProgress().rows,
    )
    out = len(dataset.split("heldout"))
    return dataset, f"{len(dataset)} windows in memory ({len(dataset) - out} to train, {out} held out)"


def text_encoder(clip: Any) -> TextEncoder:
    """Core's CLIP with an identity that follows from its weights and patches."""
    stage = getattr(clip, "cond_stage_model", None)
    identity = type(clip).__qualname__ if stage is None else fingerprint(_weights(stage))
    patcher: Any = getattr(clip, "patcher", None)
    if getattr(patcher, "patches", None):
        identity += f" {patcher.patches_uuid}"
    return TextEncoder(identity, lambda: clip)


def _weights(stage: Any) -> dict[str, Any]:
    """Weights to tell a text encoder by. GGUF layers show none in a state dict, but have the packed ones."""
    weights = stage.state_dict()
    if any(weight.is_meta for weight in weights.values()):
        weights = {name: weight.detach().as_subclass(Tensor) for name, weight in stage.named_parameters()}
    return weights


class VideoMemoryDatasetCombine(io.ComfyNode):
    """Two datasets that one run trains on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryDatasetCombine",
            display_name="Combine Training Datasets",
            category=CATEGORY,
            description="One run trains on both datasets, each batch on one of them. Use several for more.",
            inputs=[
                MemoryDatasetSocket.Input("dataset", tooltip="From Cache Training Clips."),
                MemoryDatasetSocket.Input("second_dataset", tooltip="Another one, of the same model, VAE and fps."),
                io.Float.Input(
                    "share",
                    default=0.0,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Share of the batches that the second dataset gives; 0 goes by the numbers of windows.",
                ),
            ],
            outputs=[
                MemoryDatasetSocket.Output(display_name="dataset", tooltip="For Train Memory Encoder."),
                io.String.Output(display_name="report", tooltip="Shares and windows of each dataset."),
            ],
        )

    @classmethod
    def execute(cls, dataset: Data, second_dataset: Data, share: float) -> io.NodeOutput:
        both = mixed([(dataset, None), (second_dataset, share or None)])
        return io.NodeOutput(both, str(both), ui={"text": [str(both)]})


NODES = [VideoMemoryDataset, VideoMemoryDatasetCombine]
