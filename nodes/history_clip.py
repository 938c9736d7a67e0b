"""The node that makes a clip ready to open a film: its end, at the film's frame rate, with its sound."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import InputImpl, io

from ..memory_encoder.frames import closing_frames
from .sockets import CATEGORY, fps_input

MARGIN = 1.0  # seconds that are read before the part that is wanted: lengths in files are rounded


class VideoMemoryClip(io.ComfyNode):
    """Latents know nothing of frame rates: a clip of another one than the film's would run slower or faster."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryClip",
            display_name="Clip for History",
            category=CATEGORY,
            description="The end of a clip at the film's frame rate, in whole latents, with its sound: for a film that "
            "goes on from it.",
            inputs=[
                io.Video.Input("video", tooltip="The clip, of any frame rate; Create Video makes one of images."),
                fps_input("Frame rate of the film's storyboard."),
                io.Float.Input(
                    "seconds", default=5.0, min=0.0, max=600.0, step=0.1,
                    tooltip="Longest part that is taken, from the clip's end; 0 takes the whole clip.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="For VAE Encode; the frames fill whole latents."),
                io.Audio.Output(display_name="audio", tooltip="Sound of these frames, for Save Film; silence without."),
                io.String.Output(display_name="report", tooltip="What was taken and what was left out."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, video: Any, fps: float, seconds: float) -> io.NodeOutput:
        length = float(video.get_duration())
        # Of a long file no more is decoded than is needed; a clip in memory would be encoded to be cut.
        if seconds and length > seconds + 2 * MARGIN and isinstance(video, InputImpl.VideoFromFile):
            start = length - seconds - MARGIN
            video = video.as_trimmed(start, length - start, strict_duration=False) or video
        parts = video.get_components()
        images, rate = parts.images, float(parts.frame_rate)
        if images.shape[0] == 0:
            raise ValueError("video has no frames; choose another clip")
        chosen = closing_frames(images.shape[0], rate, fps, seconds)
        taken = len(chosen) / fps
        report = (
            f"the last {len(chosen)} frames at {fps:g} fps ({taken:.2f} s) of {length:.2f} s at {rate:g} fps; "
            f"{max(0.0, length - taken):.2f} s at its beginning are left out"
        )
        sound = closing_sound(parts.audio, images.shape[0] / rate, taken)
        return io.NodeOutput(images[chosen], sound, report, ui={"text": [report]})


def closing_sound(audio: dict[str, Any] | None, length: float, taken: float) -> dict[str, Any]:
    """AUDIO of the last `taken` seconds of a clip of `length` seconds; silence where it has none."""
    if audio is None:
        return {"waveform": torch.zeros(1, 2, round(taken * 44100)), "sample_rate": 44100}
    waveform, rate = audio["waveform"], int(audio["sample_rate"])
    first, last = round((length - taken) * rate), round(length * rate)
    before, after = max(0, -first), max(0, last - waveform.shape[-1])
    waveform = torch.nn.functional.pad(waveform, (before, after))
    return {"waveform": waveform[..., before + first : before + last], "sample_rate": rate}


NODES = [VideoMemoryClip]
