"""The two equations: what is masked, what is compared, what cannot leak."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory_encoder.objectives import continuation, retrieval
from memory_encoder.phi.positions import cells_for


def clips(frames: int = 9, *strides: int, batch: int = 2):
    """Latents of clips, and their LR latents at a rate for each stride in time."""
    generator = torch.Generator().manual_seed(0)
    history = torch.randn(batch, 3, frames, 4, 4, generator=generator)
    cells = {f"2x2x{stride}": cells_for(frames, stride)[1] for stride in strides or (2,)}
    return history, {rate: torch.randn(batch, 3, n, 2, 2, generator=generator) for rate, n in cells.items()}


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
    assert retrieval.retrieval_loss(history, lr, drawn, keep, oracle(target, drawn.noise)) == 0
    assert retrieval.retrieval_loss(history, lr, drawn, keep, lambda x, t, m, f: torch.zeros_like(x)) > 0


STRIDES = st.lists(st.sampled_from((1, 2, 4, 8)), min_size=1, max_size=2, unique=True)


@given(frames=st.integers(1, 20), strides=STRIDES, seed=st.integers(0, 1000))
def test_mask_leaves_omega_and_no_more_in_either_branch_and_at_every_rate(frames: int, strides: list[int], seed: int):
    history, lr = clips(frames, *strides)
    drawn = retrieval.draw(history, lr, 3.0, torch.Generator().manual_seed(seed))
    seen = {}

    def compress(hr, low):
        seen.update(hr=hr, lr=low)
        return keep(hr, low)

    retrieval.retrieval_loss(history, lr, drawn, compress, lambda x, t, m, f: x)
    same = torch.tensor([torch.equal(seen["hr"][:, :, i], history[:, :, i]) for i in range(frames)])
    assert torch.equal(same, retrieval.clean_frames(drawn.omega, frames))
    level = drawn.mask_level.reshape(-1, 1, 1, 1, 1)
    assert torch.allclose(
        seen["hr"][:, :, ~same], ((1 - level) * history + level * drawn.mask_hr)[:, :, ~same], atol=1e-6
    )
    assert seen["lr"].keys() == lr.keys()
    for stride in strides:
        shown, original = seen["lr"][f"2x2x{stride}"], lr[f"2x2x{stride}"]
        for cell in range(original.shape[2]):
            span = [i for i in range(frames) if -(-i // stride) == cell]
            assert torch.equal(shown[:, :, cell], original[:, :, cell]) == all(i in drawn.omega for i in span)


def lr_of(history: torch.Tensor, stride: int) -> torch.Tensor:
    """LR latents that depend on the frames they show, and on no other."""
    cells = range(cells_for(history.shape[2], stride)[1])
    spans = [history[:, :, max((j - 1) * stride + 1, 0) : j * stride + 1] for j in cells]
    return torch.cat([span.mean(2, keepdim=True) for span in spans], dim=2)


@pytest.mark.parametrize("strides", [(2,), (2, 4), (8, 2), (4, 1)])
def test_masked_frames_cannot_leak_through_the_clean_lr_latents_of_any_rate(strides: tuple[int, ...]):
    """LR latents are made from frames here; the clean ones must not depend on a masked frame."""
    frames = 13
    history, _ = clips(frames)
    history.requires_grad_(True)
    lr = {f"2x2x{stride}": lr_of(history, stride) for stride in strides}
    for start in (0, 5, 9):
        generator = torch.Generator().manual_seed(start)
        drawn = retrieval.draw(history, lr, 3.0, generator, range(start, start + 4))
        clean = {f"2x2x{stride}": retrieval.clean_cells(drawn.omega, frames, stride) for stride in strides}

        def through_clean_lr(hr, low, clean=clean):
            return torch.cat([low[rate][:, :, kept].flatten(2) for rate, kept in clean.items()], dim=2)

        loss = retrieval.retrieval_loss(
            history.detach(), lr, drawn, through_clean_lr, lambda x, t, m, f: x * m.square().mean()
        )
        gradient = torch.autograd.grad(loss, history, retain_graph=True)[0]
        outside = ~retrieval.clean_frames(drawn.omega, frames)
        assert gradient[:, :, outside].abs().max() == 0 and gradient[:, :, ~outside].abs().max() > 0


def test_a_second_rate_leaves_the_mask_of_the_first_as_it_is():
    """Its noise is drawn after that of the first."""
    history, lr = clips(9, 2, 4)
    alone = retrieval.draw(history, {"2x2x2": lr["2x2x2"]}, 3.0, torch.Generator().manual_seed(0))
    both = retrieval.draw(history, lr, 3.0, torch.Generator().manual_seed(0))
    assert torch.equal(alone.mask_lr["2x2x2"], both.mask_lr["2x2x2"]) and torch.equal(alone.mask_hr, both.mask_hr)
    assert set(both.mask_lr) == set(lr)


def test_omega_reaches_every_frame_and_its_sizes_have_their_weights():
    generator = torch.Generator().manual_seed(0)
    sets = [retrieval.draw_omega(12, generator) for _ in range(6000)]
    sizes = Counter(len(omega) for omega in sets)
    assert sizes[1] / 6000 == pytest.approx(0.1, abs=0.02) and sizes[4] / 6000 == pytest.approx(0.6, abs=0.03)
    assert {frame for omega in sets for frame in omega} == set(range(12))


@given(frames=st.integers(1, 40), strides=STRIDES, seed=st.integers(0, 1000))
def test_every_lr_latent_that_shows_a_picked_frame_is_shown_clean_and_only_those(
    frames: int, strides: list[int], seed: int
):
    """At every rate: what Omega asks for has a clean LR latent, as it has in a film, and no frame beside it leaks."""
    omega = retrieval.draw_omega(frames, torch.Generator().manual_seed(seed), max(strides))
    assert len(omega) and omega.start >= 0 and omega.stop <= frames
    for stride in strides:
        spans = retrieval.cell_spans(frames, stride)
        assert [frame for span in spans for frame in span] == list(range(frames))
        touched = [any(frame in omega for frame in span) for span in spans]
        assert retrieval.clean_cells(omega, frames, stride).tolist() == touched
    if max(strides) > 1:
        assert sum(any(frame in omega for frame in span) for span in retrieval.cell_spans(frames, max(strides))) <= 2


@pytest.mark.parametrize("rates", [("2x2x4",), ("2x2x8", "4x4x2")])
def test_a_draw_without_a_given_omega_takes_whole_cells_of_its_rates(rates: tuple[str, ...]):
    history, lr = clips(21, *(retrieval.time_stride(rate) for rate in rates))
    for seed in range(40):
        omega = retrieval.draw(history, lr, 3.0, torch.Generator().manual_seed(seed)).omega
        for rate in lr:
            assert int(retrieval.clean_cells(omega, 21, retrieval.time_stride(rate)).sum()) >= 1


def test_targets_are_asked_for_at_their_true_time():
    history, lr = clips()
    drawn = retrieval.draw(history, lr, 3.0, torch.Generator().manual_seed(1))
    times = []
    retrieval.retrieval_loss(history, lr, drawn, keep, lambda x, t, m, f: times.append(f) or x)
    assert times == [drawn.omega.start]


def test_continuation_compares_the_section_after_a_clean_history():
    clip, _ = clips(frames=12)
    drawn = continuation.draw(clip, 4, 3.0, torch.Generator().manual_seed(0), history_dropout=0.0)
    seen = {}

    def compress(hr, lr):
        seen["history"] = hr
        return keep(hr, lr)

    target = clip[:, :, drawn.history : drawn.history + 4]
    assert continuation.continuation_loss(clip, {}, drawn, compress, oracle(target, drawn.noise)) == 0
    assert torch.equal(seen["history"], clip[:, :, : drawn.history])


def test_history_dropout_removes_the_memory_at_its_rate():
    clip, _ = clips(frames=12)
    generator = torch.Generator().manual_seed(0)
    draws = [continuation.draw(clip, 4, 3.0, generator, history_dropout=0.25) for _ in range(2000)]
    assert sum(drawn.drop_history for drawn in draws) / 2000 == pytest.approx(0.25, abs=0.03)
    dropped = next(drawn for drawn in draws if drawn.drop_history)
    tokens = []
    continuation.continuation_loss(clip, {}, dropped, keep, lambda x, t, m, f: tokens.append(m) or x)
    assert tokens == [None]


def test_corruption_adds_noise_up_to_its_level_and_is_off_by_default():
    """In both branches, as in a film that drifts."""
    clip, lr = clips(frames=12)
    assert lr and continuation.draw(clip, 4, 3.0, torch.Generator().manual_seed(0), lr=lr).corruption is None
    drawn = continuation.draw(clip, 4, 3.0, torch.Generator().manual_seed(0), corruption=0.3, lr=lr)
    shown = {rate: value[:, :, :1] for rate, value in lr.items()}
    seen = []
    continuation.continuation_loss(
        clip, shown, drawn, lambda hr, lr: seen.append((hr, lr)) or keep(hr, lr), lambda x, t, m, f: x
    )
    assert drawn.corruption is not None and drawn.corruption.max() <= 0.3
    level, (hr, corrupted) = drawn.corruption, seen[0]
    assert not torch.equal(hr, clip[:, :, : drawn.history])
    for rate, value in shown.items():
        noise = drawn.corruption_lr[rate][:, :, :1]
        torch.testing.assert_close(corrupted[rate], value + level.view(-1, 1, 1, 1, 1) * (noise - value))


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
