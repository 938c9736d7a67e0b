"""A text encoder without weights, for the tiny demo family only.

Every lower-cased word becomes a fixed random vector seeded by its SHA-256, so that the same text gives the same
vectors on every machine. It knows nothing about meaning: a host trained on it learns the words it has seen.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

import torch
from torch import Tensor

TEXT_DIM = 64
TEXT_LENGTH = 32
POSITION_SCALE = 0.2  # positions are a hint, words are the message


def split_words(text: str) -> list[str]:
    """Lower-cased words, at most 32: "Mira waves!" -> ["mira", "waves"]."""
    return re.findall(r"[\w'-]+", text.lower())[:TEXT_LENGTH]


def word_vector(word: str) -> Tensor:
    """A fixed vector [64] with mean 0 and variance 1.

    Bytes of a hash go through the sum of twelve uniforms (about normal) in integers, so that no library's random
    generator or rounding is involved.
    """
    sums = [0] * TEXT_DIM
    for block in range(12 * TEXT_DIM // 32):
        digest = hashlib.sha256(f"{block}:{word}".encode()).digest()
        for i, byte in enumerate(digest):
            sums[(32 * block + i) % TEXT_DIM] += 2 * byte - 255
    vector = torch.tensor(sums, dtype=torch.float64)
    vector = vector - vector.mean()
    return (vector / vector.square().mean().sqrt()).float()


def position_vector(index: int) -> Tensor:
    """Sinusoidal position [64], scaled to be small beside a word."""
    half = TEXT_DIM // 2
    angles = [index / 100 ** (i / half) for i in range(half)]
    values = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor(values, dtype=torch.float32) * POSITION_SCALE


def encode_words(words: list[str]) -> Tensor:
    """Conditioning [1, 32, 64] of at most 32 words; the rest is a null vector without position."""
    rows = [word_vector(w) + position_vector(i) for i, w in enumerate(words[:TEXT_LENGTH])]
    rows += [word_vector("")] * (TEXT_LENGTH - len(rows))
    return torch.stack(rows).unsqueeze(0)


class HashTextEncoder:
    """What core's CLIPTextEncode needs of a CLIP, and no more."""

    def clone(self) -> HashTextEncoder:
        return HashTextEncoder()

    def tokenize(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, list[str]]:
        return {"words": split_words(text)}

    def encode_from_tokens(
        self, tokens: dict[str, list[str]], return_pooled: bool | str = False, return_dict: bool = False
    ) -> Any:
        """[1, 32, 64]; with ``return_pooled`` also the pooled output, which Wan does not use (None)."""
        cond = encode_words(tokens["words"])
        if return_dict:
            return {"cond": cond, "pooled_output": None}
        return (cond, None) if return_pooled else cond

    def encode_from_tokens_scheduled(
        self,
        tokens: dict[str, list[str]],
        unprojected: bool = False,
        add_dict: dict[str, Any] | None = None,
        show_pbar: bool = True,
    ) -> list[list[Any]]:
        """A ComfyUI conditioning list with one entry."""
        return [[encode_words(tokens["words"]), {"pooled_output": None, **(add_dict or {})}]]

    def encode(self, text: str) -> Tensor:
        return self.encode_from_tokens(self.tokenize(text))
