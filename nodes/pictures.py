"""Pictures that nodes return: frames side by side with labels."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

MAX_COLUMNS = 8
LABEL_HEIGHT = 20


def side_by_side(original: Tensor, retrieved: Tensor) -> Tensor:
    """One picture [1,H,W,3]: a row of originals [N,h,w,3] above a row of remembered frames, evenly chosen."""
    count = min(MAX_COLUMNS, retrieved.shape[0])
    chosen = torch.linspace(0, retrieved.shape[0] - 1, count).round().long()
    rows = [
        _labelled_row(frames[chosen].clamp(0, 1), label)
        for frames, label in ((original, "original"), (retrieved, "remembered"))
    ]
    return torch.from_numpy(np.concatenate(rows, axis=0))[None]


def _labelled_row(frames: Tensor, label: str) -> np.ndarray:
    pictures = np.concatenate(list(frames.cpu().float().numpy()), axis=1)
    band = np.full((LABEL_HEIGHT, pictures.shape[1], 3), 30, dtype=np.uint8)
    cv2.putText(band, label, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([band.astype(np.float32) / 255, pictures], axis=0)
