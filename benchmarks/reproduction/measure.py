"""The protocol's three measures of a trained row: retrieval, use in films, return on real clips."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demo.tiny_family.prepare import TEXT_ENCODER, TinyCodec
from memory_encoder.evaluation.identification import Lineup
from memory_encoder.evaluation.metrics import psnr, ssim
from memory_encoder.evaluation.recall import draw_frames, draw_history
from memory_encoder.evaluation.score import means_of
from memory_encoder.injection.hosts.comfy_models import load_text_encoder
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.positions import cells_for
from memory_encoder.pictures.codec import Codec
from memory_encoder.training.dataset.windows import low_resolution_latents
from memory_encoder.training.module import TrainingModule

from .material import GIVEN, MADE, Clips
from .returns import PARTS, ReturnFilm, recalled
from .settings import CFG, SECONDS, Row

CONTEXT = 3  # latents of the history that are decoded again before what was made
SHIFT = 4  # pixels


class Judge:
    """One trained module, the VAE and the row's settings. All measures return numbers for each clip."""

    def __init__(self, row: Row, module: TrainingModule, seed: int, steps: int) -> None:
        self.row, self.module, self.seed, self.steps = row, module, seed, steps
        self.codec: Codec = TinyCodec(None)()
        self.text = load_text_encoder([TEXT_ENCODER], "wan")

    def memory(self, clips: Clips, latents: int, module: TrainingModule | None = None) -> Any:
        """The memory of the first `latents` latents of clips, by the module or another one of its form."""
        if not self.row.memory:
            return None
        module = module or self.module
        configs: list[EncoderConfig] = [encoder.config for encoder in self.module.encoders]
        lr = {config.rate: self.low_resolution(clips, latents, config) for config in configs if config.has_lr}
        return module.compress(clips.hr[:, :, :latents], lr)

    def low_resolution(self, clips: Clips, latents: int, config: EncoderConfig) -> Tensor:
        """LR latents of the first `latents` latents of clips; a last cell that is not full shows nothing of after."""
        complete, started = cells_for(latents, config.stride[0])
        if complete == started or latents == clips.hr.shape[2]:
            return clips.lr[config.rate][:, :, :started]
        shown = clips.pictures[:, : 1 + (latents - 1) * self.codec.temporal].float() / 255
        return torch.cat([low_resolution_latents(clip[None], latents, config, self.codec) for clip in shown])

    @torch.no_grad()
    def retrieval(self, clips: Clips, memory: Any) -> tuple[dict[str, list[float]], np.ndarray]:
        """Metrics for each clip, see `scored`, and the pictures drawn from a memory of the clips; None for none."""
        predict = partial(self.module.predict, conditioning=self.prompts([""] * len(clips.names)))
        generator = torch.Generator().manual_seed(self.seed)
        made = decoded(self.codec, draw_history(predict, memory, tuple(clips.hr.shape), generator, self.steps))
        return scored(clips, made), made

    @torch.no_grad()
    def use(self, histories: Clips, films: list[ReturnFilm]) -> dict[str, dict[str, list[bool]]]:
        """For each length of history in seconds and each part, whether it was recalled, for each film."""
        found: dict[str, dict[str, list[bool]]] = {}
        texts = [film.shot.prompt for film in films]
        for seconds in SECONDS:
            made = self.continued(histories, 1 + 4 * seconds, texts)
            found[str(seconds)] = {
                part: [recalled(frames, film.candidates[part]) for frames, film in zip(made, films, strict=True)]
                for part in PARTS
            }
        return found

    @torch.no_grad()
    def reels(self, reels: Clips) -> dict[str, list[float]]:
        """PSNR and SSIM of the return on real clips, for each clip, after the best shift."""
        made = self.continued(reels, reels.hr.shape[2], [""] * len(reels.names))
        true = reels.pictures[:, -MADE:].numpy() / 255
        pairs = [aligned(a, b) for a, b in zip(made, true, strict=True)]
        return {
            metric.__name__: [float(metric(torch.from_numpy(a), torch.from_numpy(b)).mean()) for a, b in pairs]
            for metric in (psnr, ssim)
        }

    def continued(self, clips: Clips, latents: int, texts: list[str]) -> np.ndarray:
        """Pictures [N,16,H,W,3] of the four latents after the first `latents`, with guidance on the prompt."""
        memory, shown, empty = self.memory(clips, latents), self.prompts(texts), self.prompts([""] * len(texts))

        def predict(x: Tensor, t: Tensor, seen: Any, first: int) -> Tensor:
            plain = self.module.predict(x, t, None, first, empty)
            return plain + CFG * (self.module.predict(x, t, seen, first, shown) - plain)

        size = (*clips.hr.shape[:2], MADE // GIVEN, *clips.hr.shape[3:])
        noise = torch.randn(size, generator=torch.Generator().manual_seed(self.seed))
        made = draw_frames(predict, memory, noise, latents, self.steps)
        shown_before = clips.hr[:, :, latents - CONTEXT : latents]
        return decoded(self.codec, torch.cat([shown_before, made], dim=2))[:, -MADE:]

    def prompts(self, texts: list[str]) -> dict[str, Tensor]:
        return {"context": torch.cat([self.text.encode(text) for text in texts])}


def decoded(codec: Codec, latents: Tensor) -> np.ndarray:
    """Pictures [N,F,H,W,3] in 0..1, one clip at a time."""
    return torch.cat([codec.decode(clip[None]) for clip in latents]).clamp(0, 1).numpy()


def scored(clips: Clips, made: np.ndarray) -> dict[str, list[float]]:
    """PSNR, SSIM, edges, how often a frame is identified among those of all clips and, where it can be had, LPIPS of
    pictures against the true ones, for each clip."""
    pairs = [(true.float() / 255, torch.from_numpy(shown)) for true, shown in zip(clips.pictures, made, strict=True)]
    lineup = Lineup()
    for true, shown in pairs:
        lineup.add(true, {"made": shown})
    means = [means_of(*pair) for pair in pairs]
    found = {metric: [clip[metric] for clip in means] for metric in means[0]}
    return found | {"identified": [rates["made"] for rates in lineup.rates_of_clips()]}


def aligned(made: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both cropped after the shift of up to SHIFT pixels that brings them nearest."""
    best: tuple[float, Any] = (np.inf, None)
    still = cropped(true, 0, 0)
    for dy in range(-SHIFT, SHIFT + 1):
        for dx in range(-SHIFT, SHIFT + 1):
            distance = float(np.square(cropped(made, dy, dx) - still).mean())
            best = min(best, (distance, (dy, dx)))
    dy, dx = best[1]
    return np.ascontiguousarray(cropped(made, dy, dx)), np.ascontiguousarray(still)


def cropped(frames: np.ndarray, dy: int, dx: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    return frames[:, SHIFT + dy : height - SHIFT + dy, SHIFT + dx : width - SHIFT + dx]
