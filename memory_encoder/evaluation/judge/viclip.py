"""ViCLIP (Wang et al. 2024): how well the frames of a shot, seen together, fit its prompt.

A ViT that attends to the patches of all frames at once, and CLIP's transformer for texts of at most 32 tokens: core's
own parts of CLIP with the weights of https://github.com/OpenGVLab/InternVideo, in the names of its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from ...damage import damage_named, read_state
from ...frames import evenly
from ...injection.hosts.comfy_models import ClipTowers, clip_towers
from .faces import unit
from .footage import NO_PROMPT, Clip

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures that it was trained on; CLIP has others
VISION, TEXT = "vision_encoder.", "text_encoder."
_PATCHES, _TIMES = f"{VISION}conv1.weight", f"{VISION}temporal_positional_embedding"


class VideoClip(Protocol):
    """tool: for people."""

    tool: str

    def take(self, clip: Clip) -> float | None:
        """How well a shot fits its prompt; None without one."""
        ...


class ViClip:
    """times: what is added to the patches of each frame, [frames, width]."""

    tool = "ViCLIP"

    def __init__(self, towers: ClipTowers, times: Tensor) -> None:
        self.towers, self.times = towers, times
        embeddings = towers.vision.vision_model.embeddings
        self.words = len(towers.text.text_model.embeddings.position_embedding.weight)
        grid = round((len(embeddings.position_embedding.weight) - 1) ** 0.5)
        self.side = grid * embeddings.patch_embedding.weight.shape[-1]

    @classmethod
    def load(cls, path: Path) -> ViClip:
        """Needs ComfyUI's modules. Raises DamagedFileError for a file that is something else."""
        with damage_named(path, "ViCLIP weights", "fetch them again"):
            state = read_state(path)
            times = state.pop(_TIMES)[0]
            state[_PATCHES] = state[_PATCHES].squeeze(2)  # patches are one frame long
            return cls(clip_towers(state, VISION, TEXT), times.float())

    def take(self, clip: Clip) -> float | None:
        """The cosine of a shot and its prompt; None without a prompt."""
        if clip.prompt in ("", NO_PROMPT):
            return None
        picked = clip.frames[evenly(len(clip.frames), len(self.times))]
        return float(unit(self.video(picked).numpy()) @ unit(self.text(clip.prompt).numpy()))

    @torch.no_grad()
    def video(self, pictures: np.ndarray) -> Tensor:
        """Frames [T,H,W,3] uint8 RGB, as many as `times`, to a vector; each is squeezed into a square, as its authors
        do it."""
        square = [cv2.resize(one, (self.side, self.side), interpolation=cv2.INTER_AREA) for one in pictures]
        pixels = (torch.from_numpy(np.stack(square)).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        device, model = self.towers.load(), self.towers.vision.vision_model
        frames = model.embeddings(pixels.movedim(-1, 1).to(device))  # [T, class and patches, width]
        patches = (frames[:, 1:] + self.times[:, None].to(frames)).flatten(0, 1)
        seen = model.encoder(model.pre_layrnorm(torch.cat([frames[0, :1], patches])[None]))[0]
        return self.towers.vision.visual_projection(model.post_layernorm(seen[:, 0]))[0].float().cpu()

    @torch.no_grad()
    def text(self, said: str) -> Tensor:
        """A text to a vector of the same space; what is beyond its 32 tokens is not read."""
        tokens = self.towers.tokens(said)
        if len(tokens) > self.words:
            tokens = [*tokens[: self.words - 1], tokens[-1]]
        tokens += [tokens[-1]] * (self.words - len(tokens))  # behind the end, where nothing is read
        device = self.towers.load()
        return self.towers.text(input_tokens=torch.tensor([tokens], device=device))[2][0].float().cpu()
