"""What a frame is told by, without its mean colour and its contrast. Not from the paper."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 64  # pixels of the wider side at which frames are compared
FLAT = 1e-3  # contrast (root mean square, pictures 0..1) below which a frame shows nothing


def signature(pictures: Tensor) -> Tensor:
    """Frames [N,H,W,3] in 0..1 -> unit vectors [N,K] whose products are correlations; zero for a flat frame."""
    height, width = pictures.shape[1:3]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    shrunk = [
        F.interpolate(one[None].movedim(-1, 1).cpu().float(), size=size, mode="area") for one in pictures.detach()
    ]
    small = torch.cat(shrunk) if shrunk else torch.zeros(0, 3, *size)
    x = (small - small.mean(dim=(2, 3), keepdim=True)).flatten(1)
    contrast = x.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(contrast > FLAT, F.normalize(x, dim=1), torch.zeros_like(x))
