"""The two equations: what is masked, what is compared, what cannot leak."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory_encoder import continuation, retrieval
from memory_encoder.positions import cells_for


def clips(frames: int = 9, stride: int = 2, batch: int = 2):
    generator = torch.Generator().manual_seed(0)
    history = torch.randn(batch, 3, frames, 4, 4, generator=generator)
    lr = torch.randn(batch, 3, cells_for(frames, stride)[1], 2, 2, generator=generator)
    return history, lr


def oracle(target: torch.Tensor, noise: torch.Tensor):
    def predict(x_t, t, memory, first):
        return noise - target

    return predict


def keep(hr, lr):
    return hr.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_retrieval_loss_is_zero_for_an_oracle_and_positive_otherwise(seed: int):
    history, lr = clips()
    drawn = retrieval.draw(history, lr, 3.0, torch.Generator().manual_seed(seed))
    target = history[:, :, drawn.omega.start : drawn.omega.stop]
    assert retrieval.retrieval_loss(history, lr, 2, drawn, keep, oracle(target, drawn.noise)) == 0
    assert retrieval.retrieval_loss(history, lr, 2, drawn, keep, lambda x, t, m, f: torch.zeros_like(x)) > 0


@given(frames=st.integers(1, 20), stride=st.sampled_from((1, 2, 4, 8)), seed=st.integers(0, 1000))
def test_mask_leaves_omega_and_no_more(frames: int, stride: int, seed: int):
    history, lr = clips(frames, stride)
    drawn = retrieval.draw(history, lr, 3.0, torch.Generator().manual_seed(seed))
    seen = {}

    def compress(hr, low):
        seen.update(hr=hr, lr=low)
        return keep(hr, low)

    retrieval.retrieval_loss(history, lr, stride, drawn, compress, lambda x, t, m, f: x)
    same = torch.tensor([torch.equal(seen["hr"][:, :, i], history[:, :, i]) for i in range(frames)])
    assert torch.equal(same, retrieval.clean_frames(drawn.omega, frames))
    level = drawn.mask_level.reshape(-1, 1, 1, 1, 1)
    assert torch.allclose(
        seen["hr"][:, :, ~same], ((1 - level) * history + level * drawn.mask_hr)[:, :, ~same], atol=1e-6
    )
    for cell in range(lr.shape[2]):
        span = [i for i in range(frames) if -(-i // stride) == cell]
        assert torch.equal(seen["lr"][:, :, cell], lr[:, :, cell]) == all(i in drawn.omega for i in span)


def test_masked_frames_cannot_leak_through_clean_lr_latents():
    """LR latents are made from frames here; the clean ones must not depend on a masked frame."""
    frames, stride = 9, 2
    history, _ = clips(frames, stride)
    history.requires_grad_(True)
    groups = [history[:, :, :1]] + [history[:, :, 2 * j - 1 : 2 * j + 1].mean(2, keepdim=True) for j in range(1, 5)]
    lr = torch.cat(groups, dim=2)
    draws = (retrieval.draw(history, lr, 3.0, torch.Generator().manual_seed(seed)) for seed in range(100))
    drawn = next(d for d in draws if len(d.omega) == 4 and d.omega.start > 0)
    clean = retrieval.clean_cells(drawn.omega, frames, stride)
    assert clean.any() and not clean.all()

    def through_clean_lr(hr, low):
        return low[:, :, clean].flatten(2).transpose(1, 2)

    loss = retrieval.retrieval_loss(
        history.detach(), lr, stride, drawn, through_clean_lr, lambda x, t, m, f: x * m.square().mean()
    )
    gradient = torch.autograd.grad(loss, history)[0]
    outside = ~retrieval.clean_frames(drawn.omega, frames)
    assert gradient[:, :, outside].abs().max() == 0 and gradient[:, :, ~outside].abs().max() > 0


def test_omega_reaches_every_frame_and_its_sizes_have_their_weights():
    generator = torch.Generator().manual_seed(0)
    sets = [retrieval.draw_omega(12, generator) for _ in range(6000)]
    sizes = Counter(len(omega) for omega in sets)
    assert sizes[1] / 6000 == pytest.approx(0.1, abs=0.02) and sizes[4] / 6000 == pytest.approx(0.6, abs=0.03)
    assert {frame for omega in sets for frame in omega} == set(range(12))


def test_targets_are_asked_for_at_their_true_time():
    history, lr = clips()
    drawn = retrieval.draw(history, lr, 3.0, torch.Generator().manual_seed(1))
    times = []
    retrieval.retrieval_loss(history, lr, 2, drawn, keep, lambda x, t, m, f: times.append(f) or x)
    assert times == [drawn.omega.start]


def test_continuation_compares_the_section_after_a_clean_history():
    clip, _ = clips(frames=12)
    drawn = continuation.draw(clip, 4, 3.0, torch.Generator().manual_seed(0), history_dropout=0.0)
    seen = {}

    def compress(hr, lr):
        seen["history"] = hr
        return keep(hr, lr)

    target = clip[:, :, drawn.history : drawn.history + 4]
    assert continuation.continuation_loss(clip, None, drawn, compress, oracle(target, drawn.noise)) == 0
    assert torch.equal(seen["history"], clip[:, :, : drawn.history])


def test_history_dropout_removes_the_memory_at_its_rate():
    clip, _ = clips(frames=12)
    generator = torch.Generator().manual_seed(0)
    draws = [continuation.draw(clip, 4, 3.0, generator, history_dropout=0.25) for _ in range(2000)]
    assert sum(drawn.drop_history for drawn in draws) / 2000 == pytest.approx(0.25, abs=0.03)
    dropped = next(drawn for drawn in draws if drawn.drop_history)
    tokens = []
    continuation.continuation_loss(clip, None, dropped, keep, lambda x, t, m, f: tokens.append(m) or x)
    assert tokens == [None]


def test_corruption_adds_noise_up_to_its_level_and_is_off_by_default():
    clip, _ = clips(frames=12)
    assert continuation.draw(clip, 4, 3.0, torch.Generator().manual_seed(0)).corruption is None
    drawn = continuation.draw(clip, 4, 3.0, torch.Generator().manual_seed(0), corruption=0.3)
    seen = []
    continuation.continuation_loss(
        clip, None, drawn, lambda hr, lr: seen.append(hr) or keep(hr, lr), lambda x, t, m, f: x
    )
    assert not torch.equal(seen[0], clip[:, :, : drawn.history])
    assert drawn.corruption is not None and drawn.corruption.max() <= 0.3


def test_clip_without_room_for_history_is_refused():
    clip, _ = clips(frames=4)
    with pytest.raises(ValueError, match="no history"):
        continuation.draw(clip, 4, 3.0, torch.Generator().manual_seed(0))


@given(stride=st.sampled_from((1, 2, 4)), frames=st.integers(6, 20), seed=st.integers(0, 500))
def test_history_ends_with_a_cell_so_that_no_lr_latent_shows_the_target(stride: int, frames: int, seed: int):
    clip, _ = clips(frames=frames)
    drawn = continuation.draw(clip, 4, 3.0, torch.Generator().manual_seed(seed), stride=stride)
    complete, started = cells_for(drawn.history, stride)
    assert complete == started and 1 <= drawn.history <= frames - 4
