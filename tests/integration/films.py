"""A small film as an API prompt, and the models it takes, for the tests through the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from demo.tiny_family.make_host import HostConfig, make_host, write_host
from demo.tiny_family.wan_vae import build_vae
from tools.comfy_server import ComfyServer

STEPS = 4
SAMPLER = "sampler"
HOLD_NODE = Path(__file__).with_name("hold_node.py")
PROMPTS = ("a red door", "rain on a street", "a green garden", "an empty kitchen", "the red door again")


def write_models(models: Path) -> None:
    """A host of two blocks and a VAE of width 8, untrained, and a host that core takes for its causal one."""
    (models / "vae").mkdir(parents=True, exist_ok=True)
    (models / "diffusion_models").mkdir(parents=True, exist_ok=True)
    config = HostConfig(dim=128, layers=2, ffn_dim=256)
    write_host(models / "diffusion_models" / "host.safetensors", config)
    write_host(models / "diffusion_models" / "wide.safetensors", HostConfig(dim=256, layers=1, ffn_dim=256))
    values = json.loads(config.metadata()["config"])
    values["transformer"]["causal_ar"] = True
    causal = models / "diffusion_models" / "causal.safetensors"
    save_file(make_host(config), str(causal), {"config": json.dumps(values)})
    save_file(build_vae(8).state_dict(), str(models / "vae" / "vae.safetensors"))


def storyboard(prompts: tuple[str, ...] = PROMPTS, seconds: float = 0.5) -> str:
    shots = [{"start": i * seconds, "end": (i + 1) * seconds, "prompt": p} for i, p in enumerate(prompts)]
    return json.dumps({"version": 1, "shots": shots})


def film(name: str, prompts: tuple[str, ...] = PROMPTS, steps: int = STEPS, **sampler: Any) -> dict[str, Any]:
    """An API prompt that makes a film of 64x48 at 16 fps, saves its latents, and gives the sampler's report as text."""
    nodes = {
        "host": ("UNETLoader", {"unet_name": "host.safetensors", "weight_dtype": "default"}),
        "vae": ("VAELoader", {"vae_name": "vae.safetensors"}),
        "clip": ("VideoMemoryDemoTextEncoder", {}),
        "encoder": (
            "VideoMemoryEncoderNew",
            {
                "model": ["host", 0], "rate": "2x2x2", "variant": "proposed", "attention": "frame",
                "cross_attention": False, "seed": 0,
            },
        ),
        "storyboard": (
            "VideoMemoryStoryboard",
            {"clip": ["clip", 0], "storyboard": storyboard(prompts), "fps": 16.0, "section_seconds": 0.5},
        ),
        "negative": ("CLIPTextEncode", {"clip": ["clip", 0], "text": ""}),
        "euler": ("KSamplerSelect", {"sampler_name": "euler"}),
        "sigmas": ("BasicScheduler", {"model": ["host", 0], "scheduler": "simple", "steps": steps, "denoise": 1.0}),
        SAMPLER: (
            "VideoMemorySampler",
            {
                "model": ["host", 0], "memory_encoder": ["encoder", 0], "vae": ["vae", 0],
                "storyboard": ["storyboard", 0], "negative": ["negative", 0], "sampler": ["euler", 0],
                "sigmas": ["sigmas", 0], "cfg": 2.0, "seed": 7, "width": 64, "height": 48, "film": name,
            } | sampler,
        ),
        "latent": ("SaveLatent", {"samples": [SAMPLER, 0], "filename_prefix": f"latents/{name.replace('/', '_')}"}),
        "report": ("PreviewAny", {"source": [SAMPLER, 2]}),
    }  # fmt: skip
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def held(prompt: dict[str, Any]) -> dict[str, Any]:
    """A copy of a film whose sampler stops where `hold` says; the server has to have HOLD_NODE."""
    hold = {"class_type": "TestHold", "inputs": {"sampler": prompt[SAMPLER]["inputs"]["sampler"]}}
    return changed(prompt, SAMPLER, sampler=["hold", 0]) | {"hold": hold}


def hold(server: ComfyServer, section: int, step: int) -> Path:
    """Held films stop in this step (both counted from 0) until they are interrupted; gives the file that says so."""
    path = server.input_dir / "hold.json"
    path.write_text(json.dumps([section, step]))
    return path


def changed(prompt: dict[str, Any], node: str, **inputs: Any) -> dict[str, Any]:
    """A copy of an API prompt with other inputs on one node."""
    entry = prompt[node]
    return prompt | {node: {**entry, "inputs": entry["inputs"] | inputs}}


def report(entry: dict[str, Any]) -> list[bool]:
    """Which sections the film reused, as its report says."""
    lines = entry["outputs"][SAMPLER]["text"][0].splitlines()[:-1]
    sections = [line for line in lines if line.lstrip()[0].isdigit()]  # others say what the film opens with
    return ["reused" in line.split("memory")[0] for line in sections]


def latent_bytes(server: ComfyServer, name: str) -> bytes:
    """Content of the newest file that SaveLatent wrote for a film, without the header, which holds the prompt."""
    path = max((server.output_dir / "latents").glob(f"{name}_*.latent"))
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]
