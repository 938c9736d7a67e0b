"""Pictures as they come into an MP4 file, with sound beside them; the file appears under its name when it is whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import remove_abandoned, write_atomically

# Layout of so many channels, and the one that goes into the file: those that every player knows.
_LAYOUTS = {
    1: ("mono", "mono"),
    2: ("stereo", "stereo"),
    3: ("2.1", "stereo"),
    4: ("4.0", "stereo"),
    5: ("5.0", "5.1"),
    6: ("5.1", "5.1"),
    7: ("6.1", "5.1"),
    8: ("7.1", "5.1"),
}
_BT709, _SRGB, _LIMITED = 1, 13, 1  # code points of H.273, and FFmpeg's number of the range 16 to 235


class MovieError(ValueError):
    """Pictures or sound that cannot be put into the file; the message says what to change."""


def write_movie(
    path: Path,
    pictures: Iterable[Tensor],
    fps: float,
    crf: float = 18.0,
    metadata: Mapping[str, Any] | None = None,
    audio: Mapping[str, Any] | None = None,
    watch: Callable[[int], None] = lambda frames: None,
) -> int:
    """Encodes pieces of pictures [T,H,W,3] in 0..1 as H.264, BT.709 and tagged so, and returns the number of frames.

    audio: `waveform` [1,channels,samples] and `sample_rate`; it ends with the pictures, and is resampled and mixed down
    where AAC does not take it as it is. metadata: values of any JSON kind, for the file's tags. watch: called with the
    frames written so far, before each one; may raise to stop.
    Raises OSError that names the file when it cannot be written, MovieError for pictures or sound that it cannot hold.
    """
    remove_abandoned(path.parent, ".*.mp4.*.tmp")
    written = 0

    def write(temporary: Path) -> None:
        nonlocal written
        written = _encode(temporary, pictures, fps, crf, metadata or {}, audio, watch)

    write_atomically(path, write)
    return written


def _encode(
    path: Path,
    pictures: Iterable[Tensor],
    fps: float,
    crf: float,
    metadata: Mapping[str, Any],
    audio: Mapping[str, Any] | None,
    watch: Callable[[int], None],
) -> int:
    import av  # comes with ComfyUI; the rest of the library does without

    rate = Fraction(round(fps * 1000), 1000)
    frames = 0
    # The format is named since the temporary file's name does not tell it.
    options = {"movflags": "use_metadata_tags+faststart"}
    with av.open(str(path), mode="w", format="mp4", options=options) as container:
        for name, value in metadata.items():
            container.metadata[name] = json.dumps(value)
        video: Any = container.add_stream("h264", rate=rate, options={"crf": f"{crf:g}"})
        video.pix_fmt = "yuv420p"
        _tag_bt709(video.codec_context)
        sound = None if audio is None else _Sound(container, audio)
        for piece in pictures:
            if frames == 0:
                video.height, video.width = _checked_size(piece)
            for number in range(piece.shape[0]):
                watch(frames)
                frame = av.VideoFrame.from_ndarray(_bytes(piece[number]), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709)
                container.mux(video.encode(frame))
                frames += 1
            del piece  # before the next one is decoded
            if sound is not None:
                sound.until(frames / rate)
        if frames == 0:
            raise MovieError("there are no pictures to save")
        container.mux(video.encode(None))
        if sound is not None:
            sound.finish()
    return frames


def _tag_bt709(codec: Any) -> None:
    """What the numbers in the file mean, in the words of core's Save Video: players guess by the size otherwise."""
    codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range = _BT709, _SRGB, _BT709, _LIMITED


class _Sound:
    """Feeds a waveform to the file in step with the pictures."""

    def __init__(self, container: Any, audio: Mapping[str, Any]) -> None:
        import av

        waveform: Tensor = audio["waveform"]
        if waveform.ndim != 3 or waveform.shape[1] not in _LAYOUTS:
            raise MovieError(f"audio has the shape {tuple(waveform.shape)}; give 1 to {max(_LAYOUTS)} channels")
        self.rate = int(audio["sample_rate"])
        if self.rate <= 0:
            raise MovieError(f"audio has a sample rate of {self.rate}; give samples in a second, such as 44100")
        self.waveform = waveform[0].float().cpu()
        if not torch.isfinite(self.waveform).all():
            raise MovieError("audio holds NaN or infinite values; make it again")
        self.layout, mixed = _LAYOUTS[waveform.shape[1]]
        # FFmpeg scales the sum of channels so that it cannot clip only where it mixes whole numbers.
        self.mixer = None if self.layout == mixed else av.AudioResampler(format="s32p", layout=mixed, rate=self.rate)
        self.container, self.stream = container, container.add_stream("aac", rate=_aac_rate(self.rate), layout=mixed)
        self.samples_written = 0

    def until(self, seconds: Fraction) -> None:
        """Encodes the samples up to a time of the film."""
        import av

        end = min(self.waveform.shape[1], math.ceil(seconds * self.rate))
        if end <= self.samples_written:
            return
        samples = self.waveform[:, self.samples_written : end].T.reshape(1, -1).contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.rate, self.samples_written, Fraction(1, self.rate)
        for mixed in [frame] if self.mixer is None else self.mixer.resample(frame):
            self.container.mux(self.stream.encode(mixed))  # which resamples to the stream's own rate
        self.samples_written = end

    def finish(self) -> None:
        if self.samples_written:
            self.container.mux(self.stream.encode(None))


def _aac_rate(rate: int) -> int:
    """The lowest sample rate of AAC that loses nothing, else its highest."""
    import av

    known = sorted(av.Codec("aac", "w").audio_rates or [rate])
    return next((possible for possible in known if possible >= rate), known[-1])


def _bytes(picture: Tensor) -> Any:
    """[H,W,3] as bytes, rounded down as core's Save Video does, so that both make the same file."""
    return (picture[..., :3].float() * 255).clamp(0, 255).to(torch.uint8).cpu().numpy()


def _checked_size(piece: Tensor) -> tuple[int, int]:
    height, width = piece.shape[1:3]
    if height % 2 or width % 2:
        raise MovieError(f"pictures of {width}x{height} cannot be H.264; width and height must be even")
    return height, width
