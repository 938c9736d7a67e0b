"""How near two pictures are: PSNR, SSIM, edges and, where its weights are installed, LPIPS (paper Table 1).

For reports, not for training: results are float64 (float32 on MPS and for LPIPS) and carry no gradient.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03


class MetricUnavailable(RuntimeError):
    """A metric whose package or weights are not installed; the message says what to install."""


def psnr(a: Tensor, b: Tensor, max_value: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, one value per image [N]; identical images give infinity.

    Images are [N,H,W,C] in 0..max_value, as in ComfyUI. Raises ValueError for other or unequal shapes and integers.
    """
    errors = [(x - y).square().mean() for x, y in _pairs(a, b, max_value)]
    return 10 * torch.log10(max_value**2 / torch.stack(errors))


def ssim(a: Tensor, b: Tensor, max_value: float = 1.0) -> Tensor:
    """Structural similarity, one value per image [N], the mean over channels and over all whole windows.

    Wang et al. 2004: Gaussian window of 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, no padding. An image with a side below
    11 gets the largest odd window that fits (not from that paper). Images are [N,H,W,C] in 0..max_value. Raises
    ValueError for other or unequal shapes and integers.
    """
    return torch.stack([_ssim_of_image(x, y, max_value) for x, y in _pairs(a, b, max_value)])


def edges(a: Tensor, b: Tensor, max_value: float = 1.0) -> Tensor:
    """How far edges lie in the same places and are as strong, one value per image [N], -1 to 1. Not from the paper.

    Lin's concordance of the differences between neighbouring pixels: 2 <g, g'> / (<g, g> + <g', g'>). A flat picture
    gets 0 against one that is not, a blurred one less than a sharp one, noise 0, equal pictures 1. Images are [N,H,W,C]
    in 0..max_value. Raises ValueError for other or unequal shapes and integers.
    """
    return torch.stack([_edges_of_image(x, y) for x, y in _pairs(a, b, max_value)])


def _edges_of_image(a: Tensor, b: Tensor) -> Tensor:
    pairs = [(a.diff(dim=axis).flatten(), b.diff(dim=axis).flatten()) for axis in (0, 1)]
    shared = torch.stack([(x * y).sum() for x, y in pairs]).sum()
    energy = torch.stack([(x * x + y * y).sum() for x, y in pairs]).sum()
    return torch.where(energy > 0, 2 * shared / energy, torch.ones_like(energy))


def lpips_available() -> bool:
    """Whether `lpips` can run; nothing is loaded or fetched."""
    try:
        _check_lpips()
    except MetricUnavailable:
        return False
    return True


def lpips(a: Tensor, b: Tensor, network: str = "alex") -> Tensor:
    """Learned perceptual distance through torchmetrics, one value per image [N]; lower is nearer.

    Images are [N,H,W,3] in 0..1, at least 64 x 64. Raises MetricUnavailable when torchmetrics, torchvision or the
    network's weights are not installed (they are never fetched from here), ValueError for other shapes.
    """
    pairs = _pairs(a, b, 1.0)
    if a.shape[-1] != 3 or min(a.shape[1:3]) < 64:
        raise ValueError(
            f"LPIPS needs images [N,H,W,3] of at least 64 x 64, got {tuple(a.shape)}; convert or enlarge them"
        )
    module = _check_lpips(network)
    try:
        metric = module.LearnedPerceptualImagePatchSimilarity(net_type=network, normalize=True).to(a.device)
    except (ImportError, AttributeError, RuntimeError, OSError, EOFError, UnpicklingError) as error:
        raise MetricUnavailable(
            f"LPIPS: {network} cannot be built ({error}); repair torchvision or its weights"
        ) from error
    with torch.no_grad():
        return torch.stack([metric(_network_input(x), _network_input(y)) for x, y in pairs])


# File names of torchvision's own weights, without their hashes.
_LPIPS_WEIGHTS = {"alex": "alexnet-owt", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


def _check_lpips(network: str = "alex") -> Any:
    """torchmetrics' LPIPS module; MetricUnavailable when using it would fail or fetch something."""
    if network not in _LPIPS_WEIGHTS:
        raise ValueError(f"LPIPS network {network!r} is unknown; use one of {', '.join(_LPIPS_WEIGHTS)}")
    for package in ("torchmetrics", "torchvision"):
        if not _installed(package):
            raise MetricUnavailable(f"LPIPS needs the package {package}; install it, or leave LPIPS out")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    weights = f"{_LPIPS_WEIGHTS[network]}-*.pth"
    if not any(folder.glob(weights)):
        raise MetricUnavailable(
            f"LPIPS needs torchvision's weights {weights} in {folder}; put them there, or leave it out"
        )
    try:
        return importlib.import_module("torchmetrics.image.lpip")
    except ImportError as error:
        raise MetricUnavailable(f"LPIPS: torchmetrics cannot be imported ({error}); repair its installation") from error


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that was put together by hand and has no spec
        return False


def _network_input(image: Tensor) -> Tensor:
    return image.movedim(-1, 0)[None].float().clamp(0, 1)


def _pairs(a: Tensor, b: Tensor, max_value: float) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of both batches, checked, in float64 where the device has it: float32 loses the variance of flat
    pictures. One pair at a time: all of a long film, and what is made of them, would not fit into memory."""
    if a.shape != b.shape:
        raise ValueError(
            f"the images differ in shape: {tuple(a.shape)} and {tuple(b.shape)}; crop or resize one of them"
        )
    if a.ndim != 4 or a.numel() == 0:
        raise ValueError(f"images are [N,H,W,C] and not empty, got {tuple(a.shape)}")
    if not a.is_floating_point() or not b.is_floating_point():
        raise ValueError(
            f"images are floating point in 0..{max_value:g}, got {a.dtype} and {b.dtype}; divide bytes by 255"
        )
    if not max_value > 0:
        raise ValueError(f"max_value is {max_value}; give the largest possible value, 1 for ComfyUI's images")
    dtype = torch.float32 if a.device.type == "mps" else torch.float64
    return ((x.detach().to(dtype), y.detach().to(a.device, dtype)) for x, y in zip(a, b, strict=True))


def _ssim_of_image(a: Tensor, b: Tensor, max_value: float) -> Tensor:
    """SSIM of one image [H,W,C] (equation 13 of Wang et al. 2004, averaged)."""
    height, width, channels = a.shape
    size = min(SSIM_WINDOW, height, width)
    weights = _gaussian(size - 1 + size % 2, a)
    x, y = a.movedim(-1, 0), b.movedim(-1, 0)
    mean_x, mean_y, xx, yy, xy = _blur(torch.cat([x, y, x * x, y * y, x * y]), weights).split(channels)
    c1, c2 = (SSIM_K1 * max_value) ** 2, (SSIM_K2 * max_value) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
    return (luminance * structure).mean()


def _gaussian(size: int, like: Tensor) -> Tensor:
    distance = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    weights = torch.exp(-(distance**2) / (2 * SSIM_SIGMA**2))
    return weights / weights.sum()


def _blur(images: Tensor, weights: Tensor) -> Tensor:
    """Separable filter without padding: [K,H,W] becomes [K,H-s+1,W-s+1]."""
    columns = functional.conv2d(images[:, None], weights[None, None, :, None])
    return functional.conv2d(columns, weights[None, None, None, :])[:, 0]
