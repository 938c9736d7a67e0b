"""The tiny family in the real ComfyUI: core's own loaders and nodes take the VAE, the host and the text encoder."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demo.tiny_family.clips import HELD_OUT_SEED
from demo.tiny_family.evaluate_family import FIRST_FILM, Judge, Variant
from demo.tiny_family.evaluate_film import Past
from demo.tiny_family.install import FILES, RATES, VAE_NAME, WEIGHTS, install_models
from demo.tiny_family.make_host import TEXT_DIM, HostConfig, host_shapes, make_host, write_host
from demo.tiny_family.prepare import film_of, write_film
from demo.tiny_family.procedural import make_film
from demo.tiny_family.wan_vae import build_vae, decode_clip, encode_clip, fold_latent_statistics
from memory_encoder.cli import main
from memory_encoder.evaluation.metrics import psnr
from memory_encoder.training.arguments import GUIDANCE
from tools.environment import ROOT

ROUND_TRIP_DB = 21.0  # on a film that was never trained on; see the model card for what was measured
TEXT_NODE = "VideoMemoryDemoTextEncoder"


@pytest.fixture(scope="module")
def vae(comfy: Any) -> Any:
    """The committed VAE through core's VAELoader."""
    install_models(comfy.base / "models")
    with torch.inference_mode():
        return comfy.nodes.VAELoader().load_vae(VAE_NAME)[0]


@pytest.fixture(scope="module")
def film() -> torch.Tensor:
    """17 frames of a film outside the training seeds, with a cut at the tenth; [17, 96, 128, 3] in 0..1."""
    frames = make_film(HELD_OUT_SEED + 50, shots=2).frames[24:41]
    return torch.from_numpy(frames.astype(np.float32) / 255)


def test_core_loads_the_vae_and_a_film_comes_back(vae: Any, film: torch.Tensor) -> None:
    assert type(vae.first_stage_model).__name__ == "WanVAE"
    with torch.inference_mode():
        latents = vae.encode(film)
        output = vae.decode(latents)
    assert latents.shape == (1, 16, 5, 12, 16)
    output = output.reshape(-1, *output.shape[-3:])
    assert output.shape == film.shape
    values = psnr(film, output)
    assert float(values.mean()) >= ROUND_TRIP_DB
    # Later frames go through the temporal path; they may not fall far behind the first, image-like one.
    assert float(values[5:].mean()) > float(values[0]) - 6


def test_latents_have_the_statistics_that_wan_hosts_expect(comfy: Any, vae: Any) -> None:
    wan = comfy.module("comfy.latent_formats").Wan21()
    with torch.inference_mode():
        parts = []
        for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + 3):
            frames = make_film(seed, shots=1, frames_per_shot=4).frames.astype(np.float32) / 255
            parts.append(wan.process_in(vae.encode(torch.from_numpy(frames))))
    flat = torch.cat(parts).transpose(0, 1).flatten(1)
    # Trained on real clips and films together, so films alone may sit off centre.
    assert float(flat.mean(1).abs().max()) < 1.5
    assert float(flat.std(1).min()) > 0.3 and float(flat.std(1).max()) < 2.5
    assert 0.6 < float(flat.std()) < 1.6


