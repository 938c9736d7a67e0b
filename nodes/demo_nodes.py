"""The demo's own nodes: trained tiny models that come with the pack, for a first film without a download."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import comfy.utils
from comfy_api.latest import io

from ..demo.nodes import VideoMemoryDemoTextEncoder
from ..demo.nodes.text_encoder import HashTextEncoder
from .encoder_nodes import encoder_and_lora
from .sockets import MemoryEncoderSocket

WEIGHTS = Path(__file__).resolve().parents[1] / "demo" / "tiny_family" / "weights"


class VideoMemoryDemoModels(io.ComfyNode):
    """Model, memory encoder, VAE and text encoder of the tiny family."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryDemoModels",
            display_name="Demo Models",
            category="video memory/demo",
            description="Tiny trained models that come with the pack: a first film in minutes, on any computer, "
            "without a download. They draw cartoons of 128x96 pixels.",
            inputs=[
                io.Combo.Input(
                    "rate",
                    options=["2x2x2", "4x4x2"],
                    default="2x2x2",
                    tooltip="Compression of the memory, height x width x time.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="A tiny Wan model with the LoRA that reads the memory."),
                MemoryEncoderSocket.Output(
                    display_name="memory_encoder", tooltip="The memory encoder that was trained with it."
                ),
                io.Vae.Output(tooltip="Its VAE."),
                io.Clip.Output(tooltip="Its text encoder; it knows the words of the demo's films."),
            ],
        )

    @classmethod
    def execute(cls, rate: str) -> io.NodeOutput:
        names = ("tiny_wan_host", "tiny_wan_vae", f"tiny_memory_{rate}", f"tiny_memory_{rate}_lora")
        host, vae, encoder, lora = (_weights(name) for name in names)
        model, memory_encoder = encoder_and_lora(comfy.sd.load_diffusion_model(str(host)), encoder, lora, 1.0)
        decoder = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae), safe_load=True))
        return io.NodeOutput(model, memory_encoder, decoder, HashTextEncoder())


def _weights(name: str) -> Path:
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"Demo Models: {path} is missing; install the pack again, whole")
    return path


NODES = [VideoMemoryDemoModels, VideoMemoryDemoTextEncoder]
