"""The nodes in the real ComfyUI, in this process: experts, seeds, managed models, and nodes that cannot be built."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from demo.tiny_family.make_host import HostConfig, make_host
from memory_encoder.injection.selection import encoder_key
from memory_encoder.storyboard import Lattice
from tools.environment import ROOT

from .films import storyboard, write_models

PACK = "video_memory_nodes_test"


@pytest.fixture(scope="module")
def nodes(comfy: Any, load_pack: Callable[..., ModuleType]) -> dict[str, Any]:
    pack = load_pack(PACK)
    extension = asyncio.run(pack.comfy_entrypoint())
    return {node.__name__: node for node in asyncio.run(extension.get_node_list())}


@pytest.fixture(scope="module")
def world(comfy: Any, nodes: dict[str, Any]) -> SimpleNamespace:
    """Models through core's loaders, an untrained encoder, and what the sampler needs beside them."""
    write_models(comfy.base / "models")
    encoder_module = importlib.import_module("demo.nodes.text_encoder")
    clip = encoder_module.HashTextEncoder()
    with torch.inference_mode():
        model = comfy.nodes.UNETLoader().load_unet("host.safetensors", "default")[0]
        vae = comfy.nodes.VAELoader().load_vae("vae.safetensors")[0]
        encoder = nodes["VideoMemoryEncoderNew"].execute(model, "2x2x2", "proposed", "frame", False, 0).result[0]
        shots = nodes["VideoMemoryStoryboard"].execute(clip, storyboard(("a", "b")), 16.0, 0.5).result[0]
    return SimpleNamespace(
        model=model,
        vae=vae,
        encoder=encoder,
        shots=shots,
        negative=clip.encode_from_tokens_scheduled(clip.tokenize("")),
        euler=comfy.module("comfy.samplers").sampler_object("euler"),
        sigmas=torch.linspace(1, 0, 5),
    )


@pytest.fixture
def render(nodes: dict[str, Any], world: SimpleNamespace, comfy: Any, tmp_path: Path, monkeypatch: Any):
    """Calls the sampler node with a fresh output folder."""
    monkeypatch.setattr(comfy.folder_paths, "output_directory", str(tmp_path))
    sampler = nodes["VideoMemorySampler"]
    hidden = SimpleNamespace(prompt={"1": {"inputs": {}}}, unique_id="1", dynprompt=None)
    monkeypatch.setattr(sampler, "hidden", hidden, raising=False)

    def run(**changes: Any) -> Any:
        values = {
            "model": world.model, "memory_encoder": world.encoder, "vae": world.vae, "storyboard": world.shots,
            "negative": world.negative, "sampler": world.euler, "sigmas": world.sigmas, "cfg": 2.0, "seed": 3,
            "width": 64, "height": 48, "film": "film",
        } | changes  # fmt: skip
        with torch.inference_mode():
            return sampler.execute(**values).result

    return run


