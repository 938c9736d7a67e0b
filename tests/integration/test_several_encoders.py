"""Several encoders with one LoRA (paper section 4.5): trained together, resumed, and each the same when it is alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from memory_encoder.injection.horizon import near_and_far
from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.encoder_file import load_encoder, new_encoder
from memory_encoder.objectives.retrieval import clean_cells, time_stride
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.card_plan import plan_memory
from memory_encoder.training.draws import draw_together
from memory_encoder.training.lora import add_lora
from memory_encoder.training.module import Batch, TrainingModule
from memory_encoder.training.run_files import CHECKPOINT, LORA, checkpoints_in, encoder_name
from memory_encoder.training.trainer import Trainer

from .models import hunyuan
from .training import FRAMES, SIZES, OneClip, tiny_encoder, tiny_host, tiny_module, tiny_options

RATES = ("2x2x2", "1x1x4")


@pytest.fixture(autouse=True)
def in_training(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Core's fused rotary embedding has no backward pass; with this flag core uses another."""
    monkeypatch.setattr(comfy.model_management, "in_training", True)


def clips(count: int = 1) -> OneClip:
    return OneClip(count, RATES)


def batch_of(rows: int) -> Batch:
    return clips(rows).rows(0, 0, rows, "train", None)


def alive(module: TrainingModule) -> TrainingModule:
    """The module with encoders whose HR branch says something, as after some training."""
    for number, encoder in enumerate(module.encoders):
        generator = torch.Generator().manual_seed(number)
        torch.nn.init.normal_(encoder.out.weight, std=0.1, generator=generator)  # type: ignore[arg-type]
    return module


def test_encoders_trained_together_lower_the_loss_and_all_move(tmp_path: Path) -> None:
    options = tiny_options(steps=60, checkpoint_every=1000, batch_size=2, clean_share=1.0)
    module = tiny_module(options, rates=RATES)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    losses = [entry["loss"] for entry in Trainer(module, clips(), options, tmp_path, cpu=True).run()]
    assert sum(losses[-10:]) / 10 < 0.75 * sum(losses[:5]) / 5
    after = module.state_dict()
    # The clip has no text: only what reads the memory learns.
    trained = [n for n in before if n.startswith(("encoder.", "others.")) or (".self_attn." in n and ".lora_" in n)]
    still = [name for name in trained if torch.equal(before[name], after[name])]
    assert not still, f"not trained: {still}"
    assert {name.split(".")[0] for name in trained} == {"encoder", "others", "diffusion_model"}


def test_encoders_of_hunyuan_are_trained_together_too(comfy: Any, tmp_path: Path) -> None:
    with torch.inference_mode(False):
        model = hunyuan(comfy).diffusion_model
    options, host = tiny_options(steps=2, warmup=1, rank=4, batch_size=1), find_host(model)
    add_lora(model, options.rank, 0)
    configs = (EncoderConfig(host.name, host.width, 16, rate=rate, channels=(16, 32)) for rate in RATES)
    first, second = (new_encoder(config, host, 0) for config in configs)
    module = TrainingModule(first, model, others=[second])
    before = [encoder.out.weight.clone() for encoder in module.encoders]  # type: ignore[operator]

    class Pooled(OneClip):
        def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Batch:
            batch = super().rows(step, first, last, kind, target)
            return replace(batch, conditioning={**batch.conditioning, "y": torch.zeros(last - first, 768)})

    losses = Trainer(module, Pooled(1, RATES), options, tmp_path, cpu=True).run()
    assert all(entry["loss"] > 0 for entry in losses) and len(losses) == 2
    assert not any(torch.equal(a, b.out.weight) for a, b in zip(before, module.encoders, strict=True))  # type: ignore[arg-type]
    assert load_encoder(tmp_path / encoder_name(2)).config == second.config


