"""Core's models as a film's judges: what CLIP_VISION and CLIP make of pictures and texts, and what a model answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

AT_ONCE = 16  # pictures that CLIP vision sees in one batch
ANSWER = 32  # tokens of an answer: yes or no, with some words around it
GAP = 16  # pixels between two pictures that are asked about


class Seeing:
    """Pictures [N,H,W,3] in 0..1 to vectors [N,D], by core's CLIP_VISION."""

    def __init__(self, clip_vision: Any) -> None:
        self.clip_vision = clip_vision

    def __call__(self, pictures: Tensor) -> Tensor:
        embeds = [self.clip_vision.encode_image(part)["image_embeds"] for part in pictures.split(AT_ONCE)]
        return torch.cat([part.detach().float().cpu() for part in embeds])


class Words:
    """Texts to vectors [N,D], by core's CLIP: its pooled output, which lies in the space of the pictures where core
    projects it: CLIP-H, CLIP-G, and CLIP-L as HiDream's."""

    def __init__(self, clip: Any) -> None:
        self.clip = clip

    def __call__(self, texts: Sequence[str]) -> Tensor:
        found = [self.clip.encode_from_tokens(self.clip.tokenize(text), return_pooled=True)[1] for text in texts]
        if any(not isinstance(pooled, Tensor) for pooled in found):
            return torch.empty(0)  # no CLIP, such as T5
        pooled = torch.cat([pooled.detach().float().cpu() for pooled in found])
        # Core has zeros in the place of another text encoder that belongs to it and was not loaded.
        return pooled[:, pooled.abs().amax(dim=0) > 0]


class Asked:
    """Two pictures [2,H,W,3] in 0..1 and a question to an answer, by a CLIP that core's Generate Text takes."""

    def __init__(self, language_model: Any) -> None:
        if not all(hasattr(language_model, name) for name in ("tokenize", "generate", "decode")):
            raise ValueError("language_model cannot write text; load one that Generate Text takes, or disconnect it")
        self.model = language_model

    def __call__(self, pictures: Tensor, question: str) -> str:
        # Side by side: some models look at the first picture alone.
        height = pictures.shape[1]
        left, right = pictures
        both = torch.cat([left, left.new_ones(height, GAP, 3), right], dim=1)[None]
        asked = f"Two pictures are side by side, the first on the left. {question}"
        tokens = self.model.tokenize(asked, image=both, skip_template=False, min_length=1, thinking=False)
        return str(self.model.decode(self.model.generate(tokens, do_sample=False, max_length=ANSWER)))