class Spy:
    """Counts forward passes and keeps their timesteps, as a DIFFUSION_MODEL wrapper on a model."""

    def __init__(self, model: Any) -> None:
        self.model, self.sigmas, self.patched = model.clone(), [], []
        self.model.add_wrapper_with_key("diffusion_model", "spy", self)

    def __call__(self, executor: Any, x: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        self.sigmas.append(round(float(timestep[0]) / 1000, 3))
        wrappers = next(a for a in args if isinstance(a, dict) and "wrappers" in a)["wrappers"]["diffusion_model"]
        self.patched.append("video_memory" in wrappers)
        return executor(x, timestep, *args, **kwargs)


def test_second_expert_runs_from_the_boundary_on_with_or_without_memory(render: Any, world: Any) -> None:
    for sees in (True, False):
        high, low = Spy(world.model), Spy(world.model)
        render(model=high.model, model_low_noise=low.model, boundary=0.6, low_noise_memory=sees, film=f"film {sees}")
        assert set(high.sigmas) == {1.0, 0.75} and set(low.sigmas) == {0.5, 0.25}
        calls = len(low.patched) // 2  # the first of two sections has nothing to remember
        assert low.patched == [False] * calls + [sees] * calls
        assert high.patched[-1]


def test_two_experts_that_are_one_model_give_what_one_gives(render: Any, world: Any) -> None:
    one = render()[0]["samples"]
    two = render(model_low_noise=world.model, boundary=0.6, film="two")[0]["samples"]
    assert (one - two).abs().max() < 1e-4


@pytest.mark.parametrize("opened", [False, True])
def test_low_noise_expert_reads_the_film_through_its_own_first_projection(
    render: Any, world: Any, comfy: Any, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    config = HostConfig(dim=128, layers=2, ffn_dim=256)
    weights = make_host(config)
    weights["patch_embedding.weight"] = 1.5 * weights["patch_embedding.weight"]
    with torch.inference_mode():
        low = comfy.module("comfy.sd").load_diffusion_model_state_dict(weights, {}, config.metadata())
    film = importlib.import_module(f"{PACK}.nodes.section_renderer")
    compress = importlib.import_module(f"{PACK}.nodes.runtime.compress")
    seen: list[Any] = []
    put = film.sampling.with_memory

    def spy(model: Any, memory: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(memory)
        return put(model, memory, *args, **kwargs)

    monkeypatch.setattr(film.sampling, "with_memory", spy)
    history = {"samples": torch.randn(1, 16, 3, 6, 8, generator=torch.Generator().manual_seed(1))}
    made, memory, _ = render(model_low_noise=low, boundary=0.6, **({"history": history} if opened else {}))
    high, own = seen[-2:]  # of the last section, whose memory lacks itself
    parts = made["samples"][:, :, : high.latents].split([3, 2] if opened else [3], dim=2)
    for model, found in ((world.model, high), (low, own)):
        codec, expected = compress.codec_for(model, world.vae), world.encoder.empty_memory(1)
        with torch.inference_mode():
            for part in parts:
                latents = compress.normalised_history(model, {"samples": part}, "latent")
                expected = compress.compress(world.encoder, codec, expected, latents)
        torch.testing.assert_close(found.all_tokens(), expected.all_tokens(), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(high.all_tokens(), own.all_tokens(), atol=1e-2)
    assert memory.latents == high.latents + 2


def test_the_storyboard_node_says_how_it_read_a_text_and_in_which_unit(nodes: dict[str, Any], comfy: Any) -> None:
    clip = importlib.import_module("demo.nodes.text_encoder").HashTextEncoder()
    node, text = nodes["VideoMemoryStoryboard"], '"0": "a kitchen", "16": "a road"'
    seconds, frames = (node.execute(clip, text, 16.0, 5.0, 0.0, unit) for unit in ("seconds", "frames"))
    assert [shot.start for shot in seconds.result[0].storyboard.shots] == [0, 16]
    assert [shot.start for shot in frames.result[0].storyboard.shots] == [0, 1]
    assert frames.result[2].endswith("Read as 2 shots from keyframes; keys without a unit are frames")
    assert frames.ui["read_as"][0]["remarks"] == ["keys_frames"]
    assert json.loads(frames.ui["storyboard"][0])["shots"][1]["start"] == 1


def test_film_is_fixed_by_its_seed_and_leaves_the_global_random_state_alone(render: Any) -> None:
    state = torch.random.get_rng_state()
    first, again, other = render(), render(film="again"), render(film="other", seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first[0]["samples"], again[0]["samples"])
    assert not torch.equal(first[0]["samples"], other[0]["samples"])


def test_interrupt_stops_within_one_step_and_keeps_the_sections_before(render: Any, world: Any, comfy: Any) -> None:
    management = comfy.model_management

    class Interrupting(Spy):
        def __call__(self, executor: Any, x: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
            if len(self.sigmas) == len(world.sigmas) - 1 + 1:  # the second section's second step
                management.interrupt_current_processing()
            return super().__call__(executor, x, timestep, *args, **kwargs)

    spy = Interrupting(world.model)
    with pytest.raises(management.InterruptProcessingException):
        render(model=spy.model, cfg=1.0, film="stopped")
    assert len(spy.sigmas) <= len(world.sigmas) - 1 + 2
    _, _, report = render(film="stopped", cfg=1.0)
    assert "1 reused" in report


def test_film_has_the_frames_that_the_storyboard_planned(render: Any, world: Any) -> None:
    latent, memory, report = render()
    assert latent["samples"].shape == (1, 16, 5, 6, 8) and memory.latents == 5
    assert "17 frames" in report and len(world.shots.plan(Lattice())) == 2


@pytest.mark.parametrize("steps", [1, 0])
def test_sigmas_without_a_step_are_refused(render: Any, steps: int) -> None:
    with pytest.raises(ValueError, match="sigmas"):
        render(sigmas=torch.ones(steps))


def test_batch_of_clips_is_refused_as_history(render: Any) -> None:
    with pytest.raises(ValueError, match="batch of 2"):
        render(history={"samples": torch.zeros(2, 16, 3, 6, 8)})


def test_vae_of_another_kind_is_refused(render: Any) -> None:
    with pytest.raises(ValueError, match="vae makes 2D"):
        render(vae=SimpleNamespace(latent_dim=2, latent_channels=4))


def test_encoder_is_loaded_and_freed_with_the_model(nodes: Any, world: Any, comfy: Any) -> None:
    attached = world.encoder.attach(world.model)
    assert attached.get_additional_models_with_key(encoder_key(world.encoder.identity)) == [world.encoder.patcher]
    management = comfy.model_management
    management.load_models_gpu([attached, *attached.get_nested_additional_models()])
    loaded = [entry.model for entry in management.current_loaded_models]
    assert any(patcher is world.encoder.patcher for patcher in loaded)
    management.unload_all_models()
    assert not management.current_loaded_models


def test_low_resolution_branch_of_appended_sections_stays_close(nodes: Any, world: Any) -> None:
    """HR is exact. LR restarts the causal VAE with one earlier picture at each section: tolerance stated here."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 16, 1, 6, 8, generator=generator)
    drift = torch.randn(1, 16, 9, 6, 8, generator=generator).cumsum(2) * 0.1
    latent = base + drift
    compress = nodes["VideoMemoryCompress"].execute
    with torch.inference_mode():
        whole = compress(world.encoder, world.model, world.vae, {"samples": latent}).result[0]
        part = compress(world.encoder, world.model, world.vae, {"samples": latent[:, :, :5]}).result[0]
        both = compress(world.encoder, world.model, world.vae, {"samples": latent[:, :, 5:]}, part).result[0]
    assert torch.equal(whole.all_coordinates(), both.all_coordinates())
    first = part.token_count
    assert (whole.all_tokens()[:, :first] - both.all_tokens()[:, :first]).abs().max() < 1e-4
    error = (whole.all_tokens() - both.all_tokens()).square().mean() / whole.all_tokens().var()
    assert error < 0.05, f"relative squared error {error:.4f}"


def test_retrieved_frames_depend_on_the_memory_and_come_as_clip_or_batch(nodes: Any, world: Any, render: Any) -> None:
    memory = render()[1]

    def ask(frames: str, strength: float = 1.0) -> torch.Tensor:
        arguments = (world.model, memory, frames, world.euler, world.sigmas, 1)
        with torch.inference_mode():
            return nodes["VideoMemoryRetrieve"].execute(*arguments, strength=strength).result[0]["samples"]

    assert ask("0-16").shape == (1, 16, 5, 6, 8) and ask("0, 4, 16").shape == (3, 16, 1, 6, 8)
    assert not torch.equal(ask("0-16"), ask("0-16", strength=0.0))


def test_guided_retrieval_goes_on_from_what_is_drawn_without_the_memory(nodes: Any, world: Any, render: Any) -> None:
    """In one step of Euler the frames are linear in the velocity; 0 and 1 are the unguided frames to the bit."""
    memory, one_step = render()[1], torch.tensor([1.0, 0.0])

    def ask(**given: float) -> torch.Tensor:
        arguments = (world.model, memory, "0-16", world.euler, one_step, 1)
        with torch.inference_mode():
            return nodes["VideoMemoryRetrieve"].execute(*arguments, **given).result[0]["samples"]

    seen, without = ask(), ask(strength=0.0)
    for weight in (0.0, 1.0):
        assert torch.equal(ask(history_guidance=weight), seen)
    assert torch.equal(ask(strength=0.0, history_guidance=2.5), without)
    torch.testing.assert_close(ask(history_guidance=2.5), without + 2.5 * (seen - without), rtol=1e-4, atol=1e-4)


def test_a_report_lays_beside_what_is_remembered_all_that_needs_no_memory(nodes: Any, render: Any) -> None:
    memory = render()[1]
    times, rows, columns = torch.meshgrid(torch.arange(17), torch.arange(48), torch.arange(64), indexing="ij")
    pictures = (0.5 + 0.4 * torch.sin(times / 20 + rows / 10 + columns / 15))[..., None].expand(-1, -1, -1, 3)

    def report(*given: Any) -> list[str]:
        return nodes["VideoMemoryRetrievalReport"].execute(*given).result[1].splitlines()

    always = ["one flat colour", "the frame before"]
    assert [line.split(":")[0] for line in report(pictures, pictures)[-2:]] == always
    lines = report(pictures, pictures * 0.5, memory)
    size = "2x2"  # 2x2x2 of 8x6 latents in patches of 2
    as_many = next(line for line in lines if "as many numbers as the memory has" in line).split(":")[0]
    kinds = [*always, f"a thumbnail of {size} pixels", as_many, "the LR picture, blown up"]
    assert [line.split(":")[0] for line in lines[-5:]] == kinds
    flat, _, thumbnail, equal, low_resolution = (float(line.split("PSNR ")[1].split(",")[0]) for line in lines[-5:])
    assert low_resolution > equal > thumbnail > flat > 0
    assert all("nearest" in line for line in lines[-5:])
    repeated, black = pictures[[0, 0, *range(1, 16)]], torch.zeros_like(pictures)
    said, decibels = report(repeated, repeated)[:2]
    assert said == "16 of 17 frames; 1 repeat the one before and are not measured"
    assert decibels.startswith("PSNR 58.9")  # what rounding to 8 bits leaves
    assert report(black, black)[0] == "17 frames" and "inf" not in "".join(report(repeated, pictures))
    for other, fault in ((pictures[:, 1:], "compare frames of one size"), (pictures[1:], "pick the same frames")):
        with pytest.raises(ValueError, match=fault):
            report(pictures, other)


def test_start_up_does_not_wait_for_the_training_packages(comfy_environment: Any) -> None:
    """A child, since other tests import them here."""
    program = (
        "import asyncio, sys\n"
        "from tests.conftest import import_pack\n"  # first: ComfyUI has a folder of that name too
        "from memory_encoder.injection.hosts.comfy_models import load_comfy\n"
        "load_comfy(arguments=['--cpu'])\n"
        "import comfy.sd, comfy.sample, latent_preview, comfy_api.latest\n"  # core itself brings transformers
        "before = set(sys.modules)\n"
        "extension = asyncio.run(import_pack('pack').comfy_entrypoint())\n"
        "names = [node.__name__ for node in asyncio.run(extension.get_node_list())]\n"
        "print(len(names), sorted({'accelerate', 'peft', 'transformers', 'diffusers'} & (set(sys.modules) - before)))\n"
    )
    variables = comfy_environment.variables() | {"COMFYUI_PATH": str(comfy_environment.comfy)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["24 []"], done.stdout + done.stderr[-2000:]


def test_missing_opencv_takes_only_its_own_nodes_down_and_names_the_cure(
    comfy: Any, load_pack: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name = "video_memory_without_cv2"
    monkeypatch.setitem(sys.modules, "cv2", None)
    with caplog.at_level(logging.ERROR, logger="video_memory"):
        extension = asyncio.run(load_pack(name).comfy_entrypoint())
        found = {node.__name__ for node in asyncio.run(extension.get_node_list())}
    assert "VideoMemorySampler" in found and "VideoMemoryRetrieve" not in found
    assert "opencv-python-headless" in caplog.text


def test_node_that_cannot_be_built_is_left_out(nodes: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
    extension = importlib.import_module(f"{PACK}.nodes.extension")
    broken = nodes["VideoMemoryLoad"]

    def fail() -> None:
        raise RuntimeError("no schema")

    monkeypatch.setattr(broken, "define_schema", classmethod(lambda cls: fail()))
    monkeypatch.setattr(broken, "_DISPLAY_NAME", None, raising=False)
    monkeypatch.setattr(broken, "SCHEMA", None, raising=False)
    with caplog.at_level(logging.ERROR, logger="video_memory"):
        built = extension._nodes_of("history")
    assert broken not in built and len(built) == 3
    assert "VideoMemoryLoad" in caplog.text and "ComfyUI 0.14 is the oldest for Wan" in caplog.text
    assert 'requires-comfyui = ">=0.14.0"' in (ROOT / "pyproject.toml").read_text()


def test_weights_of_an_encoder_are_held_once_and_core_can_make_it_anew(
    nodes: Any, world: Any, comfy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed = importlib.import_module(f"{PACK}.nodes.runtime.managed")
    weights = {name: value.clone() for name, value in world.encoder.model.state_dict().items()}
    held = [weakref.ref(value) for value in weights.values()]
    encoder = managed.ManagedEncoder(world.encoder.config, weights, torch.float32)
    del weights
    gc.collect()
    assert not any(ref() is not None for ref in held)

    core = comfy.module("comfy.model_patcher")
    monkeypatch.setattr(core, "CoreModelPatcher", type("Dynamic", (core.ModelPatcher,), {}))
    make, arguments = encoder.patcher.cached_patcher_init
    assert type(make(*arguments)) is core.CoreModelPatcher
    plain = make(*arguments, disable_dynamic=True)
    assert type(plain) is core.ModelPatcher and plain.model is not encoder.model
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, encoder.model.state_dict()[name])


def test_a_cache_waits_beside_the_model_only_where_it_has_room_with_the_sliding_window(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blocks of width 128 keep 2 x 2 x 128 numbers of 2 bytes a token, for both prompts."""
    sampling = importlib.import_module(f"{PACK}.nodes.runtime.sampling")
    memory = SimpleNamespace(token_count=10, recent=torch.zeros(1, 16, 8, 6, 8))
    monkeypatch.setattr(sampling, "attention_mode", lambda memory, settings: "cached")
    bytes_per_token, cells = 2 * 2 * 2 * 128 * 2, 3 * 4
    settings = sampling.MemorySettings(sliding_window=3)
    for tokens, beside in ((10 + 3 * cells + 1, True), (10 + 3 * cells - 1, False)):
        free = tokens * bytes_per_token / sampling.CACHE_SHARE
        card = SimpleNamespace(is_device_cpu=lambda device: False, get_free_memory=lambda device, free=free: free)
        monkeypatch.setattr(sampling, "mm", card)
        assert (sampling.cache_device(world.model, memory, settings) is None) == beside