def test_a_run_leaves_a_file_for_each_encoder_and_one_lora(tmp_path: Path) -> None:
    options = tiny_options(steps=3, ema=0.0)
    module = tiny_module(options, rates=RATES)
    Trainer(module, clips(), options, tmp_path, cpu=True).run()
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == sorted(
        ["encoder.safetensors", "encoder_2.safetensors", LORA]
    )
    for number, encoder in enumerate(module.encoders, 1):
        loaded = load_encoder(tmp_path / encoder_name(number))
        assert loaded.config == encoder.config and loaded.config.rate == RATES[number - 1]
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("stage", ["retrieval", "continuation"])
def test_a_run_of_several_encoders_resumes_to_the_same_losses(tmp_path: Path, stage: Any) -> None:
    losses = {}
    for name, steps in (("whole", (8,)), ("cut", (4, 8))):
        for last in steps:
            options = tiny_options(steps=last, stage=stage)
            run = Trainer(tiny_module(options, rates=RATES), clips(8), options, tmp_path / name, cpu=True)
            losses[name] = run.run()
    assert len(losses["cut"]) == 8 and losses["cut"] == losses["whole"]
    with pytest.raises(ValueError, match="other settings"):
        Trainer(tiny_module(options), OneClip(8), options, tmp_path / "cut", cpu=True).run()


def test_checkpoints_from_before_there_were_several_encoders_go_on(tmp_path: Path) -> None:
    """They know the first encoder's configuration and weights, and nothing else."""
    losses = {}
    for name, steps in (("whole", (6,)), ("old", (3, 6))):
        for last in steps:
            options = tiny_options(steps=last)
            run = Trainer(tiny_module(options), OneClip(8), options, tmp_path / name, cpu=True)
            losses[name] = run.run()
            path = checkpoints_in(tmp_path / name)[0]
            state = torch.load(path, weights_only=True)
            assert all(key.startswith(("encoder.", "diffusion_model.")) for key in state["parameters"])
            assert state.pop("others") == []
            path.unlink()
            torch.save(state, tmp_path / name / CHECKPOINT)
    assert losses["old"] == losses["whole"]


def test_one_encoder_gives_its_own_tokens_and_several_give_those_of_each_in_turn() -> None:
    batch, options = batch_of(2), tiny_options()
    with torch.no_grad():
        both = alive(tiny_module(options, rates=RATES))
        modules = [TrainingModule(encoder, both.diffusion_model) for encoder in both.encoders]
        alone = [module.compress(batch.hr, batch.lr) for module in modules]
        first = both.encoder.append(batch.hr, embedded(both, batch, RATES[0]))
        assert torch.equal(alone[0].tokens, first.all_tokens())
        together = both.compress(batch.hr, batch.lr)
    assert torch.equal(together.tokens, torch.cat([one.tokens for one in alone], dim=1))
    assert torch.equal(together.coordinates, torch.cat([one.coordinates for one in alone]))
    assert together.tokens.shape[1] == sum(len(one.coordinates) for one in alone) == 3 * 4 + 2 * 12


def test_a_horizon_leaves_what_the_sampler_would_leave() -> None:
    batch, options = batch_of(2), tiny_options()
    with torch.no_grad():
        both = alive(tiny_module(options, rates=RATES))
        whole, near = (both.compress(batch.hr, batch.lr, horizon) for horizon in (0, 20))
        assert torch.equal(both.compress(batch.hr, batch.lr, 36).tokens, whole.tokens)
        counts = [both.tokens_of(encoder, batch).shape[1] for encoder in both.encoders]
    places = whole.coordinates.split(counts)
    chosen = near_and_far([part[:, 0] for part in places], [encoder.config.stride[0] for encoder in both.encoders], 20)
    indices = torch.cat([chosen[0], chosen[1] + counts[0]])
    assert len(indices) <= 20 and torch.equal(near.tokens, whole.tokens[:, indices])
    assert torch.equal(near.coordinates, whole.coordinates[indices])


def embedded(module: TrainingModule, batch: Batch, rate: str) -> torch.Tensor:
    model: Any = module.diffusion_model
    return model.patch_embedding(batch.lr[rate])


