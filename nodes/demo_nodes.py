"""The demo's own nodes: trained tiny models and drawn clips that come with the pack, for films without a download."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import comfy.utils
from comfy_api.latest import InputImpl, io

from ..demo.nodes import VideoMemoryDemoTextEncoder
from ..demo.nodes.text_encoder import HashTextEncoder
from .encoder_nodes import encoder_and_lora
from .sockets import MemoryEncoderSocket

DEMO = Path(__file__).resolve().parents[1] / "demo"
WEIGHTS, CLIPS = DEMO / "tiny_family" / "weights", DEMO / "nodes" / "clips"


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
                    options=["2x2x2", "4x4x2", "2x2x1"],
                    default="2x2x1",
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


class VideoMemoryDemoClip(io.ComfyNode):
    """Stands where a person will put a clip or a picture, so that a template runs before there is one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryDemoClip",
            display_name="Demo Clip",
            category="video memory/demo",
            description="A drawn clip of two seconds that comes with the pack: 640x480 at 16 fps. It holds the place "
            "of your own: put Load Video or Load Image there.",
            inputs=[
                io.Combo.Input(
                    "who",
                    options=["Max", "Mira"],
                    default="Max",
                    tooltip="Who is seen: Max on a beach and then in an office, or Mira on a street.",
                ),
            ],
            outputs=[
                io.Video.Output(tooltip="The clip, for Clip for History; Load Video gives the same of a file."),
                io.Image.Output(display_name="images", tooltip="All frames of the clip."),
                io.Image.Output(
                    display_name="picture", tooltip="Its first frame alone; Load Image gives the same of a file."
                ),
            ],
        )

    @classmethod
    def execute(cls, who: str) -> io.NodeOutput:
        video = InputImpl.VideoFromFile(str(_shipped(CLIPS / f"{who.lower()}.mp4", "Demo Clip")))
        images = video.get_components().images
        return io.NodeOutput(video, images, images[:1])


def _weights(name: str) -> Path:
    return _shipped(WEIGHTS / f"{name}.safetensors", "Demo Models")


def _shipped(path: Path, node: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{node}: {path} is missing; install the pack again, whole")
    return path


NODES = [VideoMemoryDemoModels, VideoMemoryDemoClip, VideoMemoryDemoTextEncoder]