def test_half_precision_weights_give_the_same_picture_as_their_float32_copy(vae: Any, film: torch.Tensor) -> None:
    model = build_vae(vae.first_stage_model.dim)
    model.load_state_dict({k: v.float() for k, v in vae.first_stage_model.state_dict().items()})
    with torch.inference_mode():
        ours = decode_clip(model, encode_clip(model, film[:5].movedim(-1, 0).unsqueeze(0) * 2 - 1))
        core = vae.decode(vae.encode(film[:5]))
    ours = ((ours[0].movedim(0, -1) + 1) / 2).clamp(0, 1)
    assert float((core[0] - ours).abs().max()) < 0.02


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_the_training_forward_equals_cores_encode_and_decode(comfy: Any, frames: int) -> None:
    torch.manual_seed(0)
    model = build_vae(16)
    with torch.no_grad():
        for parameter in model.parameters():  # wake up the taps that start at zero
            parameter.add_(torch.randn_like(parameter) * 0.02)
        pixels = torch.rand(2, 3, frames, 32, 48) * 2 - 1
        latents = model.encode(pixels)
        assert latents.shape == (2, 16, 1 + frames // 4, 4, 6)
        torch.testing.assert_close(encode_clip(model, pixels), latents, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(decode_clip(model, latents), model.decode(latents), atol=1e-4, rtol=1e-4)


def test_folding_statistics_moves_the_latents_and_not_the_pictures(comfy: Any) -> None:
    model = build_vae(16)
    pixels = torch.rand(2, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = model.encode(pixels)
        before = model.decode(latents)
        mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
        wan = comfy.module("comfy.latent_formats").Wan21()
        fold_latent_statistics(model, mean, std, wan.latents_mean.flatten(), wan.latents_std.flatten())
        folded = model.encode(pixels)
        after = model.decode(folded)
    normal = wan.process_in(folded)
    torch.testing.assert_close(normal.mean((0, 2, 3, 4)), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3, 4)), torch.ones(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def test_the_host_has_exactly_cores_keys_and_loads_with_its_own_heads_and_text_width(comfy: Any) -> None:
    config = HostConfig(layers=2)
    write_host(comfy.base / "models" / "diffusion_models" / "seeded_host.safetensors", config)
    model = comfy.nodes.UNETLoader().load_unet("seeded_host.safetensors", "default")[0].model
    host = model.diffusion_model
    assert type(host).__name__ == "WanModel" and type(model).__name__ == "WAN21"
    assert (host.num_heads, host.text_dim, host.num_layers, host.dim) == (4, TEXT_DIM, 2, 256)
    assert {k: tuple(v.shape) for k, v in host.state_dict().items()} == host_shapes(config)
    with torch.inference_mode():
        x = torch.randn(2, 16, 3, 4, 6)
        output = host(x, torch.tensor([500.0, 500.0]), torch.randn(2, 32, TEXT_DIM))
    assert output.shape == x.shape and bool(output.isfinite().all())
    assert 0 < float(output.std()) < 1  # a small head: nothing explodes before training


def test_the_host_follows_from_its_seed(tmp_path: Path) -> None:
    first, second = make_host(HostConfig(layers=1)), make_host(HostConfig(layers=1))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(make_host(HostConfig(layers=1, seed=1))["head.head.weight"], first["head.head.weight"])
    paths = [write_host(tmp_path / name, HostConfig(layers=1)) for name in ("a.safetensors", "b.safetensors")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("config", [HostConfig(dim=200), HostConfig(heads=3)])
def test_a_width_that_core_cannot_detect_is_refused(config: HostConfig) -> None:
    with pytest.raises(ValueError, match="multiple of 128"):
        make_host(config)


def test_the_demo_node_gives_a_clip_that_cores_text_encode_takes(comfy: Any) -> None:
    assert asyncio.run(comfy.nodes.load_custom_node(str(ROOT / "demo" / "nodes"), module_parent="custom_nodes"))
    node = comfy.nodes.NODE_CLASS_MAPPINGS[TEXT_NODE]
    clip = node.execute().args[0]
    encode = comfy.nodes.CLIPTextEncode().encode
    first, same, other = (encode(clip, text)[0] for text in ("Mira waves", "mira waves!", "Mira jumps"))
    assert first[0][0].shape == (1, 32, TEXT_DIM)
    assert torch.equal(first[0][0], same[0][0]) and not torch.equal(first[0][0], other[0][0])


@pytest.mark.parametrize("rate", RATES)
def test_demo_models_load_from_the_pack_itself(
    comfy: Any, load_pack: Any, monkeypatch: Any, tmp_path: Any, rate: str
) -> None:
    """A fresh installation has nothing in its models folder; what belongs together comes from one node."""
    module = importlib.import_module(f"{load_pack().__name__}.nodes.demo_nodes")
    model, encoder, vae, clip = module.VideoMemoryDemoModels.execute(rate).args
    assert encoder.config.rate == rate and len(model.patches) > 0, "the LoRA is in the model"
    assert type(clip).__name__ == "HashTextEncoder" and vae.latent_channels == 16
    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="install the pack again"):
        module.VideoMemoryDemoModels.execute(rate)


def test_the_whole_family_is_small() -> None:
    assert sum((WEIGHTS / name).stat().st_size for name in FILES) < 30e6


@pytest.mark.parametrize("rate", RATES)
def test_the_memory_gives_a_film_back_that_no_model_has_seen(comfy: Any, rate: str) -> None:
    """33 frames, three shots; the model card says what was measured on more."""
    pictures = torch.from_numpy(film_of(FIRST_FILM, long=False).frames[:33]).float() / 255
    with torch.inference_mode():
        (score,) = Judge(Variant.of_family(rate), WEIGHTS, None).scores("film", pictures, [0], GUIDANCE)
    assert score.psnr["memory"] > score.psnr["none"] + 4
    assert score.ssim["memory"] > score.ssim["none"] + 0.1
    assert score.psnr["vae"] > score.psnr["memory"]


def test_several_encoders_are_measured_together_and_a_window_stands_beside_them(comfy: Any) -> None:
    """17 latents of history; a latent is 48 tokens, a cell 4 at 4x4x2 and 12 at 2x2x2."""
    family = [Variant.of_family(rate) for rate in RATES]
    both = Variant("both", (*family[0].encoders, *family[1].encoders), family[0].lora)
    film = film_of(FIRST_FILM, long=False)
    with torch.inference_mode():
        judge = Judge(both, WEIGHTS, None)
        past = Past.of(judge, film)
        shown = {
            (kind, window): past.memory(judge, kind, past, window)
            for kind in ("memory", "none", "host", "full")
            for window in (0, 3)
        }
        (score,) = judge.scores("film", torch.from_numpy(film.frames[:9]).float() / 255, [0], GUIDANCE)
    assert shown.pop(("none", 0)) is None and shown.pop(("host", 0)) is None
    counts = {key: memory.tokens.shape[1] for key, memory in shown.items()}
    alone = 9 * 4 + 9 * 12
    assert counts[("memory", 0)] == alone and counts[("memory", 3)] == alone + 3 * 48
    assert (
        counts[("none", 3)] == counts[("host", 3)] == 3 * 48 and counts[("full", 0)] == counts[("full", 3)] == 17 * 48
    )
    assert shown[("none", 3)].coordinates[:, 0].unique().tolist() == [14, 15, 16]
    assert score.psnr["memory"] > score.psnr["none"]


def test_evaluate_takes_the_family_by_default(comfy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_film(tmp_path / "clips", FIRST_FILM + 1, long=False)
    given = ["evaluate", "--clips", str(tmp_path / "clips"), "--out", str(tmp_path / "out")]
    assert main([*given, "--frames", "17", "--steps", "4"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rate"] == "4x4x2" and report["frames"] == 17
    assert report["psnr"]["memory"] > report["psnr"]["none"] + 2
    assert (tmp_path / "out" / "sheet.png").is_file()