def test_no_lr_latent_beyond_the_history_is_seen_at_any_rate() -> None:
    options = tiny_options(stage="continuation", history_dropout=0.0, batch_size=2, section=1)
    module, batch = alive(tiny_module(options, rates=RATES)), batch_of(2)
    assert module.stride == 4
    drawn = {draw_together(batch, options, module.stride, step, 0).history for step in range(30)}  # type: ignore[union-attr]
    assert drawn == {1}  # 1 + 4 latents leave no section in a clip of five
    draw = draw_together(batch, options, module.stride, 0, 0)
    with torch.no_grad():
        loss = module(batch, draw)
        for rate in RATES:
            beyond, within = batch.lr[rate].clone(), batch.lr[rate].clone()
            beyond[:, :, 1:] += 1
            within[:, :, :1] += 1
            assert torch.equal(module(replace(batch, lr={**batch.lr, rate: beyond}), draw), loss)
            assert not torch.equal(module(replace(batch, lr={**batch.lr, rate: within}), draw), loss)


def test_retrieval_masks_the_lr_latents_of_every_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    options = tiny_options(batch_size=2)
    module, batch = tiny_module(options, rates=RATES), batch_of(2)
    seen: list[Any] = []
    compress = module.compress
    monkeypatch.setattr(module, "compress", lambda hr, lr: seen.append(lr) or compress(hr, lr))
    draw = draw_together(batch, options, module.stride, 0, 0)
    with torch.no_grad():
        module(batch, draw)
    for rate in RATES:
        changed = (seen[0][rate] != batch.lr[rate]).flatten(3).any(-1).any(1).all(0)
        assert changed.any() and len(changed) == SIZES[rate][0]
        assert torch.equal(~changed, clean_cells(draw.omega, FRAMES, time_stride(rate)))  # type: ignore[union-attr]


def test_encoders_that_do_not_fit_each_other_are_refused() -> None:
    host = tiny_host()

    def other(**changes: Any) -> MemoryEncoder:
        return MemoryEncoder(replace(tiny_encoder().config, **changes))

    with pytest.raises(ValueError, match=r"encoder 2 has memory_attention cached, the first joint.*both cached"):
        TrainingModule(tiny_encoder(), host, others=[other(memory_attention="cached")])
    with pytest.raises(ValueError, match="encoder 3 was made for wan of width 256"):
        TrainingModule(tiny_encoder(), host, others=[tiny_encoder(), other(width=256)])


def test_the_plan_counts_all_encoders() -> None:
    options, latents = tiny_options(), (16, FRAMES, 6, 8)
    one, two = (plan_memory(tiny_module(options, rates=rates), options, latents) for rates in (RATES[:1], RATES))
    assert two.tokens == one.tokens + 2 * 12
    second = sum(p.numel() for p in tiny_encoder(rate=RATES[1]).parameters())
    assert two.encoder_values == one.encoder_values + second and two.host_values == one.host_values
    assert two.trained_values == one.trained_values + second and two.need(1) > one.need(1)


def test_cross_attention_of_every_encoder_reaches_the_host(tmp_path: Path) -> None:
    options = tiny_options(steps=3, warmup=1)
    module = tiny_module(options, rates=RATES)
    for encoder in module.encoders:
        config = replace(encoder.config, cross_blocks=2, head_dim=32)
        crossed = MemoryEncoder(config)
        crossed.reset_parameters(torch.Generator().manual_seed(0))
        if encoder is module.encoder:
            module.encoder = crossed
        else:
            module.others[0] = crossed
    before = {name: value.clone() for name, value in module.state_dict().items()}
    Trainer(module, clips(8), options, tmp_path, cpu=True).run()
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    for path in ("encoder.cross.blocks.1.out.weight", "others.0.cross.blocks.1.out.weight"):
        assert path in moved
    assert set(load_file(tmp_path / encoder_name(2))) == set(module.encoders[1].state_dict())
