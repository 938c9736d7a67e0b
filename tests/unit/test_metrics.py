"""PSNR and SSIM against closed forms and against scikit-image; LPIPS is either real or refused."""

from __future__ import annotations

import importlib.machinery
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.evaluation import metrics
from memory_encoder.evaluation.metrics import MetricUnavailable, lpips, lpips_available, psnr, ssim


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_constant_error_is_its_closed_form_for_each_image() -> None:
    a = torch.full((3, 8, 9, 3), 0.5)
    b = a + torch.tensor([0.1, 0.01, 0.25]).view(3, 1, 1, 1)
    expected = torch.tensor([20.0, 40.0, -20 * math.log10(0.25)])
    assert torch.allclose(psnr(a, b), expected.double(), atol=1e-4)


def test_psnr_of_identical_images_is_infinite() -> None:
    a = noise(0, 2, 5, 7, 3)
    assert psnr(a, a.clone()).tolist() == [math.inf, math.inf]


def test_psnr_of_gaussian_noise_follows_its_variance() -> None:
    a = torch.full((1, 256, 256, 3), 0.5)
    b = a + 0.05 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    assert psnr(a, b).item() == pytest.approx(-20 * math.log10(0.05), abs=0.05)


def test_psnr_and_ssim_depend_on_the_range_only_through_its_scale() -> None:
    a, b = noise(1, 1, 16, 16, 3), noise(2, 1, 16, 16, 3)
    assert torch.allclose(psnr(a, b), psnr(a * 255, b * 255, 255.0), atol=1e-4)
    assert torch.allclose(ssim(a, b), ssim(a * 255, b * 255, 255.0), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (4, 9), (11, 11), (32, 20)])
def test_ssim_of_constant_images_is_its_luminance_term(size: tuple[int, int]) -> None:
    a, b = torch.full((1, *size, 3), 0.2), torch.full((1, *size, 3), 0.7)
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.7 + c1) / (0.2**2 + 0.7**2 + c1)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-6)


def test_ssim_of_a_picture_and_its_negative_is_below_zero() -> None:
    a = noise(3, 1, 32, 32, 1)
    assert ssim(a, 1 - a).item() < -0.5


def test_ssim_falls_as_noise_grows() -> None:
    a = noise(4, 1, 48, 48, 3)
    spread = torch.randn(a.shape, generator=torch.Generator().manual_seed(5))
    values = [ssim(a, a + level * spread).item() for level in (0.0, 0.05, 0.1, 0.3, 1.0)]
    assert values[0] == pytest.approx(1.0, abs=1e-12)
    assert values == sorted(values, reverse=True) and len(set(values)) == len(values)


def test_ssim_of_small_images_uses_the_largest_odd_window_that_fits() -> None:
    a, b = noise(6, 1, 6, 8, 1), noise(7, 1, 6, 8, 1)
    weights = torch.exp(-(torch.arange(-2.0, 3.0, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = torch.outer(weights, weights) / weights.sum() ** 2
    values = []
    for top in range(2):
        for left in range(4):
            x, y = (image[0, top : top + 5, left : left + 5, 0].double() for image in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            c1, c2 = 1e-4, 9e-4
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(a, b).item() == pytest.approx(torch.stack(values).mean().item(), abs=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 3, 4]), st.integers(0, 2**31))
def test_ssim_and_psnr_are_symmetric_and_in_range(height: int, width: int, channels: int, seed: int) -> None:
    a, b = noise(seed, 2, height, width, channels), noise(seed + 1, 2, height, width, channels)
    assert torch.equal(psnr(a, b), psnr(b, a))
    assert torch.allclose(ssim(a, b), ssim(b, a), atol=1e-12)
    assert ssim(a, b).shape == (2,) and bool((ssim(a, b).abs() <= 1 + 1e-9).all())
    assert torch.allclose(ssim(a, a), torch.ones(2, dtype=torch.float64), atol=1e-9)


def test_a_batch_gives_what_its_images_give_alone() -> None:
    a, b = noise(8, 3, 20, 16, 3), noise(9, 3, 20, 16, 3)
    for metric in (psnr, ssim):
        alone = torch.cat([metric(a[i : i + 1], b[i : i + 1]) for i in range(3)])
        assert torch.allclose(metric(a, b), alone, atol=1e-12)


@pytest.mark.parametrize("shape", [(40, 33, 3), (11, 64, 1)])
def test_psnr_and_ssim_agree_with_scikit_image(shape: tuple[int, int, int]) -> None:
    reference = pytest.importorskip("skimage.metrics")
    a = noise(10, 1, *shape)
    b = (a + 0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(11))).clamp(0, 1)
    x, y = a[0].double().numpy(), b[0].double().numpy()
    assert psnr(a, b).item() == pytest.approx(reference.peak_signal_noise_ratio(x, y, data_range=1.0), abs=1e-9)
    expected = reference.structural_similarity(
        x, y, data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_unusable_images_are_refused_by_what_is_wrong(metric) -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        metric(torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 5, 3))
    with pytest.raises(ValueError, match=r"\[N,H,W,C\]"):
        metric(torch.zeros(4, 4, 3), torch.zeros(4, 4, 3))
    with pytest.raises(ValueError, match="divide bytes by 255"):
        metric(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="max_value"):
        metric(torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3), 0.0)


def test_lpips_without_its_package_is_refused_and_never_invented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_installed", lambda package: package != "torchmetrics")
    assert not lpips_available()
    with pytest.raises(MetricUnavailable, match="torchmetrics"):
        lpips(noise(0, 1, 64, 64, 3), noise(1, 1, 64, 64, 3))


def test_lpips_without_weights_is_refused_and_fetches_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metrics, "_installed", lambda package: True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert not lpips_available()
    with pytest.raises(MetricUnavailable, match="alexnet"):
        lpips(noise(0, 1, 64, 64, 3), noise(1, 1, 64, 64, 3))
    assert not list(tmp_path.iterdir())


def test_lpips_hands_torchmetrics_each_image_as_it_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Distance(torch.nn.Module):
        def __init__(self, net_type: str, normalize: bool) -> None:
            super().__init__()
            assert net_type == "alex" and normalize  # normalize: inputs are 0..1

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.shape == b.shape == (1, 3, 64, 70)
            return (a - b).abs().mean()

    module = ModuleType("torchmetrics.image.lpip")
    module.LearnedPerceptualImagePatchSimilarity = Distance  # type: ignore[attr-defined]
    for name in ("torchmetrics", "torchmetrics.image", "torchvision"):
        package = ModuleType(name)
        package.__spec__ = importlib.machinery.ModuleSpec(name, None)
        package.__path__ = []
        monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-0.pth").touch()
    assert lpips_available()
    a = torch.zeros(2, 64, 70, 3)
    b = a + torch.tensor([0.25, 0.5]).view(2, 1, 1, 1)
    assert lpips(a, b).tolist() == [0.25, 0.5]
    with pytest.raises(ValueError, match="64 x 64"):
        lpips(a[:, :32], b[:, :32])
