"""Demo-only custom nodes. Copy or link this folder into ``custom_nodes`` to use the tiny family in ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .text_encoder import HashTextEncoder


class VideoMemoryDemoTextEncoder(io.ComfyNode):
    """Gives a CLIP without weights for the tiny demo host."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryDemoTextEncoder",
            display_name="Demo Text Encoder (tiny family)",
            category="video memory/demo",
            description="A text encoder without weights for the tiny demo models. Every word becomes a fixed vector.",
            inputs=[],
            outputs=[io.Clip.Output(display_name="CLIP", tooltip="Connect to a storyboard or to CLIP Text Encode.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(HashTextEncoder())


class DemoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [VideoMemoryDemoTextEncoder]


async def comfy_entrypoint() -> DemoExtension:
    return DemoExtension()
