"""Nodes that cut a memory at the end of an earlier section and put two memories one after the other."""

from __future__ import annotations

from comfy_api.latest import io

from ..memory_encoder.memory.branching import cut, join, section_numbers
from ..memory_encoder.memory.memory_file import Memory
from .sockets import CATEGORY, VideoMemorySocket, memory_input, with_lasting_view


class VideoMemoryCut(io.ComfyNode):
    """The memory as it was after an earlier section."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryCut",
            display_name="Cut Memory",
            category=CATEGORY,
            description="Forgets everything after a section; what goes on from there is as if that had never been.",
            inputs=[
                memory_input(tooltip="Memory of a film; it is left as it is."),
                io.Int.Input(
                    "section",
                    default=1,
                    min=-99999,
                    max=99999,
                    tooltip="How many sections are kept; -1 leaves out the last one, 0 keeps the opening clip alone.",
                ),
            ],
            outputs=[
                VideoMemorySocket.Output(display_name="memory", tooltip="The memory up to there."),
                io.String.Output(display_name="report", tooltip="What the memory holds now."),
            ],
        )
        return with_lasting_view(schema)

    @classmethod
    def execute(cls, memory: Memory, section: int) -> io.NodeOutput:
        shorter = cut(memory, section)
        report = describe(shorter)
        return io.NodeOutput(shorter, report, ui={"text": [report]})


class VideoMemoryJoin(io.ComfyNode):
    """Two histories one after the other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="VideoMemoryJoin",
            display_name="Join Memories",
            category=CATEGORY,
            description="Puts one memory behind another, such as a film behind the introduction of its characters.",
            inputs=[
                memory_input(tooltip="What comes first, such as a saved introduction of the characters."),
                VideoMemorySocket.Input("memory_after", tooltip="What comes next; a film goes on from its end."),
            ],
            outputs=[
                VideoMemorySocket.Output(display_name="memory", tooltip="Both."),
                io.String.Output(display_name="report", tooltip="What the memory holds now."),
            ],
        )
        return with_lasting_view(schema)

    @classmethod
    def execute(cls, memory: Memory, memory_after: Memory) -> io.NodeOutput:
        joined = join(memory, memory_after)
        report = describe(joined)
        return io.NodeOutput(joined, report, ui={"text": [report]})


def describe(memory: Memory) -> str:
    """One line for each section, numbered as Cut Memory counts (0: the opening), then the whole."""
    lines, before = [], None
    for number, record in zip(section_numbers(memory.sections), memory.sections, strict=True):
        name = "-" if number == before else str(number)  # a clip that belongs to the section before it
        lines.append(f"{name:>3}  {record.latents:4d} latents  {record.prompt or 'clip'}")
        before = number
    return "\n".join([*lines, f"{memory.latents} latents, {memory.token_count} tokens"])


NODES = [VideoMemoryCut, VideoMemoryJoin]
